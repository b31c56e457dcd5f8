"""The chat page in a browser, by what a person sees and does."""

from __future__ import annotations

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys


class Page:
    """The page at `address`, once the model's name is shown."""

    def __init__(self, driver, until, address: str) -> None:
        self.driver = driver
        self.until = until
        driver.get("about:blank")
        driver.get_log("browser")  # of the page before, which another test may have been refused by its server
        driver.get(address)
        until(lambda: self.texts("#model") not in (["edge chat"], ["not connected"]))

    def find(self, selector: str):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def write(self, text: str) -> None:
        self.find("#input").send_keys(text, Keys.ENTER)

    def ask(self, text: str) -> str:
        count = len(self.answers())
        self.write(text)
        self.until(lambda: len(self.answers()) == count + 1 and self.is_idle())
        return self.answers()[-1]

    def texts(self, selector: str) -> list[str]:
        """What is read there, all at one moment: the page may redraw between two questions."""
        script = "return [...document.querySelectorAll(arguments[0])].map((found) => found.innerText.trim())"
        return self.driver.execute_script(script, selector)

    def answers(self) -> list[str]:
        return self.texts("article.assistant .text")

    def is_idle(self) -> bool:
        return self.find("#send").is_displayed()

    def press(self, label: str, last: bool = True) -> None:
        button = self.all(f"[aria-label='{label}']")[-1 if last else 0]
        self.driver.execute_script("arguments[0].click()", button)  # some are seen on hovering only

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
