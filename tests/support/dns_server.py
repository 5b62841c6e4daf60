"""A real DNS server (UDP and TCP) whose zone and faults a test writes, and which remembers every question.

    with DnsServer() as dns:
        dns.set("www.googleapis.com", ["203.0.113.10", "2001:db8::10"], ttl=60)
        dns.sequence("rebind.example", [["203.0.113.5"], ["10.0.0.5"]], ttl=0)
        dns.cname("alias.example", "www.googleapis.com")
        dns.fail("broken.example")                  # SERVFAIL
        dns.silent = True                           # no answer to anything from now on
        with dns.held("slow.example"): ...          # asked for meanwhile, answered at the end

Names never set are NXDOMAIN; names without the type asked for are an empty answer; both carry an SOA.
"""

import contextlib
import copy
import ipaddress
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from support.sockets import bound, listening, read_exactly, stop_listening
from support.waiting import PATIENCE

_LONGEST_CHAIN = 8
_NEGATIVE_TTL = 5
_SOA = f"ns.test. hostmaster.test. 1 3600 600 86400 {_NEGATIVE_TTL}"


class Query(NamedTuple):
    """One question; `name` in lower case without the trailing dot, `transport` is "udp" or "tcp"."""

    name: str
    type: str
    transport: str


@dataclass
class _Name:
    """One name of the zone. `records[type]` is a list of answers; each question of a type takes the next."""

    records: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    ttl: int = 60
    delay: float = 0.0
    rcode: dns.rcode.Rcode | None = None
    truncated: bool = False


def canonical(name: str) -> str:
    return name.lower().rstrip(".")


class DnsServer:
    """Answers on `address:port` from its own threads from `start()` to `close()`."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self._tcp, self._udp = _one_port_of_both(address, port)
        self.address: str = address
        self.port: int = self._tcp.getsockname()[1]
        self.silent = False
        # Called with every answer before it is sent; returns what to send instead (a lying or broken server).
        self.tamper: Callable[[dns.message.Message], bytes] | None = None
        self.queries: list[Query] = []
        self._zone: dict[str, _Name] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._clients: set[socket.socket] = set()
        self._held: frozenset[str] = frozenset()
        self._kept: list[tuple[bytes, tuple[str, int]]] = []
        self._threads: list[threading.Thread] = []

    @property
    def endpoint(self) -> str:
        """As the gateway's option takes it: `127.0.0.1:5353`, `[::1]:5353`."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    # The zone.

    def set(self, name: str, addresses: Iterable[str], ttl: int = 60) -> None:
        """Give `name` exactly these addresses, IPv4 and IPv6 in any mixture."""
        self.sequence(name, [list(addresses)], ttl)

    def sequence(self, name: str, answers: Sequence[Sequence[str]], ttl: int = 0) -> None:
        """The n-th question of each type gets the n-th list; after the last comes the first again."""
        with self._lock:
            entry = self._zone.setdefault(canonical(name), _Name())
            entry.ttl, entry.asked = ttl, Counter()
            entry.records = {
                kind: [[a for a in some if ipaddress.ip_address(a).version == version] for some in answers]
                for kind, version in (("A", 4), ("AAAA", 6))
            }

    def cname(self, name: str, target: str, ttl: int = 60) -> None:
        self.record(name, "CNAME", f"{canonical(target)}.", ttl=ttl)

    def record(self, name: str, kind: str, *values: str, ttl: int = 60) -> None:
        """Records of any type, in zone file syntax: `record("a.example", "HTTPS", "1 . alpn=h2")`."""
        with self._lock:
            entry = self._zone.setdefault(canonical(name), _Name())
            entry.ttl = ttl
            entry.records[kind] = [list(values)]

    def remove(self, name: str) -> None:
        """Back to NXDOMAIN."""
        with self._lock:
            self._zone.pop(canonical(name), None)

    def fail(self, name: str, rcode: str | None = "SERVFAIL") -> None:
        """Answer with this code whatever the zone says; None ends it."""
        with self._lock:
            entry = self._zone.setdefault(canonical(name), _Name())
            entry.rcode = None if rcode is None else dns.rcode.from_text(rcode)

    def delay(self, name: str, seconds: float) -> None:
        with self._lock:
            self._zone.setdefault(canonical(name), _Name()).delay = seconds

    @contextlib.contextmanager
    def held(self, *names: str) -> Iterator[None]:
        """Over UDP: answers about these names are kept back until the end, and then they are sent."""
        with self._lock:
            self._held = frozenset(map(canonical, names))
        try:
            yield
        finally:
            with self._lock:
                self._held, kept, self._kept = frozenset(), self._kept, []
            for wire, client in kept:
                self._send_udp(wire, client)

    def truncate(self, name: str, truncated: bool = True) -> None:
        """Over UDP: an empty answer that says "ask again over TCP"."""
        with self._lock:
            self._zone.setdefault(canonical(name), _Name()).truncated = truncated

    # What was asked.

    def asked(self, name: str) -> bool:
        return any(query.name == canonical(name) for query in list(self.queries))

    def count(self, name: str, kind: str | None = None) -> int:
        found = [query for query in list(self.queries) if query.name == canonical(name)]
        return sum(kind in (None, query.type) for query in found)

    def clear(self) -> None:
        """Forget the questions; the zone stays."""
        self.queries.clear()

    @contextlib.contextmanager
    def changes_undone(self) -> Iterator[Self]:
        """What happens to the zone and to the faults inside is undone at the end; questions start at none."""
        with self._lock:
            saved = copy.deepcopy(self._zone)
        self.clear()
        try:
            yield self
        finally:
            with self._lock:
                self._zone = saved
            self.silent, self.tamper = False, None

    # Life.

    def start(self) -> Self:
        for work in (self._serve_udp, self._serve_tcp):
            thread = threading.Thread(target=work, name=f"dns {self.endpoint}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def close(self) -> None:
        self._closing.set()
        stop_listening(self._tcp)
        stop_listening(self._udp)
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            stop_listening(client)
        for thread in self._threads:
            thread.join(PATIENCE)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # Serving.

    def _serve_udp(self) -> None:
        while not self._closing.is_set():
            try:
                packet, client = self._udp.recvfrom(65535)
            except OSError:
                return
            if not packet:
                continue
            answer = self._answer(packet, "udp")
            if answer is None:
                continue
            wire, delay = answer
            if self._keeps(wire, client):
                continue
            if delay:  # others must not wait for a slow name
                timer = threading.Timer(delay, self._send_udp, (wire, client))
                timer.daemon = True
                timer.start()
            else:
                self._send_udp(wire, client)

    def _send_udp(self, wire: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # closed meanwhile, or the client is gone
            self._udp.sendto(wire, client)

    def _keeps(self, wire: bytes, client: tuple[str, int]) -> bool:
        """Whether the answer is one to send later."""
        with self._lock:
            if not self._held or canonical(dns.message.from_wire(wire).question[0].name.to_text()) not in self._held:
                return False
            self._kept.append((wire, client))
            return True

    def _serve_tcp(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._tcp.accept()
            except OSError:
                return
            with self._lock:
                self._clients.add(client)
            threading.Thread(target=self._serve_tcp_client, args=(client,), daemon=True).start()

    def _serve_tcp_client(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, EOFError):
            while not self._closing.is_set():
                size = int.from_bytes(read_exactly(client, 2))
                answer = self._answer(read_exactly(client, size), "tcp")
                if answer is not None:
                    wire, delay = answer
                    time.sleep(delay)
                    client.sendall(len(wire).to_bytes(2) + wire)
        with self._lock:
            self._clients.discard(client)

    def _answer(self, packet: bytes, transport: str) -> tuple[bytes, float] | None:
        """The bytes to send and the seconds to wait before; None for no answer at all."""
        try:
            query = dns.message.from_wire(packet)
        except dns.exception.DNSException:
            return None
        if not query.question:
            return None
        question = query.question[0]
        name, kind = canonical(question.name.to_text()), dns.rdatatype.to_text(question.rdtype)
        self.queries.append(Query(name, kind, transport))
        if self.silent:
            return None
        with self._lock:
            entry = self._zone.get(name, _Name())
            response = self._response(query, question.name, kind, transport)
            delay = entry.delay
        wire = self.tamper(response) if self.tamper else _wire(response, transport)
        return wire, delay

    def _response(
        self, query: dns.message.Message, name: dns.name.Name, kind: str, transport: str
    ) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        assert isinstance(response, dns.message.QueryMessage)
        for _ in range(_LONGEST_CHAIN):
            entry = self._zone.get(canonical(name.to_text()), _Name())
            if entry.rcode is not None:
                response.set_rcode(entry.rcode)
                return response
            if entry.truncated and transport == "udp":
                response.flags |= dns.flags.TC
                return response
            if not entry.records:
                response.set_rcode(dns.rcode.NXDOMAIN)
                break
            found = kind if kind in entry.records else "CNAME"
            values = _next_answer(entry, found)
            if not values:
                break
            response.answer.append(dns.rrset.from_text(name, entry.ttl, "IN", found, *values))
            if found == kind:
                return response
            name = dns.name.from_text(values[0])
        response.authority.append(dns.rrset.from_text(dns.name.root, _NEGATIVE_TTL, "IN", "SOA", _SOA))
        return response


def _one_port_of_both(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """One for TCP and one for UDP. Of a port that is free for the one, a resolver may just be asking by the other."""
    while True:
        tcp = listening(address, port)
        try:
            return tcp, bound(address, tcp.getsockname()[1], socket.SOCK_DGRAM)
        except OSError:
            tcp.close()
            if port:
                raise


def _wire(response: dns.message.Message, transport: str) -> bytes:
    """What does not fit into a datagram is cut, as with `truncate`."""
    try:
        most = max(512, response.request_payload) if transport == "udp" else 65535
        return response.to_wire(max_size=most, want_shuffle=False)
    except dns.exception.TooBig:
        response.flags |= dns.flags.TC
        response.answer.clear()
        return response.to_wire()


def _next_answer(entry: _Name, kind: str) -> list[str]:
    answers = entry.records.get(kind)
    if not answers:
        return []
    position = entry.asked[kind] % len(answers)
    entry.asked[kind] += 1
    return answers[position]
