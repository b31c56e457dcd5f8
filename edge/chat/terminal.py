"""The chat in a terminal, today's style: an input line, Markdown, commands, and what each answer cost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from threading import Event
from typing import Any

from edge.chat import stats
from edge.chat.commands import Chat, Commands, Todo, recalled
from edge.chat.conversation import Answered, Dropped, Happening, Reading, Text
from edge.chat.interrupt import stops_answer
from edge.chat.markdown import Markdown, PlainText, Shown
from edge.chat.prompt import InputLine
from edge.chat.session_file import chats_folder
from edge.progress import Progress
from edge.terminal import readable
from runtimes.errors import EdgeError, EngineMissing, HostError, InputError, UsageError

# Of no other answer is a full context the end; see Conversation.
CUT_OFF = "the answer is cut off: the context is full, and a grammar cannot go on in a new one (--context gives more)"
_STOPPED = {"cancelled": "stopped", "length": "the limit of tokens is reached"}


def check_libraries() -> None:
    """Raise EngineMissing, before a model is loaded, where the libraries of the terminal are missing."""
    try:
        import prompt_toolkit  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        raise EngineMissing(f"{error.name} is not installed", "pip install 'edgeproof[chat]'") from None


def converse(chat: Chat, *, markdown: bool = True) -> int:
    """Talk until the user leaves; the exit status. What was said is saved, however it ends."""
    talk = _Talk(chat, markdown)
    try:
        talk.begin()
        while talk.turn():
            pass
    finally:
        chat.save()
    talk.end()
    return 0


class _Talk:
    def __init__(self, chat: Chat, markdown: bool) -> None:
        from rich.console import Console

        self._chat = chat
        self._commands = Commands(chat)
        self._console = Console(highlight=False)
        self._is_markdown = markdown and not self._console.is_dumb_terminal and not chat.conversation.template.is_plain
        self._input = InputLine(self._below, self._commands.names, chats_folder() / "input-history")
        self._begun = ""
        self._is_edit = False  # whether what is typed takes the place of the last question

    def begin(self) -> None:
        """Say what one talks to."""
        facts, template = self._chat.conversation.session.facts, self._chat.conversation.template
        self._say(f"{facts.name} · {facts.quantization} · context {facts.context} · template: {template.name}")
        if template.is_plain:
            self._say("It goes on with your text, as a base model does. /help lists the commands.")
        else:
            self._say("/help lists the commands.")
        if messages := self._chat.conversation.messages:
            self._chat.conversation.put(messages)
            for line in recalled(self._chat.conversation):
                self._say(line)

    def end(self) -> None:
        """Say how to take it up again."""
        saved = self._chat.save_as
        if saved is not None and saved.exists():
            name = saved.stem if saved.parent == chats_folder() else str(saved)
            self._say(f"saved; go on with: edge chat {self._chat.model} --resume {name}")

    def turn(self) -> bool:
        """One line of the user, and what follows from it; False when it was the last."""
        try:
            line, self._begun = self._input.read(self._begun), ""
        except (EOFError, KeyboardInterrupt):
            return False
        try:
            return self._heed(line)
        except (UsageError, InputError, HostError) as error:  # a server that does not answer may do so later
            self._complain(error)
            return True

    def _heed(self, line: str) -> bool:
        conversation = self._chat.conversation
        is_edit, self._is_edit = self._is_edit, False
        if line.startswith("/") and not line.startswith("//"):
            return self._do(self._commands.run(line.strip()))
        if line.strip():
            before = list(conversation.messages) if is_edit else None
            if is_edit:
                conversation.take_back()
            conversation.ask(line.removeprefix("/") if line.startswith("//") else line)
            try:
                self._answer(conversation.answer, before)
            finally:
                if before and conversation.messages[-1] is before[-1]:  # no answer came: it can be tried again
                    self._begun, self._is_edit = line, True
        elif conversation.can_go_on:
            self._answer(conversation.go_on)
        return True

    def _do(self, todo: Todo) -> bool:
        for line in todo.lines:
            self._say(line)
        if todo.edit is not None:
            self._begun, self._is_edit = todo.edit, True
        if todo.answer_instead_of is not None:
            self._answer(self._chat.conversation.answer, todo.answer_instead_of)
        return not todo.leave

    def _answer(
        self, begin: Callable[[Event], Iterator[Happening]], instead_of: Sequence[dict[str, Any]] | None = None
    ) -> None:
        """Show an answer. The chat is saved before it begins, with the question, and when it has ended.

        `instead_of` are the messages that it replaces: they stay, on disk too, until there is an answer.
        """
        conversation = self._chat.conversation
        if instead_of is None:
            self._chat.save()
        shown: Shown = Markdown(self._console) if self._is_markdown else PlainText(self._console)
        try:
            with stops_answer() as cancel, _Bar() as bar:
                for happening in begin(cancel):
                    if isinstance(happening, Reading):
                        bar.show(happening)
                        continue
                    bar.close()
                    self._show(happening, shown)
        finally:
            shown.end()
            if instead_of is not None and conversation.is_unanswered:
                conversation.put(instead_of)
            self._chat.save()
        self._say_end()

    def _show(self, happening: Happening, shown: Shown) -> None:
        if isinstance(happening, Text):
            shown.feed(happening.text)
        elif isinstance(happening, Dropped):
            shown.end()
            self._say(dropped_line(happening))
        elif isinstance(happening, Answered):
            self._chat.answers.append(happening)

    def _say_end(self) -> None:
        answered = self._chat.answers[-1]
        if words := self._end(answered):
            self._say(words)
        self._say(stats.line(answered))

    def _end(self, answered: Answered) -> str:
        """Why the answer ended, and what can be done; nothing where the model ended it."""
        conversation = self._chat.conversation
        if answered.reason == "context":
            return CUT_OFF
        if answered.reason not in _STOPPED:
            return ""
        if conversation.can_go_on:
            return f"{_STOPPED[answered.reason]}; Enter goes on with it"
        if answered.tokens:  # under a grammar
            return f"{_STOPPED[answered.reason]}; /retry answers again"
        stays = "/retry asks again" if conversation.is_unanswered else "the old answer stays"
        return f"stopped before the answer began; {stays}"

    def _below(self) -> str:
        facts = self._chat.conversation.session.facts
        return f" {facts.name} · context {stats.meter(self._chat.conversation.used, facts.context)} "

    def _complain(self, error: EdgeError) -> None:
        self._say(error.message + (f" ({error.hint})" if error.hint else ""))

    def _say(self, text: str) -> None:
        self._console.print(readable(text), style="dim", markup=False, soft_wrap=False)


class _Bar:
    """The bar of a long prompt, there only while one is read."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._done = 0

    def show(self, reading: Reading) -> None:
        if self._bar is None:
            self._bar = Progress(reading.total, "reading", stream=sys.stderr)
        self._bar.advance("tokens", reading.done - self._done)
        self._done = reading.done

    def close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def dropped_line(dropped: Dropped) -> str:
    """What left the context, in words."""
    if dropped.turns:
        turns = "the oldest turn" if dropped.turns == 1 else f"the {dropped.turns} oldest turns"
        return f"the context is full: {turns} left it; the system prompt and the rest stay"
    return f"the context is full: the first {dropped.answer_tokens} tokens of this answer left it"
