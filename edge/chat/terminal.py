"""The chat in a terminal, in today's style: an input line, Markdown, commands, and measurements of each answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from threading import Event

from edge.chat import status_line
from edge.chat.commands import Chat, CommandResult, Commands, summarize
from edge.chat.conversation import AnswerSummary, ChatEvent, PromptProgress, TextDelta, ThoughtDelta, TurnsDropped
from edge.chat.input_line import InputLine
from edge.chat.interrupt import stops_answer
from edge.chat.live_markdown import AnswerView, Markdown, PlainText
from edge.chat.saved_chat import chats_folder
from edge.chat.thought_line import ThoughtLine
from edge.console.progress import ProgressBar
from edge.console.text import readable
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import EdgeError, EngineMissingError, HostError, InputError, UsageError

# Only an answer under a grammar ends when the context is full; see Conversation.
CUT_OFF = "the answer is cut off: the context is full, and a grammar cannot continue in a new one (raise --context)"
_STOPPED = {"cancelled": "stopped", "length": "the token limit is reached"}


def check_libraries() -> None:
    """Raise EngineMissingError if the terminal's libraries are missing; called before a model is loaded."""
    try:
        import prompt_toolkit  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        raise EngineMissingError(f"{error.name} is not installed", "pip install 'edgeproof[chat]'") from None


def converse(chat: Chat, *, markdown: bool = True) -> int:
    """Chat until the user leaves, and return the exit status. The chat is saved however it ends."""
    talk = _TerminalChat(chat, markdown)
    try:
        talk.begin()
        while talk.turn():
            pass
    finally:
        chat.save()
    talk.end()
    return 0


class _TerminalChat:
    def __init__(self, chat: Chat, markdown: bool) -> None:
        from rich.console import Console

        self._chat = chat
        self._commands = Commands(chat)
        self._console = Console(highlight=False)
        self._is_markdown = markdown and not self._console.is_dumb_terminal and not chat.conversation.template.is_plain
        self._input = InputLine(self._below, self._commands.names, chats_folder() / "input-history")
        self._begun = ""
        self._is_edit = False  # whether the input replaces the last question

    def begin(self) -> None:
        """Print the model, the template and, for a resumed chat, its last messages."""
        facts, template = self._chat.conversation.session.facts, self._chat.conversation.template
        self._print(f"{facts.name} · {facts.quantization} · context {facts.context} · template: {template.name}")
        if template.is_plain:
            self._print("It continues your text, as a base model does. /help lists the commands.")
        else:
            self._print("/help lists the commands.")
        if messages := self._chat.conversation.messages:
            self._chat.conversation.replace_messages(messages)
            for line in summarize(self._chat.conversation):
                self._print(line)

    def end(self) -> None:
        """Print how to resume the chat."""
        saved = self._chat.save_as
        if saved is not None and saved.exists():
            name = saved.stem if saved.parent == chats_folder() else str(saved)
            self._print(f"saved; continue with: edge chat {self._chat.model} --resume {name}")

    def turn(self) -> bool:
        """Handle one input line. Returns False if it was the last."""
        try:
            line, self._begun = self._input.read(self._begun), ""
        except (EOFError, KeyboardInterrupt):
            return False
        try:
            return self._handle(line)
        # A server that does not answer may recover, and a chat goes on without pictures if Pillow is missing.
        except (UsageError, InputError, HostError, EngineMissingError) as error:
            self._print_error(error)
            return True

    def _handle(self, line: str) -> bool:
        conversation = self._chat.conversation
        is_edit, self._is_edit = self._is_edit, False
        if line.startswith("/") and not line.startswith("//"):
            return self._do(self._commands.run(line.strip()))
        if line.strip():
            before = list(conversation.messages) if is_edit else None
            if is_edit:
                conversation.attached = [*conversation.last_pictures, *conversation.attached]
                conversation.pop_turn()
            conversation.ask(line.removeprefix("/") if line.startswith("//") else line)
            try:
                self._answer(conversation.answer, before)
            finally:
                if before and conversation.messages[-1] is before[-1]:  # no answer: let the user try again
                    self._begun, self._is_edit = line, True
        elif conversation.can_continue:
            self._answer(conversation.resume)
        return True

    def _do(self, result: CommandResult) -> bool:
        for line in result.lines:
            self._print(line)
        if result.edit is not None:
            self._begun, self._is_edit = result.edit, True
        if result.answer_instead_of is not None:
            self._answer(self._chat.conversation.answer, result.answer_instead_of)
        return not result.leave

    def _answer(
        self, begin: Callable[[Event], Iterator[ChatEvent]], instead_of: Sequence[JsonObject] | None = None
    ) -> None:
        """Show an answer. The chat is saved with the question before the answer begins, and when it has ended.

        `instead_of` are the messages that the answer replaces: they are kept, on disk too, until there is an answer.
        """
        conversation = self._chat.conversation
        if instead_of is None:
            self._chat.save()
        shown: AnswerView = Markdown(self._console) if self._is_markdown else PlainText(self._console)
        thought = ThoughtLine(self._console.file)
        try:
            with stops_answer() as cancel, _Bar() as bar:
                for event in begin(cancel):
                    if isinstance(event, PromptProgress):
                        bar.show(event)
                        continue
                    bar.close()
                    if isinstance(event, ThoughtDelta):
                        thought.feed(event.text)
                        continue
                    self._fold(thought)
                    self._show(event, shown)
        finally:
            self._fold(thought)
            shown.end()
            if instead_of is not None and conversation.is_unanswered:
                conversation.replace_messages(instead_of)
            self._chat.save()
        self._print_end()

    def _fold(self, thought: ThoughtLine) -> None:
        if words := thought.end():
            self._print(f"{words}; /thought shows it")

    def _show(self, event: ChatEvent, shown: AnswerView) -> None:
        if isinstance(event, TextDelta):
            shown.feed(event.text)
        elif isinstance(event, TurnsDropped):
            shown.end()
            self._print(describe_dropped(event))
        elif isinstance(event, AnswerSummary):
            self._chat.answers.append(event)

    def _print_end(self) -> None:
        answered = self._chat.answers[-1]
        if words := self._end(answered):
            self._print(words)
        self._print(status_line.format_line(answered))

    def _end(self, answered: AnswerSummary) -> str:
        """Say why the answer ended, and what the user can do; empty if the model ended it."""
        conversation = self._chat.conversation
        if answered.reason == "context":
            return CUT_OFF
        if answered.reason not in _STOPPED:
            return ""
        if conversation.can_continue:
            return f"{_STOPPED[answered.reason]}; Enter continues it"
        if answered.tokens:  # under a grammar
            return f"{_STOPPED[answered.reason]}; /retry answers again"
        remedy = "/retry asks again" if conversation.is_unanswered else "the old answer is kept"
        return f"stopped before the answer began; {remedy}"

    def _below(self) -> str:
        facts = self._chat.conversation.session.facts
        return f" {facts.name} · context {status_line.format_meter(self._chat.conversation.used, facts.context)} "

    def _print_error(self, error: EdgeError) -> None:
        self._print(error.message + (f" ({error.hint})" if error.hint else ""))

    def _print(self, text: str) -> None:
        self._console.print(readable(text), style="dim", markup=False, soft_wrap=False)


class _Bar:
    """The progress bar of a long prompt, shown only while it is evaluated."""

    def __init__(self) -> None:
        self._bar: ProgressBar | None = None
        self._done = 0

    def show(self, reading: PromptProgress) -> None:
        if self._bar is None:
            self._bar = ProgressBar(reading.total, "reading", stream=sys.stderr)
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


def describe_dropped(dropped: TurnsDropped) -> str:
    """Describe what was dropped from the context."""
    if dropped.turns:
        turns = "the oldest turn" if dropped.turns == 1 else f"the {dropped.turns} oldest turns"
        was = "was" if dropped.turns == 1 else "were"
        return f"the context is full: {turns} {was} dropped; the system prompt and the rest are kept"
    return f"the context is full: the first {dropped.answer_tokens} tokens of this answer were dropped"
