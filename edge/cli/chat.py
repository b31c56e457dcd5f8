"""`edge chat`: chat with a language model, or ask a single question."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.errors import InputError, UsageError

if TYPE_CHECKING:
    from edge.chat.commands import Chat
    from edge.chat.conversation import Conversation
    from edge.chat.saved_chat import SavedChat
    from edge.llm.loading import LlmSource
    from runtimes.llm.session import TextOptions

_EPILOG = """
With PROMPT, or with text on stdin, it answers once, on stdout alone. Otherwise it is a chat: /help lists its commands,
Ctrl+C stops an answer, and every finished turn is saved (--resume).

--style 2023 is the terminal chat of March 2023 (alpaca.cpp): its look, its words around a question, temp 0.1, top_k 40,
top_p 0.95, repeat_last_n 64, repeat_penalty 1.3 in its order of sampling. Unlike it, a line that ends in a backslash
stays one question, lines may have any length, a full context drops the oldest turns instead of ending the program, and
Ctrl+C stops the answer at once.
"""
_SAMPLING = ("temp", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n", "seed", "max_tokens")
_MAX_FILE_BYTES = 1 << 20  # of a grammar, a schema or a system prompt
_MAX_PIPED_CHARACTERS = 1 << 26


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge chat`."""
    from edge.cli.options import llm_loading

    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a .gguf file, or an artifact's folder")
    parser.add_argument(
        "prompt", nargs="?", metavar="PROMPT", help="answer this prompt and exit (default: an interactive chat)"
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="show the model a picture with the PROMPT, or with the first question",
    )
    parser.add_argument("--style", choices=["modern", "2023"], default="modern", help="the look of the chat")
    parser.add_argument("--template", metavar="T", help=f"the chat template: {', '.join(_template_names())}, or a file")
    parser.add_argument("--system", metavar="TEXT", help="the system prompt")
    parser.add_argument(
        "--resume", nargs="?", const="", metavar="NAME", help="continue a saved chat (default: the newest)"
    )
    parser.add_argument("--no-save", action="store_true", help="do not save the chat")
    parser.add_argument("--no-markdown", action="store_true", help="print answers as plain text")
    parser.add_argument(
        "--think", choices=["on", "off"], help="let a reasoning model think, or not, where its template can"
    )
    parser.add_argument("--json", action="store_true", help="with PROMPT: print one JSON object")

    llm_loading.add_arguments(parser)
    answering = parser.add_argument_group("answering (in the chat: /set NAME VALUE)")
    for name in _SAMPLING:
        answering.add_argument(f"--{name.replace('_', '-')}", metavar="X", dest=name, help=_about(name))
    answering.add_argument("--grammar", type=Path, metavar="FILE", help="a GBNF grammar for the answers")
    answering.add_argument("--json-schema", type=Path, metavar="FILE", help="a JSON schema for the answers")


def run(args: argparse.Namespace) -> int:
    """Chat, or answer once. Returns 0, or 130 if Ctrl+C stopped the single answer."""
    from edge.cli.options.llm_loading import llm_source_from

    model, prompt = llm_source_from(_with_positionals(args)), _with_stdin(args.prompt)
    _check(args, prompt)
    saved = _resume(args)
    options = _options(args)
    if prompt is None and args.style == "2023":
        from edge.chat import style_2023

        style_2023.loading(model.source, options)
    from edge.chat.conversation import Conversation
    from edge.llm.chat_template import choose_template

    with model.open() as session, choose_template(session.facts, _template(args, saved)) as template:
        conversation = Conversation(
            session=session, template=template, options=options, messages=saved.messages if saved else []
        )
        if args.system is not None:
            conversation.system = args.system
        if args.think is not None:
            if not conversation.can_switch_thinking:
                raise UsageError(f"the template ({template.name}) cannot switch thinking", "leave out --think")
            conversation.thinks = args.think == "on"
        _attach(conversation, model, args.image)
        if prompt is None:
            return _converse(args, _chat(args, args.model or model.source, conversation))
        from edge.chat.one_shot import answer_once

        return answer_once(conversation, prompt, as_json=args.json)


def _attach(conversation: Conversation, model: LlmSource, pictures: Sequence[Path]) -> None:
    """Attach the pictures of the command line. Raises UsageError if the model cannot see any."""
    if pictures and "pictures" not in conversation.session.capabilities:
        hint = (
            "convert its folder again with edge convert, which writes the mmproj file next to it, or pass --mmproj FILE"
        )
        hint = "pictures need the model's file: pass MODEL instead of --server" if model.is_served else hint
        raise UsageError(f"{model.name} has no picture encoder", hint)
    for picture in pictures:
        conversation.attach(picture)


def _with_positionals(args: argparse.Namespace) -> argparse.Namespace:
    """With --server, treat a single positional argument as the prompt."""
    if args.server is not None and args.prompt is None:
        args.model, args.prompt = None, args.model
    return args


def _template_names() -> Sequence[str]:
    from edge.llm.builtin_templates import NAMED

    return list(NAMED)


def _about(name: str) -> str:
    from edge.chat.sampling_settings import SETTINGS

    return SETTINGS[name][2]


def _with_stdin(prompt: str | None) -> str | None:
    """Return the prompt, followed by the text from stdin."""
    if sys.stdin is None or sys.stdin.isatty():
        return prompt
    try:
        piped = sys.stdin.read(_MAX_PIPED_CHARACTERS + 1)
    except UnicodeDecodeError:
        raise InputError("stdin is not UTF-8 text", "pipe text in") from None
    if len(piped) > _MAX_PIPED_CHARACTERS:
        raise InputError("the text on stdin is longer than any context", "pipe in less")
    parts = [part for part in (prompt, piped.strip("\n")) if part]
    if not parts:
        raise UsageError("stdin is not a terminal and is empty", "pass a PROMPT, or pipe text in")
    return "\n\n".join(parts)


def _check(args: argparse.Namespace, prompt: str | None) -> None:
    """Raise UsageError for incompatible options, before a model is loaded."""
    if args.json and prompt is None:
        raise UsageError("--json is for one answer", "pass a PROMPT, or pipe text in")
    if args.resume is not None and prompt is not None:
        raise UsageError("--resume is for a chat", "leave the PROMPT out")
    if prompt is None:
        if not sys.stdout.isatty():
            raise UsageError("a chat needs a terminal, but stdout is not one", "pass a PROMPT, or pipe text in")
        if args.style == "modern":
            from edge.chat.terminal import check_libraries

            check_libraries()


def _resume(args: argparse.Namespace) -> SavedChat | None:
    from edge.chat import saved_chat

    if args.resume is None:
        return None
    args.resume_path = saved_chat.path_of(args.resume) if args.resume else saved_chat.newest()
    return saved_chat.load(args.resume_path)


def _template(args: argparse.Namespace, saved: SavedChat | None) -> str | None:
    if args.template is not None:
        return str(args.template)
    if args.style == "2023":
        from edge.chat import style_2023

        return style_2023.TEMPLATE
    return saved.template if saved else None


def _options(args: argparse.Namespace) -> TextOptions:
    from edge.chat import sampling_settings, style_2023
    from runtimes.llm.session import TextOptions

    options = style_2023.options(None) if args.style == "2023" else TextOptions()
    for name in _SAMPLING:
        if getattr(args, name) is not None:
            options = sampling_settings.change_setting(options, name, getattr(args, name))
    grammar = _read(args.grammar) if args.grammar else None
    schema = _schema(args.json_schema) if args.json_schema else None
    return replace(options, grammar=grammar, json_schema=schema)


def _schema(path: Path) -> str:
    text = _read(path)
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}", "pass a JSON schema") from None
    return text


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InputError(f"{path} is larger than {_MAX_FILE_BYTES >> 20} MiB", "choose a smaller file")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path} cannot be read: {reason}", "check the path and its permissions") from None


def _chat(args: argparse.Namespace, model: str, conversation: Conversation) -> Chat:
    from edge.chat import saved_chat
    from edge.chat.commands import Chat

    if args.no_save:
        return Chat(conversation=conversation, model=model)
    if args.resume is not None:
        return Chat(conversation=conversation, model=model, save_as=args.resume_path)
    return Chat(conversation=conversation, model=model, save_as=saved_chat.path_of(saved_chat.new_name(model)))


def _converse(args: argparse.Namespace, chat: Chat) -> int:
    if args.style == "2023":
        from edge.chat import style_2023

        return style_2023.converse(chat)
    from edge.chat import terminal

    return terminal.converse(chat, markdown=not args.no_markdown)
