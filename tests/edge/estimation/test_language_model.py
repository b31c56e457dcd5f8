"""The speed of language models from the memory's bandwidth: the share, its errors, and what fits."""

import json
from pathlib import Path

import pytest

import edge
from device_profiles.published.language_models import published_speeds
from edge.cli import main
from edge.estimation.language_model import bandwidth_share
from runtimes.errors import RefusedError, UsageError

MODEL = Path(__file__).parents[2] / "compatibility" / "artifacts" / "gguf-fp16"


def test_the_speed_is_the_published_share_of_the_bandwidth():
    found = edge.estimate(MODEL, "raspberry-pi-5", memory="8GB")
    (one,) = found.estimates
    assert (found.bits, one.device_bytes, one.fits) == (16, 8 * 10**9, True)
    assert one.write_tok_s * found.parameters * 2 == pytest.approx(found.basis.share * 17e9)
    assert one.low_tok_s < one.write_tok_s < one.high_tok_s


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_the_band_holds_the_devices_that_the_median_does_not_contain(bits):
    basis = bandwidth_share(bits)
    assert basis.rows >= 15
    assert 0.4 < basis.share < 1
    assert basis.error <= 0.3
    rows = [row for row in published_speeds() if row.bits == bits and row.bandwidth_gb_s is not None]
    shares = [row.write_tok_s * row.parameters * bits / 8e9 / row.bandwidth_gb_s for row in rows]
    inside = [basis.share / basis.band <= share <= basis.share * basis.band for share in shares]
    assert sum(inside) / len(inside) >= 0.85


def test_what_does_not_fit_names_the_quantization_that_does(capsys):
    assert main(["estimate", str(MODEL), "--for", "raspberry-pi-5", "--memory", "1MB"]) == 0
    assert "no quantization does" in capsys.readouterr().out
    assert main(["estimate", str(MODEL), "--for", "raspberry-pi-5"]) == 0
    assert "depends on --memory" in capsys.readouterr().out


def test_all_lists_the_devices_whose_bandwidth_is_known_fastest_first(capsys):
    assert main(["estimate", str(MODEL), "--all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    speeds = [one["write_tok_s"] for one in found["estimates"]]
    assert speeds == sorted(speeds, reverse=True)
    assert {"jetson-agx-orin", "raspberry-pi-5"} <= {one["device"] for one in found["estimates"]}


def test_an_unknown_bandwidth_and_options_of_other_models_are_one_clear_line():
    with pytest.raises(RefusedError, match="bandwidth of its memory is not in its profile"):
        edge.estimate(MODEL, "raspberry-pi-4")
    with pytest.raises(UsageError, match="has the precision of its file"):
        edge.estimate(MODEL, "raspberry-pi-5", precision="int8")
    with pytest.raises(UsageError, match="--memory is for language models"):
        edge.estimate(MODEL.parent / "onnx-fp32", "raspberry-pi-4", memory="4GB")
