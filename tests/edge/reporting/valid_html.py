"""What is wrong with an HTML page that has to work from disk: a strict parser for the elements that reports use."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = {"br", "meta", "hr", "img", "input", "link"}
# Where an element may be; those that are not named may be anywhere in the body.
PARENTS = {
    "html": {""},
    "head": {"html"},
    "body": {"html"},
    "title": {"head", "svg", "circle", "rect", "polyline", "polygon"},
    "meta": {"head"},
    "style": {"head"},
    "caption": {"table"},
    "thead": {"table"},
    "tbody": {"table"},
    "tr": {"thead", "tbody"},
    "th": {"tr"},
    "td": {"tr"},
    "dt": {"dl"},
    "dd": {"dl"},
    "li": {"ol", "ul"},
    "figcaption": {"figure"},
    "desc": {"svg"},
    "text": {"svg"},
    "line": {"svg"},
}
# These contain no blocks.
PHRASES = {"p", "h1", "h2", "h3", "a", "code", "b", "span", "dt", "figcaption"}
BLOCKS = {"p", "div", "table", "dl", "ol", "ul", "figure", "h1", "h2", "h3", "section", "main", "header", "nav"}
LOADING = {"src", "srcset", "data", "background", "poster", "action", "formaction", "xlink:href"}


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.faults: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.declared = ""

    def handle_decl(self, decl: str) -> None:
        self.declared = decl

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        parent = self.open[-1] if self.open else ""
        if tag in PARENTS and parent not in PARENTS[tag]:
            self.faults.append(f"<{tag}> in <{parent}>")
        if tag in BLOCKS and PHRASES & set(self.open):
            self.faults.append(f"the block <{tag}> within {self.open}")
        if tag in ("script", "iframe", "object", "embed", "link", "base", "img"):
            self.faults.append(f"<{tag}> loads or runs something")
        names = [name for name, _ in attributes]
        self.faults += [f"{name} twice in <{tag}>" for name in set(names) if names.count(name) > 1]
        for name, value in attributes:
            self._attribute(tag, name, value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def _attribute(self, tag: str, name: str, value: str) -> None:
        if name == "id":
            self.ids.append(value)
        if name in ("aria-labelledby", "aria-describedby"):
            self.references += value.split()
        if name == "href":
            if value.startswith("#"):
                self.references.append(value[1:])
            elif tag != "a" or not value.startswith("https://"):
                self.faults.append(f"<{tag} href={value}>")
        if name in LOADING or name.startswith("on"):
            self.faults.append(f"<{tag} {name}>")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> within {self.open[-3:]}")
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def faults(page: str) -> list[str]:
    """Return what is wrong with a page; empty if it is valid and loads nothing."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    found = [*parser.faults, *(f"<{tag}> is not closed" for tag in parser.open)]
    if parser.declared.lower() != "doctype html":
        found.append("no doctype")
    found += [f"two ids {one}" for one in set(parser.ids) if parser.ids.count(one) > 1]
    found += [f"nothing has the id {one}" for one in set(parser.references) - set(parser.ids)]
    found += [f"ids with spaces: {one}" for one in parser.ids if " " in one or not one]
    found += [f"the style loads {one}" for one in re.findall(r"url\([^)]*\)|@import[^;]*", page)]
    for drawing in re.findall(r"<svg.*?</svg>", page, re.S):
        try:
            ElementTree.fromstring(drawing)
        except ElementTree.ParseError as error:
            found.append(f"a figure is not XML: {error}")
    found += [f"not a number: {one}" for one in re.findall(r'"[^"]*\bnan\b[^"]*"', page)]
    return found
