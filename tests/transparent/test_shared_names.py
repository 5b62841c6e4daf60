"""Two gateway processes on one machine: one tells a client an address, the other lets it go there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.dns_server import DnsServer
from support.http import request_over
from support.lab import rule
from support.networks import TwoNetworks
from support.origin import Origins
from support.resolve import resolve
from support.transparent_gateway import TransparentGateway, redirected

NAME = "www.example.com"
RULES = rule("www", NAME, "80 http")


@pytest.mark.parametrize(("shared", "status"), [(True, 200), (False, 403)], ids=["shared", "each for itself"])
def test_what_one_process_tells_a_client_the_other_knows(
    shared: bool,
    status: int,
    networks: TwoNetworks,
    internet_dns: DnsServer,
    transparent_gateway: Callable[..., TransparentGateway],
    origin: Origins,
    tmp_path: Path,
) -> None:
    with networks.web.entered():
        origin.http(networks.web.ipv4)
    internet_dns.set(NAME, [networks.web.ipv4], ttl=0)
    names_file = {"egress_names_file": tmp_path / "names"} if shared else {}
    names = transparent_gateway(RULES, names_file, modes=("dns@{dns_port}",))
    proxy = transparent_gateway(RULES, names_file)
    proxy.dns_port, proxy.answers_dns = names.dns_port, True
    with redirected(proxy):
        assert resolve(networks.client, NAME) == [networks.web.ipv4]
        internet_dns.set(NAME, [networks.evil.ipv4], ttl=0)
        with networks.client.connect(networks.web.ipv4, 80) as sock:
            assert request_over(sock, "GET", "/", {"Host": NAME}).status == status
