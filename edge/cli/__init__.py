"""The command line: one file per command in this folder, each with `add_arguments` and `run`.

`edge --help` imports only argparse and this file. A command's file is imported when the command is used, and engines
are imported only inside its functions.
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

# Command → its line in `edge --help`, in the order of a model's path to a device.
COMMANDS = {
    "devices": "list this machine, its accelerators, the installed engines and the known profiles",
    "inspect": "show what is in a model file: inputs, outputs, ops, precision, size",
    "check": "check whether a model runs on a device, node by node, with reasons and remedies",
    "estimate": "estimate latency and memory on a device without having it, from published rows",
    "convert": "convert a trained model for a device or to a format, and prove the result",
    "quantize": "quantize a language model in GGUF, and measure what that changes",
    "verify": "check an artifact's digests and self-check on this machine",
    "run": "run a model on pictures or arrays, and print the result of its task",
    "evaluate": "compare the accuracy of models on labeled inputs, and tell whether a difference is chance",
    "bench": "measure models: every sample, statistics with intervals, the conditions",
    "tune": "find the fastest engine, threads, settings and precision whose outputs are right",
    "history": "list, show, export or remove the measurements that were kept",
    "report": "write one HTML page with results, figures, proofs, and how each number was made",
    "table": "print the MobileNetV2 table: published rows, and this machine's",
    "deploy": "copy an artifact to a board over ssh, and verify it there",
    "chat": "chat with a language model in the terminal, or ask a single question",
    "serve": "serve a language model over OpenAI's HTTP API, with a chat page",
    "web": "serve an artifact for the browser, on a page that verifies it there",
    "worker": "lend this computer's memory and CPU to a language model on another",
    "doctor": "report what is missing or wrong on this machine, with the command that fixes it",
}
# The commands that pass the words after -- to another program.
_PASSING_ON = frozenset(("serve",))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; `argv` defaults to the process's own arguments."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json, debug = "--json" in words, "--debug" in words
    if argv is None:
        _handle_signals()
    try:
        return _run(words)
    except EdgeError as error:
        if debug:
            raise
        _report(error, as_json)
        return error.exit_code
    except KeyboardInterrupt:
        return _report_interrupt()
    except RuntimeError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # it came while a class was being made
            return _report_interrupt()
        raise
    except BrokenPipeError:  # the reader of our output has exited: `edge table | head`
        return _without_stdout(141)
    except OSError as error:
        if debug:
            raise
        _report(_host_error(error), as_json)
        return _without_stdout(HostError.exit_code)


def _report_interrupt() -> int:
    """Report Ctrl+C, and return the shell's status for it."""
    print("edge: stopped", file=sys.stderr)
    # If it interrupted code that runs from a string, as when a dataclass is defined, CPython remembers that and at exit
    # ends the process by the signal. Another string makes it forget (`run_eval_code_obj` in its pythonrun.c).
    exec("")  # noqa: S102 - nothing is executed
    return 130


def _run(words: Sequence[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    parser = _parser(command if command in COMMANDS else None)
    words, passed_on = _split(words, command)
    args, unknown = parser.parse_known_args(words)
    args.passed_on, args.words = passed_on, words
    if unknown:
        name = " ".join(("edge", *filter(None, [args.command])))
        raise UsageError(f"{name} does not take {' '.join(unknown)}", f"see `{name} --help`")
    if args.command is None:
        parser.print_help()
        return 2
    _show_log()
    status = int(_module(args.command).run(args))
    sys.stdout.flush()
    return status


def _split(words: Sequence[str], command: str | None) -> tuple[list[str], list[str]]:
    """Split off the words after --, for commands that pass them to another program."""
    if command not in _PASSING_ON or "--" not in words:
        return list(words), []
    place = list(words).index("--")
    return list(words[:place]), list(words[place + 1 :])


def _show_log() -> None:
    """Print the log of our packages to stderr: warnings as `edge: ...`, other messages without the prefix."""
    import logging

    class Stderr(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            from edge.console.text import printable

            prefix = "edge: " if record.levelno >= logging.WARNING else ""
            clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # removes a progress bar
            print(f"{clear}{prefix}{printable(record.getMessage())}", file=sys.stderr)

    log = logging.getLogger("edge")
    log.setLevel(logging.INFO)
    log.handlers = [Stderr()]


def _handle_signals() -> None:
    """Make SIGTERM and a closed terminal end us as Ctrl+C does: workers end and files in /tmp are removed."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows lacks the second
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # under nohup it is ignored
            signal.signal(number, lambda received, _frame: sys.exit(128 + received))


def _host_error(error: OSError) -> HostError:
    """Convert an error of the operating system, with a remedy if its number suggests one."""
    hints = {
        errno.ENOSPC: "the disk is full: free some space, or write elsewhere",
        errno.EACCES: "choose a folder that you may write to",
        errno.EROFS: "choose a folder that you may write to",
    }
    what = error.strerror or str(error) or type(error).__name__
    return HostError(f"{error.filename or 'the output'}: {what}", hints.get(error.errno or 0, ""))


def _without_stdout(status: int) -> int:
    """Return `status` after redirecting a broken stdout: Python would flush it at exit and print an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments like any other error: one line and a hint, or JSON."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage and exiting."""
        raise UsageError(message, f"see `{self.prog} --help`")


class _CommandParser(_Parser):
    """Allows options between optional positional arguments: `edge run ARTIFACT --on HOST PICTURE`."""

    _is_second_try = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def] # the signature of argparse
        """Parse as argparse does; if words are left over, parse again with options and positionals intermixed.

        argparse matches an optional positional as empty at the first option, so a word after the option is left over.
        """
        parsed, unknown = super().parse_known_args(args, namespace)
        self._suggest_option(unknown)
        if self._is_second_try or all(word.startswith("-") for word in unknown):
            return parsed, unknown
        self._is_second_try = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_second_try = False

    def _suggest_option(self, unknown: Sequence[str]) -> None:
        """Raise UsageError with the option that was meant, if one of the words left over is nearly an option."""
        for word in unknown:
            if word.startswith("--"):
                from difflib import get_close_matches

                for near in get_close_matches(word.partition("=")[0], self._option_string_actions, 1, 0.7):
                    raise UsageError(f"{self.prog} does not take {' '.join(unknown)}", f"did you mean {near}?")


def _module(command: str):  # type: ignore[no-untyped-def] # a command module has add_arguments(parser) and run(args)
    return import_module(f"edge.cli.{command}")


def _parser(command: str | None) -> argparse.ArgumentParser:
    """Create the parser of all commands, with the arguments of `command` only."""
    from edge import __version__

    parser = _Parser(
        prog="edge",
        description="Convert a trained model for a small machine, prove the result equal, run and measure it.",
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
    from edge.console.text import printable

    print(f"edge: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"      {printable(error.hint)}", file=sys.stderr)
