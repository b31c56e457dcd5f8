"""The command line: one file per command in this folder, each with `add_arguments` and `run`.

`edge --help` imports argparse and nothing of ours beyond this file; a command's file is imported when
the command is asked for, and engines only inside its functions.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from runtimes.errors import EdgeError, HostError, UsageError

# Command → its one line in `edge --help`, in the order of a model's way to a device.
COMMANDS = {
    "devices": "this machine, what is plugged in, engines installed, every known profile",
    "inspect": "what is in a model file: inputs, outputs, ops, precision, size",
    "check": "will a model run on a device? node by node, with reasons and what to change",
    "convert": "convert a trained model for a device or to a format, and prove the result",
    "quantize": "a language model in GGUF in fewer bits, and what that really changes",
    "verify": "check an artifact's digests and self-check on this machine",
    "run": "classify pictures with a model or artifact: top-5 with names",
    "bench": "measure models: every sample, honest statistics, what made them",
    "table": "the MobileNetV2 table: published rows, and this machine's",
    "deploy": "bring an artifact to a board over ssh, and prove there that it is right",
    "chat": "talk with a language model in the terminal, or ask it once",
    "serve": "serve a language model over HTTP as OpenAI does, with a page to chat on",
    "worker": "lend this computer to a language model that is too large for another",
    "doctor": "what is missing or wrong on this machine, and the command that mends it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; `argv` defaults to the process's own arguments."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json, debug = "--json" in words, "--debug" in words
    if argv is None:
        _mind_signals()
    try:
        return _run(words)
    except EdgeError as error:
        if debug:
            raise
        _report(error, as_json)
        return error.exit_code
    except KeyboardInterrupt:
        print("edge: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (`edge table | head`) has left
        return _without_stdout(141)
    except OSError as error:
        if debug:
            raise
        _report(_host_error(error), as_json)
        return _without_stdout(HostError.exit_code)


def _run(words: Sequence[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    parser = _parser(command if command in COMMANDS else None)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        name = " ".join(("edge", *filter(None, [args.command])))
        raise UsageError(f"{name} does not take {' '.join(unknown)}", f"see `{name} --help`")
    if args.command is None:
        parser.print_help()
        return 2
    status = int(_module(args.command).run(args))
    sys.stdout.flush()
    return status


def _mind_signals() -> None:
    """Let SIGTERM and a closed terminal end us as Ctrl+C does: with our workers, and with what lies in /tmp."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has not the second
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # under nohup it is ignored
            signal.signal(number, lambda given, _frame: sys.exit(128 + given))


def _host_error(error: OSError) -> HostError:
    """What the operating system refused, and the remedy as far as its number tells one."""
    hints = {
        errno.ENOSPC: "the disk is full: make room, or write elsewhere",
        errno.EACCES: "choose a place that you may write to",
        errno.EROFS: "choose a place that you may write to",
    }
    return HostError(f"{error.filename or 'the output'}: {error.strerror}", hints.get(error.errno or 0, ""))


def _without_stdout(status: int) -> int:
    """Leave with `status` while stdout is broken: Python would try to flush it once more and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


class _Parser(argparse.ArgumentParser):
    """Wrong words are an error like any other: one line and a hint, or JSON."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError where argparse would print the whole usage and exit."""
        raise UsageError(message, f"see `{self.prog} --help`")


class _CommandParser(_Parser):
    """Options may stand between words of which there may be none: `edge run ARTIFACT --on HOST PICTURE`."""

    _is_second_try = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def] # as argparse has it
        """As argparse does, which gives an optional word up at the first option; then once more with options first."""
        found, unknown = super().parse_known_args(args, namespace)
        if self._is_second_try or all(word.startswith("-") for word in unknown):
            return found, unknown
        self._is_second_try = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_second_try = False


def _module(command: str):  # type: ignore[no-untyped-def] # a command module has add_arguments(parser) and run(args)
    return import_module(f"edge.cli.{command}")


def _parser(command: str | None) -> argparse.ArgumentParser:
    """The parser of all commands, in which only `command` has its arguments."""
    from edge import __version__

    parser = _Parser(
        prog="edge",
        description="Take a trained model to a small machine: converted, proven equal, and measured.",
        epilog="`edge COMMAND --help` explains one command.",
    )
    parser.add_argument("--version", action="version", version=f"edge {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_CommandParser)
    for name, line in COMMANDS.items():
        sub = commands.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.")
        if name == command:
            _module(name).add_arguments(sub)
            sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _report(error: EdgeError, as_json: bool) -> None:
    if as_json:
        print(json.dumps(error.as_dict()), file=sys.stderr)
        return
    from edge.terminal import printable

    print(f"edge: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"      {printable(error.hint)}", file=sys.stderr)
