"""Folders in FP8 and GPTQ convert and are proven; other methods are refused by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.gguf import dequantization
from converters.gguf.base import GgufOptions
from converters.gguf.dequantization import dequantize
from converters.gguf.folder_model import converter_environment
from converters.gguf.model_config import read_config
from converters.gguf.verification import load_options, prove_text
from converters.gguf.weights import SafetensorsFolder
from converters.hf_to_gguf import HfToGguf
from runtimes.errors import EngineMissingError, HostError, InputError
from runtimes.registry import text_engine
from tests.converters.gguf.test_gguf import changed_json, write_folder

for _name in ("gguf", "llama_cpp", "transformers", "tokenizers"):
    pytest.importorskip(_name)
GROUP = 32


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        converter_environment().create()
    except HostError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the converter's environment cannot be made here: {error.message}")
    return write_folder(tmp_path_factory.mktemp("plain") / "llama", "LlamaConfig", {}, "smollm")


def fp8(weight: Any) -> tuple[dict[str, Any], Any]:
    """The tensors of a weight with a scale for each block, and the weight that they mean."""
    import torch

    rows, columns = weight.shape
    blocks = weight.reshape(rows // GROUP, GROUP, columns // GROUP, GROUP)
    scale = blocks.abs().amax((1, 3)) / 448
    wide = scale.repeat_interleave(GROUP, 0).repeat_interleave(GROUP, 1)
    stored = (weight / wide).to(torch.float8_e4m3fn)
    return {"weight": stored, "weight_scale_inv": scale}, stored.float() * wide


def fp8_with_one_scale(weight: Any) -> tuple[dict[str, Any], Any]:
    import torch

    scale = weight.abs().max() / 448
    stored = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": stored, "weight_scale_inv": scale}, stored.float() * scale


def gptq(bits: int, offset: int = 1) -> Callable[[Any], tuple[dict[str, Any], Any]]:
    def quantize(weight: Any) -> tuple[dict[str, Any], Any]:
        import torch

        most = 2**bits - 1
        turned = weight.T.reshape(-1, GROUP, weight.shape[0])  # groups, rows of one, columns
        scale = ((turned.amax(1) - turned.amin(1)) / most).half()
        zero = (-turned.amin(1) / scale.float()).round().clamp(1, most)
        numbers = (turned / scale.float()[:, None] + zero[:, None]).round().clamp(0, most)
        meant = ((numbers - zero[:, None]) * scale.float()[:, None]).reshape(weight.T.shape).T
        tensors = {
            "qweight": packed(numbers.reshape(weight.T.shape), bits, 0),
            "qzeros": packed(zero - offset, bits, 1),
            "scales": scale,
            "g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // GROUP,
        }
        return tensors, meant

    return quantize


def packed(numbers: Any, bits: int, axis: int) -> Any:
    import torch

    whole = np.moveaxis(numbers.numpy().astype(np.uint32), axis, 0)
    words = np.zeros((len(whole) * bits // 32, whole.shape[1]), np.uint32)
    for place, row in enumerate(whole):
        words[place * bits // 32] |= row << np.uint32(place * bits % 32)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(words, 0, axis)).view(np.int32))


KINDS: dict[str, tuple[Callable[[Any], tuple[dict[str, Any], Any]], dict[str, Any]]] = {
    "fp8": (fp8, {"quant_method": "fp8", "weight_block_size": [GROUP, GROUP]}),
    "fp8 with one scale": (fp8_with_one_scale, {"quant_method": "fp8"}),
    "gptq 4": (gptq(4), {"quant_method": "gptq", "bits": 4, "group_size": GROUP}),
    "gptq 8": (gptq(8), {"quant_method": "gptq", "bits": 8, "group_size": GROUP}),
    "gptq v2": (gptq(4, 0), {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"}),
}


def quantized(plain: Path, folder: Path, kind: str) -> dict[str, Any]:
    """Write `folder` from `plain`, and return the weights that it means."""
    from safetensors.torch import load_file, save_file

    quantize, settings = KINDS[kind]
    shutil.copytree(plain, folder)
    meant, stored = load_file(plain / "model.safetensors"), {}
    for name, weight in meant.items():
        if ".layers." not in name or weight.ndim < 2:
            stored[name] = weight
            continue
        tensors, meant[name] = quantize(weight)
        stored |= {f"{name.removesuffix('weight')}{part}": tensor for part, tensor in tensors.items()}
    save_file(stored, folder / "model.safetensors")
    changed_json(folder / "config.json", quantization_config=settings)
    return meant


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_mean_what_they_were_quantized_from(kind: str, plain: Path, tmp_path: Path) -> None:
    meant = quantized(plain, tmp_path / "model", kind)
    found = SafetensorsFolder(dequantize(tmp_path / "model", read_config(tmp_path / "model"), tmp_path / "plain"))
    assert found.names() == set(meant)
    for name, weight in meant.items():
        assert np.allclose(found.load(name), weight.float().numpy(), rtol=1e-3, atol=1e-6), name


def prove(folder: Path, out: Path) -> Any:
    options = GgufOptions(precision="fp32")
    model = HfToGguf().open(folder, options)
    made = HfToGguf().convert(folder, out, options, None)
    with closing(text_engine("m.gguf", "llama_cpp").open_text(str(made.model), load_options(model))) as session:
        return prove_text(model, session, "fp32")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in ("fp8", "gptq 4") else pytest.mark.slow) for kind in KINDS]
)
def test_it_converts_and_is_proven(kind: str, plain: Path, tmp_path: Path) -> None:
    quantized(plain, tmp_path / "model", kind)
    proof = prove(tmp_path / "model", tmp_path)
    assert proof.passed, proof.message
    assert proof.facts["reference"] == "transformers"
    assert proof.facts["metrics"]["snr_db"] > 50


def test_a_wrong_number_of_the_format_is_noticed(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = dequantization._float8()
    monkeypatch.setattr(dequantization, "_float8", lambda: np.where(np.abs(right) > 256, 256, right))
    quantized(plain, tmp_path / "model", "fp8")
    assert not prove(tmp_path / "model", tmp_path).passed


@pytest.mark.parametrize("method", ["awq", "bitsandbytes", "modelopt"])
def test_a_method_that_is_not_supported_is_refused_by_name(method: str, plain: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain, tmp_path / "model")
    changed_json(folder / "config.json", quantization_config={"quant_method": method})
    with pytest.raises(InputError, match=f"is quantized by {method}"):
        HfToGguf().open(folder, GgufOptions())


@pytest.mark.skipif(find_spec("accelerate") is not None, reason="accelerate is installed")
def test_a_method_whose_proof_needs_a_library_names_it(plain: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain, tmp_path / "model")
    changed_json(folder / "config.json", quantization_config={"quant_method": "mxfp4"})
    with pytest.raises(EngineMissingError, match="transformers needs accelerate") as caught:
        HfToGguf().open(folder, GgufOptions())
    assert caught.value.hint == "pip install accelerate"


def test_gptq_with_three_bits_is_refused(plain: Path, tmp_path: Path) -> None:
    quantized(plain, tmp_path / "model", "gptq 4")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())["quantization_config"]
    changed_json(tmp_path / "model" / "config.json", quantization_config={**settings, "bits": 3})
    with pytest.raises(InputError, match="3 bits"):
        dequantize(tmp_path / "model", read_config(tmp_path / "model"), tmp_path / "plain")


def test_an_adapter_on_a_quantized_base_is_refused_with_the_reason(plain: Path, tmp_path: Path) -> None:
    quantized(plain, tmp_path / "model", "gptq 4")
    with pytest.raises(InputError, match="quantized by gptq, and an adapter cannot be merged"):
        HfToGguf().open(tmp_path / "model", GgufOptions(lora=tmp_path / "adapter"))
