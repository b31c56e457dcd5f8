"""Estimates: the contents of a graph, the fit, its errors, and what is refused."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_profiles.published.latency import MeasuredSystem, PublishedLatency, published_graphs, published_latencies
from edge.cli import main
from edge.estimation.estimate import estimable, features, fit_system, nearest, system_fits
from edge.estimation.regression import Fit, KnownLatency, band, median_error
from tests.real_data import real_data
from tests.tools.estimation_tables import model_id

SYSTEM = MeasuredSystem(
    device="pi", processor="cpu", engine="litert", engine_version="1", precision="int8", source="nowhere"
)


def samples(costs: list[float], noise: float = 0.0, seed: int = 0) -> list[KnownLatency]:
    random = np.random.default_rng(seed)
    found = []
    for number in range(30):
        values = tuple(random.uniform(1, 100, len(costs)))
        time = float(np.dot(values, costs) * math.exp(random.normal(0, noise)))
        found.append(KnownLatency(family=f"f{number % 3}", features=values, latency_ms=time))
    return found


def test_a_fit_finds_the_costs_that_made_the_times():
    fit = Fit(samples([0.5, 2.0, 0.0]))
    assert fit.latency_ms([10, 20, 30]) == pytest.approx(45, rel=1e-6)
    assert fit.latency_ms([0, 0, 50]) == pytest.approx(0, abs=1e-6)


def test_no_price_is_negative():
    rows = [KnownLatency(family="f", features=(1.0, float(x)), latency_ms=100.0 - x) for x in range(1, 40)]
    fit = Fit(rows)
    assert fit.latency_ms([0, 1]) == 0


def test_the_errors_of_noisy_times_are_that_of_the_noise():
    fit = Fit(samples([0.5, 2.0, 1.0], noise=0.05))
    assert 0.02 < median_error(fit.model_errors) < 0.06
    assert 1.05 < band(fit.model_errors) < 1.2


def test_a_band_needs_15_errors():
    assert band([0.1] * 14) is None
    assert band([-0.1] * 15) == pytest.approx(math.exp(0.1))


def test_a_system_whose_families_differ_is_not_shown():
    rows = max(published_latencies().values(), key=len)
    graphs = published_graphs()
    made = [replace(row, latency_ms=float(np.dot(features(graphs[row.model]), [1e-8] * 5 + [0] * 3))) for row in rows]
    honest = fit_system(SYSTEM, made)
    assert honest.family_error < 0.1
    assert estimable(honest)
    slow = [
        replace(row, latency_ms=row.latency_ms * (3 if graphs[row.model].family == "mobilenet-v2" else 1))
        for row in made
    ]
    assert not estimable(fit_system(SYSTEM, slow))


def test_too_few_models_or_one_family_have_no_fit():
    graphs = [graph for graph in published_graphs().values() if graph.family == "mobilenet-v1"]
    rows = [PublishedLatency(system=SYSTEM, model=one.model, latency_ms=1.0, energy_mj=None) for one in graphs]
    assert len(rows) >= 15
    assert fit_system(SYSTEM, rows) is None
    other = PublishedLatency(system=SYSTEM, model="resnet-50", latency_ms=9.0, energy_mj=None)
    assert fit_system(SYSTEM, [*rows[:13], other]) is None


def test_every_system_that_is_shown_keeps_its_promise():
    shown = system_fits()
    assert len(shown) > 30
    assert {"raspberry-pi-4", "jetson-agx-orin"} <= {one.system.device for one in shown}
    assert all(one.model_error <= 0.15 and one.family_error <= 0.30 and one.models >= 15 for one in shown)


def test_a_published_time_lies_in_the_band_of_its_estimate_nine_times_in_ten():
    hits = [abs(error) <= math.log(one.model_band) for one in system_fits() for error in one.fit.model_errors]
    assert 0.85 <= np.mean(hits) <= 0.95


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenet-v1-0.25-128-quantized", "mobilenet-v1-0.25-128"),
        ("mobilenet-v2-precision_uint8-1.0-224", "mobilenet-v2-1.0-224"),
        ("mobilenet-v2-1.4-224-non-quantized", "mobilenet-v2-1.4-224"),
        ("mobilenet-v3-large-minimalistic_224_1.0_uint8", "mobilenet-v3-large-minimalistic-1.0-224"),
        ("efficientnet-lite4-quantized", "efficientnet-lite4"),
        ("resnet50", "resnet-50"),
        ("ssd-mobilenet", None),
    ],
)
def test_names_of_submissions_are_matched_with_graphs_or_left_out(name, expected):
    assert model_id(name) == expected


def test_variants_of_a_family_are_relatives_whatever_their_width_and_size():
    graphs = published_graphs()
    assert nearest(graphs["mobilenet-v2-0.75-160"]).startswith("mobilenet-v2")
    strange = replace(graphs["mobilenet-v2-1.0-224"], conv_macs=10**9)
    assert nearest(strange) is None


# --- files ------------------------------------------------------------------------------------------------------------


def onnx_model(path: Path, batch: int | str = 1, size: int | str = 8) -> Path:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT

    def weights(name: str, *shape: int):
        return helper.make_tensor(name, kind, shape, np.zeros(math.prod(shape), np.float32))

    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["p", "b"], ["q"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=4),
        helper.make_node("Conv", ["q", "c"], ["r"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["r"], ["s"]),
        helper.make_node("Flatten", ["s"], ["t"]),
        helper.make_node("Gemm", ["t", "d"], ["y"]),
    ]
    constants = [weights("a", 4, 3, 3, 3), weights("b", 4, 1, 3, 3), weights("c", 6, 4, 1, 1), weights("d", 6, 10)]
    inputs = [helper.make_tensor_value_info("x", kind, [batch, 3, size, size])]
    outputs = [helper.make_tensor_value_info("y", kind, [batch, 10])]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, constants))
    onnx.save(model, path)
    return path


def estimated(capsys, *words) -> dict:
    assert main(["estimate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("batch", [1, "N"])
def test_the_layers_of_a_graph_are_counted_by_kind(tmp_path, capsys, batch):
    facts = estimated(capsys, onnx_model(tmp_path / "m.onnx", batch), "--all")["facts"]
    assert facts["conv_macs"] == 8 * 8 * 4 * 27
    assert facts["depthwise_macs"] == 8 * 8 * 4 * 9
    assert facts["pointwise_macs"] == 8 * 8 * 6 * 4
    assert facts["dense_macs"] == 60
    assert facts["parameters"] == 108 + 36 + 24 + 60
    assert facts["activations"] == 64 * (4 + 4 + 6) + 10
    assert facts["layers"] == 4
    assert facts["largest_step"] == 64 * 10


def test_a_model_that_is_much_smaller_than_all_published_ones_has_no_band(tmp_path, capsys):
    found = estimated(capsys, onnx_model(tmp_path / "m.onnx"), "--for", "raspberry-pi-4")
    assert found["relative"] is None
    assert {one["basis"] for one in found["estimates"]} == {"outside"}
    assert {one["low_ms"] for one in found["estimates"]} == {None}
    assert main(["estimate", str(tmp_path / "m.onnx"), "--for", "raspberry-pi-4"]) == 0
    assert "no band: the model is far larger or smaller" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (
            ["--for", "jetson-nano"],
            5,
            "no estimate for jetson-nano: edge knows the latencies of 0 published models there",
        ),
        (["--for", "raspberry-pi-3"], 5, "the errors of its 45 published models are too large"),
        (["--for", "raspbery-pi-4"], 2, "raspbery-pi-4"),
        (["--all", "--precision", "int4"], 2, "no estimates for the precision 'int4'"),
    ],
)
def test_what_published_rows_do_not_carry_is_refused(tmp_path, capsys, words, status, message):
    model = onnx_model(tmp_path / "m.onnx")
    assert main(["estimate", str(model), *words]) == status
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_a_model_of_free_size_is_refused(tmp_path, capsys):
    assert main(["estimate", str(onnx_model(tmp_path / "m.onnx", 1, "side")), "--all"]) == 3
    err = capsys.readouterr().err
    assert "depend on its inputs" in err
    assert "edge convert m.onnx --to onnx --shape x=1x3x224x224" in err


def test_a_text_model_of_free_length_is_told_a_length_for_tokens(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    table = helper.make_tensor("table", kinds.FLOAT, [10, 4], np.zeros(40, np.float32))
    square = helper.make_tensor("square", kinds.FLOAT, [4, 4], np.zeros(16, np.float32))
    nodes = [helper.make_node("Gather", ["table", "ids"], ["a"]), helper.make_node("MatMul", ["a", "square"], ["y"])]
    inputs = [helper.make_tensor_value_info("ids", kinds.INT64, ["batch", "length"])]
    outputs = [helper.make_tensor_value_info("y", kinds.FLOAT, ["batch", "length", 4])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, [table, square])), tmp_path / "t.onnx")
    assert main(["estimate", str(tmp_path / "t.onnx"), "--all"]) == 3
    assert "edge convert t.onnx --to onnx --shape ids=1x128" in capsys.readouterr().err


@pytest.mark.data
def test_a_file_of_a_published_model_has_the_facts_of_the_table_and_its_published_time(capsys):
    model = real_data("mobilenet_v2/mobilenet_v2_1.0_224_quant.tflite")
    found = estimated(capsys, model, "--for", "raspberry-pi-4", "--precision", "int8")
    graph = published_graphs()["mobilenet-v2-1.0-224"]
    assert found["relative"] == graph.model
    keys = ("conv_macs", "pointwise_macs", "depthwise_macs", "dense_macs", "activations", "layers")
    assert {key: found["facts"][key] for key in keys} == {key: getattr(graph, key) for key in keys}
    one = next(one for one in found["estimates"] if one["engine"] == "litert")
    assert one["basis"] == "variant"
    (published,) = (
        row.latency_ms
        for system, rows in published_latencies().items()
        for row in rows
        if (system.source, system.precision, row.model) == (one["source"], "int8", graph.model)
    )
    assert one["low_ms"] < published < one["high_ms"]
    assert one["memory_bytes"] > 3_400_000


def test_the_tables_hold_no_model_without_facts():
    used = {row.model for rows in published_latencies().values() for row in rows}
    assert used <= set(published_graphs())
    with (Path(__file__).parents[3] / "device_profiles" / "published" / "latency.csv").open() as stream:
        assert all(float(row["latency_ms"]) > 0 for row in csv.DictReader(stream))
