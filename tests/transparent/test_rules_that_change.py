"""Rules change while many connections are open: those still allowed do not notice, the others end."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.http import request_over, tls_client
from support.lab import rule
from support.networks import TwoNetworks
from support.origin import Origins
from support.transparent_gateway import TransparentGateway
from support.waiting import eventually

KEPT, GONE = "kept.example", "gone.example"
EACH = 100


def test_200_open_connections(
    networks: TwoNetworks,
    transparent_gateway: Callable[..., TransparentGateway],
    redirect: Callable[..., None],
    internet_dns: DnsServer,
    origin: Origins,
    ca: SessionCa,
    data_path: str,
) -> None:
    web = networks.web.ipv4
    for name in (KEPT, GONE):
        internet_dns.set(name, [web])
    with networks.web.entered():
        origin.https(web, KEPT, certificate=ca.issue(KEPT, GONE))
    rules = {"kept.yaml": rule("kept", KEPT, "443 https"), "gone.yaml": rule("gone", GONE, "443 https")}
    gateway = transparent_gateway(rules, data_path=data_path)
    redirect(gateway)
    with contextlib.ExitStack() as stack:

        def dial(name: str, count: int) -> list[ssl.SSLSocket]:
            # One after the other, since the gateway does not wait for a hello for as long as a hundred may take.
            return [
                stack.enter_context(tls_client(networks.client.connect(web, 443), name, ca.pem_path))
                for _ in range(count)
            ]

        kept, gone = dial(KEPT, EACH), dial(GONE, EACH)
        ask = {"Host": KEPT}
        assert {request_over(tls, "GET", "/before", ask).status for tls in kept} == {200}

        gateway.write_rule("more.yaml", rule("more", "more.example", "443 https"))
        gateway.delete_rule("gone.yaml")
        for tls in gone:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                assert tls.recv(1) == b"", "it goes on"
        assert {request_over(tls, "GET", "/after", ask).status for tls in kept} == {200}
        lines = gateway.access_log()
        assert [entry for entry in lines if entry["requested_server_name"] == KEPT] == []
        eventually(
            lambda: len([entry for entry in gateway.access_log() if entry["requested_server_name"] == GONE]) == EACH,
            "a line for each that ended",
        )
    Path(gateway.rules_dir, "gone.yaml").write_text(rules["gone.yaml"], encoding="utf-8")
