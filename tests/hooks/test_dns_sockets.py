"""Mode dns listens for UDP on sockets of ours, and on no others."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import mitmproxy_rs
import pytest
from mitmproxy.proxy.mode_servers import DnsInstance, ServerInstance

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.settings import Settings
from egress_gateway.hooks import dns_sockets as module
from egress_gateway.hooks.dns_sockets import DnsSockets
from egress_gateway.nameserver.datagrams import DatagramServer
from egress_gateway.nameserver.questions import NameServer
from egress_gateway.policy.events import Observer
from support.relay_server import Names

THEIRS = DnsInstance.start_udp_based_server


@pytest.fixture
def sockets() -> DnsSockets:
    return DnsSockets(NameServer(Gatekeeper(Names({}), Observer(), Settings())))


MANAGER: Any = None
"""What manages the servers of mitmproxy; nothing is asked of it."""


async def test_mitmproxy_opens_ours_in_the_place_of_its_own_until_it_is_done(sockets: DnsSockets) -> None:
    instance: Any = ServerInstance.make("dns@0", MANAGER)
    sockets.begin()
    try:
        instance._servers = await instance.listen("127.0.0.1", 0)
        tcp, udp = instance._servers
        try:
            assert isinstance(udp, DatagramServer)
            assert sockets.are_ours([instance])
            assert instance.listen_addrs == (tcp.sockets[0].getsockname(), udp.getsockname())
            assert {one[1] for one in instance.listen_addrs} == {udp.getsockname()[1]}, "both on one port"
        finally:
            udp.close()
            tcp.close()
    finally:
        sockets.end()
    assert DnsInstance.start_udp_based_server is THEIRS
    sockets.end()


async def test_one_of_mitmproxys_own_is_noticed(sockets: DnsSockets) -> None:
    async def nobody(_: object) -> None: ...

    instance: Any = ServerInstance.make("dns@0", MANAGER)
    theirs = await mitmproxy_rs.udp.start_udp_server("127.0.0.1", 0, nobody)
    try:
        instance._servers = [theirs]
        assert not sockets.are_ours([instance])
        assert sockets.are_ours([ServerInstance.make("regular@0", MANAGER)])
    finally:
        theirs.close()


async def test_both_families_where_no_address_is_given(sockets: DnsSockets) -> None:
    instance: Any = ServerInstance.make("dns@0", MANAGER)
    sockets.begin()
    try:
        servers = await instance.listen("", 0)
        families = [one.sockets[0].family for one in servers if isinstance(one, DatagramServer)]
        assert families == [socket.AF_INET, socket.AF_INET6]
        for one in servers:
            one.close()
    finally:
        sockets.end()


@pytest.mark.parametrize(
    ("client", "block_global", "block_private", "admitted"),
    [
        ("127.0.0.1", True, True, True),
        ("::1", True, True, True),
        ("10.0.0.7", True, False, True),
        ("10.0.0.7", False, True, False),
        ("fe80::1%lo", True, False, True),
        ("93.184.216.34", True, False, False),
        ("2606:2800:220:1::1", True, False, False),
        ("93.184.216.34", False, False, True),
    ],
)
def test_who_is_heard_is_the_operators_choice(
    monkeypatch: pytest.MonkeyPatch, client: str, block_global: bool, block_private: bool, admitted: bool
) -> None:
    options = SimpleNamespace(block_global=block_global, block_private=block_private)
    monkeypatch.setattr(module, "ctx", SimpleNamespace(options=options))
    assert module.is_admitted(client) is admitted
