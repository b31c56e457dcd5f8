"""The page of a browser artifact: read what it shows, and use it."""

from __future__ import annotations


class Page:
    """An open page; `script` runs before the scripts of the page."""

    def __init__(self, driver, until, address: str, script: str = "") -> None:
        self.driver = driver
        self.until = until
        self._script = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        try:
            driver.get(address)
            until(lambda: driver.execute_script("return document.documentElement.dataset.state"))
        finally:
            driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", self._script)

    def find(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    @property
    def state(self) -> str:
        return self.find("#verdict").get_attribute("data-state")

    def complaints(self) -> list[str]:
        """What the browser logged, but for the engine's own chatter."""
        logged = [entry["message"] for entry in self.driver.get_log("browser")]
        return [text for text in logged if "/engine/" not in text and "No available adapters" not in text]
