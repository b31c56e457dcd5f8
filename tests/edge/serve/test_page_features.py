"""What the page does with thoughts, tools, files, versions, searches, formulas and languages, in a real browser."""

import base64
import io
import json

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.edge.serve.page import Page

_DROP = """
const [files, done] = [JSON.parse(arguments[0]), arguments[1]];
const data = new DataTransfer();
for (const [name, type, bytes] of files) {
  data.items.add(new File([Uint8Array.from(atob(bytes), (sign) => sign.charCodeAt(0))], name, {type}));
}
for (const kind of ["dragover", "drop"]) {
  const event = new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
  document.querySelector("#log").dispatchEvent(event);
}
done();
"""
_TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def _drop(page: Page, *files: tuple[str, str, bytes]) -> None:
    coded = [(name, kind, base64.b64encode(content).decode()) for name, kind, content in files]
    page.driver.execute_async_script(_DROP, json.dumps(coded))


def _request(page: Page, text: str = "request") -> dict:
    """What the server gets when `text` is asked."""
    return json.loads(page.ask(text))


def _set(page: Page, **values: str) -> None:
    """Fill in the settings."""
    page.find("#settings-open").click()
    for name, value in values.items():
        field = page.find(f"#{name.replace('_', '-')}")
        if field.tag_name == "select":
            field.find_element(By.CSS_SELECTOR, f"option[value='{value}']").click()
        else:
            field.clear()
            field.send_keys(value)
    page.find("#settings-close").click()


def _import(page: Page, tmp_path, *chats: dict) -> None:
    (tmp_path / "chats.json").write_text(json.dumps({"chats": chats}), encoding="utf-8")
    page.find("#file").send_keys(str(tmp_path / "chats.json"))
    page.until(lambda: len(page.all("#chats .open")) >= len(chats))


def test_thoughts_are_folded_and_not_sent_back(page) -> None:
    assert page.ask("think of a number") == "done"
    thought = page.find("details.think")
    assert thought.get_attribute("open") is None
    thought.find_element(By.TAG_NAME, "summary").click()
    assert "of a number" in thought.text
    assert page.ask("say <think>second</think>answer") == "answer"  # a server that does not separate them
    assert len(page.all("details.think")) == 2
    sent = _request(page)["messages"]
    assert next(one["content"] for one in sent if one["role"] == "assistant") == "done"
    _set(page, set_think="off")
    assert _request(page)["reasoning_effort"] == "none"


def test_answers_are_versions_that_stay(page) -> None:
    page.ask("say one")
    page.ask("say two")
    page.press("Answer again")
    page.until(lambda: page.texts(".version") == ["2 / 2"] and page.is_idle())
    page.press("Edit and ask again", last=False)
    page.find("article .edit textarea").send_keys(Keys.CONTROL, "a", Keys.NULL, "say three", Keys.ENTER)
    page.until(lambda: page.answers() == ["three"] and page.is_idle())
    page.press("Earlier version")
    assert page.answers() == ["one", "two"]
    assert page.texts(".version") == ["1 / 2", "2 / 2"]
    page.driver.refresh()
    page.until(lambda: page.answers() == ["one", "two"])
    page.all(".turn:not(:disabled)")[0].send_keys(Keys.ENTER)
    assert page.answers() == ["three"]
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)  # the keyboard stays on the arrows
    assert page.answers() == ["one", "two"]


def test_an_answer_is_continued(page) -> None:
    page.ask("say half")
    page.press("Continue")
    page.until(lambda: page.answers() == ["half and more"] and page.is_idle())
    assert page.texts(".version") == []


def test_pictures_and_texts_are_dropped(page) -> None:
    picture = io.BytesIO()
    pytest.importorskip("PIL.Image").new("RGB", (2048, 512), (200, 10, 10)).save(picture, "PNG")
    _drop(page, ("red.png", "image/png", picture.getvalue()), ("notes.txt", "text/plain", "Grüße".encode()))
    page.until(lambda: len(page.all("#attached li")) == 2)
    assert page.find("#attached img").get_attribute("alt") == "red.png"
    _drop(page, ("program.bin", "", b"\x00\xff"))
    page.until(lambda: "neither a picture nor a text" in page.find("#notice").text)
    (message,) = _request(page)["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert message["content"][0]["image_url"]["url"].startswith("data:image/")
    assert "notes.txt" in message["content"][1]["text"]
    assert "Grüße" in message["content"][1]["text"]
    width = page.driver.execute_script("return document.querySelector('article.user img').naturalWidth")
    assert width == 1024  # made smaller, for the browser's storage
    assert page.all("#attached li") == []
    assert page.complaints() == []


def test_a_file_can_be_removed_before_it_is_sent(page) -> None:
    _drop(page, ("notes.txt", "text/plain", b"secret"))
    page.until(lambda: page.all("#attached li"))
    page.press("Remove notes.txt")
    assert "secret" not in json.dumps(_request(page))


def test_a_call_of_a_tool_is_shown_and_its_result_sent(page) -> None:
    page.find("#settings-open").click()
    field = page.find("#chat-tools")
    field.send_keys("{", Keys.TAB)
    assert field.get_attribute("validationMessage") == "This is not a list of tools in JSON"
    field.clear()
    field.send_keys(json.dumps([_TOOL]), Keys.TAB)
    page.find("#settings-close").click()
    page.write("call weather")
    page.until(lambda: page.all("form.results"))
    assert "Calls weather" in page.find("details.call").text
    assert '"a": 1' in page.find("details.call").text
    page.find("form.results textarea").send_keys("request")
    page.find("form.results button").click()
    page.until(lambda: page.answers()[-1].startswith("{") and page.is_idle())
    sent = json.loads(page.answers()[-1])
    assert sent["tools"] == [_TOOL]
    assert sent["messages"][1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"a": 1}'}
    assert sent["messages"][2] == {"role": "tool", "tool_call_id": "c1", "content": "request"}
    assert page.all("form.results") == []


def test_each_chat_has_its_system_prompt(page) -> None:
    _set(page, set_system="Be kind.")
    page.find("#new").click()
    _set(page, chat_system="Be short.")
    assert _request(page)["messages"][0] == {"role": "system", "content": "Be short."}
    page.find("#new").click()
    assert _request(page)["messages"][0] == {"role": "system", "content": "Be kind."}
    page.all("#chats .open")[1].click()
    assert _request(page)["messages"][0] == {"role": "system", "content": "Be short."}


def test_chats_are_found_by_what_was_said(page) -> None:
    page.ask("say Pineapple pizza")
    page.find("#new").click()
    page.ask("say weather")
    page.find("#search").send_keys("pineAPPLE")
    assert page.texts("#chats .open") == ["say Pineapple pizza"]
    page.find("#search").send_keys("s on the moon")
    assert page.texts("#chats li") == ["Nothing found"]


def test_formulas_and_code_are_drawn_without_anything_from_elsewhere(page, tmp_path) -> None:
    written = (
        r"Since \( e^{i\pi} = -1 \) and $a_1 \le 2$, it costs $5 or $10. Unknown: \(\strange{x}\), open: \( x" + "\n\n"
        "\\[\n\\frac{1}{2} \\in \\mathbb{R}\n\\]\n\n```python\ndef f(x):  # twice\n    return 2 * x + len('a')\n```\n"
    )
    _import(page, tmp_path, {"title": "x", "messages": [{"role": "assistant", "content": written}]})
    count = lambda selector: len(page.all(f"article.assistant {selector}"))  # noqa: E731
    page.until(lambda: count("pre"))
    assert (count("p math"), count("div.formula math mfrac"), count("p math msup"), count("p math msub")) == (
        2,
        1,
        1,
        1,
    )
    assert [one.text for one in page.all("article code.formula")] == [r"\(\strange{x}\)"]
    text = page.find("article.assistant p").text
    assert "it costs $5 or $10." in text
    assert text.endswith(r"open: \( x")
    assert page.texts("article .code-word") == ["def", "return"]
    assert (page.texts("article .code-comment"), page.texts("article .code-number")) == (["# twice"], ["2"])
    assert page.texts("article pre") == ["def f(x):  # twice\n    return 2 * x + len('a')"]
    assert page.complaints() == []


def test_the_page_speaks_russian(page) -> None:
    page.find("#settings-open").click()
    page.find("#set-language option[value='ru']").click()
    page.until(lambda: page.texts("#new") == ["Новый чат"])
    assert page.driver.execute_script("return document.documentElement.lang") == "ru"
    page.find("#input").send_keys("say hello", Keys.ENTER)
    page.until(lambda: page.all("[aria-label='Ответить ещё раз']"))
    assert "токенов: 1" in page.find("article .numbers").text


def test_a_long_title_can_be_read_on_a_phone(browser, scripted, until, tmp_path) -> None:
    page = Page(browser(390, 844, touch=True), until, scripted.address)
    title = "A title of sixty characters, which used to be cut to eighteen"
    _import(page, tmp_path, {"title": title, "named": True, "messages": [{"role": "user", "content": "a"}]}, {
        "title": "other", "messages": [{"role": "user", "content": "b"}]
    })  # fmt: skip
    page.find("#side-open").click()
    until(lambda: page.find("#new").is_displayed())
    script = (
        "const shown = document.querySelector('#chats .open span'); return shown.scrollHeight <= shown.clientHeight"
    )
    assert page.driver.execute_script(script)


@pytest.mark.parametrize("width", [1280, 390])
def test_everything_has_a_name_and_is_reached_by_keyboard(browser, scripted, until, width) -> None:
    page = Page(browser(width, 844, touch=width < 500), until, scripted.address)
    page.find("#input").send_keys("call weather")
    page.find("#send").click()
    until(lambda: page.all("form.results"))
    for button in ("#settings-open", "#side-open"):
        if page.find(button).is_displayed():
            page.find(button).click()
        nameless = [node for node in _controls(page) if not node["name"]]
        assert nameless == []
        page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    reached = _by_tab(page)
    for selector in ("#input", "#attach", "#settings-open", "#theme", "form.results textarea", "form.results button"):
        assert page.find(selector) in reached


def _controls(page: Page) -> list[dict[str, str]]:
    """The role and name of everything that a screen reader can act on."""
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = (
        "button",
        "textbox",
        "searchbox",
        "combobox",
        "spinbutton",
        "link",
        "dialog",
        "DisclosureTriangle",
        "image",
    )
    found = [node for node in nodes if not node.get("ignored") and node.get("role", {}).get("value") in roles]
    assert len(found) > 5
    return [{"role": node["role"]["value"], "name": node.get("name", {}).get("value", "")} for node in found]


def _by_tab(page: Page) -> list:
    """The elements that the key Tab reaches, until it comes round."""
    page.driver.execute_script("document.activeElement.blur()")
    reached: list = []
    for _ in range(60):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        element = page.driver.switch_to.active_element
        if element in reached:
            break
        reached.append(element)
    return reached
