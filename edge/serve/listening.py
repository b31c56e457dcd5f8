"""The address that the server listens on, its API key, and the link to its page."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import HostError, InputError, UsageError
from runtimes.host.loopback import is_loopback

_VARIABLE = "EDGE_API_KEY"
_MIN_KEY_CHARACTERS = 8
_MAX_KEY_CHARACTERS = 4096
_OUTSIDE_ADDRESS = "192.0.2.1"  # TEST-NET-1 (RFC 5737): nothing is ever sent there


@dataclass(frozen=True)
class Key:
    """An API key; `is_new` if it was just generated and has to be shown."""

    value: str
    is_new: bool


def choose_key(host: str, file: Path | None, *, is_upstreams: bool = False) -> Key | None:
    """Return the key of the file, else EDGE_API_KEY, else a new one if other machines can reach `host`, else None.

    is_upstreams: EDGE_API_KEY is the key of another server, and does not apply to the clients of this one.
    """
    if file is not None:
        return Key(_check_key(_read(file), str(file)), is_new=False)
    if not is_upstreams and os.environ.get(_VARIABLE):
        return Key(_check_key(os.environ[_VARIABLE].strip(), _VARIABLE), is_new=False)
    return None if is_loopback(host, subdomains=True) else Key(secrets.token_urlsafe(24), is_new=True)


def _read(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as stream:
            return stream.readline(_MAX_KEY_CHARACTERS).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: the API key cannot be read: {error}", "its first line is the key") from None


def _check_key(key: str, place: str) -> str:
    if len(key) < _MIN_KEY_CHARACTERS or not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(
            f"{place} is not an API key",
            f"a key has at least {_MIN_KEY_CHARACTERS} letters, digits and signs, without spaces",
        )
    return key


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address. Raises HostError if the address is in use or not of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:  # UnicodeError: what no name of a host may contain, such as an empty part
        reason = error.strerror if isinstance(error, OSError) else "it does not have the form of a host name"
        raise HostError(f"{host} is not an address of this machine: {reason}", "try --host 127.0.0.1") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _bind_error(host, port, error) from None
    return bound


def _bind_error(host: str, port: int, error: OSError) -> HostError:
    if error.errno == errno.EADDRINUSE:
        return HostError(f"port {port} is in use by another program", "choose another one with --port, or --port 0")
    if error.errno == errno.EACCES:
        return HostError(f"you are not permitted to use port {port}", "choose one above 1023 with --port")
    return HostError(f"{host}, port {port}: {error.strerror}", "try --host 127.0.0.1")


def address_of(listening: socket.socket, host: str) -> str:
    """Return the URL to open; if the server listens on all interfaces, with this machine's address in its network."""
    port = listening.getsockname()[1]
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        host = _own_address()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _own_address() -> str:
    """Return this machine's address on the default route, or its name if it has no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_OUTSIDE_ADDRESS, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
