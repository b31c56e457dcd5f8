"""The input line of the chat: editing, history, multi-line input, and the status line below it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

_QUOTES = '"""'
_PROMPT = "> "


class InputLine:
    """Reads the user's input. `below` returns the status line; `history` is the file of previous inputs."""

    def __init__(self, below: Callable[[], str], commands: Sequence[str], history: Path) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter

        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            key_bindings=_keys(),
            multiline=True,  # Enter is bound below; pasted newlines are kept
            prompt_continuation="  ",
            bottom_toolbar=below,
        )

    def read(self, begun: str = "") -> str:
        """Return the input, its lines joined. `begun` is the initial text.

        Raises EOFError on Ctrl+D and KeyboardInterrupt on Ctrl+C if the input is empty.
        """
        return join_lines(self._session.prompt(_PROMPT, default=begun))


def is_unfinished(text: str) -> bool:
    r"""Return whether Enter starts another line: after a `\`, and between two `\"\"\"`."""
    return text.count(_QUOTES) % 2 == 1 or text.endswith("\\")


def join_lines(text: str) -> str:
    r"""Remove the `\` at the ends of lines, and the quotes around the text."""
    stripped = text.strip()
    if stripped.startswith(_QUOTES) and stripped.endswith(_QUOTES) and len(stripped) >= 2 * len(_QUOTES):
        return stripped[len(_QUOTES) : -len(_QUOTES)].strip("\n")
    return re.sub(r"\\\n", "\n", text)


def _history(file: Path) -> History:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
    except OSError:  # a read-only home: the chat works without a history
        return InMemoryHistory()
    return FileHistory(str(file))


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_unfinished(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def _clear_or_leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return keys
