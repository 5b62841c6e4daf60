"""The gateway as its clients' name server: a real gateway, asked by real clients, and what was seen upstream of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.resolver
import pytest

from dns import exception as dns_exception
from support.dns_server import DnsServer
from support.gateway import REPOSITORY, Gateway
from support.http import request_via_proxy
from support.lab import log_from_now, rule
from support.sockets import free_port, read_exactly
from support.waiting import PATIENCE, eventually
from support.wire import Wire

A, B, SIX, PRIVATE = "203.0.113.10", "203.0.113.11", "2001:db8::10", "10.0.0.5"
MANY = [f"203.0.113.{number}" for number in range(1, 65)]
ECH = "ech=AEX+DQBBGQAgACBcl/FWTU6V77HFpaXP7kyJ2v9vjyPZCrTLcLJHC4GaEAAEAAEAAQASY2xvdWRmbGFyZS1lY2guY29tAAA="
RULES = rule(
    "names",
    ["a.example", "alias.example", "many.example", "private.example", "long.example"],
    "80 http",
    "443 https",
) + rule("wild", "*.wild.example", "80 http")

type Transport = Literal["udp", "tcp"]


@pytest.fixture(scope="module")
def cold() -> bool:
    """How it starts is none of these tests' business."""
    return False


class NameServer:
    """A gateway in mode dns, and how to ask it."""

    def __init__(self, gateway: Gateway, port: int) -> None:
        self.gateway = gateway
        self.port = port

    def dig(self, *arguments: str, server: str = "127.0.0.1") -> str:
        command = ["dig", f"@{server}", "-p", str(self.port), "+tries=1", "+time=8", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=15, check=False).stdout

    def ask(
        self, name: str, kind: str = "A", over: Transport = "udp", server: str = "127.0.0.1", timeout: float = 8.0
    ) -> dns.message.Message:
        query = dns.message.make_query(name, kind, use_edns=0)
        send = dns.query.udp if over == "udp" else dns.query.tcp
        return send(query, server, port=self.port, timeout=timeout)

    def code(self, name: str, kind: str = "A", over: Transport = "udp") -> str:
        return dns.rcode.to_text(self.ask(name, kind, over).rcode())


@pytest.fixture(autouse=True)
def zone(dns: DnsServer) -> DnsServer:
    dns.set("a.example", [A, B, SIX], ttl=60)
    dns.record("a.example", "HTTPS", f"1 . alpn=h2 {ECH} ipv4hint={A},{PRIVATE}", ttl=60)
    dns.cname("alias.example", "a.example", ttl=20)
    dns.set("many.example", MANY)
    dns.set("private.example", [PRIVATE])
    dns.set("long.example", [A], ttl=86_400)
    dns.set("denied.example", ["203.0.113.66"])
    dns.set("b.wild.example", [B])
    return dns


@pytest.fixture(scope="module")
def theirs() -> Iterator[DnsServer]:
    """The name server that mitmproxy's own resolver would ask, which can ask port 53 only."""
    with DnsServer("127.0.0.53", 53) as there:
        for name in ("a.example", "b.wild.example", "denied.example"):
            there.set(name, ["203.0.113.99"])
        yield there


@pytest.fixture(autouse=True)
def mitmproxys_resolver_is_never_asked(theirs: DnsServer) -> Iterator[None]:
    yield
    assert theirs.queries == []


type Start = Callable[..., NameServer]


@pytest.fixture
def start(shared_gateway: Callable[..., Gateway], ports: dict[str, int]) -> Start:
    """A gateway in modes regular and dns; equal arguments give the same one within this module."""

    def begin(options: dict[str, Any] | None = None, **more: Any) -> NameServer:
        port = ports.setdefault(repr((options, sorted(more.items()))), free_port())
        given = {"egress_dns_queries_per_second": 10_000} | ASK_THEIRS | (options or {})
        return NameServer(shared_gateway(RULES, given, mode=["regular", f"dns@{port}"], **more), port)

    return begin


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {}


ASK_THEIRS = {"dns_name_servers": "127.0.0.53", "dns_use_hosts_file": False}
PROGRAMS = {
    "mitmdump, relay": {"data_path": "relay"},
    "mitmdump, inspect": {"data_path": "inspect"},
    "mitmweb": {"program": "mitmweb"},
}


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest, start: Start) -> NameServer:
    """One for each program and data path."""
    return start(**PROGRAMS[request.param])


# --- real clients ---


def test_dig_over_udp_and_tcp(server: NameServer, dns: DnsServer) -> None:
    for arguments in (["a.example"], ["+tcp", "a.example"], ["+noedns", "a.example"], ["+bufsize=4096", "a.example"]):
        assert set(server.dig("+short", *arguments).split()) == {A, B}
    assert server.dig("+short", "a.example", "AAAA").split() == [SIX]
    assert server.dig("+short", "alias.example").split() == ["a.example.", A, B]
    answer = server.dig("denied.example")
    assert "status: REFUSED" in answer
    assert "EDE: 15 (Blocked): (no_rule)" in answer
    assert "status: REFUSED" in server.dig("+tcp", "denied.example")
    assert not dns.asked("denied.example")


def test_dig_asks_again_over_tcp_where_an_answer_is_cut(server: NameServer) -> None:
    answer = server.dig("+noedns", "many.example")
    assert "Truncated, retrying in TCP mode" in answer
    assert "ANSWER: 64" in answer
    assert set(server.dig("+short", "+ignore", "+noedns", "many.example").split()) == set()


def test_dig_is_told_no_ech_and_no_private_hint(server: NameServer) -> None:
    assert server.dig("+short", "a.example", "HTTPS").strip() == f'1 . alpn="h2" ipv4hint={A}'
    assert server.dig("+short", "a.example", "SVCB").strip() == ""


def test_a_private_address_is_not_handed_out(server: NameServer) -> None:
    reply = server.ask("private.example")
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])
    entry = server.gateway.wait_for_log(authority="private.example:53", reason="address_not_allowed")
    assert (entry["resolved_addresses"], entry["rule"]) == ([PRIVATE], "default/names")


def test_python_resolves(server: NameServer) -> None:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], server.port, PATIENCE
    assert {record.to_text() for record in resolver.resolve("b.wild.example", "A")} == {B}
    rrset = resolver.resolve("a.example", "A").rrset
    assert rrset is not None
    assert rrset.ttl <= 60
    with pytest.raises(dns.resolver.NoNameservers, match="REFUSED"):
        resolver.resolve("denied.example", "A")
    with pytest.raises(dns.resolver.NXDOMAIN):
        resolver.resolve("none.wild.example", "A")
    with pytest.raises(dns.resolver.NoAnswer):
        resolver.resolve("a.example", "TXT")


def test_what_is_said_is_counted_and_logged(server: NameServer) -> None:
    gateway = server.gateway
    allowed = gateway.metric("egress_decisions_total", protocol="dns", action="allow", rule="default/names")
    denied = gateway.metric("egress_decisions_total", protocol="dns", action="deny", reason="no_rule")
    istio = gateway.metric("istio_requests_total") + gateway.metric("istio_tcp_connections_opened_total")
    logged = log_from_now(gateway)
    server.ask("a.example")
    server.ask("denied.example", "AAAA", "tcp")
    gateway.wait_for_metric("egress_decisions_total", denied + 1, protocol="dns", action="deny", reason="no_rule")
    assert gateway.metric("egress_decisions_total", protocol="dns", action="allow", rule="default/names") == allowed + 1
    entry = eventually(logged, "a line in the access log")[0]
    assert (entry["authority"], entry["method"], entry["protocol"]) == ("denied.example:53", "AAAA", "DNS")
    assert (entry["verdict"], entry["reason"], entry["response_code"]) == ("deny", "no_rule", 0)
    assert len(logged()) == 1, "answers are only counted"
    assert gateway.metric("istio_requests_total") + gateway.metric("istio_tcp_connections_opened_total") == istio
    assert gateway.metric("egress_connections_total", protocol="dns") >= 1
    if gateway.program == "mitmdump" and "data path relay" in gateway.output:
        eventually(lambda: "DNS AAAA denied.example:53" in gateway.output, "a line in the terminal")


def test_every_type_over_every_transport_goes_past_mitmproxys_own_dns(server: NameServer) -> None:
    """Whose name server is looked at after each of these tests."""
    for over in ("udp", "tcp"):
        for name in ("a.example", "denied.example"):
            for kind in ("A", "AAAA", "HTTPS", "TXT", "ANY", "PTR"):
                server.ask(name, kind, over)


OTHERWISE = {
    "egress_dns_denied": "nxdomain",
    "egress_dns_max_ttl": 10,
    "egress_dns_max_label": 3,
    "block_global": False,
}


@pytest.fixture
def otherwise(start: Start) -> NameServer:
    """One that listens everywhere and is set up in another way."""
    return start(OTHERWISE, extra_args=("--listen-host", ""))


@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_both_families_of_clients(otherwise: NameServer, over: Transport) -> None:
    for address in ("127.0.0.1", "::1", "198.18.0.1", "3fff::1", "203.0.113.53", "2001:db8::53"):
        assert otherwise.ask("a.example", "A", over, server=address).answer, address
    assert set(otherwise.dig("+short", "a.example", server="::1").split()) == {A, B}


# --- mitmproxy's own DNS never sees a question ---


def test_no_question_makes_a_flow_and_a_refused_one_is_a_line_of_the_event_log(start: Start) -> None:
    server = start(**PROGRAMS["mitmweb"])
    server.ask("a.example")
    server.ask("a.example", over="tcp")
    server.ask("denied.example")

    def shown(what: str) -> list[dict[str, Any]]:
        request = urllib.request.Request(server.gateway.web_url + what, headers={"Authorization": "Bearer x"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE) as response:
            found: list[dict[str, Any]] = json.load(response)
            return found

    assert [flow for flow in shown("/flows") if flow["type"] == "dns"] == []

    def lines() -> list[str]:
        return [event["message"] for event in shown("/events")]

    eventually(lambda: [line for line in lines() if "A denied.example:53 refused: no_rule" in line], "the refusal")
    assert not [line for line in lines() if " a.example" in line]


BREAKS = """
import pathlib
import egress_gateway.hooks.guard as guard
import egress_gateway.nameserver.questions as questions

WORD = pathlib.Path({word!r})


def breakable(module, name):
    works = getattr(module, name)

    def either(*arguments, **more):
        if WORD.read_text() == name:
            raise RuntimeError("made to fail")
        return works(*arguments, **more)

    setattr(module, name, either)


breakable(guard, "take_over")
breakable(guard, "serve_questions")
breakable(questions, "may_ask")
"""


@dataclass
class Breakable:
    server: NameServer
    word: Path

    @property
    def errors(self) -> float:
        return self.server.gateway.metric("egress_internal_errors_total")

    @contextlib.contextmanager
    def broken(self, name: str) -> Iterator[None]:
        self.word.write_text(name)
        yield
        self.word.write_text("")


@pytest.fixture(scope="module")
def word(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("breaks") / "word"
    path.write_text("")
    (path.parent / "breaks.py").write_text(BREAKS.format(word=str(path)))
    return path


@pytest.fixture
def breakable(start: Start, word: Path) -> Breakable:
    """Its parts can be made to fail; being with another script, it would make flows."""
    return Breakable(start({"egress_dns_timeout": 2}, scripts_before=(word.parent / "breaks.py",)), word)


@pytest.mark.parametrize("what", ["take_over", "serve_questions"])
def test_where_taking_over_fails_the_client_is_refused(breakable: Breakable, dns: DnsServer, what: str) -> None:
    before = breakable.errors
    with breakable.broken(what):
        for name in ("a.example", "denied.example"):
            with pytest.raises((EOFError, ConnectionError)):
                breakable.server.ask(name, over="tcp")
    assert dns.queries == []
    eventually(lambda: breakable.errors == before + 2, lambda: f"two errors, there are {breakable.errors - before}")
    assert breakable.server.ask("a.example", over="tcp").answer


def test_mitmproxys_own_udp_server_is_noticed_at_the_start(gateway: Any, tmp_path: Path) -> None:
    breaks = script(tmp_path, "import egress_gateway.hooks.dns_sockets as m; m.DnsSockets.begin = lambda self: None")
    running = gateway(RULES, mode=f"dns@{free_port()}", scripts_before=[breaks], wait_ready=False)
    assert running.wait_for_exit() == 1
    assert "mode dns does not listen on the gateway's own sockets" in running.output
    assert "Traceback" not in running.output


def test_and_would_be_refused_to_everybody(gateway: Any, theirs: DnsServer, dns: DnsServer, tmp_path: Path) -> None:
    breaks = script(
        tmp_path,
        """
        import egress_gateway.hooks.dns_sockets as m
        m.DnsSockets.begin = lambda self: None
        m.DnsSockets.are_ours = staticmethod(lambda servers: True)
        """,
    )
    port = free_port()
    running = gateway(RULES, ASK_THEIRS, mode=f"dns@{port}", scripts_before=[breaks])
    with pytest.raises(dns_exception.Timeout):
        NameServer(running, port).ask("a.example", timeout=0.5)
    running.wait_for_log(reason="mode_not_supported")
    assert (theirs.queries, dns.queries) == ([], [])


def script(directory: Path, text: str) -> Path:
    path = directory / "breaks.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


# --- options ---


def test_the_time_to_live_is_capped(start: Start, otherwise: NameServer) -> None:
    server = start(**PROGRAMS["mitmdump, relay"])
    assert server.ask("long.example").answer[0].ttl == 300
    assert server.ask("a.example").answer[0].ttl <= 60
    assert otherwise.ask("long.example").answer[0].ttl == 10


def test_denied_names_may_be_said_not_to_exist(otherwise: NameServer, dns: DnsServer) -> None:
    assert otherwise.code("denied.example") == "NXDOMAIN"
    assert otherwise.code("abcd.wild.example") == "NXDOMAIN"
    otherwise.gateway.wait_for_log(reason="label_too_long")
    assert dns.queries == []
    assert otherwise.code("b.wild.example") == "NOERROR"


LIMITED = {
    "egress_dns_queries_per_second": 10,
    "egress_dns_max_connections_per_client": 3,
    "egress_max_connections_per_client": 2,
}


def test_connections_are_limited_and_do_not_use_up_those_of_the_proxy(start: Start) -> None:
    server = start(LIMITED, extra_args=("--listen-host", "::"))
    running = server.gateway
    held = [socket.create_connection(("::1", server.port)) for _ in range(3)]
    try:
        with pytest.raises((EOFError, ConnectionError)):
            server.ask("a.example", over="tcp", server="::1")
        running.wait_for_log(reason="too_many_connections", detail="more than 3 connections")
        with socket.create_connection(("::1", running.port)) as proxy:
            proxy.sendall(b"GET http://denied.example/ HTTP/1.1\r\nHost: denied.example\r\n\r\n")
            assert read_exactly(proxy, 12) == b"HTTP/1.1 403"
        assert server.ask("a.example", server="::1").answer, "nor those of other questions"
    finally:
        for sock in held:
            sock.close()
    eventually(lambda: running.metric("egress_connections", protocol="dns") == 0, "the connections to be over")
    assert server.ask("a.example", over="tcp", server="::1").answer


def test_an_idle_connection_is_closed(start: Start) -> None:
    server = start({"egress_dns_idle_timeout": 1})
    with socket.create_connection(("127.0.0.1", server.port), timeout=8) as sock:  # the usual timeout is ten
        assert sock.recv(1) == b""


def test_a_client_that_asks_too_often_is_refused(start: Start) -> None:
    server = start(LIMITED, extra_args=("--listen-host", "::"))
    running = server.gateway
    time.sleep(1)

    def decided(**labels: str) -> float:
        return running.metric("egress_decisions_total", protocol="dns", **labels)

    before, codes = decided(action="allow"), {}
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(("::1", server.port))
        for number in range(100):
            sock.send(dns.message.make_query("a.example", "A", id=number).to_wire())
        # Not each of those that are too many is answered.
        while not {*range(15)} <= codes.keys() or dns.rcode.REFUSED not in codes.values():
            answer = dns.message.from_wire(sock.recv(4096))
            codes[answer.id] = answer.rcode()
    assert {codes[number] for number in range(15)} == {dns.rcode.NOERROR}
    eventually(lambda: decided(action="allow") - before + decided(reason="rate_limited") == 100, "all to be counted")
    assert decided(reason="rate_limited") >= 30, "twenty may be asked at once, and ten more each second that it takes"
    told = running.wait_for_log(reason="rate_limited")
    assert (told["response_flags"], told["authority"]) == ("RL", "a.example:53")
    assert len([entry for entry in running.access_log() if entry["reason"] == "rate_limited"]) <= 5
    time.sleep(0.5)
    assert server.ask("a.example", server="::1").answer, "and is heard again"


def test_who_asks_from_a_public_address_is_not_heard_unless_the_operator_says_so(start: Start) -> None:
    """Option `block_global` of mitmproxy, which is on by default, over UDP as well."""
    server = start(LIMITED, extra_args=("--listen-host", "::"))
    with pytest.raises(dns_exception.Timeout):
        server.ask("a.example", server="3fff::1", timeout=0.5)
    with pytest.raises((EOFError, ConnectionError)):
        server.ask("a.example", over="tcp", server="3fff::1")
    assert server.ask("a.example", server="::1").answer


# --- what nobody may hear of ---


def test_denied_names_are_never_asked_for(server: NameServer, dns: DnsServer, wire: Wire) -> None:
    for number in range(50):
        name = f"{number:032x}.{number}.evil.example"
        assert server.code(name, over="udp" if number % 2 else "tcp") == "REFUSED"
        assert server.code("b.a.example", "HTTPS") == "REFUSED"
    assert dns.queries == []
    assert not [question for question in wire.dns_queries() if question.server != "127.0.0.1"]


# --- when something fails ---


def test_an_exception_inside_is_servfail_and_counted(breakable: Breakable, dns: DnsServer) -> None:
    running, before = breakable.server.gateway, breakable.errors
    with breakable.broken("may_ask"):
        for over in ("udp", "tcp"):
            assert breakable.server.code("a.example", over=over) == "SERVFAIL"
    assert dns.queries == []
    eventually(lambda: breakable.errors == before + 2, lambda: f"two errors, there are {breakable.errors - before}")
    assert running.metric("egress_decisions_total", protocol="dns", reason="internal_error") == 2
    eventually(lambda: "made to fail" in running.output, "what has failed in the terminal")


def test_a_script_that_goes_away_closes_the_name_server(gateway: Any, dns: DnsServer, tmp_path: Path) -> None:
    copy = tmp_path / "addons"
    shutil.copytree(REPOSITORY / "addons", copy, ignore=shutil.ignore_patterns("__pycache__"))
    port = free_port()
    running = gateway(RULES, mode=["regular", f"dns@{port}"], script=copy / "egress.py")
    server = NameServer(running, port)
    assert server.code("a.example") == "NOERROR"
    dns.clear()
    (copy / "egress.py").unlink()
    eventually(lambda: server.code("a.example") == "SERVFAIL", "the gateway to close")
    assert server.code("b.wild.example", over="tcp") == "SERVFAIL"
    assert not dns.asked("b.wild.example")


def test_a_name_server_that_falls_silent(breakable: Breakable, dns: DnsServer) -> None:
    """What is known goes on; the first that asks for more waits once; then nobody waits, and it is back at once."""
    server, running = breakable.server, breakable.server.gateway
    assert server.code("a.example") == "NOERROR"
    dns.silent = True
    assert server.code("n0.wild.example") == "SERVFAIL"
    assert dns.count("n0.wild.example", "AAAA") == 1, "one time-out is enough to know"
    began = time.monotonic()
    for number in range(1, 20):
        assert server.code(f"n{number}.wild.example") == "SERVFAIL"
    # Who sees whether it is back asks for one family, and who waits for an answer for both.
    assert {query.name for query in dns.queries if query.type == "AAAA"} <= {"a.example", "n0.wild.example"}
    assert time.monotonic() - began < 15, "19 questions, of which not each waits for the second that a check takes"
    assert request_via_proxy(running, "GET", "http://n20.wild.example/").status == 502
    assert running.wait_for_log(authority="n20.wild.example:80")["response_flags"] == "DF"
    assert server.code("a.example") == "NOERROR"
    eventually(lambda: "has fallen silent" in running.output, "a line in the terminal")
    dns.silent = False
    eventually(lambda: server.code("b.wild.example") == "NOERROR", "the name server to be back")
