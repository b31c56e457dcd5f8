"""`edge worker`: lend this computer's memory and CPU to a language model that runs elsewhere (`--workers`)."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time

from runtimes.errors import EngineMissingError, HostError, UsageError, WorkerError

_START_S = 20.0
_RESTART_S = 1.0  # pause before a worker that ended is restarted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge worker`."""
    from edge.cli.options.numbers import count, fixed_port

    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="loopback address, as the protocol has no authentication (default: 127.0.0.1)",
    )
    parser.add_argument("--port", type=fixed_port, default=50052, metavar="N", help="the port (default: 50052)")
    parser.add_argument("--threads", type=count, metavar="N", help="threads (default: all performance cores)")
    parser.add_argument("--json", action="store_true", help='print {"address"} as JSON when ready')


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl+C. A worker that crashes is restarted."""
    from runtimes.host import performance_cores, usable_cores
    from runtimes.host.loopback import is_loopback
    from runtimes.registry import engine, is_installed, missing

    if not is_loopback(args.host, subdomains=False):
        what = f"a worker on {args.host} would serve everyone who can reach it, without a password"
        raise UsageError(
            what, f"listen on 127.0.0.1, and reach it with ssh -L {args.port}:127.0.0.1:{args.port} THIS-HOST"
        )
    if not is_installed(engine("llama_cpp")):
        error: EngineMissingError = missing(engine("llama_cpp"))
        raise error
    threads = args.threads or min(performance_cores(), usable_cores())
    command = [sys.executable, "-P", "-m", "runtimes.llm.rpc_server", args.host, str(args.port), str(threads)]
    child = _start(command, args.host, args.port)
    _print_address(args)
    try:
        while True:
            print(f"edge: the worker ended with status {child.wait()}; starting it again", file=sys.stderr)
            time.sleep(_RESTART_S)
            child = _start(command, args.host, args.port)
    finally:
        child.kill()
        child.wait()


def _print_address(args: argparse.Namespace) -> None:
    address = f"{args.host}:{args.port}"
    if args.json:
        print(json.dumps({"address": address}), flush=True)
        return
    print(f"serving on {address}; Ctrl+C stops it", flush=True)
    print(f"on the other computer: ssh -L {args.port}:127.0.0.1:{args.port} THIS-HOST", flush=True)
    print(f"                       edge chat MODEL.gguf --workers 127.0.0.1:{args.port}", flush=True)


def _start(command: list[str], host: str, port: int) -> subprocess.Popen[bytes]:
    """Start the worker, and return its process once it answers. Raises WorkerError if it does not start."""
    from runtimes.child_process import last_words
    from runtimes.llm.llama_cpp.rpc import read_version

    _check_free(host, port)
    log = tempfile.TemporaryFile()  # noqa: SIM115 - not a pipe, which would fill up: the worker runs for days
    # In our process group, so that closing the terminal also ends the worker and frees the port.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            words = last_words(log).splitlines() or ["it gave no reason"]
            raise WorkerError(f"the worker did not start: {words[0]}", words[-1] if len(words) > 1 else "")
        try:
            read_version(host, port, 1.0)
        except HostError:
            time.sleep(0.1)
        else:
            return child
    child.kill()
    raise WorkerError(f"the worker did not answer within {_START_S:.0f} s", "is the machine short of memory?")


def _check_free(host: str, port: int) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise HostError(f"{host}:{port} cannot be used: {error.strerror}", "choose another with --port") from None
