"""The folder for a browser: its files, the requests that are refused, and that it loads nothing from elsewhere."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from converters.browser.engines import LITERT_JS, ORT_WEB
from converters.browser.folder import BrowserOptions, builds_of, check_builds, check_tensors, notes_of
from converters.options import ConvertOptions
from converters.tflite.reader import read_tflite
from converters.tflite_to_browser import TfliteToBrowser
from runtimes.artifact import TensorSpec
from runtimes.errors import RefusedError, UsageError
from tests.npm import need_engines

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "converters" / "browser" / "page"
TINY = ROOT / "tests" / "compatibility" / "artifacts" / "tflite-int8" / "tiny.tflite"


def test_it_holds_the_model_the_page_the_engine_and_its_license(tmp_path: Path) -> None:
    need_engines()
    made = TfliteToBrowser().convert(TINY, tmp_path, ConvertOptions(precision="int8"), None)
    assert made.model.read_bytes() == TINY.read_bytes()
    assert (made.format, dict(made.facts)) == (
        "tflite",
        {"browser": {"engine": "litert_js", "version": "2.5.3", "builds": ["single", "threads", "webgpu"]}},
    )
    pages = {path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()}
    at_root = {"index.html", "service-worker.js"}
    for name in pages:
        assert (tmp_path / (name if name in at_root else f"page/{name}")).is_file()
    engine = tmp_path / "engine" / "litert_js"
    assert gzip.decompress((engine / "litert_wasm_internal.wasm.bin").read_bytes())[:4] == b"\0asm"
    assert sum(path.stat().st_size for path in engine.iterdir()) == pytest.approx(
        LITERT_JS.size(made.facts["browser"]["builds"]), rel=0.02
    )
    assert "Apache License" in (tmp_path / "LICENSES.txt").read_text()


def test_the_page_names_no_host_and_its_policy_allows_none() -> None:
    for path in PAGE.rglob("*"):
        if path.is_file():
            assert not re.search(r"https?://|//[a-z]+\.[a-z]", path.read_text(encoding="utf-8")), path
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    (inline,) = re.findall(r'<script type="importmap">(.*?)</script>', html)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'self' 'wasm-unsafe-eval' 'sha256-{digest}'"
    assert rules["connect-src"] == rules["style-src"] == "'self'"


def test_options_add_builds_and_the_plan_tells_their_sizes() -> None:
    both = BrowserOptions(compat=True, webgpu=True)
    assert builds_of(LITERT_JS, both) == ("single", "threads", "webgpu", "compat")
    assert builds_of(ORT_WEB, ConvertOptions()) == ("wasm",)
    assert builds_of(ORT_WEB, BrowserOptions(webgpu=True)) == ("wasm", "webgpu")
    with pytest.raises(UsageError, match="--compat does not apply to ONNX Runtime Web"):
        check_builds(ORT_WEB, both)
    engine, size = notes_of(LITERT_JS, ConvertOptions())
    assert engine.startswith("engine: LiteRT.js 2.5.3, because ")
    assert size.startswith("size: 9.6 MB for the engine (single 3.2 MB, threads 3.2 MB, webgpu 3.3 MB; ")


def test_a_dtype_that_the_engine_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(RefusedError, match=r"LiteRT\.js does not take int8, which 'x' of m\.tflite is") as caught:
        check_tensors(LITERT_JS, [TensorSpec("x", "int8", (1, 3))], Path("m.tflite"))
    assert "uint8" in caught.value.hint


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from converters.onnx_to_browser import OnnxToBrowser

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.ones(3, np.float32), "w")
    tensors = [helper.make_tensor_value_info(name, kind, [3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", tensors[:1], tensors[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    place, out = tmp_path / "m.onnx", tmp_path / "out"
    out.mkdir()
    onnx.save_model(model, place, save_as_external_data=True, location="m.data", size_threshold=0)
    with pytest.raises(RefusedError, match=r"the weights of m\.onnx are in other files"):
        OnnxToBrowser().convert(place, out, ConvertOptions(precision="fp32"), None)


def test_a_state_in_a_variable_tensor_is_refused_with_its_operator(data: Path, tmp_path: Path) -> None:
    model = data / "edgetpu" / "keras_lstm_mnist_ptq.tflite"
    with pytest.raises(RefusedError, match=r"UNIDIRECTIONAL_SEQUENCE_LSTM keeps its state in a variable tensor"):
        TfliteToBrowser().convert(model, tmp_path, ConvertOptions(precision="int8"), None)


def test_free_sizes_become_those_in_the_file(data: Path, tmp_path: Path) -> None:
    need_engines()
    model = data / "real" / "edgetpu" / "dense_256.tflite"
    assert read_tflite(model).graphs[0].tensors[0].spec.shape == ("d0", 256)
    made = TfliteToBrowser().convert(model, tmp_path, ConvertOptions(precision="int8"), None).model
    graph = read_tflite(made).graphs[0]
    assert [spec.shape for spec in graph.specs((*graph.inputs, *graph.outputs))] == [(1, 256), (1, 256)]
