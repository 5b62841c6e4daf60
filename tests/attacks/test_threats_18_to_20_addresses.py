"""Threats 18 to 20: allowed names with forbidden addresses, answers that change, and addresses in disguise."""

from collections import Counter

import pytest

from support.dns_server import DnsServer
from support.gateway import Gateway, read_reply
from support.http import client_hello, request_over, request_via_proxy, socks5_connect
from support.lab import ACCESS_DENIED, Lab, alert_for, answered, is_outside, rule

EXTRA_RULES = (
    rule("special", "*.special.example", "80 http", "443 https", "5432 tcp")
    + rule("inside", "*.inside.example", "80 http", private=True)
    + rule("everything", "*", "8000 http", "8443 https")
    + rule("spelled", "203.0.113.14", "80 http", "443 https")
    + rule("loopback", "127.0.0.1", "80 http", "443 https")
    + rule("network", "198.51.100.0/24", "5432 tcp")
)

CLOSE = "Connection: close\r\n\r\n"

# --- 18 ---

FORBIDDEN = {
    "private 10/8": "10.0.0.5",
    "private 172.16/12": "172.31.255.254",
    "private 192.168/16": "192.168.1.1",
    "unique local": "fd12:3456::1",
    "site local": "fec0::1",
    "loopback": "127.0.0.1",
    "loopback, not the first": "127.255.255.254",
    "loopback IPv6": "::1",
    "this host": "0.0.0.0",
    "this network": "0.1.2.3",
    "unspecified IPv6": "::",
    "the gateway": "198.18.0.1",
    "the gateway's IPv6": "3fff::1",
    "link local": "169.254.1.1",
    "link local IPv6": "fe80::1",
    "metadata": "169.254.169.254",
    "metadata of Azure": "168.63.129.16",
    "metadata of Alibaba": "100.100.100.200",
    "metadata IPv6": "fd00:ec2::254",
    "carrier-grade NAT": "100.64.0.1",
    "benchmarking": "198.19.255.254",
    "documentation": "192.0.2.1",
    "documentation IPv6": "3fff:fff::1",
    "protocol assignments": "192.0.0.8",
    "6to4 anycast": "192.88.99.1",
    "multicast": "224.0.0.1",
    "multicast IPv6": "ff02::1",
    "class E": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "segment routing": "5f00::1",
    "mapped": "::ffff:10.0.0.5",
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped metadata": "::ffff:a9fe:a9fe",
    "compatible": "::10.0.0.5",
    "SIIT": "::ffff:0:10.0.0.5",
    "NAT64": "64:ff9b::10.0.0.5",
    "NAT64 of a network of its own": "64:ff9b:1::10.0.0.5",
    "6to4": "2002:a00:5::1",
    "Teredo": "2001:0:cb00:710a::f5ff:fffa",
    "ISATAP": "2606:4700::5efe:a00:5",
}


def test_threat_18_the_control(lab: Lab) -> None:
    lab.dns.set("fine.special.example", ["203.0.113.10"])
    assert request_via_proxy(lab.gateway, "GET", "http://fine.special.example/").status == 200


@pytest.mark.parametrize("address", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_threat_18_an_allowed_name_with_a_forbidden_address(lab: Lab, address: str) -> None:
    name = "bad.special.example"
    # Uncached, since the next test gives the name another address.
    lab.dns.set(name, [address], ttl=0)
    with lab.refused("address_not_allowed", times=2, asks=[name]) as seen:
        reply = lab.gateway.raw(f"GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        alert = alert_for(lab.tunnel("connect", name), client_hello(name))
    answered(reply, 403, "address_not_allowed")
    assert alert == ACCESS_DENIED
    assert b"destination_ip_prohibited" in reply
    assert not lab.wire.syns_to(address, 80) + lab.wire.syns_to(address, 443)
    assert {entry["rule"] for entry in seen.entries} == {"default/special"}


def test_threat_18_the_same_for_any_bytes(lab: Lab) -> None:
    """Under a tcp rule the refusal comes as the answer to CONNECT, or SOCKS5's code."""
    names = [f"tcp-{number}.special.example" for number in range(len(FORBIDDEN))]
    for name, address in zip(names, FORBIDDEN.values(), strict=True):
        lab.dns.set(name, [address])
    with lab.refused("address_not_allowed", times=2 * len(names), asks=names):
        for name in names:
            answered(
                lab.gateway.raw(f"CONNECT {name}:5432 HTTP/1.1\r\nHost: {name}:5432\r\n\r\n".encode()),
                403,
                "address_not_allowed",
            )
            code, sock = socks5_connect(lab.socks, name, 5432)
            sock.close()
            assert code == 2
    assert not [packet for packet in lab.wire.packets if packet.dport == 5432]


def test_threat_18_allow_private_opens_what_is_private(lab: Lab, origin) -> None:
    for number, address in enumerate(["10.0.0.5", "192.168.1.1", "100.64.0.1", "fd12:3456::1", "169.254.1.1"]):
        name = f"n{number}.inside.example"
        lab.dns.set(name, [address])
        origin.http(address, 80)
        assert request_via_proxy(lab.gateway, "GET", f"http://{name}/").status == 200


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "fd00:ec2::254", "224.0.0.1", "240.0.0.1"])
def test_threat_18_allow_private_does_not_open_metadata_and_what_is_no_host(lab: Lab, address: str) -> None:
    name = "m.inside.example"
    lab.dns.set(name, [address], ttl=0)
    with lab.refused("address_not_allowed", asks=[name]):
        assert request_via_proxy(lab.gateway, "GET", f"http://{name}/").status == 403


def test_threat_18_of_a_mixed_answer_only_what_may_be_dialled_is(lab: Lab) -> None:
    name = "mixed.special.example"
    lab.dns.set(name, ["10.0.0.5", "203.0.113.10", "::1", "fe80::1", "169.254.169.254"], ttl=0)
    for _ in range(10):
        assert request_via_proxy(lab.gateway, "GET", f"http://{name}/").status == 200
    assert {packet.dst for packet in lab.wire.packets if packet.is_syn and packet.dport == 80} == {"203.0.113.10"}


def test_threat_18_an_alias_of_a_private_name(lab: Lab) -> None:
    lab.dns.cname("alias.special.example", "intranet.corp.test")
    lab.dns.set("intranet.corp.test", ["10.0.0.5"])
    with lab.refused("address_not_allowed", asks=["alias.special.example", "intranet.corp.test"]):
        assert request_via_proxy(lab.gateway, "GET", "http://alias.special.example/").status == 403


def test_threat_18_an_alias_of_a_denied_name_is_judged_by_the_name_that_was_asked_for(lab: Lab) -> None:
    """Content networks work like that; the alias is the owner's word, not the client's."""
    lab.dns.cname("cdn.special.example", "edge.provider.test")
    lab.dns.set("edge.provider.test", ["203.0.113.10"])
    assert request_via_proxy(lab.gateway, "GET", "http://cdn.special.example/").status == 200


# --- 19: DNS rebinding ---


@pytest.fixture
def one_request_each(lab: Lab) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    lab.places.allowed.answers["/once"] = answer


def rebound(gateway: Gateway, name: str, times: int) -> Counter[int]:
    """How often which status came, over connections that are kept as long as the gateway keeps them.

    The origin ends each of its own, so that the name is resolved again for each request.
    """
    statuses: Counter[int] = Counter()
    while statuses.total() < times:
        with gateway.connect() as sock:
            kept = True
            while kept and statuses.total() < times and statuses.total() % 100 != 99:
                response = request_over(sock, "GET", f"http://{name}/once", {"Host": name})
                statuses[response.status] += 1
                kept = response.header("connection") != "close"
            if kept:
                statuses[request_over(sock, "GET", f"http://{name}/once", {"Host": name}).status] += 1
    return statuses


@pytest.mark.parametrize("private", ["10.0.0.5", "127.0.0.1", "::ffff:10.0.0.5"])
@pytest.mark.usefixtures("one_request_each")
def test_threat_19_an_answer_that_alternates(lab: Lab, dns: DnsServer, origin, private: str, program: str) -> None:
    name = "rebind.special.example"
    inside = origin.http("10.0.0.5" if "10.0" in private else private, 80)
    dns.sequence(name, [["203.0.113.10"], [private]], ttl=0)
    times = 1000 if (private, program) == ("10.0.0.5", "gateway") else 100
    statuses = rebound(lab.gateway, name, times)
    assert statuses[200] + statuses[403] == statuses.total() >= times
    assert min(statuses[200], statuses[403]) > times / 3
    assert inside.connections == []
    assert not lab.wire.syns_to(private, 80)
    assert {p.dst for p in lab.wire.packets if p.is_syn and is_outside(p)} == {"203.0.113.10"}


def test_threat_19_the_address_that_was_judged_is_the_one_dialled(lab: Lab, dns: DnsServer, origin) -> None:
    """One question a request: whoever asks twice gets the private address the second time."""
    name = "twice.special.example"
    inside = origin.http("10.0.0.5", 80)
    for _ in range(20):
        dns.sequence(name, [["203.0.113.10"], ["10.0.0.5"]], ttl=0)
        asked = dns.count(name, "A")
        assert request_via_proxy(lab.gateway, "GET", f"http://{name}/").status == 200
        assert dns.count(name, "A") == asked + 1
    assert inside.connections == []


def test_threat_19_a_reused_connection_stays_where_it_was_judged(lab: Lab, dns: DnsServer, origin) -> None:
    name = "pool.special.example"
    inside = origin.http("10.0.0.5", 80)
    dns.sequence(name, [["203.0.113.10"], ["10.0.0.5"]], ttl=0)
    with lab.gateway.connect() as sock:
        statuses = [request_over(sock, "GET", f"http://{name}/", {"Host": name}).status for _ in range(20)]
    assert statuses == [200] * 20
    assert inside.connections == []


def test_threat_19_in_tunnels(lab: Lab, dns: DnsServer, origin) -> None:
    name = "rebind-tls.special.example"
    inside = origin.tcp("10.0.0.5", 443)
    dns.sequence(name, [["203.0.113.10"], ["10.0.0.5"]], ttl=0)
    for way in ("connect", "socks5") * 20:
        with lab.tunnel(way, name) as sock:
            sock.sendall(client_hello(name))
            sock.recv(1)
    assert inside.connections == []
    assert not lab.wire.syns_to("10.0.0.5")


# --- 20 ---

LOOPBACK_SPELLINGS = [
    "127.1",
    "127.0.1",
    "127.0.0.1.",
    "0x7f.1",
    "0x7F.0x0.0x0.0x1",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "017700000001",
    "0177.1",
    "127.0.0.0x1",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
]


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
def test_threat_20_a_wildcard_is_no_rule_for_an_address(lab: Lab, host: str) -> None:
    """For this one there is a rule, though not on these ports, where every name is allowed."""
    with lab.refused("port_not_allowed", times=2):
        for reply in (
            lab.gateway.raw(f"GET http://{host}:8000/ HTTP/1.1\r\nHost: {host}:8000\r\n{CLOSE}".encode()),
            lab.gateway.raw(f"CONNECT {host}:8443 HTTP/1.1\r\nHost: {host}:8443\r\n\r\n".encode()),
        ):
            answered(reply, 403, "port_not_allowed")
    assert not [p for p in lab.wire.packets if p.is_syn and p.dport in (8000, 8443)]


@pytest.mark.parametrize("host", [host for host in LOOPBACK_SPELLINGS if not host.startswith("[")])
def test_threat_20_it_is_judged_as_the_address_that_it_is(lab: Lab, host: str) -> None:
    """There is a rule for 127.0.0.1, without allowPrivate: every spelling finds it, and is refused by it."""
    with lab.refused("address_not_allowed", times=3) as seen:
        replies = (
            lab.gateway.raw(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n{CLOSE}".encode()),
            lab.gateway.raw(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode()),
        )
        code, sock = socks5_connect(lab.socks, host.encode(), 443)
        sock.close()
    for reply in replies:
        answered(reply, 403, "address_not_allowed")
    assert code == 2
    # Two workers write to the log as it suits them.
    assert sorted(entry["authority"] for entry in seen.entries) == ["127.0.0.1:443", "127.0.0.1:443", "127.0.0.1:80"]
    assert not [p for p in lab.wire.packets if p.is_syn and p.dst == "127.0.0.1" and p.dport in (80, 443)]


@pytest.mark.parametrize("host", ["203.0.113.14", "0xcb.0x00.0x71.0x0e", "3405803790", "0313.0.0161.016", "203.28942"])
def test_threat_20_an_allowed_address_in_any_spelling_is_dialled_as_judged(lab: Lab, origin, host: str) -> None:
    server = origin.http("203.0.113.14", 80)
    assert request_via_proxy(lab.gateway, "GET", f"http://{host}/", {"Host": host}).status == 200
    assert [request.header("host") for request in server.requests] == ["203.0.113.14"]


FULL_WIDTH = "\uff11\uff12\uff17.\uff10.\uff10.\uff11"
CIRCLED = "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460"
IDEOGRAPHIC_STOP = "127\u30020\u30020\u30021"


@pytest.mark.parametrize("host", [FULL_WIDTH, CIRCLED, IDEOGRAPHIC_STOP])
def test_threat_20_digits_beyond_ascii(lab: Lab, host: str) -> None:
    with lab.refused("address_not_allowed") as seen:
        code, sock = socks5_connect(lab.socks, host.encode(), 443)
        sock.close()
    assert (code, seen.entry["authority"]) == (2, "127.0.0.1:443")
    with lab.refused("malformed_request", times=2):
        for head in (f"GET http://{host}/ HTTP/1.1", f"CONNECT {host}:443 HTTP/1.1"):
            answered(lab.gateway.raw(f"{head}\r\nHost: {host}\r\n{CLOSE}".encode()), 400, "malformed_request")
    with lab.refused("host_mismatch"):
        reply = lab.gateway.raw(f"GET http://allowed.example/ HTTP/1.1\r\nHost: {host}\r\n{CLOSE}".encode())
    answered(reply, 421, "host_mismatch")


NO_ADDRESS = [
    "127.0.0.256",
    "127.0.0.1.1",
    "0x7f.0.0.0.1",
    "127.0.0.08",
    "1.2.3.4.example.5",
    "0x",
    "256.1",
    "4294967296",
]


@pytest.mark.parametrize("host", NO_ADDRESS)
def test_threat_20_what_ends_in_a_number_is_no_name(lab: Lab, host: str) -> None:
    reasons = {"0x": "no_rule"}
    reason = reasons.get(host, "malformed_host")
    with lab.refused(reason):
        reply = lab.gateway.raw(f"GET http://{host}:8000/ HTTP/1.1\r\nHost: {host}:8000\r\n{CLOSE}".encode())
    answered(reply, 403 if reason == "no_rule" else 400, reason)


def test_threat_20_an_address_in_a_network_that_is_not_public(lab: Lab) -> None:
    with lab.refused("address_not_allowed", times=2):
        answered(
            lab.gateway.raw(b"CONNECT 198.51.100.7:5432 HTTP/1.1\r\nHost: 198.51.100.7:5432\r\n\r\n"),
            403,
            "address_not_allowed",
        )
        code, sock = socks5_connect(lab.socks, "198.51.100.7", 5432)
        with sock:
            assert (code, read_reply(sock)) == (2, b"")
