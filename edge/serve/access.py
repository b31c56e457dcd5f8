"""Where the server listens, the key that it asks for, and the link that opens its page."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from edge.serve.guard import is_loopback
from runtimes.errors import HostError, InputError, UsageError

_VARIABLE = "EDGE_API_KEY"
_LEAST_KEY = 8
_MOST_KEY = 4096
_ELSEWHERE = "192.0.2.1"  # TEST-NET-1 (RFC 5737): nothing is ever sent there


@dataclass(frozen=True)
class Key:
    """An API key; `is_new` when it was made up just now and has to be shown."""

    value: str
    is_new: bool


def choose_key(host: str, file: Path | None, *, is_upstreams: bool = False) -> Key | None:
    """The key of the file, else of EDGE_API_KEY, else a new one where others can reach `host`, else none.

    `is_upstreams`: EDGE_API_KEY opens another server, and is not shown to the clients of this one.
    """
    if file is not None:
        return Key(_checked(_read(file), str(file)), is_new=False)
    if not is_upstreams and os.environ.get(_VARIABLE):
        return Key(_checked(os.environ[_VARIABLE].strip(), _VARIABLE), is_new=False)
    return None if is_loopback(host) else Key(secrets.token_urlsafe(24), is_new=True)


def _read(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as stream:
            return stream.readline(_MOST_KEY).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: the API key cannot be read: {error}", "its first line is the key") from None


def _checked(key: str, place: str) -> str:
    if len(key) < _LEAST_KEY or not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(
            f"{place} holds no API key", f"a key is {_LEAST_KEY} or more letters, digits and signs, without spaces"
        )
    return key


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the address and does not listen yet; HostError where that is taken or not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise HostError(f"{host} is no address of this machine: {error.strerror}", "try --host 127.0.0.1") from None
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        raise _unbound(host, port, error) from None
    return found


def _unbound(host: str, port: int, error: OSError) -> HostError:
    if error.errno == errno.EADDRINUSE:
        return HostError(f"port {port} is in use by another program", "choose another one with --port, or --port 0")
    if error.errno == errno.EACCES:
        return HostError(f"port {port} needs rights that you do not have", "choose one over 1023 with --port")
    return HostError(f"{host}, port {port}: {error.strerror}", "try --host 127.0.0.1")


def address_of(listening: socket.socket, host: str) -> str:
    """The address to open: that of this machine in its network where it listens everywhere."""
    port = listening.getsockname()[1]
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        host = _own_address()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _own_address() -> str:
    """This machine's address on the way to others; its name where it has no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_ELSEWHERE, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
