"""llama.cpp's RPC workers: computers that compute a part of a model's layers.

The protocol has no authentication and no encryption, and llama.cpp aborts the process if a worker cannot be reached or
disconnects. So each worker's version is checked here first, and models with workers are loaded in a separate process.
Source: ggml/src/ggml-rpc/ggml-rpc.cpp and ggml/include/ggml-rpc.h of llama.cpp.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Any, Sequence, Tuple

from runtimes.errors import EngineError, HostError, UsageError
from runtimes.host.loopback import is_loopback

DEFAULT_PORT = 50052
# RPC_PROTO_*_VERSION of the llama.cpp in llama-cpp-python 0.3.36; a test compares it with the library's answer.
PROTOCOL = (7, 0, 0)
_HELLO = 14
_CAPABILITY_BYTES = 24  # of rpc_msg_hello_req, and after the version in rpc_msg_hello_rsp
_TIMEOUT_S = 5.0
_REMEDY = "start it there with `edge worker`, and reach it through `ssh -L PORT:127.0.0.1:PORT HOST`"

Version = Tuple[int, int, int]


def parse_address(worker: str) -> tuple[str, int]:
    """Parse "host:port". Raises UsageError for anything else, and for a host that is not this machine."""
    host, _, port = worker.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            f"'{worker}' is not the address of a worker", f"write HOST:PORT, for example 127.0.0.1:{DEFAULT_PORT}"
        )
    if not is_loopback(host, subdomains=False):
        what = f"the worker {worker} is not on this machine, and its protocol has no authentication and no encryption"
        raise UsageError(
            what, f"reach it through a tunnel: ssh -L {port}:127.0.0.1:{port} {host}, then 127.0.0.1:{port}"
        )
    return host, int(port)


def read_version(host: str, port: int, timeout_s: float = _TIMEOUT_S) -> Version:
    """Return a worker's version of the protocol. Raises HostError if it does not answer."""
    where = f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout_s) as line:
            line.sendall(struct.pack("<BQ", _HELLO, _CAPABILITY_BYTES) + bytes(_CAPABILITY_BYTES))
            size = struct.unpack("<Q", _exactly(line, 8))[0]
            major, minor, patch = struct.unpack("<BBB", _exactly(line, min(size, 28))[:3])
    except socket.timeout:
        raise HostError(f"the worker {where} does not answer; it serves one model at a time", _REMEDY) from None
    except (OSError, struct.error) as error:
        reason = getattr(error, "strerror", None) or "another program listens there"
        raise HostError(f"the worker {where} cannot be reached: {reason}", _REMEDY) from None
    return major, minor, patch


def check_worker(worker: str) -> None:
    """Raise HostError if a worker cannot be reached, or has an incompatible version of the protocol."""
    version = read_version(*parse_address(worker))
    if version[0] != PROTOCOL[0] or version[1] > PROTOCOL[1]:
        theirs, ours = (".".join(map(str, numbers)) for numbers in (version, PROTOCOL))
        message = f"the worker {worker} uses version {theirs} of the protocol, this machine {ours}"
        raise HostError(message, "install the same llama-cpp-python on both")


def distribute_layers(library: Any, parameters: Any, workers: Sequence[str], layers: int) -> Any:
    """Set `parameters` so that the model's layers are distributed evenly over the workers and this machine.

    Returns an object that must live until the model is loaded. Raises HostError if a worker cannot be used.
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
    parameters.n_gpu_layers = remote_layers(layers, len(workers))
    shares = (ctypes.c_float * library.llama_max_devices())(*([1.0] * len(workers)))
    parameters.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
    return shares


def remote_layers(layers: int, workers: int) -> int:
    """Return the number of layers for the workers: all but this machine's share; the output layer counts as one."""
    return round((layers + 1) * workers / (workers + 1))


def rpc_functions(library: Any) -> Any:
    """Return the library with ggml's functions, including those for RPC. Raises EngineError if it was built without.

    This is libllama: symbols looked up there are those of the libraries that it was linked with. Loading ggml's files
    directly, which exist under three names each, could create a second, unconnected ggml.
    """
    functions = library._lib
    if not hasattr(functions, "ggml_backend_rpc_add_server"):
        # Without these options pip uses the wheel that it built before.
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
            raise ConnectionError("the connection was closed")
        content += part
    return content
