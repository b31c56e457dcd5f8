"""`edge verify` and `edge bench` in a browser that edge starts: success, fallbacks, and the end of each failure."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.cli import main
from edge.web.chromium import run_page
from edge.web.jobs import PageJob
from runtimes.artifact import Artifact
from tests.edge.web.stand_ins import garbage_from

NO_SIMD = '"--js-flags=--no-enable-sse4-1 --no-enable-ssse3 --no-enable-sse4-2 --no-enable-avx"'
# The device is lost in the second inference; until then the CPU answers for it.
LOST = """
export * from "./real.js";
import * as real from "./real.js";
let lose;
const lost = new Promise((resolve) => (lose = resolve));
let runs = 0;
export const getWebGpuDevice = () => ({ lost });
export const loadLiteRt = (path, options) => real.loadLiteRt(path, { ...options });
export async function loadAndCompile(model, options) {
  const compiled = await real.loadAndCompile(model, { accelerator: "wasm" });
  if (options.accelerator !== "webgpu") return compiled;
  const run = compiled.run.bind(compiled);
  compiled.run = async (inputs) => {
    if (++runs > 60) {
      lose({ reason: "unknown" });
      return new Promise(() => {});
    }
    return run(inputs);
  };
  return compiled;
}
"""


@pytest.fixture
def wrapped(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that makes a program which starts the browser with more flags."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        assert not os.environ.get("CI"), "CI has to install chromium"
        pytest.skip("no browser: apt-get install chromium")

    def wrap(flags: str = "") -> str:
        path = tmp_path / "browser"
        path.write_text(f'#!/bin/sh\nexec {program} {flags} "$@"\n')
        path.chmod(0o755)
        return str(path)

    return wrap


def _bench(artifact: Path, *arguments: str) -> int:
    return main(["bench", str(artifact), "--on", "browser", "--rounds", "1", "--seconds", "2", "--json", *arguments])


def test_a_right_artifact_is_verified_and_measured(tflite, wrapped, capsys) -> None:
    assert main(["verify", str(tflite), "--on", "browser", "--browser", wrapped()]) == 0
    assert "verified with litert_js 2.5.3 in " in capsys.readouterr().out
    assert _bench(tflite, "--browser", wrapped()) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["status"], row["runtime"], row["host"], row["threads"]) == ("ok", "litert_js", "browser", 1)
    assert row["browser"]["isolated"] is True
    assert len(row["samples_ms"]) >= 130
    native = main(["bench", str(tflite), "--rounds", "1", "--seconds", "1", "--json"])
    (here,) = json.loads(capsys.readouterr().out)
    assert native == 0
    assert (row["top"], row["input"]) == (here["top"], here["input"])  # the same bytes, the same answers
    assert row["model_sha256"] == here["model_sha256"] != ""


def test_changed_bytes_end_with_the_proofs_status(tflite, wrapped, changed, capsys) -> None:
    name = Artifact.open(tflite).manifest.model
    content = bytearray((tflite / name).read_bytes())
    content[-20] ^= 1
    broken = changed(tflite, {name: bytes(content)})
    assert main(["verify", str(broken), "--on", "browser", "--browser", wrapped()]) == 6
    assert f"{name} has changed since the artifact was made" in capsys.readouterr().err
    assert _bench(broken, "--browser", wrapped()) == 6
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["error"], row["samples_ms"]) == ("proof", [])


def test_garbage_from_the_second_inference_ends_with_the_proofs_status(tflite, wrapped, changed, capsys) -> None:
    assert _bench(garbage_from(tflite, 5, changed), "--browser", wrapped()) == 6
    assert "from the second inference on" in json.loads(capsys.readouterr().out)[0]["message"]


def test_the_host_judges_too_what_the_page_lets_pass(tflite, wrapped, changed, capsys) -> None:
    judge = "  judge(given) {\n"
    source = (tflite / "page/selfcheck.js").read_text()
    assert judge in source
    blind = source.replace(judge, f"{judge}    return {{ passed: true, metrics: {{}}, message: 'blind' }};\n")
    page = changed(garbage_from(tflite, 1, changed), {"page/selfcheck.js": blind.encode()}, is_signed=True)
    assert main(["verify", str(page), "--on", "browser", "--browser", wrapped()]) == 6
    assert "fails verification with litert_js" in capsys.readouterr().err


def test_without_a_browser_or_simd_it_ends_with_the_engines_status(tflite, wrapped, monkeypatch, capsys) -> None:
    assert main(["verify", str(tflite), "--on", "browser", "--browser", wrapped(NO_SIMD)]) == 4
    assert "This browser has no WebAssembly SIMD" in capsys.readouterr().err
    assert main(["verify", str(tflite), "--on", "browser", "--browser", "/no/browser"]) == 4
    assert "/no/browser is not a program" in capsys.readouterr().err
    monkeypatch.setattr("edge.web.chromium.shutil.which", lambda _name: None)
    with pytest.raises(Exception, match="there is no Chromium or Chrome on this machine"):
        run_page(Artifact.open(tflite), PageJob(kind="verify"))


def test_without_shared_memory_it_runs_on_one_thread_and_says_so(tflite, wrapped) -> None:
    job = PageJob(kind="verify", device="cpu", threads=2)
    answer = run_page(Artifact.open(tflite), job, browser=wrapped(), isolated=False)
    assert answer["threads"] == 1
    assert "SharedArrayBuffer" in answer["browser"]["fallbacks"][0]


def test_a_lost_webgpu_device_falls_back_and_is_a_finding(tflite, wrapped, changed, capsys) -> None:
    core = (tflite / "engine/litert_js/core.js").read_bytes()
    files = {"engine/litert_js/core.js": LOST.encode(), "engine/litert_js/real.js": core}
    artifact = changed(tflite, files, is_signed=True)
    assert _bench(artifact, "--browser", wrapped("--enable-unsafe-webgpu"), "--device", "webgpu") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["device"] == "cpu"
    assert row["browser"]["fallbacks"] == ["The WebGPU device was lost (unknown)."]
    assert any("WebGPU device was lost" in finding["what"] for finding in row["findings"])


def test_an_artifact_for_something_else_is_refused_with_the_command(capsys) -> None:
    native = Path(__file__).parents[2] / "compatibility/artifacts/tflite-int8"
    for command in (
        ["verify", str(native), "--on", "browser"],
        ["bench", str(native), "--on", "browser"],
        ["web", str(native)],
    ):
        assert main(command) == 3
        assert "edge convert" in capsys.readouterr().err
