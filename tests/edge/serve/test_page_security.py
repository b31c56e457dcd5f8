"""The page as it is sent: nothing from elsewhere, a policy that allows no more, and every text in every language."""

import re
from html.parser import HTMLParser
from pathlib import Path

from edge.serve import page as page_module
from edge.serve.page import load_page

FOLDER = Path(page_module.__file__).with_name("chat_page")
SCRIPTS = sorted(FOLDER.glob("*.js"))


def test_the_policy_lets_the_pages_own_files_run_and_no_others() -> None:
    files = load_page().files
    policy = dict(files["/"].headers)[b"content-security-policy"].decode()
    assert "script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    document = files["/"].body.decode()
    assert re.findall(r"<script[^>]*>", document) == ['<script type="module" src="page/app.js">']
    assert "<style" not in document
    imported = {
        f"/page/{name}" for path in SCRIPTS for name in re.findall(r'from "\./([^"]+)"', path.read_text("utf-8"))
    }
    assert imported | {"/", "/page/app.js", "/page/style.css"} == set(files)


def test_nothing_is_loaded_from_elsewhere_and_nothing_becomes_html() -> None:
    text = "\n".join(file.body.decode() for file in load_page().files.values())
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s'\"]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert word not in text
    assert not re.search(r"<[^>]+\son\w+=|<[^>]+\sstyle=", text)


class _Texts(HTMLParser):
    """The texts of a document that people read or hear."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._tags: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self._tags.append(tag)
        self.found |= {value for name, value in attrs if name in ("aria-label", "placeholder", "title")}

    def handle_data(self, data) -> None:
        if data.strip() and self._tags[-1] != "title":
            self.found.add(data.strip())


def _missing(words: str) -> set[str]:
    """The texts of the page without a translation."""
    parser = _Texts()
    parser.feed((FOLDER / "index.html").read_text("utf-8"))
    scripts = "\n".join(path.read_text("utf-8") for path in SCRIPTS if path.name != "words.js")
    used = set(re.findall(r'\bt\((?:\w+ \? )?"([^"]+)"', scripts)) | set(
        re.findall(r'(?:note = |turn\("\w+", )"([^"]+)"', scripts)
    )
    texts = {text for text in used | parser.found if re.search("[A-Za-z]{2}", text)}
    assert len(texts) > 60
    return {text for text in texts if f'"{text}":' not in words} - {"edge chat", "English", "Русский"}


def test_every_text_has_a_translation() -> None:
    words = (FOLDER / "words.js").read_text("utf-8")
    missing = {text for text in _missing(words) if not text.startswith("[{")}  # the example of tools is JSON
    assert missing == set()
    assert "Continue" in _missing(words.replace('"Continue":', '"Kontinue":'))
