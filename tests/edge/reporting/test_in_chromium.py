"""The page in Chromium: nothing is wider than a screen or a phone, and the picture has the figure's size."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import edge
from edge.cli import main
from tests.edge.reporting.examples import table_document

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def driver() -> Iterator[object]:
    webdriver = pytest.importorskip("selenium.webdriver")
    if shutil.which("chromedriver") is None:
        pytest.skip("needs Debian's chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(word)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    found = webdriver.Chrome(options=options, service=service)
    yield found
    found.quit()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(width: int, driver, tmp_path: Path) -> None:
    source = tmp_path / "t.json"
    source.write_text(json.dumps(table_document()))
    page = tmp_path / "page.html"
    page.write_text(edge.report([source]).html, encoding="utf-8")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(page.as_uri())
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    shown = driver.execute_script(
        "return [...document.querySelectorAll('figure svg')].filter(one => one.getBoundingClientRect().width > 0)"
        ".map(one => [one.getBoundingClientRect().width, one.viewBox.baseVal.width])"
    )
    assert len(shown) == len(driver.find_elements("css selector", "figure"))
    for drawn, designed in shown:
        assert drawn > 0.9 * designed  # its text has the size that it was designed with
    beside = driver.execute_script(
        "return [...document.querySelectorAll('figure svg text')].filter(one => one.getBoundingClientRect().width > 0)"
        ".filter(one => { const box = one.getBoundingClientRect(), all = one.ownerSVGElement.getBoundingClientRect();"
        "return box.left < all.left - 1 || box.right > all.right + 1; }).map(one => one.textContent)"
    )
    assert beside == []


def test_the_picture_is_the_figure_of_latencies(tmp_path: Path) -> None:
    source, target = tmp_path / "t.json", tmp_path / "t.png"
    source.write_text(json.dumps(table_document(measured=2)))
    found = edge.report([source])
    assert main(["report", str(source), "--out", str(tmp_path / "t.html"), "--png", str(target)]) == 0
    header = target.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert found.picture is not None
    assert "published: mean of a loop" in found.picture[0]  # without it nobody knows what the marks mean
    assert struct.unpack(">II", header[16:24]) == (2 * found.picture[1], 2 * found.picture[2])
