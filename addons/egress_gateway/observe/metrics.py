"""Counts what happens: Istio's standard metrics, so that its dashboards and alerts work, and our own.

The rules of this file:

- No label takes a value that a client chooses. A destination is written as it stands in a rule; one that no
  rule allows is `unknown` in `BlackHoleCluster`; status codes without a name are counted by their first
  digit.
- A request costs a look-up and a few additions: where to count is found once and remembered beside its verdict.
- What was found is remembered no longer than its series: a cell that is free again is another one's.
- One thread calls the methods of `Observer`; any thread may call `exposition`.
"""

from __future__ import annotations

import platform
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from http import HTTPStatus

from egress_gateway.policy.events import Exchange, Observer
from egress_gateway.policy.hostname import Host
from egress_gateway.policy.index import DestinationIndex
from egress_gateway.policy.reason import ANSWERS, Reason
from egress_gateway.policy.rule import EgressRule
from egress_gateway.policy.verdict import Treatment, Verdict

from .arena import NOWHERE, Arena
from .families import BYTES, MILLISECONDS, Families
from .merged import Merged
from .words import action

UNKNOWN = "unknown"
_Labels = tuple[str, str, str]
"""`destination_service`, `destination_service_name`, `destination_service_namespace`."""
_BLACK_HOLE: _Labels = (UNKNOWN, "BlackHoleCluster", UNKNOWN)
_PASSTHROUGH: _Labels = (UNKNOWN, "PassthroughCluster", UNKNOWN)

_CODES = {0: "0", 499: "499"} | {int(status): str(int(status)) for status in HTTPStatus}
PROTOCOLS = frozenset({"http", "tls", "tcp", "connect", "dns"})
_TUNNELS = frozenset({"TLS", "TCP"})

# The cells of a row of `Families.requests`, from its first, which counts the requests.
_DURATION = 1
_DURATION_SUM = _DURATION + len(MILLISECONDS) + 1
_RECEIVED = _DURATION_SUM + 1
_RECEIVED_SUM = _RECEIVED + len(BYTES) + 1
_SENT = _RECEIVED_SUM + 1
_SENT_SUM = _SENT + len(BYTES) + 1

# And of one of `Families.tunnels`.
_OPENED, _CLOSED, _TUNNEL_SENT, _TUNNEL_RECEIVED = range(4)

_MOST_REMEMBERED = 10_000
"""Verdicts; the rules in force make one for each destination, port and protocol, and keep it."""


class _Destination:
    """Where to count for one destination of the rules."""

    __slots__ = ("gone", "http", "labels", "tunnels")

    def __init__(self, labels: _Labels) -> None:
        self.labels = labels
        self.gone = False
        """No rule in force names it any more; a tunnel may still be open."""
        self.http: dict[tuple[int, Reason], int] = {}
        self.tunnels: dict[Reason, int] = {}

    def forget(self) -> None:
        self.gone = True
        self.http.clear()
        self.tunnels.clear()


class _Rule:
    """Finds the destination of a rule that a host fits."""

    __slots__ = ("first", "index", "rule")

    def __init__(self, rule: EgressRule, destination: Callable[[_Labels], _Destination]) -> None:
        self.rule = rule  # keeps the object alive, because it is remembered by its id
        found = [(each, destination(_labels(rule, str(each)))) for each in rule.destinations]
        self.first = found[0][1]
        self.index: DestinationIndex[_Destination] | None = None
        if len(found) > 1:
            self.index = DestinationIndex()
            for each, value in found:
                self.index.setdefault(each, value)

    def destination(self, exchange: Exchange) -> _Destination:
        if self.index is None:
            return self.first
        found = self._find(exchange.host)
        if found is None and exchange.upstream is not None:
            found = self._find(exchange.upstream[0])  # a rule for the address that a transparent client dialled
        return found or self.first

    def _find(self, host: Host | None) -> _Destination | None:
        return next(iter(self.index.lookup(host)), None) if self.index and host is not None else None


def _labels(rule: EgressRule, destination: str) -> _Labels:
    return destination, destination, rule.namespace


class Metrics(Observer):
    """All metrics of one process, counted in `arena`; without one, in memory of its own."""

    def __init__(
        self,
        *,
        version: str = UNKNOWN,
        mitmproxy: str = UNKNOWN,
        clock: Callable[[], float] = time.time,
        arena: Arena | None = None,
    ) -> None:
        self.arena = arena = arena or Arena.create()
        arena.adopt()
        self.merged = Merged([arena])
        self.names: Callable[[], int] | None = None
        """How many names the resolver knows; asked at each `refresh`."""
        self.access_log_dropped: Callable[[], int] | None = None
        """How many lines the access log has dropped so far; asked at each `refresh`."""
        self._clock = clock
        self._cells = arena.cells
        self._families = families = Families(arena)
        families.build_info.at(version, mitmproxy, platform.python_version()).value = 1.0
        self._dropped_before = families.access_log_dropped.at().value
        self._decision_seconds = families.decision_seconds.at()
        self._connect_seconds = families.upstream_connect_seconds.at()
        self._tls_seconds = families.upstream_tls_seconds.at()
        self._requests: dict[int, tuple[Verdict, dict[int, int]]] = {}
        """By the id of a verdict that allows: the rows of requests that did not fail, by status code."""
        self._allowed: dict[int, tuple[Verdict, dict[str, int]]] = {}
        """By the id of a verdict that allows: the cells of its decisions, by protocol."""
        self._refused: dict[tuple[int, Reason, str], int] = {}
        self._rules: dict[int, _Rule] = {}
        self._destinations: dict[_Labels, _Destination] = {}
        self._black_hole = self._destination(_BLACK_HOLE)
        self._passthrough = self._destination(_PASSTHROUGH)
        self._open: dict[int, _Destination] = {}

    # Requests and tunnels.

    def decided(self, verdict: Verdict, protocol: str, seconds: float) -> None:
        cell: int | None
        if verdict.treatment is Treatment.REFUSE:
            cell = self._refused.get((id(verdict.rule), verdict.reason, protocol))
        else:
            known = self._allowed.get(id(verdict))
            cell = known[1].get(protocol) if known is not None else None
        self._cells[self._decision(verdict, protocol) if cell is None else cell] += 1.0
        if seconds:
            self._decision_seconds.observe(seconds)
        else:
            self._cells[self._decision_seconds.at] += 1.0

    def finished(self, exchange: Exchange) -> None:
        protocol, code = exchange.protocol, exchange.response_code
        if protocol in _TUNNELS or not (protocol or code):
            self._tunnel_finished(exchange)
            return
        if protocol == "DNS":
            return  # Istio has no metric for it; it is among the decisions
        known = self._requests.get(id(exchange.verdict))
        row = known[1].get(code) if known is not None and exchange.failure is None else None
        if row is None:
            row = self._request_row(exchange)
        cells = self._cells
        cells[row] += 1.0
        milliseconds = exchange.duration * 1000
        cells[row + _DURATION + bisect_left(MILLISECONDS, milliseconds)] += 1.0
        cells[row + _DURATION_SUM] += milliseconds
        if received := exchange.bytes_received:
            cells[row + _RECEIVED + bisect_left(BYTES, received)] += 1.0
            cells[row + _RECEIVED_SUM] += received
        else:
            cells[row + _RECEIVED] += 1.0
        if sent := exchange.bytes_sent:
            cells[row + _SENT + bisect_left(BYTES, sent)] += 1.0
            cells[row + _SENT_SUM] += sent
        else:
            cells[row + _SENT] += 1.0

    def tunnel_opened(self, exchange: Exchange) -> None:
        destination = self._destination_of(exchange)
        self._open[id(exchange)] = destination
        self._cells[self._tunnel_row(destination, Reason.ALLOWED) + _OPENED] += 1.0

    def hello_seen(self, ech: bool) -> None:
        self._families.client_hellos.at("true" if ech else "false").add(1.0)

    def mismatch(self, claim: str) -> None:
        self._families.identity_mismatches.at(claim).add(1.0)

    # Connections, names and destinations.

    def connection_opened(self, protocol: str) -> None:
        self._families.connections.at(protocol).add(1.0)
        self._families.connections_total.at(protocol).add(1.0)

    def connection_closed(self, protocol: str) -> None:
        self._families.connections.at(protocol).add(-1.0)

    def turned_away(self, cause: str) -> None:
        self._families.turned_away.at(cause).add(1.0)

    def looked_up(self, result: str, seconds: float) -> None:
        self._families.dns_lookups.at(result).add(1.0)
        self._families.dns_lookup_seconds.at(result).observe(seconds)

    def connected(self, seconds: float) -> None:
        self._connect_seconds.observe(seconds)

    def secured(self, seconds: float) -> None:
        self._tls_seconds.observe(seconds)

    def upstream_failed(self, reason: Reason) -> None:
        self._families.upstream_failures.at(reason.value).add(1.0)

    # The gateway itself.

    def internal_error(self, where: str) -> None:
        self._families.internal_errors.at(where).add(1.0)

    def reloaded(self, rules: int, *, successful: bool) -> None:
        families = self._families
        families.rules.at().value = float(rules)
        families.rules_last_reload_successful.at().value = float(successful)
        if successful:
            families.rules_last_reload_success_timestamp.at().value = self._clock()
            self._forget_rule_objects()
        # Last: whoever has seen the count finds the rest as it is now.
        families.rules_reloads.at("success" if successful else "failure").add(1.0)

    def keep(self, rules: Iterable[EgressRule]) -> None:
        """Forgets the series of every rule and destination that is not among `rules`, the ones in force."""
        self.keep_later(rules)()

    def keep_later(self, rules: Iterable[EgressRule]) -> Callable[[], None]:
        """The same in two steps: this one, which is long for many rules, in any thread; what it returns as ever."""
        keys, destinations = {""}, {_BLACK_HOLE, _PASSTHROUGH}
        for rule in rules:
            keys.add(rule.key)
            destinations.update(_labels(rule, str(destination)) for destination in rule.destinations)

        def keep() -> None:
            self._forget_rule_objects()
            for labels in [labels for labels in self._destinations if labels not in destinations]:
                self._destinations.pop(labels).forget()
            self._families.decisions.keep(lambda values: values[3] in keys)
            for table in (self._families.requests, self._families.tunnels):
                table.keep(lambda values: values[4:7] in destinations)

        return keep

    def refresh(self) -> None:
        """Takes in the figures that others keep."""
        if self.names is not None:
            self._families.names.at().value = float(self.names())
        if self.access_log_dropped is not None:
            self._families.access_log_dropped.at().value = self._dropped_before + self.access_log_dropped()

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format 0.0.4."""
        self.refresh()
        return self.merged.exposition()

    # Finding where to count; none of it runs twice for the same labels.

    def _forget_rule_objects(self) -> None:
        # A reload makes new objects for the same rules; their series stay.
        self._rules.clear()
        self._requests.clear()
        self._allowed.clear()
        self._refused.clear()

    def _decision(self, verdict: Verdict, protocol: str) -> int:
        if verdict.rule is not None:
            self._rule(verdict.rule)
        known = protocol if protocol in PROTOCOLS else UNKNOWN
        cell = self._families.decisions.row(action(verdict), verdict.reason.value, known, verdict.rule_key)
        if known != protocol:
            return cell
        if not verdict.allowed:
            self._refused[id(verdict.rule), verdict.reason, protocol] = cell
            return cell
        if len(self._allowed) >= _MOST_REMEMBERED:
            self._allowed.clear()
        self._allowed.setdefault(id(verdict), (verdict, {}))[1][protocol] = cell
        return cell

    def _destination_of(self, exchange: Exchange) -> _Destination:
        verdict = exchange.verdict
        if not verdict.allowed:
            return self._black_hole
        if verdict.rule is None:
            return self._passthrough
        rule = self._rules.get(id(verdict.rule)) or self._rule(verdict.rule)
        return rule.destination(exchange)

    def _rule(self, rule: EgressRule) -> _Rule:
        return self._rules.setdefault(id(rule), _Rule(rule, self._destination))

    def _destination(self, labels: _Labels) -> _Destination:
        return self._destinations.setdefault(labels, _Destination(labels))

    def _request_row(self, exchange: Exchange) -> int:
        destination = self._destination_of(exchange)
        verdict, code, reason = exchange.verdict, exchange.response_code, exchange.reason
        row = destination.http.get((code, reason))
        if row is None:
            row = self._families.requests.row(*_istio(destination, "http", code, reason))
            destination.http[code, reason] = row
        if verdict.allowed and exchange.failure is None and self._has_one_destination(verdict):
            if len(self._requests) >= _MOST_REMEMBERED:
                self._requests.clear()
            self._requests.setdefault(id(verdict), (verdict, {}))[1][code] = row
        return row

    def _has_one_destination(self, verdict: Verdict) -> bool:
        return verdict.rule is None or self._rules[id(verdict.rule)].index is None

    def _tunnel_finished(self, exchange: Exchange) -> None:
        opened = self._open.pop(id(exchange), None)
        row = self._tunnel_row(opened or self._destination_of(exchange), exchange.reason)
        cells = self._cells
        if opened is None:
            cells[row + _OPENED] += 1.0  # refused, or failed before a byte could flow
        cells[row + _CLOSED] += 1.0
        cells[row + _TUNNEL_RECEIVED] += exchange.bytes_received
        cells[row + _TUNNEL_SENT] += exchange.bytes_sent

    def _tunnel_row(self, destination: _Destination, reason: Reason) -> int:
        row = destination.tunnels.get(reason)
        if row is None:
            if destination.gone:
                return NOWHERE
            row = self._families.tunnels.row(*_istio(destination, "tcp", 0, reason))
            destination.tunnels[reason] = row
        return row


def _istio(destination: _Destination, protocol: str, code: int, reason: Reason) -> tuple[str, ...]:
    """The values of Istio's labels, in the order of `families.ISTIO_LABELS`."""
    return (
        "source",
        UNKNOWN,
        UNKNOWN,
        UNKNOWN,
        *destination.labels,
        protocol,
        _CODES.get(code) or _class_of(code),
        ANSWERS[reason].flag,
        UNKNOWN,  # as with Istio's own proxies, which report as the source too
    )


def _class_of(code: int) -> str:
    return f"{code // 100}xx" if 100 <= code <= 599 else UNKNOWN
