"""The packet filter in front of the gateway on the router."""

import socket
from types import SimpleNamespace
from typing import Any

import dns.message
import pytest

from support.dns_server import DnsServer
from support.networks import TwoNetworks
from support.transparent_gateway import redirected
from support.waiting import PATIENCE

pytestmark = [pytest.mark.private_network, pytest.mark.root]


def test_a_client_s_port_is_not_bound_to_the_gateway_before(networks: TwoNetworks) -> None:
    with networks.gateway.entered():
        servers = [DnsServer("::"), DnsServer("::")]
    with networks.client.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client, servers[0], servers[1]:
        client.settimeout(PATIENCE)
        for number, server in enumerate(servers):
            gateway: Any = SimpleNamespace(runs_on=networks.gateway, port=1, dns_port=server.port, answers_dns=True)
            with redirected(gateway):
                client.sendto(dns.message.make_query(f"{number}.example", "A").to_wire(), ("192.0.2.53", 53))
                client.recv(4096)
    assert [[query.name for query in server.queries] for server in servers] == [["0.example"], ["1.example"]]
