"""The `{% generation %}` tag of chat templates, which marks what the assistant says; it changes nothing of the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import nodes
    from jinja2.parser import Parser


def generation_tag() -> Any:
    """The extension, a class of jinja's: reads `{% generation %} … {% endgeneration %}` as its body."""
    from jinja2.ext import Extension

    class GenerationTag(Extension):
        tags = {"generation"}  # noqa: RUF012 - jinja's own interface

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return GenerationTag
