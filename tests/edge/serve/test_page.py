"""The chat page in a real browser."""

import json

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.edge.serve.page import Page

HOSTILE = """<img src=x onerror="document.title='hacked'"> <script>document.title='hacked'</script>
[click](javascript:document.title='hacked') ![picture](https://attacker.example/p.png) [fine](https://example.org/a)
**bold <b>not bold</b>** `<i>code</i>`"""


def test_a_chat_with_the_real_model(driver, real, until) -> None:
    page = Page(driver, until, real.address)
    page.find("#settings-open").click()
    for field, value in (("#set-temperature", "0"), ("#set-max_tokens", "30")):
        page.find(field).send_keys(value)
    page.find("#settings-close").click()
    assert page.ask("Once upon a time").startswith(", there was a little girl named Lily.")
    assert "tok/s" in page.find("article.assistant .numbers").text
    assert "/ 512" in page.find("#meter-text").text
    begun = page.answers()[0]
    page.press("Continue")
    page.until(lambda: len(page.answers()[0]) > len(begun) and page.is_idle())
    assert page.answers()[0].startswith(begun)
    assert page.answers()[0].count("little girl named Lily") == 1
    assert page.complaints() == []


def test_answers_stream_and_escape_stops_them(page, until) -> None:
    page.write("pause 0.05")
    first = until(lambda: page.answers() and page.answers()[-1].startswith("1 2") and page.answers()[-1])
    until(lambda: len(page.answers()[-1]) > len(first))
    assert not page.is_idle()
    page.find("#input").send_keys(Keys.ESCAPE)
    until(page.is_idle)
    assert page.find("article.assistant .note").text == "Stopped."
    page.write("pause 0.05")
    until(lambda: len(page.answers()) == 2 and page.answers()[-1].startswith("1 2"))
    page.find("#stop").click()
    until(page.is_idle)
    assert page.ask("say well") == "well"


def test_enter_sends_and_shift_enter_does_not(page) -> None:
    page.find("#input").send_keys("say a", Keys.SHIFT, Keys.ENTER, Keys.NULL, "b")
    assert page.find("#input").get_attribute("value") == "say a\nb"
    page.find("#input").send_keys(Keys.ENTER)
    page.until(lambda: page.answers() == ["a\nb"] and page.is_idle())


def test_an_answer_can_be_asked_for_again_and_a_question_edited(page) -> None:
    page.ask("say one")
    page.ask("say two")
    page.press("Answer again")
    page.until(lambda: page.answers() == ["one", "two"] and page.is_idle())
    page.press("Edit and ask again", last=False)
    area = page.find("article .edit textarea")
    area.send_keys(Keys.CONTROL, "a", Keys.NULL, "say three", Keys.ENTER)
    page.until(lambda: page.answers() == ["three"] and page.is_idle())
    assert page.texts("article.user .text") == ["say three"]


def test_chats_outlive_a_reload_and_can_be_renamed_and_deleted(page, until) -> None:
    page.ask("say first")
    page.find("#new").click()
    page.ask("say second")
    page.driver.refresh()
    until(lambda: page.answers() == ["second"])
    names = lambda: page.texts("#chats .open")  # noqa: E731
    assert names() == ["say second", "say first"]
    page.press("Rename say first")
    page.find("#chats input").send_keys(Keys.CONTROL, "a", Keys.NULL, "Mine", Keys.ENTER)
    until(lambda: names() == ["say second", "Mine"])
    page.press("Delete say second")
    until(lambda: names() == ["Mine"])
    page.find("#notice button").click()
    until(lambda: names() == ["say second", "Mine"])
    page.all("#chats .open")[1].click()
    until(lambda: page.answers() == ["first"])


def test_what_a_model_writes_is_never_html(page) -> None:
    page.ask("say " + HOSTILE.replace("\n", " "))
    text = page.find("article.assistant .text")
    assert "<script>document.title='hacked'</script>" in text.text
    assert [found.text for found in text.find_elements(By.TAG_NAME, "strong")] == ["bold <b>not bold</b>"]
    assert text.find_elements(By.CSS_SELECTOR, "img, script, b, i") == []
    links = [found.get_attribute("href") for found in text.find_elements(By.TAG_NAME, "a")]
    assert links == ["https://attacker.example/p.png", "https://example.org/a"]
    assert "[click](javascript:document.title='hacked')" in text.text  # what is no link stays as it was written
    assert "hacked" not in page.driver.title
    assert page.complaints() == []


def test_markdown_becomes_elements(page, tmp_path) -> None:
    written = (
        "# Title\n\nA *short* **text**\nwith a break, 2**10 and 3**4.\n\n- one\n  - inner\n- two\n\n"
        "1. first\n2. second\n\n"
        "| a | b |\n|---|--:|\n| 1 | 2 |\n\n```python\nx = '<b>'  # *as it is*\n```\n> quoted\n\n---\n"
    )
    chats = [{"title": "<b>x</b>", "messages": [{"role": "assistant", "content": written}, {"role": "evil"}, None]}]
    (tmp_path / "chats.json").write_text(json.dumps({"chats": [*chats, None, {"messages": 5}]}))
    page.find("#file").send_keys(str(tmp_path / "chats.json"))
    page.until(lambda: page.all("article.assistant h1"))
    assert page.find("#chats .open").text == "<b>x</b>"
    count = lambda selector: len(page.all(f"article.assistant {selector}"))  # noqa: E731
    assert (count("em"), count("strong"), count("p br"), count("ul ul li"), count("ol li")) == (1, 1, 1, 1, 2)
    assert (count("td.to-right"), count("blockquote"), count("hr")) == (1, 1, 1)
    assert page.find("article.assistant pre code").text == "x = '<b>'  # *as it is*"
    assert page.complaints() == []


def test_errors_are_reported_where_the_answer_would_be(page) -> None:
    page.write("die")
    page.until(lambda: page.all("article.assistant .bad"))
    assert "process has ended" in page.find("article.assistant .bad").text
    assert page.ask("say alive") == "alive"


def test_a_phone_has_room_for_everything_by_day_and_night(browser, scripted, until) -> None:
    page = Page(browser(390, 844, touch=True), until, scripted.address)
    page.find("#input").send_keys("say " + "a_very_long_word_" * 20)
    page.find("#send").click()
    until(lambda: page.answers() and page.is_idle())
    width, content = page.driver.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert (width, content) == (390, 390)
    sizes = [page.find(one).size for one in ("#send", "#side-open", "#settings-open", "#theme")]
    assert all(min(size["width"], size["height"]) >= 44 for size in sizes)
    page.find("#side-open").click()
    until(lambda: page.find("#new").is_displayed())
    for scheme, is_dark in (("light", False), ("dark", True)):
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
        until(
            lambda scheme=scheme: page.driver.execute_script("return document.documentElement.dataset.theme") == scheme
        )
        background = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 200) == is_dark


def test_the_switch_outweighs_the_system_and_is_kept(page, until) -> None:
    page.find("#theme").click()
    assert page.driver.execute_script("return document.documentElement.dataset.theme") == "dark"
    page.driver.refresh()
    assert page.driver.execute_script("return document.documentElement.dataset.theme") == "dark"


def test_the_key_is_asked_for_once_or_comes_with_the_link(driver, start_scripted, until) -> None:
    server = start_scripted(key="correct-horse")
    driver.get(server.address)
    until(lambda: driver.find_element(By.ID, "ask-key").is_displayed())
    driver.find_element(By.ID, "key").send_keys("correct-horse", Keys.ENTER)
    until(lambda: driver.find_element(By.ID, "model").text == "scripted")
    driver.refresh()
    until(lambda: driver.find_element(By.ID, "model").text == "scripted")
    driver.execute_script("localStorage.clear()")
    driver.get("about:blank")
    page = Page(driver, until, f"{server.address}/#key=correct-horse")
    assert page.find("#model").text == "scripted"
    assert "key" not in driver.current_url
    assert page.ask("say let in") == "let in"
