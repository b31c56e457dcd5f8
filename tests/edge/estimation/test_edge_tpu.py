"""Estimates for an Edge TPU: the published models, the fit and its errors, and how a model divides."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_profiles.published.edge_tpu import EdgeTpuLatency, edge_tpu_graphs, edge_tpu_latencies
from device_profiles.published.latency import published_graphs
from edge.cli import main
from edge.estimation.edge_tpu import (
    DEVICES,
    errors_without,
    estimate_edge_tpu,
    features_of_graph,
    fit_edge_tpu,
    fit_rows,
    published_model,
)
from edge.estimation.edge_tpu_split import EdgeTpuSplit
from edge.estimation.estimate import MAX_FAMILY_ERROR, MAX_MODEL_ERROR
from edge.estimation.regression import band, median_error
from runtimes.errors import RefusedError
from tests.real_data import real_data
from tests.tools.edge_tpu_graphs import NETWORKS

ARTIFACTS = Path(__file__).parents[2] / "compatibility" / "artifacts"
SPLIT = EdgeTpuSplit(
    operators=66,
    mapped=66,
    on_cpu=(),
    macs=300_775_552,
    activations=6_679_113,
    kept_bytes=3_489_097,
    sent_bytes=0,
    input_bytes=150_528,
    output_bytes=1001,
)


# --- The tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        # What keras.applications prints, without the parameters of batch normalization.
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
        ("resnet-50-v1-299", 25_636_712 - 106_240),
        ("inception-v3", 23_819_401),
    ],
)
def test_the_described_networks_have_the_parameters_that_are_known(model, parameters):
    assert edge_tpu_graphs()[model].parameters == parameters


@pytest.mark.parametrize("model", ["mobilenet-v1-0.25-128", "mobilenet-v1-1.0-224", "mobilenet-v2-1.0-224"])
def test_the_described_networks_have_the_counts_of_keras(model):
    described, keras = edge_tpu_graphs()[model], published_graphs()[model]
    macs = keras.conv_macs + keras.pointwise_macs + keras.depthwise_macs + keras.dense_macs
    assert (described.macs, described.activations) == (macs, keras.activations)


def test_the_table_is_what_its_tool_writes():
    for name, (family, build) in NETWORKS.items():
        network, graph = build(), edge_tpu_graphs()[name]
        assert (graph.family, graph.macs, graph.parameters) == (family, network.macs, network.parameters)
    assert {row.model for row in edge_tpu_latencies()} <= set(NETWORKS)


# --- The fit ----------------------------------------------------------------------------------------------------------


def test_the_fit_keeps_the_promise_of_every_estimate():
    fit = fit_edge_tpu()
    assert fit.models >= 15
    assert median_error(fit.model_errors) <= MAX_MODEL_ERROR
    assert median_error(fit.family_errors) <= MAX_FAMILY_ERROR
    assert {row.host for row in fit.rows} == {"desktop", "raspberry-pi-4", "coral-dev-board"}
    for errors in (fit.model_errors, fit.family_errors):
        assert 0.85 <= np.mean([abs(error) <= math.log(band(errors)) for error in errors]) <= 0.95


def planted(cost_of_sending: float, factor: float) -> list[EdgeTpuLatency]:
    """Return rows in which everything costs what is given, without noise."""
    costs = (1e-9, 1e-7, 2e-7, cost_of_sending, 0.5)
    found = []
    for host, times in (("desktop", 1.0), ("board", factor)):
        for graph in edge_tpu_graphs().values():
            latency = times * float(np.dot(features_of_graph(graph), costs))
            row = EdgeTpuLatency(
                link="usb3", host=host, model=graph.model, latency_ms=latency, rows=1, sources=("nowhere",)
            )
            found.append(row)
    return found


def test_a_fit_finds_the_costs_and_the_factor_that_made_the_rows():
    fit, factors = fit_rows(planted(cost_of_sending=3e-6, factor=1.7))
    assert factors == {"desktop": 1.0, "board": pytest.approx(1.7)}
    assert fit.latency_ms((0, 0, 0, 10_000_000, 0)) == pytest.approx(30, rel=1e-6)
    rows = planted(cost_of_sending=3e-6, factor=1.7)
    assert max(map(abs, errors_without(rows, [row.model for row in rows]))) < 1e-6


def test_a_row_that_is_left_out_is_left_out_of_the_factor_too():
    rows = planted(cost_of_sending=2e-6, factor=2.0)
    wrong = [replace(row, latency_ms=3 * row.latency_ms) if row.model == "vgg16" else row for row in rows]
    found = errors_without(wrong, [row.model for row in wrong])
    errors = {(row.host, row.model): error for row, error in zip(wrong, found, strict=True)}
    assert errors["board", "vgg16"] == pytest.approx(math.log(3), rel=1e-6)
    assert errors["desktop", "vgg16"] == pytest.approx(math.log(3), rel=1e-6)


def test_parameters_that_do_not_fit_on_the_chip_cost_their_transfer():
    small = estimate_edge_tpu(SPLIT, "raspberry-pi-4+coral-usb")
    large = estimate_edge_tpu(replace(SPLIT, sent_bytes=20_000_000), "raspberry-pi-4+coral-usb")
    assert small.sending_ms == 0
    assert large.latency_ms - small.latency_ms == pytest.approx(large.sending_ms)
    # Between the 400 MB/s that USB 3 carries at most and a fourth of that.
    assert 50 < large.sending_ms < 200
    assert small.latency_ms > estimate_edge_tpu(SPLIT, "coral-usb").latency_ms


def test_a_published_model_has_the_errors_of_one_and_lies_in_its_band():
    one = estimate_edge_tpu(SPLIT, "raspberry-pi-4+coral-usb")
    (published,) = [
        row.latency_ms
        for row in edge_tpu_latencies()
        if (row.host, row.model) == ("raspberry-pi-4", "mobilenet-v2-1.0-224")
    ]
    assert published_model(SPLIT) == "mobilenet-v2-1.0-224"
    assert one.basis == "variant"
    assert one.low_ms < published < one.high_ms
    other = replace(SPLIT, macs=400_000_000)
    assert published_model(other) is None
    assert estimate_edge_tpu(other, "coral-usb").basis == "new family"


@pytest.mark.parametrize(
    "beyond", [{"macs": 1_000_000}, {"macs": 10**11}, {"input_bytes": 10**6}, {"output_bytes": 10**6}]
)
def test_a_model_unlike_all_published_ones_has_no_band(beyond):
    one = estimate_edge_tpu(replace(SPLIT, **beyond), "coral-dev-board")
    assert (one.basis, one.low_ms, one.high_ms, one.error) == ("outside", None, None, None)


@pytest.mark.parametrize(
    ("device", "split", "message"),
    [
        ("raspberry-pi-3b-plus+coral-usb", SPLIT, "needs 15 published models behind USB 2, and edge knows 7"),
        ("raspberry-pi-5+coral-usb", SPLIT, "needs 3 published models behind this host, and edge knows 0"),
        ("jetson-nano+coral-usb", SPLIT, "needs 3 published models behind this host, and edge knows 1"),
        ("coral-m2", SPLIT, "behind this host, and edge knows 0"),
        ("raspberry-pi-4+coral-m2", SPLIT, "behind this host, and edge knows 0"),
        ("coral-usb", replace(SPLIT, mapped=64, on_cpu=("ARG_MAX", "ARG_MAX")), "2 operators would run on the CPU"),
    ],
)
def test_what_is_not_published_is_refused_with_what_is_known(device, split, message):
    with pytest.raises(RefusedError, match=message) as refusal:
        estimate_edge_tpu(split, device)
    assert f"what is known: {split.mapped} of 66 operators on the Edge TPU" in refusal.value.hint
    assert "150,528 bytes of inputs, 1,001 of outputs and no parameters are sent" in refusal.value.hint


def test_a_setup_may_name_its_parts_in_any_order():
    first, second = (
        estimate_edge_tpu(SPLIT, one) for one in ("raspberry-pi-4+coral-usb", "coral-usb + raspberry-pi-4")
    )
    assert first.latency_ms == second.latency_ms


def test_a_computer_with_the_stick_is_a_desktop():
    assert estimate_edge_tpu(SPLIT, "i7-7700k+coral-usb").latency_ms == estimate_edge_tpu(SPLIT, "coral-usb").latency_ms


# --- The command ------------------------------------------------------------------------------------------------------


def estimated(capsys, *words) -> dict:
    assert main(["estimate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_tells_the_split_and_the_estimate(capsys):
    model = ARTIFACTS / "tflite-int8"
    found = estimated(capsys, model, "--for", "raspberry-pi-4+coral-usb")
    assert found["edge_tpu"]["mapped"] == found["edge_tpu"]["operators"] > 0
    (one,) = found["estimates"]
    assert (one["device"], one["engine"], one["precision"]) == ("raspberry-pi-4+coral-usb", "edgetpu", "int8")
    assert main(["estimate", str(model), "--for", "coral-dev-board"]) == 0
    out = capsys.readouterr().out
    assert "with an Edge TPU:" in out
    assert "Sending [ms]" in out


def test_all_devices_are_ranked_together(capsys):
    found = estimated(capsys, ARTIFACTS / "tflite-int8", "--all")["estimates"]
    assert set(DEVICES) < {one["device"] for one in found}
    assert [one["latency_ms"] for one in found] == sorted(one["latency_ms"] for one in found)
    fp32 = estimated(capsys, ARTIFACTS / "tflite-int8", "--all", "--precision", "fp32")
    assert {one["precision"] for one in fp32["estimates"]} == {"fp32"}
    assert fp32["edge_tpu"] is None


@pytest.mark.parametrize(
    ("model", "words", "status", "message"),
    [
        ("tflite-int8", ["--precision", "fp32"], 2, "an Edge TPU does not compute in fp32"),
        ("onnx-fp32", [], 5, "is known only for TFLite files"),
        ("edgetpu-int8", [], 2, "give the .tflite that it was compiled from"),
    ],
)
def test_what_an_edge_tpu_does_not_take_is_refused(capsys, model, words, status, message):
    assert main(["estimate", str(ARTIFACTS / model), "--for", "coral-usb", *words]) == status
    assert message in capsys.readouterr().err


@pytest.mark.data
def test_the_parts_of_a_model_that_the_cpu_finishes(capsys):
    model = real_data("edgetpu/deeplabv3_mnv2_dm05_pascal_quant.tflite")
    assert main(["estimate", str(model), "--for", "coral-usb"]) == 5
    err = capsys.readouterr().err
    assert "8 operators would run on the CPU" in err
    # A picture goes in; two maps of 33 by 33 with 256 channels, less what the CPU makes of a single pixel, come back.
    assert "789,507 bytes of inputs, 279,040 of outputs" in err


def test_the_sources_are_addresses():
    with (Path(__file__).parents[3] / "device_profiles" / "published" / "edge_tpu_latency.csv").open() as stream:
        for row in csv.DictReader(stream):
            assert all(one.startswith("https://") for one in row["source"].split())
