"""llama.cpp's RPC workers: computers that take a share of a model's layers.

The protocol has no authentication and no encryption, and llama.cpp ends the process when a worker is not there or goes
away. So a worker is asked for its version here first, and models with workers are loaded in a process of their own.
Source: ggml/src/ggml-rpc/ggml-rpc.cpp and ggml/include/ggml-rpc.h of llama.cpp.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from typing import Any, Sequence, Tuple

from runtimes.errors import EngineError, HostError, UsageError

DEFAULT_PORT = 50052
# RPC_PROTO_*_VERSION of the llama.cpp in llama-cpp-python 0.3.36; a test holds it against what the library answers.
PROTOCOL = (7, 0, 0)
_HELLO = 14
_CAPABILITY_BYTES = 24  # of rpc_msg_hello_req and behind the version in rpc_msg_hello_rsp
_TIMEOUT_S = 5.0
_REMEDY = "start it there with `edge worker`, and reach it through `ssh -L PORT:127.0.0.1:PORT HOST`"

Version = Tuple[int, int, int]


def address(worker: str) -> tuple[str, int]:
    """Host and port of "host:port"; UsageError for anything else, and for a host that is not this machine itself."""
    host, _, port = worker.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"'{worker}' is no worker", f"write HOST:PORT, for example 127.0.0.1:{DEFAULT_PORT}")
    if not is_loopback(host):
        what = f"the worker {worker} is not on this machine, and its protocol has no authentication and no encryption"
        raise UsageError(
            what, f"reach it through a tunnel: ssh -L {port}:127.0.0.1:{port} {host}, then 127.0.0.1:{port}"
        )
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host[1:-1] if host.startswith("[") else host).is_loopback
    except ValueError:  # another name, which may lead anywhere: 127.example.com
        return False


def hello(host: str, port: int, timeout_s: float = _TIMEOUT_S) -> Version:
    """The version of the protocol that a worker speaks; HostError where none answers."""
    where = f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout_s) as line:
            line.sendall(struct.pack("<BQ", _HELLO, _CAPABILITY_BYTES) + bytes(_CAPABILITY_BYTES))
            size = struct.unpack("<Q", _exactly(line, 8))[0]
            major, minor, patch = struct.unpack("<BBB", _exactly(line, min(size, 28))[:3])
    except socket.timeout:
        raise HostError(f"the worker {where} does not answer; it serves one model at a time", _REMEDY) from None
    except (OSError, struct.error) as error:
        reason = getattr(error, "strerror", None) or "what is there is no worker"
        raise HostError(f"the worker {where} cannot be reached: {reason}", _REMEDY) from None
    return major, minor, patch


def check_worker(worker: str) -> None:
    """HostError where a worker cannot be used: not there, or of a version that this machine does not speak."""
    found = hello(*address(worker))
    if found[0] != PROTOCOL[0] or found[1] > PROTOCOL[1]:
        there, here = (".".join(map(str, version)) for version in (found, PROTOCOL))
        message = f"the worker {worker} speaks version {there} of the protocol, this machine {here}"
        raise HostError(message, "install the same llama-cpp-python on both")


def share_out(library: Any, parameters: Any, workers: Sequence[str], layers: int) -> Any:
    """Have the model that is loaded with `parameters` share its layers evenly with the workers.

    Returns what has to live until the model is loaded. HostError for a worker that cannot be used.
    """
    for worker in workers:
        check_worker(worker)
    functions = rpc_functions(library)
    functions.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    functions.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
    functions.ggml_backend_register.argtypes = [ctypes.c_void_p]
    for worker in workers:
        registry = functions.ggml_backend_rpc_add_server(worker.encode())
        if not registry:
            raise HostError(f"the worker {worker} offers no device", _REMEDY)
        functions.ggml_backend_register(registry)
    # All but this machine's own share; the output layer counts as one more.
    parameters.n_gpu_layers = round((layers + 1) * len(workers) / (len(workers) + 1))
    shares = (ctypes.c_float * library.llama_max_devices())(*([1.0] * len(workers)))
    parameters.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
    return shares


def rpc_functions(library: Any) -> Any:
    """What has ggml's functions, those for RPC among them; EngineError where the library was built without.

    That is libllama itself: looked up there, they are those of the very libraries that it was linked with. The files
    lie beside it under three names each, and loading another one would make a second, unconnected ggml.
    """
    functions = library._lib
    if not hasattr(functions, "ggml_backend_rpc_add_server"):
        # Without those words pip hands out the wheel that it has built before.
        hint = (
            "`make llama` builds one that has it; or: CMAKE_ARGS=-DGGML_RPC=ON pip install --no-cache-dir "
            "--force-reinstall --no-deps llama-cpp-python"
        )
        raise EngineError("this llama-cpp-python was built without RPC", hint)
    return functions


def _exactly(line: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        part = line.recv(count - len(content))
        if not part:
            raise ConnectionError("the line was closed")
        content += part
    return content
