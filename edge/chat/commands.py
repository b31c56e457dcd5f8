"""The slash commands of the chat.

Each command is one method of `Commands`, whose docstring is its line in /help: "arguments | what it does".
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge.chat import sampling_settings, saved_chat, status_line
from edge.chat.conversation import AnswerSummary, Conversation
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import UsageError


@dataclass(kw_only=True)
class Chat:
    """The state of a terminal chat.

    conversation: The messages and the model.
    model: The model as given on the command line.
    save_as: The file of the chat; None if it is not saved.
    answers: Measurements of each answer so far.
    """

    conversation: Conversation
    model: str
    save_as: Path | None = None
    answers: list[AnswerSummary] = field(default_factory=list)

    def save(self) -> None:
        """Save the chat if it has a file. An empty chat does not create one."""
        if self.save_as is not None and (self.conversation.messages or self.save_as.exists()):
            saved_chat.save(self.save_as, self.to_saved_chat())

    def to_saved_chat(self) -> saved_chat.SavedChat:
        """Return the content of the file."""
        conversation = self.conversation
        template_name = None if conversation.template.name == "the model's own" else conversation.template.name
        return saved_chat.SavedChat(model=self.model, template=template_name, messages=conversation.messages)


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """What the terminal does after a command.

    lines: The lines to print.
    answer_instead_of: Answer the last question again; these messages are restored if no answer arrives.
    edit: The text to put into the input line.
    leave: End the chat.
    """

    lines: Sequence[str] = ()
    answer_instead_of: Sequence[JsonObject] | None = None
    edit: str | None = None
    leave: bool = False


class Commands:
    """Runs the commands of one chat."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._all: dict[str, Callable[[str], CommandResult]] = {
            "help": self._help,
            "clear": self._clear,
            "undo": self._undo,
            "retry": self._retry,
            "edit": self._edit,
            "image": self._image,
            "system": self._system,
            "set": self._set,
            "think": self._think,
            "thought": self._thought,
            "stats": self._stats,
            "save": self._save,
            "load": self._load,
            "exit": self._exit,
        }

    @property
    def names(self) -> list[str]:
        """Every command, with its slash."""
        return [f"/{name}" for name in self._all]

    def run(self, line: str) -> CommandResult:
        """Run one command line, which starts with its slash.

        Raises UsageError for an unknown command, with the closest match.
        """
        name, _, rest = line[1:].partition(" ")
        name = {"quit": "exit", "bye": "exit", "?": "help", "regenerate": "retry", "reset": "clear"}.get(name, name)
        if name not in self._all:
            matches = difflib.get_close_matches(name, self._all, 1)
            raise UsageError(
                f"there is no command /{name}",
                f"did you mean /{matches[0]}?" if matches else "/help lists the commands",
            )
        return self._all[name](rest.strip())

    def _help(self, _rest: str) -> CommandResult:
        """this list"""
        lines = [_describe(name, run.__doc__ or "") for name, run in self._all.items()]
        more = [
            "",
            "A line that ends in \\ continues on the next one, as does everything between two "
            '"""; pasted lines stay together.',
            "Ctrl+C stops an answer (Enter on an empty line continues it); at an empty prompt it leaves the chat.",
            "A line that starts with // is sent as text, with one slash.",
        ]
        return CommandResult(lines=[*lines, *more])

    def _clear(self, _rest: str) -> CommandResult:
        """start a new conversation; the system prompt and the saved chat are kept"""
        chat = self._chat
        chat.conversation.clear()
        if chat.save_as is not None:
            chat.save_as = saved_chat.path_of(saved_chat.new_name(chat.model))
        return CommandResult(lines=["new conversation"])

    def _undo(self, _rest: str) -> CommandResult:
        """remove the last question and its answer"""
        text = self._chat.conversation.pop_turn()
        self._chat.save()
        return CommandResult(lines=[f"removed: {_short(text)}"])

    def _retry(self, _rest: str) -> CommandResult:
        """answer the last question again"""
        before = list(self._chat.conversation.messages)
        self._chat.conversation.pop_answer()
        return CommandResult(answer_instead_of=before)

    def _edit(self, _rest: str) -> CommandResult:
        """edit the last question and answer it again"""
        return CommandResult(edit=self._chat.conversation.last_question)

    def _image(self, rest: str) -> CommandResult:
        """FILE | show the model a picture, together with your next question"""
        if not rest:
            raise UsageError("/image needs the file of a picture", "/image photo.jpg")
        picture = self._chat.conversation.attach(_path(rest))
        return CommandResult(lines=[f"{rest} goes with your next question ({picture.tokens} tokens)"])

    def _system(self, rest: str) -> CommandResult:
        """[TEXT] | show or set the system prompt; `none` removes it"""
        conversation = self._chat.conversation
        if not rest:
            return CommandResult(
                lines=[f"system prompt: {conversation.system}" if conversation.system else "no system prompt"]
            )
        conversation.system = "" if rest == "none" else rest
        self._chat.save()
        return CommandResult(lines=["system prompt removed" if rest == "none" else "system prompt set"])

    def _set(self, rest: str) -> CommandResult:
        """[NAME VALUE] | show the settings, or change one: /set temp 0.7"""
        conversation = self._chat.conversation
        words = rest.replace("=", " ").split()
        if not words:
            return CommandResult(lines=sampling_settings.as_lines(conversation.options))
        if len(words) != 2:
            raise UsageError(f"/set {rest}: a name and a value are expected", "for example /set temp 0.7")
        conversation.options = sampling_settings.change_setting(conversation.options, *words)
        return CommandResult(lines=[f"{words[0]} is {words[1]}"])

    def _think(self, rest: str) -> CommandResult:
        """[on|off] | let the model think before it answers, or not, where its template can"""
        conversation = self._chat.conversation
        if not conversation.can_switch_thinking:
            raise UsageError("this template cannot switch thinking", "/thought shows the last thought, if there is one")
        if rest not in ("", "on", "off"):
            raise UsageError(f"/think {rest}: on or off is expected", "for example /think off")
        if rest:
            conversation.thinks = rest == "on"
        state = {None: "left to the template", True: "on", False: "off"}[conversation.thinks]
        return CommandResult(lines=[f"thinking is {state}"])

    def _thought(self, _rest: str) -> CommandResult:
        """show what the model thought before its last answer"""
        thought = self._chat.conversation.last_thought
        return CommandResult(lines=thought.strip().splitlines() if thought.strip() else ["no thought"])

    def _stats(self, _rest: str) -> CommandResult:
        """show the model, the context, and the speed of the answers"""
        conversation = self._chat.conversation
        return CommandResult(
            lines=status_line.as_lines(conversation.session.facts, self._chat.answers, conversation.used)
        )

    def _save(self, rest: str) -> CommandResult:
        """[NAME] | save the chat under a name; it is also saved after every turn"""
        chat = self._chat
        path = saved_chat.path_of(rest) if rest else chat.save_as
        if path is None:
            raise UsageError("this chat is not saved (--no-save)", "give a name: /save NAME")
        if not chat.conversation.messages:
            raise UsageError("there are no messages yet", "ask something first")
        if path != chat.save_as and path.exists():
            raise UsageError(f"the chat '{rest}' already exists", f"choose another name; /load {rest} continues it")
        chat.save_as = path
        chat.save()
        return CommandResult(lines=[f"saved: {path}"])

    def _load(self, rest: str) -> CommandResult:
        """NAME | continue a saved chat"""
        if not rest:
            raise UsageError("/load needs the name of a chat", "/load NAME")
        path = saved_chat.path_of(rest)
        self._chat.conversation.replace_messages(saved_chat.load(path).messages)
        if self._chat.save_as is not None:  # with --no-save, the loaded chat is not written either
            self._chat.save_as = path
        return CommandResult(lines=[f"loaded: {path}", *summarize(self._chat.conversation)])

    def _exit(self, _rest: str) -> CommandResult:
        """leave the chat; --resume continues it later"""
        return CommandResult(leave=True)


def _path(text: str) -> Path:
    """Return the path that a user typed, or dropped on the terminal, which quotes it."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return Path(text[1:-1] if quoted else text.replace("\\ ", " ")).expanduser()


def _describe(name: str, about: str) -> str:
    arguments, _, what = about.rpartition(" | ")
    return f"{f'/{name} {arguments}':19}{what}"


def summarize(conversation: Conversation) -> list[str]:
    """Summarize a loaded conversation: the number of turns, its last messages, and whether an answer is missing."""
    questions = [message for message in conversation.messages if message["role"] == "user"]
    lines = [f"{len(questions)} question{'s' if len(questions) != 1 else ''} so far"]
    lines += [f"{'>' if m['role'] == 'user' else ' '} {_short(str(m['content']))}" for m in conversation.messages[-2:]]
    if conversation.is_unanswered:
        lines.append("the last question was not answered: /retry answers it")
    elif conversation.can_continue:
        lines.append("the last answer was cut off: Enter on an empty line continues it")
    return lines


def _short(text: str, most: int = 70) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
