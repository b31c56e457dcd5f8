"""`edge worker`: lend this computer's memory and CPU to a language model that runs elsewhere (`--workers`)."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

from runtimes.errors import EngineMissing, HostError, UsageError, WorkerError

_START_S = 20.0
_RESTART_S = 1.0  # what a worker that ended gets before it is started again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to listen, and with how many threads to compute."""
    from edge.arguments import count

    parser.add_argument(
        "--host", default="127.0.0.1", help="loopback only: the protocol has no authentication (127.0.0.1)"
    )
    parser.add_argument("--port", type=count, default=50052, metavar="N", help="(50052)")
    parser.add_argument("--threads", type=count, metavar="N", help="all performance cores without it")
    parser.add_argument("--json", action="store_true", help='print {"address"} when it is ready')


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl+C; a worker that a client brought down is started again."""
    from runtimes.host import performance_cores, usable_cores
    from runtimes.llama.rpc import is_loopback
    from runtimes.registry import engine, is_installed, missing

    if not is_loopback(args.host):
        what = f"a worker on {args.host} would serve everybody who can reach it, without a password"
        raise UsageError(
            what, f"listen on 127.0.0.1, and reach it with ssh -L {args.port}:127.0.0.1:{args.port} THIS-HOST"
        )
    if not is_installed(engine("llama_cpp")):
        error: EngineMissing = missing(engine("llama_cpp"))
        raise error
    threads = args.threads or min(performance_cores(), usable_cores())
    command = [sys.executable, "-P", "-m", "runtimes.rpc_worker", args.host, str(args.port), str(threads)]
    child = _started(command, args.host, args.port)
    _say(args)
    try:
        while True:
            print(f"edge: the worker ended with status {child.wait()}; starting it again", file=sys.stderr)
            time.sleep(_RESTART_S)
            child = _started(command, args.host, args.port)
    finally:
        child.kill()
        child.wait()


def _say(args: argparse.Namespace) -> None:
    address = f"{args.host}:{args.port}"
    if args.json:
        print(json.dumps({"address": address}), flush=True)
        return
    print(f"serving on {address}; Ctrl+C ends it", flush=True)
    print(f"on the other computer: ssh -L {args.port}:127.0.0.1:{args.port} THIS-HOST", flush=True)
    print(f"                       edge chat MODEL.gguf --workers 127.0.0.1:{args.port}", flush=True)


def _started(command: list[str], host: str, port: int) -> subprocess.Popen[str]:
    """The worker's process, once it answers."""
    from runtimes.llama.rpc import hello

    _check_free(host, port)
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            assert child.stderr is not None
            words = child.stderr.read().strip().splitlines() or ["it said nothing"]
            raise WorkerError(f"the worker did not start: {words[0]}", words[-1] if len(words) > 1 else "")
        try:
            hello(host, port, 1.0)
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
