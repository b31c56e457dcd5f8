"""Importance matrices and losses of quantization, compared with gguf's numpy code and with the definitions."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.errors import InputError
from runtimes.llm.llama_cpp.importance import (
    _Sums,
    importance_from_text,
    read_importance,
    write_importance,
)
from runtimes.llm.llama_cpp.quantize import quantize_file
from runtimes.llm.llama_cpp.weight_errors import weight_errors
from runtimes.llm.perplexity import compare_perplexity
from runtimes.quantization_jobs import ImportanceJob

gguf = pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")
MODEL = Path(__file__).parents[1] / "models" / "llama_cpp.gguf"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("a story about a park, and another one. " * 40, encoding="utf-8")
    return path


def tensors(path: Path) -> dict[str, Any]:
    return {one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in gguf.GGUFReader(path).tensors}


def test_the_importance_is_the_mean_square_of_what_a_weight_is_multiplied_with(text: Path, tmp_path: Path) -> None:
    from llama_cpp import Llama

    job = ImportanceJob(artifact=str(MODEL), text=str(text), out=str(tmp_path / "i.dat"), threads=1)
    answer = importance_from_text(job, lambda _progress: None)
    found = read_importance(tmp_path / "i.dat")
    assert answer.tensors == len(found) == 7  # all matrices of the one layer
    weights = tensors(MODEL)
    model = Llama(str(MODEL), vocab_only=True, verbose=False)
    tokens = model.tokenize(text.read_bytes())[: answer.tokens]
    rows = weights["token_embd.weight"][tokens]
    normed = rows / np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + 1e-5) * weights["blk.0.attn_norm.weight"]
    np.testing.assert_allclose(found["blk.0.attn_q.weight"], np.square(normed).mean(axis=0), rtol=1e-3)


def test_each_expert_has_the_importance_of_its_own_tokens() -> None:
    sums, given = _Sums(), np.arange(12, dtype=np.float32).reshape(3, 1, 4)

    class Chosen:
        def values(self, _kind: Any) -> Any:
            return np.array([[[[0, 2], [2, 0], [2, 2]]]], np.int32)

    sums._add("w", given, Chosen(), 3)  # type: ignore[arg-type]
    squares = np.square(given[:, 0])
    np.testing.assert_array_equal(sums.counts["w"], [2, 0, 4])
    np.testing.assert_allclose(sums.sums["w"][0], squares[0] + squares[1])
    np.testing.assert_allclose(sums.sums["w"][2], squares[0] + squares[1] + 2 * squares[2])


def write_gguf(path: Path, values: dict[str, Any], counts: Any) -> Path:
    writer = gguf.GGUFWriter(path, "imatrix")
    for name, sums in values.items():
        writer.add_tensor(f"{name}.in_sum2", sums)
        writer.add_tensor(f"{name}.counts", np.array(counts, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_both_formats_of_llama_imatrix_are_read(tmp_path: Path) -> None:
    sums = np.array([[2, 4], [6, 9], [1, 1]], np.float32)
    found = read_importance(write_gguf(tmp_path / "i.gguf", {"blk.0.w": sums}, [[2], [3], [0]]))
    np.testing.assert_allclose(found["blk.0.w"], [1, 2, 2, 3, 1, 1])  # an expert that nothing reached has ones
    entry = struct.pack("<i", 7) + b"blk.0.w" + struct.pack("<ii2f", 4, 2, 8.0, 2.0)
    (tmp_path / "i.dat").write_bytes(struct.pack("<i", 1) + entry + b"trailing")
    np.testing.assert_allclose(read_importance(tmp_path / "i.dat")["blk.0.w"], [2, 0.5])


@pytest.mark.parametrize("content", [b"", b"\5\0\0\0", struct.pack("<iiii", 1, -5, 1, 2**30), bytes(100)])
def test_what_is_no_importance_matrix_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "i.dat").write_bytes(content)
    with pytest.raises(InputError, match=r"i\.dat"):
        read_importance(tmp_path / "i.dat")


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ({"blk.0.attn_q.weight": np.ones(3)}, "3 values for blk.0.attn_q.weight, which has 16"),
        ({"x": np.ones(3)}, "none"),
    ],
)
def test_the_importance_of_another_model_is_refused(importance: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"belongs to another model.*{message}"):
        quantize_file(MODEL, tmp_path / "q.gguf", "q4_0", importance=importance)


def test_important_columns_lose_less(tmp_path: Path) -> None:
    importance = np.where(np.arange(32) < 4, 1000.0, 0.001).astype(np.float32)
    write_importance(tmp_path / "i.dat", {"blk.0.ffn_down.weight": importance})
    loss = []
    for name, given in (("plain", None), ("weighed", read_importance(tmp_path / "i.dat"))):
        quantize_file(MODEL, tmp_path / f"{name}.gguf", "q4_0", importance=given)
        pair = [tensors(path)["blk.0.ffn_down.weight"] for path in (MODEL, tmp_path / f"{name}.gguf")]
        loss.append(np.square(pair[0] - pair[1])[:, :4].sum())
    assert loss[1] < 0.7 * loss[0]


@pytest.mark.parametrize("kind", ["q4_0", "q8_0", "bf16"])
def test_the_errors_of_tensors_are_those_of_gguf(kind: str, tmp_path: Path) -> None:
    quantize_file(MODEL, tmp_path / "q.gguf", kind)
    errors = weight_errors(MODEL, tmp_path / "q.gguf")
    assert errors
    assert [one.relative_error for one in errors] == sorted((one.relative_error for one in errors), reverse=True)
    before, after = tensors(MODEL), tensors(tmp_path / "q.gguf")
    for one in errors:
        wanted = np.linalg.norm(before[one.tensor] - after[one.tensor]) / np.linalg.norm(before[one.tensor])
        assert one.relative_error == pytest.approx(wanted, rel=1e-4)


def test_a_model_does_not_diverge_from_itself_and_a_quantized_one_does(text: Path, tmp_path: Path) -> None:
    quantize_file(MODEL, tmp_path / "q.gguf", "q4_0")
    same = compare_perplexity(MODEL, MODEL, text, "llama_cpp", lambda _progress: None)
    assert same.kl_divergence.value == pytest.approx(0, abs=1e-9)
    assert same.same_top == 1
    assert same.kl_tokens == same.tokens
    other = compare_perplexity(MODEL, tmp_path / "q.gguf", text, "llama_cpp", lambda _progress: None)
    assert other.kl_divergence.value > 0


def test_the_divergence_is_that_of_the_definition(tmp_path: Path) -> None:
    from runtimes.llm.perplexity import _Divergence

    generator = np.random.default_rng(0)
    before, after = (generator.normal(size=(2, 70, 5)).astype(np.float32) for _ in range(2))
    with (tmp_path / "scores").open("w+b") as spool:
        divergence = _Divergence(spool)
        for scores in before:
            divergence.keep(scores)
        for scores in after:
            divergence.compare(scores)
    p, q = (np.exp(one) / np.exp(one).sum(axis=-1, keepdims=True) for one in (before, after))
    kl, same = divergence.values()
    np.testing.assert_allclose(kl, (p * np.log(p / q)).sum(axis=-1).ravel(), rtol=1e-4)
    np.testing.assert_array_equal(same, (before.argmax(-1) == after.argmax(-1)).ravel())
