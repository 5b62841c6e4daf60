"""The one door: everything that wants out asks here, on both data paths, and every failure in here is a refusal.

Two questions, in this order. `decide`: do the rules allow what the client asks for? Then `find_addresses`: which of
the destination's addresses may be dialled? Between the two a name is resolved, once; nothing leaves before the first.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from itertools import count
from typing import Literal, Protocol

from egress_gateway.dns.answer import Answer, Bindings, ResolveError, ResolveFailure
from egress_gateway.policy import decide as policy
from egress_gateway.policy.address_check import Agreement, check_address
from egress_gateway.policy.destination import Judged, judge, name_refused, plain
from egress_gateway.policy.events import Exchange, Observer
from egress_gateway.policy.explain import Explanation, explain
from egress_gateway.policy.hostname import Address, Hostname
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.rule import AddressCheck, EgressRule
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Verdict, refuse

from .live import Live, LiveConnections
from .names import Names
from .own_addresses import is_own
from .quotas import Quotas
from .settings import Settings
from .whereabouts import addresses_of

logger = logging.getLogger(__name__)


class Resolver(Protocol):
    async def resolve(self, host: str) -> Answer: ...
    async def bindings(self, host: str, kind: Literal["HTTPS", "SVCB"]) -> Bindings: ...


@dataclass(frozen=True, slots=True)
class Route:
    """Addresses that were judged, in the order to try them; nothing else may be dialled."""

    addresses: tuple[Address, ...]
    port: int


@dataclass(frozen=True, slots=True)
class NoRoute:
    """There is no address to dial. `refused`: the policy says no; otherwise resolving failed."""

    reason: Reason
    detail: str
    refused: bool


class Gatekeeper:
    """Holds the snapshot of rules in force. Starts closed: it refuses everything until `open` is called."""

    def __init__(self, resolver: Resolver, observer: Observer, settings: Settings) -> None:
        self.ruleset = RuleSet.empty()
        self.resolver = resolver
        self.observer = observer
        self.settings = settings
        self.live = LiveConnections()
        self.names = Names()
        """Which addresses names have been seen to have; survives every change of rules."""
        self.own_ports: frozenset[int] = frozenset()
        """Ports that this process listens on (proxy, metrics, web console): never dialled on an address of our own."""
        self.closed_because: str | None = "the rules have not been loaded yet"
        """Why everything is refused, whatever the rules say; None in normal operation."""
        self.draining = False
        """Whether no connection is to carry another request, since the process is about to end."""
        self.quotas = Quotas.own()
        """What clients have of the gateway; of several processes, each puts its part of what they share here."""
        self._ids = count(1)
        self.distinguish("")

    # --- rules ---

    def use(self, ruleset: RuleSet) -> int:
        """Puts `ruleset` in force for the next decision and ends what it no longer allows; returns how many ended."""
        self.ruleset = ruleset
        return self.live.judge_again(self._still_allowed)

    async def use_in_turns(self, ruleset: RuleSet) -> int:
        """The same without holding up anybody: `ruleset` is in force at once, for whatever is asked from now on, and
        what is open is judged by it in turns with everything else."""
        self.ruleset = ruleset
        return await self.live.judge_in_turns(self._still_allowed)

    def open(self) -> None:
        self.closed_because = None

    def close(self, because: str) -> None:
        """Refuses everything from now on; what is open goes on until `end_all`."""
        self.closed_because = because

    def end_all(self) -> None:
        """Ends everything that is open and would be refused now."""
        self.live.judge_again(self._still_allowed)

    def enter(self, connection: Live, verdict: Verdict, by: object = None) -> None:
        """Counts a connection made by `verdict` among the live ones; ends it at once where the rules have changed
        while it was being made. Pair it with `live.discard`.

        `by`: the token of the rules that were in force when the verdict was given. They answer the same question the
        same way, so while they are in force it is not asked again.
        """
        self.live.add(connection)
        if self.is_in_force(by):
            return
        if self._decide(connection.request) is not verdict:
            self.live.judge(connection, self._still_allowed)

    def is_in_force(self, token: object) -> bool:
        """Whether the rule set of this `token` would be asked now: what it has answered it would answer again, since a
        decision hangs on nothing but the rules and the request."""
        return token is self.ruleset.token and self.closed_because is None

    def _still_allowed(self, connection: Live) -> Verdict:
        try:
            return self._judge_again(connection)
        except Exception:
            self.failed("judge_again")
            return refuse(Reason.INTERNAL_ERROR)

    def _judge_again(self, connection: Live) -> Verdict:
        verdict = self._decide(connection.request)
        if not verdict.allowed or verdict.rule is None:
            return verdict
        if verdict.treatment is not connection.treatment or verdict.port != connection.port:
            return refuse(Reason.PROTOCOL_NOT_ALLOWED, verdict.rule)
        judged = self._judge_addresses(verdict, (connection.address,))
        return verdict if judged.allowed else refuse(Reason.ADDRESS_NOT_ALLOWED, verdict.rule)

    # --- the two questions ---

    def decide(self, request: Request, protocol: str) -> Verdict:
        """The verdict on `request`; a refusal where deciding failed. Refusals are counted here under `protocol`,
        permissions by `find_addresses` or `allowed_again`, when they are complete."""
        started = time.perf_counter()
        verdict = self._decide(request)
        if not verdict.allowed:
            self.observer.decided(verdict, protocol, time.perf_counter() - started)
            self._tell_mismatch(verdict.reason)
        return verdict

    def peek(self, request: Request) -> Verdict:
        """The verdict on `request` without counting it, for a question that is not the client's last word."""
        return self._decide(request)

    def allowed_again(self, verdict: Verdict, protocol: str) -> None:
        """A request was allowed on a connection that is open already, so no address had to be found."""
        self.observer.decided(verdict, protocol, 0.0)

    def refused(self, reason: Reason, protocol: str, rule: EgressRule | None = None) -> Verdict:
        """A refusal that `decide` did not make (malformed, too slow, a barred address, …), counted like any other."""
        verdict = refuse(reason, rule)
        self.observer.decided(verdict, protocol, 0.0)
        self._tell_mismatch(reason)
        return verdict

    def explain(self, request: Request, verdict: Verdict) -> Explanation:
        """For the refused client and the log; empty where explaining itself fails."""
        try:
            return explain(self.ruleset, request, verdict)
        except Exception:
            self.failed("explain")
            return Explanation(None, "", "")

    async def find_addresses(
        self, request: Request, verdict: Verdict, exchange: Exchange, protocol: str
    ) -> Route | NoRoute:
        """Resolves the host of an allowed `request`, once, and judges every address. Fills in the exchange."""
        try:
            found = await self._find_addresses(request, verdict, exchange)
        except ResolveError as error:
            found = NoRoute(Reason.NAME_NOT_RESOLVED, str(error), refused=False)
        except Exception:
            self.failed("find_addresses")
            found = NoRoute(Reason.INTERNAL_ERROR, "judging the addresses failed", refused=True)
        if isinstance(found, NoRoute) and found.refused:
            exchange.verdict = refuse(found.reason, verdict.rule)
            self.observer.decided(exchange.verdict, protocol, 0.0)
            self._tell_mismatch(found.reason)
        else:
            exchange.verdict = verdict
            self.observer.decided(verdict, protocol, 0.0)
        return found

    def judge_literal(self, request: Request, verdict: Verdict) -> NoRoute | None:
        """For a destination given as an address: why it may not be dialled, known without asking anybody."""
        if isinstance(request.host, str) or verdict.rule is None:
            return None
        route = self._judge(verdict, (request.host,))
        return route if isinstance(route, NoRoute) else None

    def may_reuse(self, verdict: Verdict, address: Address) -> bool:
        """Whether a connection that is open to `address` may carry a request that was allowed by `verdict`."""
        if verdict.rule is None:
            return False
        return bool(self._judge_addresses(verdict, (address,)).allowed)

    def _judge_addresses(self, verdict: Verdict, addresses: tuple[Address, ...]) -> Judged:
        """Judges the addresses of an allowed destination."""
        if verdict.rule is None:
            return Judged((), ())
        return judge(
            verdict.rule,
            addresses,
            public_ranges=self.settings.public_ranges,
            is_own=is_own,
            is_denied=lambda address: self.ruleset.denies(address, verdict.port),
        )

    def _decide(self, request: Request) -> Verdict:
        if self.closed_because is not None:
            return refuse(Reason.NOT_READY)
        try:
            verdict = policy.decide(self.ruleset, request)
            if not isinstance(verdict, Verdict):
                raise TypeError(f"decide() returned {type(verdict).__name__}, not a Verdict")
        except Exception:
            self.failed("decide")
            return refuse(Reason.INTERNAL_ERROR)
        return verdict

    async def _find_addresses(self, request: Request, verdict: Verdict, exchange: Exchange) -> Route | NoRoute:
        host = request.host
        if isinstance(host, str):
            check = verdict.rule.check if verdict.rule else AddressCheck.ENFORCE
            client = exchange.client[0]
            addresses = await addresses_of(host, request.original, check, client, self.names, self.look_up)
            now = self._decide(request)
            if not now.allowed:
                return NoRoute(now.reason, "the rules changed", refused=True)
            if (now.treatment, now.port) != (verdict.treatment, verdict.port):
                return NoRoute(Reason.PROTOCOL_NOT_ALLOWED, "the rules changed", refused=True)
            verdict = now
        else:
            addresses = (host,)
        exchange.resolved = addresses
        if request.original is not None and verdict.rule is not None:
            checked = check_address(verdict.rule.check, request.original, addresses)
            exchange.address_check = checked.agreement
            if checked.agreement is not Agreement.MATCH:
                exchange.detail = f"{plain(request.original)} is not an address of {host}"
            if checked.agreement is Agreement.MISMATCH:
                return NoRoute(Reason.ADDRESS_MISMATCH, exchange.detail, refused=True)
            if checked.agreement is Agreement.AUDITED:
                self._tell_mismatch(Reason.ADDRESS_MISMATCH)
            addresses = checked.addresses
        return self._judge(verdict, addresses)

    async def look_up(self, host: Hostname, client: str) -> Answer:
        """The addresses of a host that a rule allows, as the resolver sees them now. Raises ResolveError."""
        self._wait_for_resolver(host, client)
        try:
            return await self.resolver.resolve(host)
        finally:
            self.quotas.lookups.leave(client)

    async def look_up_bindings(self, host: Hostname, kind: Literal["HTTPS", "SVCB"], client: str) -> Bindings:
        """The service bindings of a host that a rule allows. Raises ResolveError."""
        self._wait_for_resolver(host, client)
        try:
            return await self.resolver.bindings(host, kind)
        finally:
            self.quotas.lookups.leave(client)

    def _wait_for_resolver(self, host: Hostname, client: str) -> None:
        """Counts one more name that `client` waits for. Pair it with `quotas.lookups.leave`.

        Each client has a share of the resolver: one that waits for many names must not stop the others. Raises
        ResolveError where it has had its share; it then waits for no more than before.
        """
        lookups = self.quotas.lookups
        if lookups.enter(client) > self.settings.limits.lookups_per_client:
            lookups.leave(client)
            raise ResolveError(ResolveFailure.OVERLOADED, host, "this client waits for too many names already")

    def _judge(self, verdict: Verdict, addresses: tuple[Address, ...]) -> Route | NoRoute:
        if verdict.rule is None:
            return NoRoute(Reason.INTERNAL_ERROR, "a verdict without a rule allows nothing", refused=True)
        judged = self._judge_addresses(verdict, addresses)
        others = judged.allowed
        if verdict.port in self.own_ports:
            others = tuple(address for address in others if not is_own(address))
        if others:
            return Route(others, verdict.port)
        own = [a for a in addresses if verdict.port in self.own_ports and is_own(a)]
        if own:
            return NoRoute(Reason.OWN_ADDRESS, f"{own[0]} port {verdict.port} is this gateway", refused=True)
        return NoRoute(Reason.ADDRESS_NOT_ALLOWED, name_refused(judged.refused), refused=True)

    # --- bookkeeping ---

    def admit(self, address: str) -> bool:
        """Counts a connection from a client `address`; False where it has too many. Pair it with `leave`."""
        return self.quotas.connections.enter(address) <= self.settings.limits.connections_per_client

    def leave(self, address: str) -> None:
        self.quotas.connections.leave(address)

    def distinguish(self, mark: str) -> None:
        """Gives request ids that no other process gives; `mark` tells processes apart that began together."""
        self._id_prefix = f"{time.time_ns() // 1_000_000:x}{mark}"

    def begin(self, client: tuple[str, int]) -> Exchange:
        """A new exchange for a client; it is refused until something decides otherwise."""
        request_id = f"{self._id_prefix}-{next(self._ids)}"
        return Exchange(time.time(), client, request_id, self.closed_because or "")

    def finish(self, exchange: Exchange) -> None:
        """Reports an exchange that is over; at most once for each. A tunnel that is judged later begins its own."""
        exchange.duration = max(0.0, time.time() - exchange.start_time)
        self.observer.finished(exchange)

    def failed(self, where: str) -> None:
        """Counts and logs an exception of our own, from inside its `except`."""
        self.observer.internal_error(where)
        logger.exception("egress: %s failed; refused", where)

    def _tell_mismatch(self, reason: Reason) -> None:
        claim = _CLAIMS.get(reason)
        if claim is not None:
            self.observer.mismatch(claim)


_CLAIMS = {
    Reason.SNI_MISMATCH: "sni",
    Reason.HOST_MISMATCH: "host",
    Reason.CONNECTION_CHANGED_HOST: "connect",
    Reason.ADDRESS_MISMATCH: "address",
}
