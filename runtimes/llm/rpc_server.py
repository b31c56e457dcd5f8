"""Compute a part of a language model for another computer: `python -m runtimes.llm.rpc_server HOST PORT THREADS`.

llama.cpp's RPC server never returns, and invalid input can crash it, so it has its own process, which `edge worker`
monitors. HOST is loopback, because the protocol has no authentication.
"""

from __future__ import annotations

import ctypes
import sys

from runtimes.errors import EdgeError
from runtimes.llm.llama_cpp import library as llama
from runtimes.llm.llama_cpp.rpc import rpc_functions


def serve(host: str, port: int, threads: int) -> None:
    """Serve the CPU until the process ends; returns only if the address cannot be bound."""
    library = llama.load()
    functions = rpc_functions(library)
    functions.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    functions.ggml_backend_dev_by_type.argtypes = [ctypes.c_int]
    device = ctypes.c_void_p(functions.ggml_backend_dev_by_type(0))  # GGML_BACKEND_DEVICE_TYPE_CPU
    devices = (ctypes.c_void_p * 1)(device)
    start = functions.ggml_backend_rpc_start_server
    start.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    start(f"{host}:{port}".encode(), None, threads, 1, devices)


if __name__ == "__main__":
    try:
        serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    except EdgeError as error:
        sys.exit(f"{error.message}\n{error.hint}")
    sys.exit("the address is in use")
