"""The recorder of packets: sees each once, loses none in silence, and tells when something did leave."""

import hashlib
import re
import socket

import pytest
from dns.message import make_query

from dns import query as dns_query
from support.dns_server import DnsServer
from support.http import request_over
from support.origin import Origins
from support.waiting import PATIENCE
from support.wire import DnsQuestion, Packet, Wire

pytestmark = pytest.mark.private_network

QUIET, QUIET6 = "203.0.113.66", "2001:db8::66"


def test_sees_a_connection_once(wire: Wire, origin: Origins) -> None:
    server = origin.tcp("203.0.113.10", 9999)
    with socket.create_connection(("203.0.113.10", 9999)) as sock:
        port = sock.getsockname()[1]
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"
    server.wait_for(1)[0].closed.wait(PATIENCE)
    (syn,) = wire.syns_to("203.0.113.10")
    assert syn == Packet("tcp", "198.18.0.1", port, "203.0.113.10", 9999, "S", 0, b"")
    assert [p.payload for p in wire.packets_to("203.0.113.10") if p.length] == [b"hello"]
    assert [p.payload for p in wire.packets_to("198.18.0.1", port) if p.length] == [b"hello"]
    assert not wire.syns_to("203.0.113.10", 443)
    assert not wire.syns_to("198.18.0.1")


def test_sees_ipv6_and_udp_and_any_spelling(wire: Wire) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("2001:db8::9", 443))
    assert [p.flags for p in wire.packets_to("2001:0DB8:0::9", 443)] == ["S"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"quic", (QUIET, 443))
    (packet,) = wire.packets_to(QUIET)
    assert (packet.proto, packet.dport, packet.length, packet.payload) == ("udp", 443, 4, b"quic")


def icmp6(kind: int, hop_limit: int, options: bytes = b"") -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        if options:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, options)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hop_limit)
        # Type, code, a checksum that the kernel writes, four reserved bytes, the address that is asked about.
        sock.sendto(bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + socket.inet_pton(socket.AF_INET6, QUIET6), (QUIET6, 0))


def test_how_neighbours_find_one_another_is_no_traffic_to_them(wire: Wire) -> None:
    for kind in (135, 136):
        icmp6(kind, hop_limit=255)
    wire.assert_nothing_left(QUIET6)


@pytest.mark.parametrize(
    ("kind", "hop_limit"),
    [(1, 255), (128, 255), (129, 255), (133, 255), (134, 255), (137, 255), (135, 64), (136, 254)],
    ids=[
        "unreachable",
        "echo request",
        "echo reply",
        "router solicitation",
        "router advertisement",
        "redirect",
        "a solicitation from beyond the link",
        "an advertisement from beyond the link",
    ],
)
def test_all_other_icmpv6_is(wire: Wire, kind: int, hop_limit: int) -> None:
    icmp6(kind, hop_limit)
    assert [(packet.proto, packet.dst) for packet in wire.packets_to(QUIET6)][:1] == [("icmp6", QUIET6)]


def test_icmpv6_is_found_behind_options(wire: Wire) -> None:
    """Even what would be how neighbours find one another, which has none."""
    for kind in (143, 135):
        icmp6(kind, 255, bytes([0, 0, 5, 2, 0, 0, 1, 0]))  # the router alert
    assert [packet.proto for packet in wire.packets_to(QUIET6)] == ["icmp6", "icmp6"]


@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_reads_dns_questions(wire: Wire, dns: DnsServer, over: str) -> None:
    dns.set("www.example.com", ["203.0.113.10"])
    send = dns_query.tcp if over == "tcp" else dns_query.udp
    send(make_query("WWW.example.com", "AAAA"), dns.address, port=dns.port, timeout=PATIENCE)
    assert wire.dns_queries() == [DnsQuestion("www.example.com", "AAAA", over, "127.0.0.1")]
    wire.assert_nothing_left(name="other.example")
    with pytest.raises(AssertionError, match="was asked for"):
        wire.assert_nothing_left(name="Www.Example.Com.")


def test_reads_dns_questions_to_servers_nobody_set_up(wire: Wire) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(make_query("leak.example", "A").to_wire(), ("8.8.8.8", 53))
        sock.sendto(b"not dns", ("8.8.8.8", 53))
    assert [(q.name, q.server) for q in wire.dns_queries()] == [
        ("leak.example", "8.8.8.8"),
        ("(unreadable)", "8.8.8.8"),
    ]


def test_nothing_left_holds_until_something_does(wire: Wire) -> None:
    wire.assert_nothing_left(QUIET)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((QUIET, 443))
    wire.assert_nothing_left(QUIET, port=80)
    with pytest.raises(AssertionError, match=re.escape(f"1 packets left for {QUIET}")):
        wire.assert_nothing_left(QUIET)
    wire.clear()
    wire.assert_nothing_left(QUIET)
    with pytest.raises(TypeError):
        wire.assert_nothing_left()


def test_keeps_up_with_a_bulk_transfer(wire: Wire, origin: Origins) -> None:
    if not wire.has_room:
        pytest.skip("a large receive buffer needs root outside the namespace")
    size = 100_000_000
    origin.http("203.0.113.10")
    with socket.create_connection(("203.0.113.10", 80)) as sock:
        body = request_over(sock, "GET", f"/bytes/{size}").body
    assert len(hashlib.sha256(body).digest()) == 32
    assert sum(p.length for p in wire.packets if p.sport == 80) > size


def test_a_recorder_that_lost_packets_does_not_claim_that_there_were_none(wire: Wire) -> None:
    wire._lost = 1
    with pytest.raises(AssertionError, match="lost 1 packets"):
        wire.assert_nothing_left(QUIET)
    wire._lost = 0


def test_what_was_lost_before_the_recorder_was_cleared_matters_no_more(wire: Wire) -> None:
    """Or one flood, on a slow machine, would fail every later test that has the same recorder."""
    wire._lost = 1
    wire.clear()
    wire.assert_nothing_left(QUIET)


def test_the_record_outlives_the_recording() -> None:
    with Wire() as wire, pytest.raises(ConnectionRefusedError):
        socket.create_connection((QUIET, 443))
    assert len(wire.syns_to(QUIET, 443)) == 1
