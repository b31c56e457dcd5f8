"""How the page opens and proves a model: in node, with a stand-in engine that adds up its inputs."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[3] / "converters" / "browser" / "page"
# Answers the sum of all inputs since it was opened or reset.
ENGINE = """
import { readFile } from "../files.js";
export const buildFor = () => "single";
export const filesOf = () => ["engine/script.js", "engine/code.wasm.bin"];
export async function open(manifest) {
  for (const path of filesOf()) await readFile(manifest, path);
  let sum = 0;
  return {
    device: "cpu",
    threads: 1,
    lost: null,
    run: async ([{ data }]) => [Float32Array.of((sum += data[0]), 2 * sum)],
    reset: async () => void (sum = 0),
    close: async () => {},
  };
}
"""
OPEN = """
import fs from "node:fs";
const fetched = [];
globalThis.document = { baseURI: "http://host/" };
globalThis.fetch = async (url) => {
  const path = url.pathname.slice(1);
  fetched.push(path);
  return new Response(fs.readFileSync(`artifact/${path}`));
};
const { ProvenModel } = await import("./backends.js");
const features = { simd: true, relaxedSimd: true, isolated: true, jspi: false, cores: 1, gpu: null };
const manifest = JSON.parse(fs.readFileSync("artifact/manifest.json"));
const answer = {};
try {
  const model = await ProvenModel.open(manifest, features);
  await model.proveLongRun();
  Object.assign(answer, { message: model.verdict.message, proofs: model.proofs.length, inferences: model.inferences });
} catch (error) {
  Object.assign(answer, { branch: error.branch, message: error.message });
}
console.log(JSON.stringify({ ...answer, fetched }));
"""


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Opens the model, and returns what came of it: `opened(stateful=True, changed="selfcheck.npz", engine=text)`."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    folder = Path(shutil.copytree(PAGE, tmp_path / "page"))
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "open.js").write_text(OPEN)
    artifact = folder / "artifact"
    (artifact / "engine").mkdir(parents=True)
    inputs = np.float32([[1], [2], [4], [8]])

    def run(*, stateful: bool, changed: str = "", engine: str = ENGINE) -> dict[str, Any]:
        (folder / "engines" / "litert_js.js").write_text(engine)
        sums = np.cumsum(inputs, axis=0)
        arrays = {"input:x": inputs, "output:y": np.concatenate([sums, 2 * sums], axis=1)}
        np.savez(artifact / "selfcheck.npz", **arrays)
        (artifact / "m.tflite").write_bytes(b"model")
        (artifact / "engine/script.js").write_bytes(b"script")
        (artifact / "engine/code.wasm.bin").write_bytes(gzip.compress(b"code"))
        names = ("m.tflite", "selfcheck.npz", "engine/script.js", "engine/code.wasm.bin")
        digests = {name: hashlib.sha256((artifact / name).read_bytes()).hexdigest() for name in names}
        if changed:
            (artifact / changed).write_bytes((artifact / changed).read_bytes() + b"\n")
        spec = {"dtype": "float32", "quantization": None}
        manifest = {
            "precision": "fp32",
            "model": "m.tflite",
            "files": digests,
            "inputs": [{**spec, "name": "x", "shape": [1]}],
            "outputs": [{**spec, "name": "y", "shape": [2]}],
            "selfcheck": {"metric": "snr_db", "tolerance": 12, "outputs": [], "stateful": stateful},
            "conversion": {"browser": {"engine": "litert_js", "version": "1", "builds": ["single"]}},
        }
        (artifact / "manifest.json").write_text(json.dumps(manifest))
        done = subprocess.run(["node", "open.js"], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def test_a_model_that_keeps_a_state_is_proven_from_a_reset_state_each_time(opened) -> None:
    found = opened(stateful=True)
    assert found["message"] == "snr_db 200, at least 12"
    assert (found["proofs"], found["inferences"] >= 100) == (3, True)
    assert sorted(found["fetched"]) == sorted(set(found["fetched"]))  # each file once


@pytest.mark.parametrize(
    ("stateful", "engine"), [(False, ENGINE), (True, ENGINE.replace("void (sum = 0)", "undefined"))]
)
def test_a_state_that_is_not_reset_is_seen(stateful, engine, opened) -> None:
    found = opened(stateful=stateful, engine=engine)
    assert found["branch"] == "proof"
    assert "from the second inference on" in found["message"]


@pytest.mark.parametrize("name", ["m.tflite", "selfcheck.npz", "engine/script.js", "engine/code.wasm.bin"])
def test_a_changed_file_is_found_by_its_name(name, opened) -> None:
    found = opened(stateful=True, changed=name)
    assert found["branch"] == "proof"
    assert found["message"].startswith(f"{name} has changed since the artifact was made")
