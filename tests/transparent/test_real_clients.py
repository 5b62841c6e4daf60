"""What people really use, on a machine that knows of no proxy: its router and its name server are the gateway.

Each client asks for everything that a rule allows, over IPv4 and IPv6, and for what none does: then it is told at
once, in a way that its user can read. Meanwhile nothing goes to anybody else, and only the gateway asks for names.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.lab import rule
from support.machine import ASKS_ONCE, Machine
from support.networks import TwoNetworks
from support.origin import Origins, SmtpOrigin
from support.transparent_gateway import MODES, TransparentGateway, guarded

SCRIPTS = Path(__file__).resolve().parents[1] / "clients"
AT_ONCE = 8.0
"""Seconds, nearly all of them a busy machine's. A client that is not answered gives up after ten."""

RULES = (
    rule("everyday", "*.web.example", "80 http", "443 https")
    + rule("secure-only", "secure.example", "443 https")
    + rule("plain-only", "plain.example", "80 http")
    + rule("mail-by-name", "*.mail.example", "25 tcp")
    + rule("mail-by-network", ["198.18.5.0/24", "2001:db8:1::/64"], "2525 tcp")
)
PORTS = (80, 443, 25, 2525)


@dataclass(frozen=True, slots=True)
class Told:
    """What a client told its user about one URL: an answer, or an error."""

    url: str
    seconds: float
    status: int = 0
    text: str = ""
    error: str = ""


type Ask = Callable[[Machine, list[str]], list[Told]]


def script(*command: str | Path) -> Ask:
    """A program from tests/clients, which asks for all URLs in turn."""

    def ask(desk: Machine, urls: list[str]) -> list[Told]:
        ended = desk.run(*command, *urls, timeout=60).check()
        return [Told(**json.loads(line)) for line in ended.out.splitlines()]

    return ask


def curl(*options: str) -> Ask:
    def ask_one(desk: Machine, url: str) -> Told:
        ended = desk.run("curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}", *options, url)
        text, _, status = ended.out.rpartition("\n")
        return Told(url, ended.seconds, int(status), text, ended.err)

    return lambda desk, urls: [ask_one(desk, url) for url in urls]


WEB_CLIENTS = {
    "curl": curl(),
    "curl with HTTP/1.1": curl("--http1.1"),
    "Python urllib": script(sys.executable, SCRIPTS / "get_urllib.py"),
    "Python requests": script(sys.executable, SCRIPTS / "get_requests.py"),
    "Python httpx": script(sys.executable, SCRIPTS / "get_httpx.py"),
    "Node https": script("node", SCRIPTS / "get_node.js", "https"),
    "Node fetch": script("node", SCRIPTS / "get_node.js", "fetch"),
    "Ruby Net::HTTP": script("ruby", SCRIPTS / "get_net_http.rb"),
}
# They say nothing before the server has greeted them.
MAIL_CLIENTS = {
    "curl": curl("-X", "NOOP"),
    "Python smtplib": script(sys.executable, SCRIPTS / "greet_smtplib.py"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the user must be able to read, in the answer's text or in the client's error."""

    status: int
    said: str
    """A regular expression, in any case of letters."""

    def check(self, told: Told) -> None:
        assert told.status == self.status, told
        assert re.search(self.said, told.error or told.text, re.IGNORECASE), told
        assert told.seconds < AT_ONCE, told


PASSES = Outcome(200, "^/ of ")
FORBIDDEN = Outcome(403, r"^403 Forbidden\n(.*\n)*Reason: +(no_rule|port_not_allowed): ")
ALERT = Outcome(0, "(tlsv1|alert).(alert.)?(access.denied|unrecognized.name)")
NO_NAME = Outcome(0, "resolv|getaddrinfo|name or service|name resolution")
NO_PORT = Outcome(0, "refused|couldn't connect")
GREETED = Outcome(250, "fine")
HUNG_UP = Outcome(0, "closed|response reading failed|weird server reply|recv")

WEB_CASES = {
    "HTTP, IPv4": ("http://v4.web.example/", PASSES),
    "HTTP, IPv6": ("http://v6.web.example/", PASSES),
    "HTTP to 443, IPv4": ("http://v4.web.example:443/", PASSES),
    "HTTP to 443, IPv6": ("http://v6.web.example:443/", PASSES),
    "HTTPS, IPv4": ("https://v4.web.example/", PASSES),
    "HTTPS, IPv6": ("https://v6.web.example/", PASSES),
    "HTTPS to a server of HTTP/2": ("https://h2.web.example/", PASSES),
    "HTTP where a rule allows HTTPS only": ("http://secure.example/", FORBIDDEN),
    "HTTPS where a rule allows HTTP only": ("https://plain.example/", ALERT),
    "HTTP to a host without a rule": ("http://denied.example/", NO_NAME),
    "HTTPS to a host without a rule": ("https://denied.example/", NO_NAME),
    "HTTP to an address": ("http://203.0.113.66/", FORBIDDEN),
    "HTTPS to an address": ("https://[2001:db8::66]/", ALERT),
    "a port that no rule names": ("http://v4.web.example:8080/", NO_PORT),
}
MAIL_CASES = {
    "by name, IPv4": ("smtp://v4.mail.example/", GREETED),
    "by name, IPv6": ("smtp://v6.mail.example/", GREETED),
    "by network, IPv4": ("smtp://198.18.5.25:2525/", GREETED),
    "by network, IPv6": ("smtp://[2001:db8:1::25]:2525/", GREETED),
    "a host without a rule": ("smtp://denied.example/", NO_NAME),
    "an address that no name has": ("smtp://203.0.113.66/", HUNG_UP),
    "an address beside the network": ("smtp://[2001:db8::66]:2525/", HUNG_UP),
}


@pytest.fixture(scope="module")
def internet(networks: TwoNetworks, module_internet_dns: DnsServer, module_origin: Origins, ca: SessionCa) -> None:
    """Who the clients ask for, each behind its name."""
    v4, v6, h2 = networks.web.ipv4, networks.web.ipv6, "203.0.113.18"
    for name, addresses in {
        "v4.web.example": [v4],
        "v6.web.example": [v6],
        "h2.web.example": [h2],
        "secure.example": [v4, v6],
        "plain.example": [v4, v6],
        "v4.mail.example": [v4],
        "v6.mail.example": [v6],
        "denied.example": [networks.evil.ipv4, networks.evil.ipv6],
    }.items():
        module_internet_dns.set(name, addresses)
    certificate = ca.issue("*.web.example", "secure.example", "plain.example")
    with networks.web.entered():
        for address in (v4, v6):
            module_origin.http(address)
            module_origin.https(address, "", certificate=certificate)
            module_origin.start(SmtpOrigin(address, 25))
        for address in ("198.18.5.25", "2001:db8:1::25"):
            module_origin.start(SmtpOrigin(address, 2525))
        module_origin.h2(h2, "", certificate=certificate)


type Lead = Callable[..., contextlib.AbstractContextManager[TransparentGateway]]


@pytest.fixture(scope="module")
def lead(transparent_gateway: Callable[..., TransparentGateway], internet: None, data_path: str) -> Lead:
    """`lead(egress_hello_timeout=1)`: meanwhile what comes from inside goes to a gateway with these options."""

    @contextlib.contextmanager
    def start(**options: int) -> Iterator[TransparentGateway]:
        started = transparent_gateway(RULES, options, data_path=data_path, modes=MODES)
        with guarded(started, PORTS):
            yield started

    return start


@pytest.fixture
def gateway(lead: Lead) -> Iterator[TransparentGateway]:
    with lead() as started:
        yield started


@pytest.fixture(scope="module")
def told(
    request: pytest.FixtureRequest,
    networks: TwoNetworks,
    module_internet_dns: DnsServer,
    lead: Lead,
    desk: Machine,
) -> dict[str, Told]:
    """What one client said of each case. What others saw meanwhile is looked at here."""
    clients, cases, options, name = request.param
    program = name.split()[0].lower()
    if program != "python" and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (scripts/test installs it)")
    module_internet_dns.clear()
    with lead(**options), networks.evil.wire() as evil, networks.names.wire() as names:
        told = clients[name](desk, [url for url, _ in cases.values()])
    assert not [packet for packet in evil.packets if packet.proto != "icmp6"]  # the router looks for its neighbours
    assert {packet.src for packet in names.packets if packet.dport == 53} <= {"203.0.113.1", "2001:db8::1"}
    assert not module_internet_dns.asked("denied.example")
    return dict(zip(cases, told, strict=True))


# A client may still name itself a host, so one that waits for a greeting from nowhere waits this long (seconds).
HELLO = {"egress_hello_timeout": 1}

WEB = [pytest.param((WEB_CLIENTS, WEB_CASES, {}, name), id=name) for name in WEB_CLIENTS]
MAIL = [pytest.param((MAIL_CLIENTS, MAIL_CASES, HELLO, name), id=name) for name in MAIL_CLIENTS]


@pytest.mark.parametrize("told", WEB, indirect=True)
@pytest.mark.parametrize("case", WEB_CASES)
def test_web(told: dict[str, Told], case: str) -> None:
    WEB_CASES[case][1].check(told[case])


@pytest.mark.parametrize("told", MAIL, indirect=True)
@pytest.mark.parametrize("case", MAIL_CASES)
def test_mail(told: dict[str, Told], case: str) -> None:
    MAIL_CASES[case][1].check(told[case])


def test_http_2_is_spoken_end_to_end(desk: Machine, gateway: TransparentGateway) -> None:
    url = "https://h2.web.example/"
    ended = desk.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_version}", url).check()
    assert ended.out == "2"


@pytest.mark.parametrize("server", ["10.66.0.1", "fd66::1", "192.0.2.53", "2606:4700:4700::1111"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_whatever_name_server_a_client_believes_in(
    networks: TwoNetworks, gateway: TransparentGateway, ca: SessionCa, tmp_path: Path, server: str, transport: str
) -> None:
    options = ASKS_ONCE if transport == "udp" else f"{ASKS_ONCE} use-vc"
    believer = Machine(networks.client, tmp_path, name_server=server, trusts=ca.pem_path, resolver_options=options)
    with networks.client.wire() as wire, networks.evil.wire() as evil:
        (told,) = WEB_CLIENTS["curl"](believer, ["https://v4.web.example/"])
    PASSES.check(told)
    asked = {(question.server, question.transport) for question in wire.dns_queries()}
    assert asked == {(server, transport)}
    assert not [packet for packet in evil.packets if packet.proto != "icmp6"]
