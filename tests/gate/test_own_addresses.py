"""Is an address one of this machine's own?"""

import errno
import socket
from ipaddress import ip_address

import pytest

from egress_gateway.gate import own_addresses as module
from egress_gateway.gate.own_addresses import is_own

OWN = {
    "loopback": "127.0.0.1",
    "another of loopback": "127.1.2.3",
    "loopback over IPv6": "::1",
    "this host": "0.0.0.0",
    "this host over IPv6": "::",
    "loopback, mapped": "::ffff:127.0.0.1",
    "this host, mapped": "::ffff:0.0.0.0",
}


@pytest.mark.parametrize("text", OWN.values(), ids=OWN)
def test_an_address_of_this_machine(text: str) -> None:
    assert is_own(ip_address(text))


@pytest.mark.parametrize("text", ["93.184.216.34", "203.0.113.66", "2606:4700:4700::1111", "64:ff9b::7f00:1"])
def test_an_address_that_cannot_be_bound_is_somebody_elses(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is not asked for real: in the network that tests run in, every address is this machine's."""
    asked: list[tuple[str, int]] = []

    def bind(_: socket.socket, address: tuple[str, int]) -> None:
        asked.append(address)
        raise OSError(errno.EADDRNOTAVAIL, "cannot assign requested address")

    monkeypatch.setattr(module, "_nonlocal_bind", lambda _: False)
    monkeypatch.setattr(module.socket.socket, "bind", bind)
    assert not is_own(ip_address(text))
    assert asked == [(text, 0)]


def test_every_address_of_an_interface_is_own() -> None:
    for entry in socket.getaddrinfo(socket.gethostname(), None):
        with socket.socket(entry[0], socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((entry[4][0], 0))
            except OSError:
                continue  # the name of this machine need not be one of its own addresses
        assert is_own(ip_address(entry[4][0]))


def test_where_binding_proves_nothing_the_route_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """net.ipv4.ip_nonlocal_bind lets any address be bound; in this network every address is routed to `lo`."""
    monkeypatch.setattr(module, "_nonlocal_bind", lambda _: True)
    assert is_own(ip_address("127.0.0.1"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: None)
    monkeypatch.setattr(socket.socket, "getsockname", lambda _: ("192.0.2.9", 5))
    assert is_own(ip_address("192.0.2.9"))
    assert not is_own(ip_address("192.0.2.10"))


def test_a_machine_without_ipv6_owns_no_ipv6_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_family(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "no such family")

    monkeypatch.setattr(module.socket, "socket", no_such_family)
    assert not is_own(ip_address("2001:db8::1"))


def test_what_cannot_be_asked_counts_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(module.socket, "socket", no_descriptor_left)
    assert is_own(ip_address("93.184.216.34"))


def test_the_setting_is_read_for_each_family() -> None:
    module._nonlocal_bind.cache_clear()
    assert module._nonlocal_bind(socket.AF_INET) in (True, False)
    assert module._nonlocal_bind(socket.AF_INET6) in (True, False)
