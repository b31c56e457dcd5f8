"""The page of a browser artifact in a real browser: it proves its answers, runs pictures, and reports problems."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")

import edge
from converters.browser.folder import BrowserOptions
from edge.benchmark.rows import Row
from edge.inference.images import load_pixels
from runtimes.artifact import Artifact, Preprocess
from runtimes.artifact.json_fields import Fields
from runtimes.tensors import pixels_to_input
from tests.edge.web.page import Page
from tests.edge.web.stand_ins import garbage_from
from tests.npm import need_engines

# Without relaxed SIMD, and without any: `validate` is what the page asks.
NO_RELAXED_SIMD = """
const validate = WebAssembly.validate;
WebAssembly.validate = (bytes) => !bytes.includes(128) && validate(bytes);
"""
NO_SIMD = "WebAssembly.validate = () => false;"


def _picture(path: Path, size: tuple[int, int] = (90, 60)) -> Path:
    from PIL import Image

    pixels = np.random.default_rng(4).integers(0, 256, (*reversed(size), 3)).astype(np.uint8)
    Image.fromarray(pixels).resize((size[0] * 3, size[1] * 3)).save(path)
    return path


@pytest.mark.parametrize(("kind", "engine"), [("tflite", "LiteRT.js"), ("onnx", "ONNX Runtime Web")])
def test_it_proves_itself_and_answers_a_picture_as_the_host_does(kind, engine, page, serve, request, tmp_path) -> None:
    artifact = request.getfixturevalue(kind)
    opened = page(serve(artifact))
    assert opened.state == "passed", opened.text("main")
    assert engine in opened.text("#facts")
    opened.until(lambda: opened.find("#verdict").get_attribute("data-inferences") == "100")
    assert "first, second and 100th inference" in opened.text("#headline")
    picture = _picture(tmp_path / "picture.png")
    opened.find("#file").send_keys(str(picture))
    opened.until(lambda: opened.text("#result"))
    (expected,) = edge.run(artifact, [picture])
    best = expected.result.classes[0]
    shown = opened.text("#result").splitlines()
    assert shown[:2] == [best.label or f"class {best.index}", f"{100 * best.probability:.1f} %"]
    assert opened.complaints() == []


def test_a_picture_does_not_wait_for_the_100th_inference(page, serve, tflite, tmp_path) -> None:
    opened = page(serve(tflite), "self.requestIdleCallback = () => {};")  # a browser that is never idle
    opened.find("#file").send_keys(str(_picture(tmp_path / "picture.png")))
    opened.until(lambda: opened.text("#result"))
    assert opened.find("#verdict").get_attribute("data-inferences") is None


def test_a_changed_script_of_the_engine_is_found(page, serve, tflite, onnx, changed) -> None:
    for artifact, name in ((tflite, "engine/litert_js/core.js"), (onnx, "engine/ort_web/ort.wasm.min.js")):
        content = (artifact / name).read_bytes() + b"\n"
        opened = page(serve(changed(artifact, {name: content})))
        assert opened.state == "failed"
        assert f"{name} has changed since the artifact was made" in opened.text("#headline")


def test_a_measurement_is_exported_as_a_row_of_the_benchmark(page, serve, tflite) -> None:
    opened = page(serve(tflite))
    opened.driver.execute_script("URL.createObjectURL = (blob) => { window.saved = blob.text(); return '#'; }")
    opened.find("#run-measure").click()
    opened.until(lambda: opened.find("#export").is_displayed())
    opened.find("#export").click()
    saved = opened.driver.execute_async_script("window.saved.then(arguments[0])")
    row = Row.from_json(Fields(json.loads(saved)[0], "saved"))
    assert (row.runtime, row.precision, row.device) == ("litert_js", "int8", "cpu")
    assert len(row.samples_ms) >= 130
    assert row.median_ms == pytest.approx(np.median(row.samples_ms))
    assert f"{row.median_ms:.2f} ms" in opened.text("#row")


def test_a_changed_byte_is_found(page, serve, tflite, changed) -> None:
    name = Artifact.open(tflite).manifest.model
    content = bytearray((tflite / name).read_bytes())
    content[-20] ^= 1
    opened = page(serve(changed(tflite, {name: bytes(content)})))
    assert opened.state == "failed"
    assert f"{name} has changed since the artifact was made" in opened.text("#headline")
    assert not opened.find("#try").is_displayed()


def test_a_changed_answer_is_found(page, serve, tflite, changed, tmp_path) -> None:
    with np.load(tflite / "selfcheck.npz") as stored:
        arrays = dict(stored)
    arrays = {name: values[..., ::-1] if name.startswith("output:") else values for name, values in arrays.items()}
    np.savez_compressed(tmp_path / "changed.npz", **arrays)
    opened = page(serve(changed(tflite, {"selfcheck.npz": (tmp_path / "changed.npz").read_bytes()}, is_signed=True)))
    assert opened.state == "failed"
    assert opened.text("#headline").startswith("Proof failed. The answers on the CPU")


@pytest.mark.parametrize(
    ("inference", "words"), [(5, "from the second inference on"), (50, "from the 100th inference on")]
)
def test_an_engine_that_is_right_at_first_only_is_found(inference, words, page, serve, tflite, changed) -> None:
    opened = page(serve(garbage_from(tflite, inference, changed)))
    opened.until(lambda: opened.state == "failed")
    assert words in opened.text("#headline")
    assert not opened.find("#measure").is_displayed()


def test_without_simd_it_says_so(page, serve, tflite, onnx) -> None:
    opened = page(serve(tflite), NO_SIMD)
    assert opened.state == "failed"
    assert "This browser has no WebAssembly SIMD" in opened.text("#headline")
    opened = page(serve(tflite), NO_RELAXED_SIMD)
    assert "no WebAssembly relaxed SIMD" in opened.text("#headline")
    assert "--compat" in opened.text("#detail")
    assert page(serve(onnx), NO_RELAXED_SIMD).state == "passed"


def test_the_build_for_other_browsers_runs_without_relaxed_simd(page, serve, tmp_path) -> None:
    need_engines()
    source = Path(__file__).parents[2] / "compatibility/artifacts/tflite-int8"
    made = edge.convert(source, tmp_path / "compat", device="browser", options=BrowserOptions(compat=True))
    opened = page(serve(made.artifact), NO_RELAXED_SIMD)
    assert opened.state == "passed", opened.text("main")


def test_threads_are_used_where_the_server_allows_them_and_given_up_with_a_word_where_not(page, serve, onnx) -> None:
    cores = "Object.defineProperty(navigator, 'hardwareConcurrency', { get: () => 4 });"
    assert "the CPU with 2 threads" in page(serve(onnx), cores).text("#headline")
    opened = page(serve(onnx, isolated=False), cores + "delete Navigator.prototype.serviceWorker;")
    assert "the CPU with 1 thread" in opened.text("#headline")
    assert "headers for SharedArrayBuffer" in opened.text("#notes")


def test_the_service_worker_allows_threads_where_the_server_does_not(browser, until, serve, tflite) -> None:
    driver = browser()
    cores = "Object.defineProperty(navigator, 'hardwareConcurrency', { get: () => 4 });"
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": cores})
    opened = Page(driver, until, serve(tflite, isolated=False))
    until(lambda: "2 threads" in opened.text("#headline"))
    assert driver.execute_script("return crossOriginIsolated") is True


def test_pixels_are_those_of_the_host(page, serve, tflite, tmp_path) -> None:
    opened = page(serve(tflite))
    spec = Artifact.open(tflite).manifest.inputs[0]
    ask = """
        const [rule, spec, bytes, done] = arguments;
        import("./page/preprocess.js").then(async (found) => {
          const picture = await found.decodePicture(new Blob([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))]));
          done([...found.toInput(found.fitPicture(picture, rule), spec, rule).data]);
        }).catch((error) => done(String(error)));
    """
    for place, (resize, method, size, color) in enumerate(
        [
            ("shorter_side", "bilinear", (91, 60), "BGR"),
            ("shorter_side", "bicubic", (40, 133), "BGR"),
            ("stretch", "nearest", (57, 83), "BGR"),
            ("stretch", "bilinear", (11, 9), "GRAY"),
        ]
    ):
        picture = _picture(tmp_path / f"{place}.png", size)
        rule = {"resize": resize, "size": 24, "crop": [20, 16], "method": method, "layout": "NHWC", "color": color}
        rule |= {"mean": [0.0, 1.0, 2.0], "scale": [1.0, 1.0, 1.0]}
        told = {
            "name": spec.name,
            "dtype": "float32",
            "shape": [1, 20, 16, 1 if color == "GRAY" else 3],
            "quantization": None,
        }
        content = base64.b64encode(picture.read_bytes()).decode()
        found = opened.driver.execute_async_script(ask, rule, told, content)
        preprocess = Preprocess.read(Fields(rule, "rule"))
        pixels = load_pixels(picture, preprocess)
        expected = pixels_to_input(pixels, type(spec)("x", "float32", tuple(told["shape"])), preprocess)
        assert found == expected.reshape(-1).tolist(), (resize, method)


def test_it_is_usable_on_a_phone_and_by_its_names(browser, until, serve, tflite) -> None:
    opened = Page(browser(360, 740, touch=True), until, serve(tflite))
    until(lambda: opened.find("#measure").is_displayed())
    assert opened.driver.execute_script("return document.documentElement.scrollWidth") <= 360
    names = [one.accessible_name for one in opened.driver.find_elements("css selector", "button, input")]
    assert [name for name in names if name] == ["Choose or drop a picture", "Use the camera", "Measure the latency"]
    assert opened.find("#verdict").get_attribute("role") == "status"
