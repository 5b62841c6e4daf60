"""The DNS server, asked by dnspython over real sockets."""

import socket
import time

import pytest
from dns.exception import Timeout
from dns.flags import TC
from dns.message import Message, from_wire, make_query
from dns.rcode import NOERROR, NXDOMAIN, SERVFAIL

from dns import query as dns_query
from support.dns_server import DnsServer, Query
from support.waiting import PATIENCE

NAME = "www.googleapis.com"


def ask(server: DnsServer, name: str = NAME, kind: str = "A", over: str = "udp", timeout: float = PATIENCE) -> Message:
    query = make_query(name, kind)
    send = dns_query.tcp if over == "tcp" else dns_query.udp
    return send(query, server.address, port=server.port, timeout=timeout)


def addresses(message: Message) -> list[str]:
    return [str(item) for rrset in message.answer for item in rrset]


@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_answers_what_was_set_and_remembers_who_asked(dns: DnsServer, over: str) -> None:
    dns.set("WWW.googleapis.com.", ["203.0.113.10", "2001:db8::10", "203.0.113.11"], ttl=7)
    answer = ask(dns, over=over)
    assert addresses(answer) == ["203.0.113.10", "203.0.113.11"]
    assert answer.answer[0].ttl == 7
    assert addresses(ask(dns, kind="AAAA", over=over)) == ["2001:db8::10"]
    assert dns.queries == [Query(NAME, "A", over), Query(NAME, "AAAA", over)]
    assert dns.asked("www.GoogleAPIs.com.")
    assert not dns.asked("googleapis.com")
    assert dns.count(NAME) == 2
    assert dns.count(NAME, "A") == 1
    dns.clear()
    assert not dns.asked(NAME)


def test_an_unknown_name_does_not_exist_and_a_known_one_may_lack_a_type(dns: DnsServer) -> None:
    dns.set(NAME, ["203.0.113.10"])
    unknown, lacking = ask(dns, "nowhere.example"), ask(dns, kind="AAAA")
    assert unknown.rcode() == NXDOMAIN
    assert lacking.rcode() == NOERROR
    assert not unknown.answer
    assert not lacking.answer
    assert "SOA" in unknown.authority[0].to_text()
    assert "SOA" in lacking.authority[0].to_text()


def test_follows_aliases_in_its_zone(dns: DnsServer) -> None:
    dns.set(NAME, ["203.0.113.10"])
    dns.cname("alias.example", NAME)
    assert addresses(ask(dns, "alias.example")) == [f"{NAME}.", "203.0.113.10"]
    dns.cname("dangling.example", "nowhere.example")
    assert ask(dns, "dangling.example").rcode() == NXDOMAIN


def test_a_sequence_rebinds_and_each_type_counts_for_itself(dns: DnsServer) -> None:
    dns.sequence("rebind.example", [["203.0.113.5", "2001:db8::5"], ["10.0.0.5"]])
    assert addresses(ask(dns, "rebind.example", "AAAA")) == ["2001:db8::5"]
    seen = [addresses(ask(dns, "rebind.example")) for _ in range(3)]
    assert seen == [["203.0.113.5"], ["10.0.0.5"], ["203.0.113.5"]]
    assert addresses(ask(dns, "rebind.example", "AAAA")) == []


def test_silence_is_recorded_and_not_answered(dns: DnsServer) -> None:
    dns.silent = True
    with pytest.raises(Timeout):
        ask(dns, timeout=0.2)
    assert dns.asked(NAME)


def test_a_slow_name_does_not_hold_up_the_others(dns: DnsServer) -> None:
    dns.set("slow.example", ["203.0.113.1"])
    dns.delay("slow.example", 3)
    dns.set(NAME, ["203.0.113.10"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((dns.address, dns.port))
        for name in ("slow.example", NAME):
            sock.send(make_query(name, "A").to_wire())
        assert addresses(from_wire(sock.recv(4096))) == ["203.0.113.10"]
    dns.delay("slow.example", 0.4)
    began = time.monotonic()
    assert addresses(ask(dns, "slow.example")) == ["203.0.113.1"]
    assert time.monotonic() - began > 0.35


def test_fails_truncates_and_lies_when_told(dns: DnsServer) -> None:
    dns.set(NAME, ["203.0.113.10"])
    dns.fail(NAME)
    assert ask(dns).rcode() == SERVFAIL
    dns.fail(NAME, None)
    dns.truncate(NAME)
    truncated = ask(dns)
    assert truncated.flags & TC
    assert not truncated.answer
    assert addresses(ask(dns, over="tcp")) == ["203.0.113.10"]
    dns.truncate(NAME, False)
    dns.tamper = lambda response: response.to_wire()[:-4] + bytes([10, 0, 0, 5])
    assert addresses(ask(dns)) == ["10.0.0.5"]


def test_what_does_not_fit_into_a_datagram_is_cut_and_whole_over_tcp(dns: DnsServer) -> None:
    many = [f"203.0.113.{number}" for number in range(1, 201)]
    dns.set(NAME, many)
    cut = ask(dns)
    assert cut.flags & TC
    assert not cut.answer
    assert addresses(ask(dns, over="tcp")) == many


def test_other_types_of_record(dns: DnsServer) -> None:
    dns.record("h3.example", "HTTPS", "1 . alpn=h3,h2")
    assert 'alpn="h3,h2"' in ask(dns, "h3.example", "HTTPS").answer[0].to_text()


def test_changes_of_a_test_are_undone() -> None:
    with DnsServer() as server:
        server.set(NAME, ["203.0.113.10"])
        with server.changes_undone():
            server.set(NAME, ["203.0.113.66"])
            server.set("other.example", ["203.0.113.67"])
            server.silent = True
        assert addresses(ask(server)) == ["203.0.113.10"]
        assert ask(server, "other.example").rcode() == NXDOMAIN


def test_nobody_answers_after_the_end() -> None:
    with DnsServer() as server:
        pass
    with pytest.raises(ConnectionRefusedError):
        ask(server, over="tcp")
