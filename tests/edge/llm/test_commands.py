"""`edge convert`, `edge quantize`, `edge verify` and `edge inspect` on a language model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from runtimes.errors import InputError
from runtimes.llm.perplexity import perplexity, ratio
from tests.real_data import real_data

pytestmark = pytest.mark.skipif(
    not all(find_spec(name) for name in ("gguf", "llama_cpp", "tokenizers")), reason="needs gguf and llama_cpp"
)
STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "


@pytest.fixture(scope="module")
def llm() -> Path:
    return real_data("llm")


def edge(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edge", *map(str, words)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def artifact(llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "story"
    done = edge("convert", llm / "stories260K.bin", "--to", "gguf", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["proof"]["passed"]
    # Between two tokens of nearly equal score, rounding decides, and with it the CPU.
    assert all(parting["margin"] < 0.01 for parting in answer["proof"]["partings"])
    return out


def test_an_artifact_is_verified_and_a_changed_one_is_not(artifact: Path, tmp_path: Path) -> None:
    done = edge("verify", artifact)
    assert done.returncode == 0, done.stderr
    assert "verified with llama_cpp" in done.stdout
    told = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
    told["selfcheck"]["tolerance"] = 150.0  # more than any engine reaches
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in artifact.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    (changed / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    assert edge("verify", changed).returncode == 6


def test_inspect_tells_what_the_tensors_really_are(artifact: Path) -> None:
    found = json.loads(edge("inspect", artifact / "stories260K.gguf", "--json").stdout)
    assert found["ops"] == {"F16": 36, "F32": 11}
    assert found["metadata"]["llama.block_count"] == 5
    assert "tensors" in edge("inspect", artifact).stdout


def test_quantize_reports_the_silent_fallback_and_the_perplexity(llm: Path, tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(STORY * 60, encoding="utf-8")
    out = tmp_path / "small.gguf"
    story = tmp_path / "story.txt"
    words = ("quantize", llm / "stories260K.gguf", "Q4_K_M", "--out", out, "--text", story, "--imatrix-text", story)
    done = edge(*words, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["after"]["tensors"] == {"Q5_0": 28, "F32": 11, "F16": 5, "Q8_0": 3}
    assert len(report["fallbacks"]) == 36
    assert report["after"]["bytes"] == out.stat().st_size
    found = report["perplexity"]
    assert found["before"]["value"] < found["after"]["value"] * 1.05
    assert found["ratio"]["error"] < found["before"]["error"]  # token by token is surer than either alone
    assert 0 < found["kl_divergence"]["value"] < 0.5
    assert report["importance"] == {"source": "story.txt", "tensors": 35}
    assert len(report["worst"]) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.gguf", "story.txt"]
    again = edge(*words)
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_an_artifacts_folder_is_quantized_into_a_file_beside_it(artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "story"
    folder.mkdir()
    for path in artifact.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    done = edge("quantize", folder, "q8_0", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"] == str(tmp_path / "stories260K-q8_0.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stories260K-q8_0.gguf", "story"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in artifact.iterdir())
    (folder / "manifest.json").unlink()
    refused = edge("quantize", folder, "q8_0")
    assert refused.returncode == 3
    assert "not an artifact" in refused.stderr


def test_what_is_quantized_is_not_quantized_again_and_nothing_is_left(llm: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.gguf"
    assert edge("quantize", llm / "stories260K.gguf", "q8_0", "--out", small).returncode == 0
    done = edge("quantize", small, "q4_0")
    assert done.returncode == 3
    assert "already quantized (Q8_0)" in done.stderr
    assert edge("quantize", small, "q4_9").returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["small.gguf"]


def test_ctrl_c_leaves_nothing(llm: Path, tmp_path: Path) -> None:
    text = tmp_path / "story.txt"
    text.write_text(STORY * 20_000, encoding="utf-8")  # minutes of perplexity
    command = ["quantize", llm / "stories260K.gguf", "q8_0", "--out", tmp_path / "small.gguf", "--text", text]
    child = subprocess.Popen(
        [sys.executable, "-m", "edge", *map(str, command)], stderr=subprocess.PIPE, start_new_session=True
    )
    for _ in range(600):
        if list(tmp_path.glob(".small.gguf.*")):
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, words = child.communicate(timeout=120)
    assert child.returncode == 130, words
    assert [path.name for path in tmp_path.iterdir()] == ["story.txt"]


@pytest.mark.parametrize("words", [("quantize", "q8_0"), ("convert", "--to", "gguf")], ids=["quantize", "convert"])
def test_a_full_disk_is_one_line_and_leaves_nothing(words, llm: Path, tmp_path: Path) -> None:
    source = llm / ("stories260K.gguf" if words[0] == "quantize" else "stories260K.bin")
    command = [sys.executable, "-m", "edge", words[0], source, *words[1:], "--out", tmp_path / "made.gguf"]
    # No file may grow beyond 100 KiB (dash counts blocks of 512 bytes): a write fails in the middle.
    limited = ["sh", "-c", 'ulimit -f 200; exec "$0" "$@"', *map(str, command)]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert "is the disk full?" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_written_alone_and_applied_by_the_chat(llm: Path, tmp_path: Path) -> None:
    _write_peft(tmp_path / "peft")
    words = (tmp_path / "peft", "--to", "gguf")
    refused = edge("convert", *words)
    assert refused.returncode == 2
    assert "--base FOLDER" in refused.stderr
    done = edge("convert", *words, "--base", llm / "stories260K-hf", "--out", tmp_path / "alone", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["proof"]["passed"]  # on the base with the adapter merged into its weights
    asked = ("chat", llm / "stories260K.gguf", "Once", "--template", "plain", "--temp", "0", "--max-tokens", "20")
    applied = edge(*asked, "--lora", tmp_path / "alone")
    assert applied.returncode == 0, applied.stderr
    assert applied.stdout != edge(*asked).stdout


def _write_peft(folder: Path) -> None:
    """A LoRA of two matrices for the stories, as PEFT writes it."""
    from safetensors.numpy import save_file

    folder.mkdir()
    random, tensors = np.random.default_rng(0), {}
    for part, out in (("q_proj", 64), ("v_proj", 32)):
        start = f"base_model.model.model.layers.0.self_attn.{part}"
        tensors[f"{start}.lora_A.weight"] = random.normal(size=(4, 64)).astype(np.float32)
        tensors[f"{start}.lora_B.weight"] = random.normal(size=(out, 4)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 2.0, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--to", "onnx"), 2, "which converts to gguf, not onnx"),
        (("--for", "raspberry-pi-4"), 2, "leave out --for"),
        (("--to", "gguf", "--precision", "int8"), 2, "what works: fp16"),
        (("--to", "gguf", "--base", "."), 2, "--base requires a LoRA adapter"),
        (("--to", "gguf", "--lora", "nowhere"), 3, "is not a folder"),
    ],
)
def test_what_does_not_fit_a_language_model_is_refused(words, status: int, said: str, llm: Path) -> None:
    done = edge("convert", llm / "stories260K-hf", *words)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_for_a_file_of_a_model_its_folder_is_named(name: str, llm: Path) -> None:
    done = edge("convert", llm / "stories260K-hf" / name, "--to", "gguf")
    assert done.returncode == 3
    assert f"pass its folder: {llm / 'stories260K-hf'}" in done.stderr


def test_the_error_of_a_perplexity_is_that_of_the_mean() -> None:
    values = np.array([1.0, 2.0, 3.0, 2.0])
    found = perplexity(values)
    assert found.value == pytest.approx(np.exp(2))
    assert found.error == pytest.approx(np.exp(2) * np.std(values, ddof=1) / 2)
    assert ratio(values, values).value == 1
    assert ratio(values, values).error == 0


def test_a_short_text_is_refused(llm: Path) -> None:
    from contextlib import closing

    from runtimes.llm.perplexity import losses
    from runtimes.llm.session import LoadOptions
    from runtimes.registry import text_engine

    model = str(llm / "stories260K.gguf")
    with (
        closing(text_engine(model).open_text(model, LoadOptions())) as session,
        pytest.raises(InputError, match="too few"),
    ):
        losses(session, STORY)
