"""A thousand inferences in the page: the same answers from the first to the last, and memory that does not grow."""

from __future__ import annotations

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from tests.edge.web.stand_ins import garbage_from

# Keeps every memory of WebAssembly in sight: it never shrinks, and grows where something is not freed.
MEMORIES = """
self.memories = new Set();
const { instantiate, Memory } = WebAssembly;
WebAssembly.Memory = new Proxy(Memory, {
  construct(target, given) {
    const memory = Reflect.construct(target, given);
    memories.add(memory);
    return memory;
  },
});
WebAssembly.instantiate = async (...given) => {
  const found = await instantiate(...given);
  for (const one of Object.values((found.instance ?? found).exports)) if (one instanceof Memory) memories.add(one);
  return found;
};
"""
# Opens the model as the page does, without the page's own view of it.
OPEN = """
const done = arguments[0];
const engine = "./engine/litert_js/";
const map = document.createElement("script");
map.type = "importmap";
map.textContent = JSON.stringify({
  imports: { "@litertjs/core": `${engine}core.js`, "@litertjs/wasm-utils": `${engine}wasm-utils.js` },
});
document.head.append(map);
(async () => {
  const { ProvenModel } = await import("./page/backends.js");
  const { detectFeatures } = await import("./page/features.js");
  const manifest = await (await fetch("manifest.json")).json();
  self.model = await ProvenModel.open(manifest, await detectFeatures());
  self.first = [];
})().then(() => done(""), (error) => done(String(error)));
"""
# How many of `arguments[0]` inferences answer otherwise than the first on the same input.
RUN = """
const [count, done] = arguments;
(async () => {
  let changed = 0;
  for (let run = 0; run < count; run++) {
    const sample = run % model.selfCheck.count;
    const answer = (await model.run(model.selfCheck.feeds(sample))).map((values) => values.join());
    first[sample] ??= answer;
    if (answer.some((values, place) => values !== first[sample][place])) changed += 1;
  }
  return changed;
})().then(done, (error) => done(String(error)));
"""
GROWTH_BYTES = 1_000_000
RUNS = 1000


def _memory(driver) -> tuple[int, int]:
    """Return the bytes that JavaScript uses, and those of WebAssembly."""
    driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    (heap,) = (one["value"] for one in metrics if one["name"] == "JSHeapUsedSize")
    wasm = driver.execute_script("return [...memories].reduce((sum, { buffer }) => sum + buffer.byteLength, 0)")
    return int(heap), int(wasm)


def _long_run(driver, address: str) -> tuple[int, int, int]:
    """Return how many answers changed, and by how many bytes JavaScript's memory and WebAssembly's grew."""
    driver.execute_cdp_cmd("Performance.enable", {})
    script = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": MEMORIES})
    try:
        driver.get(f"{address}LICENSES.txt")
        assert driver.execute_async_script(OPEN) == ""
        assert driver.execute_async_script(RUN, 100) == 0
        before = _memory(driver)
        changed = driver.execute_async_script(RUN, RUNS)
        after = _memory(driver)
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    assert before[1] > 0
    return changed, after[0] - before[0], after[1] - before[1]


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_a_thousand_inferences_answer_alike_and_leave_nothing_behind(kind, driver, serve, request) -> None:
    changed, heap, wasm = _long_run(driver, serve(request.getfixturevalue(kind)))
    assert (changed, wasm) == (0, 0)
    assert heap < GROWTH_BYTES


LEAKS = {
    "in JavaScript": "(self.kept ??= []).push(new Array(1000).fill(0.5));",
    "in WebAssembly": "(self.kept ??= []).push(new this.library.Tensor(new Float32Array(50000), [50000]));",
}


@pytest.mark.parametrize("place", LEAKS)
def test_a_leak_is_seen(place, driver, serve, tflite, changed) -> None:
    module = "page/engines/litert_js.js"
    start = "  async run(feeds) {\n"
    source = (tflite / module).read_text()
    assert source.count(start) == 1
    leaking = changed(tflite, {module: source.replace(start, start + LEAKS[place]).encode()})
    _, heap, wasm = _long_run(driver, serve(leaking))
    assert (heap if place == "in JavaScript" else wasm) > GROWTH_BYTES


def test_an_answer_that_changes_late_is_seen(driver, serve, tflite, changed) -> None:
    found, _, _ = _long_run(driver, serve(garbage_from(tflite, 500, changed)))
    assert found > 0
