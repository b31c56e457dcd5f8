"""Which host names and addresses mean this machine only."""

import pytest

from runtimes.host.loopback import is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"])
@pytest.mark.parametrize("subdomains", [True, False])
def test_this_machine(host: str, subdomains: bool) -> None:
    assert is_loopback(host, subdomains=subdomains)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.168.1.2", "localhost.example.com", "127.example.com", "pi"])
@pytest.mark.parametrize("subdomains", [True, False])
def test_others(host: str, subdomains: bool) -> None:
    assert not is_loopback(host, subdomains=subdomains)


def test_a_web_pages_host_may_be_a_name_below_localhost_and_a_worker_may_not() -> None:
    assert is_loopback("edge.localhost", subdomains=True)
    assert not is_loopback("edge.localhost", subdomains=False)
