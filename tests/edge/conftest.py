"""A small ONNX classifier, a browser, and a wait for a condition."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.converters.conftest import write_classifier

_BROWSER_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip

# If a shell starts the tests in the background, they and all programs that they start ignore Ctrl+C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def classifier(tmp_path) -> Path:
    """`classifier.onnx`: a dense softmax classifier of pictures, [1, 4, 4, 3] → [1, 5], opset 13."""
    return write_classifier(tmp_path / "classifier.onnx")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    """Return a function that opens headless Chromium: `browser(390, 844, touch=True)`."""
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (program and driver):
        assert not os.environ.get("CI"), "CI has to install chromium and chromium-driver"
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    with ExitStack() as stack:

        def open_page(width: int = 1280, height: int = 850, *, touch: bool = False):
            options = webdriver.ChromeOptions()
            options.binary_location = program
            options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
            profile = tmp_path_factory.mktemp("profile")
            for flag in (*_BROWSER_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
                options.add_argument(flag)
            if touch:
                metrics = {"width": width, "height": height, "pixelRatio": 2, "touch": True}
                options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
            found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
            stack.callback(found.quit)
            scheme = {"name": "prefers-color-scheme", "value": "light"}
            found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            return found

        yield open_page


def _wait_until(condition: Callable[[], object], seconds: float = 120) -> object:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


@pytest.fixture
def until() -> Callable[..., object]:
    return _wait_until
