"""One question of a client: may it be asked, what is the answer, and who is told of it.

- A name that no rule allows is refused, or does not exist, as the operator chose; nobody else is asked about it. So are
  questions of another class, for whole zones, and for what is no host name.
- Addresses and service bindings of an allowed name are looked up by the gateway's own resolver, and only those are
  handed out that the client may then be let through to. Any other type of it is empty, and nobody is asked.
- Who asks too often is refused, as often as it may ask. What comes beyond that is not even read: it is counted, and
  dropped over UDP, refused in a word over TCP.
- What is handed out is learned before the answer is sent. When rules change while a name is looked up, the new ones
  count.
- Whatever fails in here is SERVFAIL, is counted, and is logged with its traceback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from math import ceil
from typing import Literal

import dns.rcode
import dns.rdataclass
import dns.rdatatype
from dns.edns import EDECode

from egress_gateway.dns.answer import ResolveError, ResolveFailure
from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.own_addresses import is_own
from egress_gateway.gate.turns import Turns
from egress_gateway.policy.destination import Judged, name_refused, plain
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Address, Hostname, MalformedHost, parse_host
from egress_gateway.policy.reason import Reason

from . import message
from .bindings import clean, service_of
from .message import Question, Reply, Why
from .permission import Denied, Permission, may_ask
from .refusals import PROTOCOL, Asked, Refusal, Teller, failed_lookup

BURST_SECONDS = 2
"""A client that was quiet may ask at once as often as in so many seconds."""
_MOST_TARGETS = 4

_FAMILY = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}
_BINDING: dict[dns.rdatatype.RdataType, Literal["HTTPS", "SVCB"]] = {
    dns.rdatatype.HTTPS: "HTTPS",
    dns.rdatatype.SVCB: "SVCB",
}
_FIRST_META_TYPE, _LAST_META_TYPE = 128, 255  # RFC 6895, 3.1


@dataclass(frozen=True, slots=True)
class _Learned:
    """What a client will know by a reply."""

    host: Hostname
    addresses: Sequence[Address]
    ttl: int


class NameServer:
    """Answers one question at a time, of any number of clients. Belongs to one event loop.

    `show` is told each refusal that is worth a line, for whoever looks on.
    """

    def __init__(
        self,
        gate: Gatekeeper,
        clock: Callable[[], float] = time.monotonic,
        show: Callable[[Exchange], None] = lambda _: None,
    ) -> None:
        self.gate = gate
        self._clock = clock
        self._teller = Teller(gate, clock, show)
        self._waiting = 0

    async def answer(self, data: bytes, client: tuple[str, int], *, udp: bool) -> bytes | None:
        """What to send back for `data`; None: nothing. `client` is an address and a port. Never raises."""
        asked: Question | bytes | None = None
        try:
            if not message.may_be_answered(data):
                return None
            in_time = self._take_turn(self.gate.quotas.questions, client[0])
            if not in_time and not self._take_turn(self.gate.quotas.refusals, client[0]):
                # Reading a question and writing a refusal are most of what either costs.
                self.gate.refused(Reason.RATE_LIMITED, PROTOCOL)
                return None if udp else message.bare(data, dns.rcode.REFUSED)
            asked = message.read(data)
            if asked is None:
                return None
            if isinstance(asked, bytes):
                self._teller.unreadable(client, Reason.MALFORMED_REQUEST if in_time else Reason.RATE_LIMITED)
                return asked if in_time else None
            text = asked.name.to_text(omit_final_dot=True)
            return await self._answer(Asked(client, asked, text), in_time=in_time, udp=udp)
        except Exception:
            self.gate.failed(PROTOCOL)
        return self._teller.failed(data, asked, client, udp=udp)

    # --- connections ---

    def admit(self, client: str) -> bool:
        """Counts a TCP connection of `client`; False where it has too many. Pair it with `leave`."""
        count = self.gate.quotas.name_server_connections.enter(client)
        return count <= self.gate.settings.name_server.connections_per_client

    def leave(self, client: str) -> None:
        self.gate.quotas.name_server_connections.leave(client)

    # --- one question ---

    async def _answer(self, asked: Asked, *, in_time: bool, udp: bool) -> bytes:
        learned: Sequence[_Learned] = ()
        try:
            if not in_time:
                rate = self.gate.settings.name_server.queries_per_second
                raise Refusal(Reason.RATE_LIMITED, detail=f"more than {rate} questions a second")
            reply, learned = await self._decide(asked)
        except Refusal as refusal:
            reply = self._teller.refused(asked, refusal)
            return message.write(asked.question, reply, udp=udp)[0]
        except ResolveError as error:
            reply = failed_lookup(error.kind)
        data, whole = message.write(asked.question, reply, udp=udp)
        for told in learned if whole else ():
            self.gate.names.learn(told.host, told.addresses, ttl=told.ttl, client=asked.client[0])
        self._teller.allowed(asked)
        return data

    async def _decide(self, asked: Asked) -> tuple[Reply, Sequence[_Learned]]:
        """Raises Refusal, and ResolveError for a name that has no answer."""
        question = asked.question
        self._check_open()
        host, port = self._host(asked)
        permission = self._permission(asked, host, port)
        if question.rdclass != dns.rdataclass.IN:
            raise Refusal(Reason.PROTOCOL_NOT_ALLOWED, permission.rule, "a question of another class than IN")
        if question.rdtype in _FAMILY:
            return await self._addresses(asked, host, _FAMILY[question.rdtype])
        if question.rdtype in _BINDING:
            return await self._bindings(asked, host, port)
        if question.rdtype == dns.rdatatype.ANY:
            answer = message.refused_any(question, self.gate.settings.name_server.max_ttl)
            return Reply(dns.rcode.NOERROR, answer), ()
        if _FIRST_META_TYPE <= question.rdtype <= _LAST_META_TYPE:
            raise Refusal(Reason.PROTOCOL_NOT_ALLOWED, permission.rule, "a question for something else than records")
        return Reply(dns.rcode.NOERROR), ()

    def _take_turn(self, turns: Turns, client: str) -> bool:
        rate = self.gate.settings.name_server.queries_per_second
        return turns.take(client, self._clock(), rate=rate, burst=BURST_SECONDS * rate)

    def _host(self, asked: Asked) -> tuple[Hostname, int | None]:
        """The host that the question is about, and its port where the question names one."""
        port = None
        if asked.question.rdtype in _BINDING:
            asked.text, port = service_of(asked.text.lower())
        try:
            asked.host = host = parse_host(asked.text)
        except MalformedHost as error:
            raise Refusal(Reason.MALFORMED_HOST, detail=str(error)) from None
        if not isinstance(host, str):
            raise Refusal(Reason.MALFORMED_HOST, detail="an address is not a name")
        return host, port

    def _permission(self, asked: Asked, host: Hostname, port: int | None = None) -> Permission:
        """Whether the name may be asked for, now. Raises Refusal."""
        found = may_ask(self.gate.ruleset, host, self.gate.settings.name_server.max_label)
        if isinstance(found, Denied):
            raise Refusal(found.reason, found.rule)
        if port is not None and port not in found.slots:
            raise Refusal(Reason.PORT_NOT_ALLOWED, found.rule, f"a question about port {port}")
        asked.rule = found.rule
        return found

    async def _addresses(self, asked: Asked, host: Hostname, version: int) -> tuple[Reply, Sequence[_Learned]]:
        with self._turn(host):
            found = await self.gate.look_up(host, asked.client[0])
        permission = self._permission_after(asked, host)
        family = [address for address in found.addresses if address.version == version]
        if not family:
            why = None if found.complete else Why(EDECode.NETWORK_ERROR, "one family was not answered")
            return Reply(dns.rcode.NOERROR, why=why), ()
        judged = self._reachable(permission, family)
        if not judged.allowed:
            raise Refusal(Reason.ADDRESS_NOT_ALLOWED, permission.rule, name_refused(judged.refused), found.addresses)
        ttl = self._ttl(found.expires_at)
        # Under the search list the name stands for another, which the client has not asked for.
        aliases = found.aliases if found.name == host else ()
        answer = message.addresses(asked.question, aliases, judged.allowed, ttl)
        return Reply(dns.rcode.NOERROR, answer), [_Learned(host, judged.allowed, ttl)]

    async def _bindings(self, asked: Asked, host: Hostname, port: int | None) -> tuple[Reply, Sequence[_Learned]]:
        """What is learned of them is learned for the host: only who owns its zone says where it is to be found."""
        name = host if port is None else Hostname(f"_{port}._https.{host}")
        with self._turn(host):
            found = await self.gate.look_up_bindings(name, _BINDING[asked.question.rdtype], asked.client[0])
        permission = self._permission_after(asked, host, port)
        limit = self.gate.settings.name_server.max_label
        cleaned = clean(
            found.records,
            itself={host, found.name, found.owner} if port is None else (),
            dot=None if port is None else Hostname(found.owner),
            ports=permission.slots.keys(),
            may_ask=lambda target: isinstance(may_ask(self.gate.ruleset, target, limit), Permission),
            reachable=lambda addresses: self._reachable(permission, addresses).allowed,
        )
        if not cleaned.records:
            return Reply(dns.rcode.NOERROR), ()
        ttl = self._ttl(found.expires_at)
        learned = [_Learned(host, cleaned.hints, ttl)] if cleaned.hints else []
        for target in cleaned.targets[:_MOST_TARGETS]:
            learned += await self._elsewhere(asked, host, target, permission, ttl)
        return Reply(dns.rcode.NOERROR, message.bindings(asked.question, cleaned.records, ttl)), learned

    async def _elsewhere(
        self, asked: Asked, host: Hostname, target: Hostname, permission: Permission, ttl: int
    ) -> list[_Learned]:
        """A client that is led to `target` dials addresses of that name, and says `host` there."""
        try:
            with self._turn(target):
                found = await self.gate.look_up(target, asked.client[0])
        except ResolveError:
            return []
        told = self._reachable(permission, found.addresses).allowed
        # It may ask for them as long as it keeps the binding, and keep them as long as they live.
        return [_Learned(host, told, ttl + self._ttl(found.expires_at))] if told else []

    # --- the gate ---

    @contextmanager
    def _turn(self, host: Hostname) -> Iterator[None]:
        """A place among those who wait for an answer. Raises ResolveError where there is none."""
        if self._waiting >= self.gate.settings.name_server.waiting:
            raise ResolveError(ResolveFailure.OVERLOADED, host, "too many questions wait for an answer already")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _permission_after(self, asked: Asked, host: Hostname, port: int | None = None) -> Permission:
        """The same question after others were waited for: the rules may have changed. Raises Refusal."""
        self._check_open()
        return self._permission(asked, host, port)

    def _check_open(self) -> None:
        if self.gate.closed_because is not None:
            raise Refusal(Reason.NOT_READY, detail=self.gate.closed_because)

    def _reachable(self, permission: Permission, addresses: Sequence[Address]) -> Judged:
        return permission.reachable(
            addresses,
            public_ranges=self.gate.settings.public_ranges,
            own_ports=self.gate.own_ports,
            is_own=is_own,
            denies=self.gate.ruleset.denies,
        )

    def _ttl(self, expires_at: float) -> int:
        """Whole seconds that are left, begun ones included, and no more than the operator allows."""
        return max(0, min(ceil(expires_at - self._clock()), self.gate.settings.name_server.max_ttl))


def client_of(peer: tuple[str | int, ...]) -> tuple[str, int]:
    """Who a socket says is at its other end, in the one spelling that names and limits go by."""
    host, port = str(peer[0]), int(peer[1])
    return str(plain(ip_address(host))), port
