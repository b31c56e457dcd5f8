"""Check whether a host name or address is loopback."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str, *, subdomains: bool) -> bool:
    """Return whether `host` is loopback; brackets around an IPv6 address are ignored.

    subdomains  whether `x.localhost` counts. Browsers resolve it to loopback by themselves (RFC 6761), so a web page's
                Host header may be one. A resolver may ask the network for it, so what we connect to may not.
    """
    if host == "localhost" or (subdomains and host.endswith(".localhost")):
        return True
    try:
        return ipaddress.ip_address(host[1:-1] if host.startswith("[") else host).is_loopback
    except ValueError:  # any other name may resolve to anything: 127.example.com
        return False
