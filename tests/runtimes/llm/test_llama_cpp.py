"""llama.cpp's engine: reuse of evaluated tokens, memory estimates, and sampling."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from runtimes import registry
from runtimes.engines.llama_cpp import avoid_amx
from runtimes.errors import EngineError, HostError, InputError, UsageError
from runtimes.llm.llama_cpp import memory, rpc
from runtimes.llm.llama_cpp.memory import largest_quantization, memory_need
from runtimes.llm.llama_cpp.sequence import Reuse, plan
from runtimes.llm.session import MAX_SLOTS, LoadOptions, TextOptions
from runtimes.model_files.gguf import read_gguf
from runtimes.registry import text_engine

MODEL = Path(__file__).parents[1] / "models" / "llama_cpp.gguf"
HEAD, GAP, TAIL = list(range(20)), list(range(100, 150)), list(range(200, 260))


@pytest.mark.parametrize(
    ("read", "wanted", "expected"),
    [
        ([], [1, 2], Reuse(0)),
        ([1, 2, 3], [1, 2, 3, 4], Reuse(3)),
        ([1, 2, 3], [1, 2, 3], Reuse(2)),  # the last one is read again, for the scores behind it
        ([1, 2, 3, 4], [1, 2, 9], Reuse(2)),
        (HEAD + GAP + TAIL, [*HEAD, *TAIL, 7], Reuse(20, 70, 60)),
        (HEAD + GAP + TAIL, HEAD + TAIL, Reuse(20, 70, 59)),
        (HEAD + GAP + TAIL, HEAD + TAIL[:10] + [7], Reuse(20)),  # too short to be worth moving
    ],
)
def test_what_was_read_is_used_again(read, wanted, expected):
    assert plan(read, wanted, can_move=True) == expected
    assert plan(read, wanted, can_move=False) == Reuse(expected.kept)


def test_what_is_planned_gives_the_beginning_of_what_is_wanted():
    random = np.random.default_rng(0)
    for _ in range(300):
        read = [int(token) for token in random.integers(0, 3, random.integers(1, 120))]
        cut = sorted(int(place) for place in random.integers(0, len(read) + 1, 2))
        wanted = [*read[: cut[0]], *read[cut[1] :], 5]
        found = plan(read, wanted, can_move=True)
        moved = read[found.start : found.start + found.moved]
        assert read[: found.kept] + moved == wanted[: found.total]
        assert found.total < len(wanted)


def test_moving_what_was_read_changes_the_scores_by_rounding_only():
    adapter = registry.engine("llama_cpp")
    if not registry.is_installed(adapter):
        pytest.skip("llama_cpp is not installed")
    prompt = [3 + i % 280 for i in range(0, 1400, 7)]
    short = [*prompt[:20], *prompt[80:], 9]
    greedy = TextOptions(temperature=0, max_tokens=1, ignore_end=True)
    with adapter.open_text(str(MODEL), LoadOptions(context=256, threads=1)) as session:
        fresh = session.logits(short)[-1]
        list(session.generate(prompt, greedy))
        moved = list(session.generate(short, greedy))[-1].finish
        assert moved.reused_tokens == len(short) - 1
        pointer = session._library.llama_get_logits_ith(session._context, -1)
        scores = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (288,)).copy()
    np.testing.assert_allclose(scores, fresh, atol=0.05 * np.abs(fresh).max())


def test_a_model_that_does_not_fit_is_refused_with_what_does():
    file = read_gguf(MODEL)
    tight = memory_need(file, 600).total  # of which llama.cpp makes 768
    with pytest.raises(HostError) as caught:
        memory.check_fits(file, MODEL, 100_000, 1, "f16", tight)
    assert "llama_cpp.gguf needs" in caught.value.message
    assert caught.value.hint.endswith("--context 512")  # 768 would fit, and are more than it was trained for
    assert memory.context_for(file, MODEL, 1, "f16", None) == 512
    assert memory.context_for(file, MODEL, 1, "f16", tight) == 256
    with pytest.raises(HostError):
        memory.context_for(file, MODEL, 1, "f16", 1000)


@pytest.mark.parametrize(("slots", "kv_type"), [(1, "f16"), (2, "f16"), (3, "q8_0"), (2, "f32")])
def test_the_context_that_is_named_fits_with_these_slots_and_this_cache(slots, kv_type):
    file = read_gguf(MODEL)
    long = replace(file, metadata={**file.metadata, "llama.context_length": 8192})
    free = memory_need(long, 2304, slots, kv_type).total + 1000
    with pytest.raises(HostError) as caught:
        memory.check_fits(long, MODEL, 4096, slots, kv_type, free)
    assert caught.value.hint.endswith("--context 2304")
    memory.check_fits(long, MODEL, 2304, slots, kv_type, free)


def test_the_largest_quantization_that_fits_is_named():
    file = read_gguf(MODEL)
    layers = [
        replace(one, shape=(*one.shape, 10**6), bytes=one.bytes * 10**6)
        for one in file.tensors
        if one.name.startswith("blk.")
    ]
    large = replace(file, tensors=(*layers, *(one for one in file.tensors if not one.name.startswith("blk."))))
    base = memory_need(file, 256).total
    for bits, expected in ((9, "q8_0"), (5, "q4_k_m"), (4.7, "q4_0"), (3, None)):
        assert largest_quantization(large, int(base + large.parameters * bits / 8)) == expected
    room = int(base + large.parameters * 4.7 / 8)
    assert largest_quantization(large, room, slots=1000) == "q3_k_m"


def test_memory_counts_what_a_7b_has_in_its_cache():
    file = read_gguf(MODEL)
    shape = {"block_count": 32, "embedding_length": 4096, "attention.head_count": 32}
    large = replace(file, metadata={**file.metadata, **{f"llama.{key}": value for key, value in shape.items()}})
    assert memory.cache_bytes_per_token(large) == 2 * 32 * 4096 * 2
    assert memory.cache_bytes_per_token(large, "q8_0") == 2 * 32 * 4096 * 34 // 32


def reference_2023(scores, last, penalty=1.3, top_k=40, top_p=0.95, temperature=0.1):
    """The distribution of alpaca.cpp's `llama_sample_top_p_top_k` (utils.cpp, March 2023)."""
    scaled = scores.astype(np.float64) / temperature
    for token in set(last):
        scaled[token] = scaled[token] * penalty if scores[token] < 0 else scaled[token] / penalty
    kept = np.argsort(-scaled, kind="stable")[:top_k]
    shares = np.exp(scaled[kept] - scaled[kept].max())
    shares /= shares.sum()
    count = int(np.searchsorted(np.cumsum(shares), top_p) + 1)
    found = np.zeros(len(scores))
    found[kept[:count]] = shares[:count] / shares[:count].sum()
    return found


def test_the_chain_of_2023_draws_from_the_distribution_of_2023():
    pytest.importorskip("llama_cpp")
    from runtimes.llm.llama_cpp import library as llama
    from runtimes.llm.llama_cpp.sampling import build_chain

    library = llama.load()
    random = np.random.default_rng(3)
    options = TextOptions(
        temperature=0.1, top_k=40, top_p=0.95, repeat_penalty=1.3, repeat_last_n=64, chain="2023", seed=1
    )
    with registry.engine("llama_cpp").open_text(str(MODEL), LoadOptions(context=64, threads=1)) as session:
        vocabulary = session._vocabulary
        for _ in range(50):
            scores = random.normal(0, 1, 288).astype(np.float32)
            last = [int(token) for token in random.integers(0, 288, 90)]
            sampler = build_chain(library, vocabulary, options, last, 1)
            rows = (library.llama_token_data * 288)(*((i, float(score), 0.0) for i, score in enumerate(scores)))
            array = library.llama_token_data_array(rows, 288, -1, False)
            library.llama_sampler_apply(sampler, ctypes.byref(array))
            found = np.zeros(288)
            for place in range(array.size):
                found[array.data[place].id] = array.data[place].p
            library.llama_sampler_free(sampler)
            assert np.abs(found - reference_2023(scores, last[-64:])).sum() / 2 < 1e-5


@pytest.mark.parametrize(
    ("info", "asked", "used"),
    [(b"AMX_INT8 = 1 | ", {}, "off"), (b"AMX_INT8 = 1 | ", {"repack": "on"}, "on"), (b"AVX2 = 1 | ", {}, None)],
)
def test_a_build_with_amx_keeps_the_layout_of_the_file_unless_asked_otherwise(info, asked, used):
    library = SimpleNamespace(llama_print_system_info=lambda: b"CPU : " + info)
    assert avoid_amx(library, LoadOptions(settings=asked)).settings.get("repack") == used


def test_several_slots_are_for_servers():
    assert MAX_SLOTS <= memory.UBATCH
    with pytest.raises(UsageError) as caught:
        LoadOptions(slots=MAX_SLOTS + 1)
    assert (caught.value.message, caught.value.hint) == ("slots is 129", "choose a value from 1 to 128")
    pytest.importorskip("llama_cpp")
    with pytest.raises(UsageError, match="one text at a time"):
        registry.engine("llama_cpp").open_text(str(MODEL), LoadOptions(slots=2))


def test_scores_and_states_are_refused_while_a_text_is_continued(tmp_path):
    pytest.importorskip("llama_cpp")
    with registry.engine("llama_cpp").open_text(str(MODEL), LoadOptions(context=64, threads=1)) as session:
        running = session.generate([1, 5], TextOptions(temperature=0, ignore_end=True))
        next(running)
        for ask in (lambda: session.logits([1]), lambda: session.save_state(str(tmp_path / "state"))):
            with pytest.raises(EngineError, match="busy"):
                ask()
        running.close()
        assert session.logits([1]).shape == (1, 288)


@pytest.mark.parametrize(
    "worker",
    ["somewhere", "host:port", "127.0.0.1:0", "192.0.2.1:50052", "board:50052", "127.example.com:50052", "[::]:50052"],
)
def test_workers_are_on_this_machine_or_behind_a_tunnel(worker):
    with pytest.raises(UsageError):
        rpc.parse_address(worker)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]"])
def test_this_machine_itself_is_no_stranger(host):
    assert rpc.parse_address(f"{host}:50052") == (host, 50052)


def test_a_worker_that_is_not_there_is_reported():
    with pytest.raises(HostError, match="cannot be reached"):
        rpc.check_worker("127.0.0.1:9")


def test_an_adapter_that_does_not_exist_is_refused():
    pytest.importorskip("llama_cpp")
    with pytest.raises(InputError, match="adapter"):
        registry.engine("llama_cpp").open_text(str(MODEL), LoadOptions(context=64, adapters={str(MODEL): 1.0}))


@pytest.mark.data
def test_the_trained_model_tells_its_story(data):
    pytest.importorskip("llama_cpp")
    path = data / "llm" / "stories260K.gguf"
    with registry.engine("llama_cpp").open_text(str(path), LoadOptions(threads=1)) as session:
        start = session.tokenize("", begin=True)
        options = TextOptions(temperature=0, max_tokens=256)
        text = "".join(token.text for token in session.generate(start, options))
    assert text.strip().startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
        " One day, she saw a big, red ball."
    )


LIES = {
    "no layers": ("block_count", 0, "claims 0 layers"),
    "many layers": ("block_count", 1000, "claims 1,000 layers"),
    "most layers": ("block_count", 2**32 - 1, "claims 4,294,967,295 layers"),
    "no width": ("embedding_length", 0, "claims an embedding of 0 values"),
    "a width": ("embedding_length", 2**31 - 1, "claims an embedding of 2,147,483,647 values"),
    "a hidden width": ("feed_forward_length", 2**32 - 1, "claims a feed-forward part of 4,294,967,295 values"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_file_that_lies_about_its_sizes_is_refused(what, tmp_path):
    pytest.importorskip("llama_cpp")
    name, value, told = LIES[what]
    key = b"llama." + name.encode() + struct.pack("<I", 4)  # the type: uint32
    before, found, after = MODEL.read_bytes().partition(key)
    assert found
    (tmp_path / "lie.gguf").write_bytes(before + found + struct.pack("<I", value) + after[4:])
    with pytest.raises(InputError, match=told):
        text_engine("m.gguf", "llama_cpp").open_text(str(tmp_path / "lie.gguf"), LoadOptions())


def test_a_header_without_weights_or_with_other_heads_than_its_tensors_is_refused():
    file = read_gguf(MODEL)
    heads = replace(file, metadata={**file.metadata, "llama.attention.head_count_kv": 2**32 - 1})
    with pytest.raises(InputError, match=r"claims [0-9,]+ values of keys per token and layer"):
        memory.context_size(heads, MODEL, LoadOptions())
    with pytest.raises(InputError, match="has no weights"):
        memory.context_size(replace(file, tensors=()), MODEL, LoadOptions())


def test_an_abort_ends_with_its_reason():
    pytest.importorskip("llama_cpp")
    code = """
from runtimes.llm.llama_cpp import library
library.load()
from llama_cpp._ggml import libggml
libggml.ggml_abort(b"a.c", 1, b"the reason")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode < 0
    assert done.stderr.strip().splitlines()[-1] == "a.c:1: the reason"
