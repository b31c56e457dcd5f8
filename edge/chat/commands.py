"""The words that begin with a slash.

Each is one method of `Commands`, whose docstring is its line in /help: "arguments | what it does".
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.chat import session_file, settings, stats
from edge.chat.conversation import Answered, Conversation
from runtimes.errors import UsageError


@dataclass
class Chat:
    """A chat as the terminal holds it: the conversation, where it is saved, and what was measured.

    `save_as` None: it is not saved.
    """

    conversation: Conversation
    model: str
    save_as: Path | None = None
    answers: list[Answered] = field(default_factory=list)

    def save(self) -> None:
        """Save the chat, unless it is not to be saved; one in which nothing was said makes no file."""
        if self.save_as is not None and (self.conversation.messages or self.save_as.exists()):
            session_file.save(self.save_as, self.saved())

    def saved(self) -> session_file.SavedChat:
        """What is written."""
        conversation = self.conversation
        named = None if conversation.template.name == "the model's own" else conversation.template.name
        return session_file.SavedChat(self.model, named, conversation.messages)


@dataclass(frozen=True)
class Todo:
    """What the terminal does after a command: say `lines`, answer the last question again (messages as they were, in
    case that no answer comes), put the last question into the input line, or leave."""

    lines: Sequence[str] = ()
    answer_instead_of: Sequence[dict[str, Any]] | None = None
    edit: str | None = None
    leave: bool = False


class Commands:
    """Runs the commands of one chat."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._all: dict[str, Callable[[str], Todo]] = {
            "help": self._help,
            "clear": self._clear,
            "undo": self._undo,
            "retry": self._retry,
            "edit": self._edit,
            "system": self._system,
            "set": self._set,
            "stats": self._stats,
            "save": self._save,
            "load": self._load,
            "exit": self._exit,
        }

    @property
    def names(self) -> list[str]:
        """Every command with its slash."""
        return [f"/{name}" for name in self._all]

    def run(self, line: str) -> Todo:
        """Run what was typed, `line` with its slash; UsageError for what there is not, naming the nearest."""
        word, _, rest = line[1:].partition(" ")
        word = {"quit": "exit", "bye": "exit", "?": "help", "regenerate": "retry", "reset": "clear"}.get(word, word)
        if word not in self._all:
            near = difflib.get_close_matches(word, self._all, 1)
            raise UsageError(
                f"there is no /{word}", f"did you mean /{near[0]}?" if near else "/help lists the commands"
            )
        return self._all[word](rest.strip())

    def _help(self, _rest: str) -> Todo:
        """this list"""
        lines = [_described(name, run.__doc__ or "") for name, run in self._all.items()]
        more = [
            "",
            "A line that ends in \\ goes on in the next one; so does everything between two lines of "
            '"""; pasted lines stay together.',
            "Ctrl+C stops an answer (Enter on an empty line goes on with it), and leaves at an empty prompt.",
            "A line that begins with // is said as it is, with one slash.",
        ]
        return Todo([*lines, *more])

    def _clear(self, _rest: str) -> Todo:
        """forget the conversation; the system prompt stays, and what was saved too"""
        chat = self._chat
        chat.conversation.clear()
        if chat.save_as is not None:
            chat.save_as = session_file.path_of(session_file.new_name(chat.model))
        return Todo(["a new conversation"])

    def _undo(self, _rest: str) -> Todo:
        """take back the last question and its answer"""
        text = self._chat.conversation.take_back()
        self._chat.save()
        return Todo([f"taken back: {_short(text)}"])

    def _retry(self, _rest: str) -> Todo:
        """answer the last question again"""
        before = list(self._chat.conversation.messages)
        self._chat.conversation.take_back_answer()
        return Todo(answer_instead_of=before)

    def _edit(self, _rest: str) -> Todo:
        """change the last question, and have it answered anew"""
        return Todo(edit=self._chat.conversation.last_question)

    def _system(self, rest: str) -> Todo:
        """[TEXT] | show or set the system prompt; `none` removes it"""
        conversation = self._chat.conversation
        if not rest:
            return Todo([f"system prompt: {conversation.system}" if conversation.system else "no system prompt"])
        conversation.system = "" if rest == "none" else rest
        self._chat.save()
        return Todo(["the system prompt is removed" if rest == "none" else "the system prompt is set"])

    def _set(self, rest: str) -> Todo:
        """[NAME VALUE] | show the settings, or change one: /set temp 0.7"""
        conversation = self._chat.conversation
        words = rest.replace("=", " ").split()
        if not words:
            return Todo(settings.as_lines(conversation.options))
        if len(words) != 2:
            raise UsageError(f"/set {rest}", "say it like /set temp 0.7")
        conversation.options = settings.changed(conversation.options, *words)
        return Todo([f"{words[0]} is {words[1]}"])

    def _stats(self, _rest: str) -> Todo:
        """the model, the context, and what the answers cost"""
        conversation = self._chat.conversation
        return Todo(stats.as_lines(conversation.session.facts, self._chat.answers, conversation.used))

    def _save(self, rest: str) -> Todo:
        """[NAME] | save the chat under a name; it is saved after every turn anyway"""
        chat = self._chat
        path = session_file.path_of(rest) if rest else chat.save_as
        if path is None:
            raise UsageError("this chat is not saved (--no-save)", "give a name: /save NAME")
        if not chat.conversation.messages:
            raise UsageError("nothing was said yet", "ask something first")
        if path != chat.save_as and path.exists():
            raise UsageError(f"there is a chat '{rest}' already", f"choose another name; /load {rest} goes on with it")
        chat.save_as = path
        chat.save()
        return Todo([f"saved: {path}"])

    def _load(self, rest: str) -> Todo:
        """NAME | go on with a saved chat"""
        if not rest:
            raise UsageError("/load of which chat?", "give its name: /load NAME")
        path = session_file.path_of(rest)
        self._chat.conversation.put(session_file.load(path).messages)
        if self._chat.save_as is not None:  # with --no-save it is not written to either
            self._chat.save_as = path
        return Todo([f"loaded: {path}", *recalled(self._chat.conversation)])

    def _exit(self, _rest: str) -> Todo:
        """leave; the chat can be taken up with --resume"""
        return Todo(leave=True)


def _described(name: str, about: str) -> str:
    arguments, _, what = about.rpartition(" | ")
    return f"{f'/{name} {arguments}':19}{what}"


def recalled(conversation: Conversation) -> list[str]:
    """Where a conversation that was loaded stands: how many turns, its last words, and whether it waits."""
    questions = [message for message in conversation.messages if message["role"] == "user"]
    lines = [f"{len(questions)} question{'s' if len(questions) != 1 else ''} so far"]
    lines += [f"{'>' if m['role'] == 'user' else ' '} {_short(m['content'])}" for m in conversation.messages[-2:]]
    if conversation.is_unanswered:
        lines.append("the last question was not answered: /retry answers it")
    elif conversation.can_go_on:
        lines.append("the last answer was cut off: Enter on an empty line goes on with it")
    return lines


def _short(text: str, most: int = 70) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
