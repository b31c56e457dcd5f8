"""What the page of a browser artifact costs beside LiteRT.js alone: `python -m tests.benchmarks.browser_page ARTIFACT`.

Both are measured in the same Chromium, in turn: the time from the address to the second inference (for the page, until
it is proven), each with an empty profile; and the median of a loop on one thread. LiteRT.js alone is a page of three
calls, and its WebAssembly is not packed.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edge.web.jobs import PageJob
from edge.web.server import Server
from runtimes.artifact import Artifact

RUNS = 300
MAX_OPENING_MS = 2000
MAX_RATIO = 1.05
BARE_HTML = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script type="importmap">
{"imports": {"@litertjs/core": "./core.js", "@litertjs/wasm-utils": "./wasm-utils.js"}}
</script>
<body><script type="module" src="bare.js"></script></body>
"""
BARE = """
import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
const arrays = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };
await loadLiteRt(new URL("litert_wasm_internal.js", document.baseURI).href, { threads: false });
const bytes = new Uint8Array(await (await fetch("model.tflite")).arrayBuffer());
const model = await loadAndCompile(bytes, { accelerator: "wasm", cpuOptions: { numThreads: 1 } });
const [{ dtype, shape }] = model.getInputDetails();
const data = new arrays[dtype]([...shape].reduce((a, b) => a * b, 1));
async function run() {
  const input = new Tensor(data.slice(), [...shape]);
  const outputs = await model.run([input]);
  for (const output of outputs) (await output.data()).slice();
  for (const tensor of [input, ...outputs]) if (!tensor.deleted) tensor.delete();
}
await run();
await run();
self.openedMs = performance.now();
self.loop = async (runs) => {
  const samples = [];
  for (let last = performance.now(); samples.length < runs; ) {
    await run();
    const now = performance.now();
    samples.push(now - last);
    last = now;
  }
  return samples;
};
"""
# When the page of the artifact is proven.
OPENED = """
new MutationObserver(() => {
  if (document.documentElement?.dataset.state) self.openedMs ??= performance.now();
}).observe(document, { subtree: true, attributes: true });
"""


def main() -> int:
    """Print both, round by round, and the ratios of their medians; status 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    artifact = Artifact.open(options.artifact)
    found: list[tuple[float, float, float, float]] = []
    with tempfile.TemporaryDirectory() as work, _serving(_bare_folder(artifact, Path(work))) as bare:
        for _ in range(options.rounds):
            found.append((*_bare(bare), *_page(artifact)))
            row = "alone: opened in {:.0f} ms, median {:.2f} ms; page: {:.0f} ms, {:.2f} ms"
            print(row.format(*found[-1]), flush=True)
    alone_opened, alone, opened, median = (statistics.median(column) for column in zip(*found, strict=True))
    print(f"opened: {opened:.0f} / {alone_opened:.0f} ms = {opened / alone_opened:.2f}")
    print(f"median: {median:.2f} / {alone:.2f} ms = {median / alone:.3f}")
    return 0 if opened <= MAX_OPENING_MS and median / alone <= MAX_RATIO else 1


def _bare_folder(artifact: Artifact, folder: Path) -> Path:
    engine = artifact.path / "engine" / "litert_js"
    for name in ("core.js", "wasm-utils.js", "litert_wasm_internal.js"):
        shutil.copy(engine / name, folder)
    packed = (engine / "litert_wasm_internal.wasm.bin").read_bytes()
    (folder / "litert_wasm_internal.wasm").write_bytes(gzip.decompress(packed))
    shutil.copy(artifact.model, folder / "model.tflite")
    (folder / "index.html").write_text(BARE_HTML)
    (folder / "bare.js").write_text(BARE)
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def _bare(address: str) -> tuple[float, float]:
    """Return when LiteRT.js alone has answered twice, and the median of its loop."""
    with _browser() as driver:
        driver.get(address)
        opened = _opened(driver)
        samples = driver.execute_async_script("loop(arguments[0]).then(arguments[1])", RUNS)
        return opened, statistics.median(samples)


def _page(artifact: Artifact) -> tuple[float, float]:
    """Return when the page is proven, and the median that it measures."""
    with _browser() as driver, Server(artifact) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.port}/"
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": OPENED})
        driver.get(address)
        opened = _opened(driver)
        job = PageJob(
            kind="measure", device="cpu", threads=1, protocol={"name": "published", "runs": RUNS, "pause_s": 0}
        )
        server.jobs = job
        driver.get(f"{address}?job={job.id}")
        while (message := job.messages.get(timeout=600))[0] != "answer":
            pass
        server.shutdown()
        answer: Any = message[1]
        return opened, statistics.median(answer["samples_ms"])


@contextmanager
def _browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in ("--headless=new", "--no-sandbox", "--no-first-run", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        driver.set_script_timeout(600)
        try:
            yield driver
        finally:
            driver.quit()


def _opened(driver: Any) -> float:
    wait = "const done = arguments[0]; (function look() { self.openedMs ? done(openedMs) : setTimeout(look, 20); })();"
    return float(driver.execute_async_script(wait))


if __name__ == "__main__":
    sys.exit(main())
