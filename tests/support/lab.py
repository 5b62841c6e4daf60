"""One gateway under attack, the places that it may and may not reach, and what must be true after an attack.

    with lab.refused("no_rule"):
        reply = lab.gateway.raw(b"GET http://denied.example/ ...")
    answered(reply, 403, "no_rule")

| name | address | rules allow |
|---|---|---|
| `allowed.example` | 203.0.113.10 | 80 http, 443 https |
| `other.example` | 203.0.113.11 | 80 http, 443 https |
| `bytes.example` | 203.0.113.12 | 443 and 5432 tcp |
| `*.wild.example` | 203.0.113.13 | 80 http, 443 https |
| `denied.example` | 203.0.113.66 | nothing, though something listens there |
"""

import contextlib
import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from support.dns_server import DnsServer, canonical
from support.gateway import Gateway, Reply, read_reply
from support.http import Alert, connect_tunnel, read_alert, socks5_connect
from support.origin import HttpOrigin, Origins, RawOrigin
from support.waiting import PATIENCE, eventually
from support.wire import Packet, Wire

ALLOWED, ALLOWED_AT = "allowed.example", "203.0.113.10"
OTHER, OTHER_AT = "other.example", "203.0.113.11"
BYTES, BYTES_AT = "bytes.example", "203.0.113.12"
WILD, WILD_AT = "a.wild.example", "203.0.113.13"
DENIED, DENIED_AT = "denied.example", "203.0.113.66"

# What a refused client of TLS hears (RFC 8446 6.2).
ACCESS_DENIED, UNRECOGNIZED_NAME, INTERNAL_ERROR = Alert(2, 49), Alert(2, 112), Alert(2, 80)

_DECISIONS = re.compile(r"^egress_decisions_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

type Way = Literal["connect", "socks5"]


def rule(name: str, services: str | Sequence[str], *ports: str, action: str = "allow", private: bool = False) -> str:
    """One rule; `ports` are "443 https", or "80 http 8080" for a targetPort."""
    services = [services] if isinstance(services, str) else services
    lines = []
    for port in ports:
        number, protocol, target = [*port.split(), ""][:3]
        target = f", targetPort: {target}" if target else ""
        lines.append(f"  - {{port: {number}, protocol: {protocol}{target}}}")
    written = ", ".join(f'"{service}"' for service in services)
    return "\n".join(
        [
            "---",
            "apiVersion: egress.mitmproxy/v1",
            "kind: EgressRule",
            f"metadata: {{name: {name}}}",
            "spec:",
            f"  action: {action}",
            *(["  allowBroadWildcard: true"] if "*" in services else []),
            f"  destination: {{services: [{written}]{', allowPrivate: true' if private else ''}}}",
            "  ports:",
            *lines,
            "",
        ]
    )


RULES = (
    rule("allowed", ALLOWED, "80 http", "443 https")
    + rule("other", OTHER, "80 http", "443 https")
    + rule("bytes", BYTES, "443 tcp", "5432 tcp")
    + rule("wild", "*.wild.example", "80 http", "443 https")
)


@dataclass(frozen=True)
class Places:
    """The origins of the table above."""

    allowed: HttpOrigin
    allowed_tls: HttpOrigin
    other: HttpOrigin
    other_tls: HttpOrigin
    bytes: RawOrigin
    denied: HttpOrigin
    denied_tls: HttpOrigin

    @classmethod
    def build(cls, origins: Origins, dns: DnsServer) -> "Places":
        for name, address in (
            (ALLOWED, ALLOWED_AT),
            (OTHER, OTHER_AT),
            (BYTES, BYTES_AT),
            (WILD, WILD_AT),
            (DENIED, DENIED_AT),
        ):
            dns.set(name, [address])
        return cls(
            allowed=origins.http(ALLOWED_AT),
            allowed_tls=origins.https(ALLOWED_AT, ALLOWED),
            other=origins.http(OTHER_AT),
            other_tls=origins.https(OTHER_AT, OTHER),
            bytes=origins.tcp(BYTES_AT, 5432, greeting=b"hello from the database\n"),
            denied=origins.http(DENIED_AT),
            denied_tls=origins.https(DENIED_AT, DENIED),
        )


@dataclass(frozen=True)
class Port:
    """A proxy port beside the main one."""

    number: int
    host: str = "127.0.0.1"

    def connect(self, timeout: float = PATIENCE) -> socket.socket:
        sock = socket.create_connection((self.host, self.number), timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


@dataclass
class World:
    """A gateway, its SOCKS5 side, and who issues the certificates of its destinations."""

    gateway: Gateway
    socks: Port
    ca: Any


@dataclass
class Seen:
    """What the gateway told of the refusals in a block; complete after the block."""

    entries: list[dict[str, Any]] = field(default_factory=list)

    @property
    def entry(self) -> dict[str, Any]:
        """The access log's only line."""
        assert len(self.entries) == 1, self.entries
        return self.entries[0]


@dataclass
class Lab:
    gateway: Gateway
    dns: DnsServer
    wire: Wire
    places: Places
    socks: Port

    def tunnel(self, way: Way, host: str, port: int = 443) -> socket.socket:
        """A tunnel that the gateway has accepted, by CONNECT or by SOCKS5."""
        if way == "socks5":
            code, sock = socks5_connect(self.socks, host, port)
            assert code == 0, f"SOCKS5 reply {code}"
            return sock
        status, sock = connect_tunnel(self.gateway, f"{host}:{port}")
        assert status == 200, f"CONNECT {host}:{port} was answered {status}"
        return sock

    @contextlib.contextmanager
    def refused(
        self, *reasons: str, times: int = 1, allowed: int = 0, asks: Iterable[str] = (), dials: Iterable[str] = ()
    ) -> Iterator[Seen]:
        """What happens in the block is refused for one of `reasons`, `times` times, and nothing of it leaves.

        Metric and access log say so too, and of anything else only that `allowed` exchanges passed. `asks` are names
        that may be asked for, `dials` the addresses that may be connected to.
        """
        seen = Seen()
        counted = decisions(self.gateway)
        self.wire.clear()
        told_since = log_from_now(self.gateway)
        yield seen
        eventually(
            lambda: len(told_since()) >= times + allowed,
            lambda: f"{times + allowed} lines in the access log, saw {told_since()}",
        )
        entries = told_since()
        seen.entries += [entry for entry in entries if entry["verdict"] == "deny"]
        told = [(entry["verdict"], entry["reason"]) for entry in entries]
        assert told.count(("allow", "allowed")) == allowed, entries
        assert sum(told.count(("deny", reason)) for reason in reasons) == times == len(told) - allowed, entries
        now = decisions(self.gateway)
        changed = {key: now[key] - counted.get(key, 0) for key in now if now[key] != counted.get(key, 0)}
        grown = sum(count for key, count in changed.items() if key in {("deny", reason) for reason in reasons})
        assert grown == times, f"egress_decisions_total grew by {changed}"
        assert {action for action, _ in changed} <= {"deny"} | ({"allow"} if allowed else set()), changed
        self.assert_nothing_left(asks=asks, dials=dials)

    def assert_nothing_left(self, *, asks: Iterable[str] = (), dials: Iterable[str] = ()) -> None:
        """No question to a name server but for `asks`, no packet to the denied host, no connection but to `dials`."""
        self.wire.assert_nothing_left(DENIED_AT)
        asked = {question.name for question in self.wire.dns_queries()} - {canonical(name) for name in asks}
        assert not asked, f"names were asked for: {asked}"
        left = [packet for packet in self.wire.packets if is_outside(packet) and packet.dst not in set(dials)]
        left = [packet for packet in left if packet.is_syn or packet.proto != "tcp"]
        assert not left, f"{len(left)} packets left, the first: {left[0]}"


def log_from_now(gateway: Gateway) -> Callable[[], list[dict[str, Any]]]:
    """The lines of what begins from now on; one of what began before may come later, and is left out."""
    lines = len(gateway.access_log())
    begin = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    return lambda: [entry for entry in gateway.access_log()[lines:] if entry["start_time"] >= begin]


def decisions(gateway: Gateway) -> dict[tuple[str, str], float]:
    """`egress_decisions_total` by action and reason; read with a pattern, as to parse it all takes long."""
    found: dict[tuple[str, str], float] = {}
    status, text = gateway.metrics_get("/metrics")
    assert status == 200
    for labels, value in _DECISIONS.findall(text):
        pairs = dict(_LABEL.findall(labels))
        key = (pairs["action"], pairs["reason"])
        found[key] = found.get(key, 0) + float(value)
    return found


def is_outside(packet: Packet) -> bool:
    """Whether a packet goes to another place than this machine's loopback."""
    destination = ipaddress.ip_address(packet.dst)
    return not (destination.is_loopback or destination.is_link_local or destination.is_multicast)


def answered(reply: bytes, status: int, reason: str) -> None:
    """The reply is this refusal, and says so in its header, and holds nothing after it."""
    head, separator, rest = bytes(reply).partition(b"\r\n\r\n")
    assert separator, f"no complete response: {bytes(reply)[:300]!r}"
    assert head.startswith(b"HTTP/1.1 %d " % status), bytes(reply)[:600]
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert fields.get(b"x-egress-reason") == reason.encode(), head
    assert len(rest) <= int(fields[b"content-length"]), f"bytes after the refusal: {rest[-300:]!r}"


def say(sock: socket.socket, pieces: bytes | Iterable[bytes], pause: float = 0.002) -> None:
    """Send, in segments `pause` s apart; a peer that has gone away meanwhile is no error."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for number, piece in enumerate([pieces] if isinstance(pieces, bytes) else pieces):
            if number:
                time.sleep(pause)
            sock.sendall(piece)


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def alert_for(sock: socket.socket, hello: bytes | Iterable[bytes]) -> Alert | None:
    """Say a hello; the alert that comes back, after which the connection is over."""
    with sock:
        say(sock, hello)
        alert = read_alert(sock)
        assert read_reply(sock, PATIENCE).ending != "quiet", "the connection stayed open after the alert"
        return alert


def ended_without_a_word(sock: socket.socket, pieces: bytes | Iterable[bytes], timeout: float = PATIENCE) -> None:
    """Say something; nothing comes back but the end."""
    with sock:
        say(sock, pieces)
        reply: Reply = read_reply(sock, timeout)
    assert (bytes(reply), reply.ending != "quiet") == (b"", True), (bytes(reply[:200]), reply.ending)
