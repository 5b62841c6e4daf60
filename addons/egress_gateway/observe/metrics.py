"""Counts what happens: Istio's standard metrics, so that its dashboards and alerts work, and our own.

The rules of this file:

- No label takes a value that a client chooses. A destination is written as it stands in a rule; one that no
  rule allows is `unknown` in `BlackHoleCluster`; status codes without a name are counted by their first
  digit.
- A request costs a look-up and a few additions: series are found once and remembered beside their rule.
- One thread calls the methods of `Observer`; any thread may call `exposition`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from egress_gateway.policy.events import Exchange, Observer
from egress_gateway.policy.hostname import Host
from egress_gateway.policy.index import DestinationIndex
from egress_gateway.policy.reason import ANSWERS, Reason
from egress_gateway.policy.rule import EgressRule
from egress_gateway.policy.verdict import Verdict

from .families import Families
from .series import Histogram, Number
from .words import action

UNKNOWN = "unknown"
_Labels = tuple[str, str, str]
"""`destination_service`, `destination_service_name`, `destination_service_namespace`."""
_BLACK_HOLE: _Labels = (UNKNOWN, "BlackHoleCluster", UNKNOWN)
_PASSTHROUGH: _Labels = (UNKNOWN, "PassthroughCluster", UNKNOWN)

_CODES = {0: "0", 499: "499"} | {int(status): str(int(status)) for status in HTTPStatus}
PROTOCOLS = frozenset({"http", "tls", "tcp", "connect", "dns"})


class _Http:
    """The series of one destination, status code and reason."""

    __slots__ = ("duration", "received", "requests", "sent")

    def __init__(self, requests: Number, duration: Histogram, received: Histogram, sent: Histogram) -> None:
        self.requests, self.duration, self.received, self.sent = requests, duration, received, sent


class _Tunnel:
    """The series of one destination and reason."""

    __slots__ = ("closed", "opened", "received", "sent")

    def __init__(self, opened: Number, closed: Number, received: Number, sent: Number) -> None:
        self.opened, self.closed, self.received, self.sent = opened, closed, received, sent


class _Destination:
    """What is counted for one destination of the rules."""

    __slots__ = ("http", "labels", "tunnels")

    def __init__(self, labels: _Labels) -> None:
        self.labels = labels
        self.http: dict[tuple[int, Reason], _Http] = {}
        self.tunnels: dict[Reason, _Tunnel] = {}


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
    """All metrics of one process. `registry` is for others' collectors, and is part of the exposition."""

    def __init__(
        self, *, version: str = UNKNOWN, mitmproxy: str = UNKNOWN, clock: Callable[[], float] = time.time
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.names: Callable[[], int] | None = None
        """How many names the resolver knows; asked at each scrape."""
        self.access_log_dropped: Callable[[], int] | None = None
        """How many lines the access log has dropped so far; asked at each scrape."""
        self._clock = clock
        self._families = families = Families()
        families.build_info.at(version, mitmproxy, platform.python_version()).value = 1
        self._decision_seconds = families.decision_seconds.at()
        self._connect_seconds = families.upstream_connect_seconds.at()
        self._tls_seconds = families.upstream_tls_seconds.at()
        self._rules: dict[int, _Rule] = {}
        self._decisions: dict[tuple[int, Reason, str], Number] = {}
        self._destinations: dict[_Labels, _Destination] = {}
        self._black_hole = self._destination(_BLACK_HOLE)
        self._passthrough = self._destination(_PASSTHROUGH)
        self._open: dict[int, _Destination] = {}

    # Requests and tunnels.

    def decided(self, verdict: Verdict, protocol: str, seconds: float) -> None:
        series = self._decisions.get((id(verdict.rule), verdict.reason, protocol))
        if series is None:
            series = self._decision(verdict, protocol)
        series.value += 1
        self._decision_seconds.observe(seconds)

    def finished(self, exchange: Exchange) -> None:
        if exchange.is_question:
            return  # Istio has no metric for it; it is among the decisions
        if _is_http(exchange):
            destination = self._destination_of(exchange)
            reason, code = exchange.reason, exchange.response_code
            series = destination.http.get((code, reason)) or self._http(destination, code, reason)
            series.requests.value += 1
            series.duration.observe(exchange.duration * 1000)
            series.received.observe(exchange.bytes_received)
            series.sent.observe(exchange.bytes_sent)
            return
        opened = self._open.pop(id(exchange), None)
        destination = opened or self._destination_of(exchange)
        tunnel = self._tunnel(destination, exchange.reason)
        if opened is None:
            tunnel.opened.value += 1  # refused, or failed before a byte could flow
        tunnel.closed.value += 1
        tunnel.received.value += exchange.bytes_received
        tunnel.sent.value += exchange.bytes_sent

    def tunnel_opened(self, exchange: Exchange) -> None:
        destination = self._destination_of(exchange)
        self._open[id(exchange)] = destination
        self._tunnel(destination, Reason.ALLOWED).opened.value += 1

    def hello_seen(self, ech: bool) -> None:
        self._families.client_hellos.at("true" if ech else "false").value += 1

    def mismatch(self, claim: str) -> None:
        self._families.identity_mismatches.at(claim).value += 1

    # Connections, names and destinations.

    def connection_opened(self, protocol: str) -> None:
        self._families.connections.at(protocol).value += 1
        self._families.connections_total.at(protocol).value += 1

    def connection_closed(self, protocol: str) -> None:
        self._families.connections.at(protocol).value -= 1

    def looked_up(self, result: str, seconds: float) -> None:
        self._families.dns_lookups.at(result).value += 1
        self._families.dns_lookup_seconds.at(result).observe(seconds)

    def connected(self, seconds: float) -> None:
        self._connect_seconds.observe(seconds)

    def secured(self, seconds: float) -> None:
        self._tls_seconds.observe(seconds)

    def upstream_failed(self, reason: Reason) -> None:
        self._families.upstream_failures.at(reason.value).value += 1

    # The gateway itself.

    def internal_error(self, where: str) -> None:
        self._families.internal_errors.at(where).value += 1

    def reloaded(self, rules: int, *, successful: bool) -> None:
        families = self._families
        families.rules.at().value = rules
        families.rules_reloads.at("success" if successful else "failure").value += 1
        families.rules_last_reload_successful.at().value = int(successful)
        if successful:
            families.rules_last_reload_success_timestamp.at().value = self._clock()
            self._forget_rule_objects()

    def keep(self, rules: Iterable[EgressRule]) -> None:
        """Forgets the series of every rule and destination that is not among `rules`, the ones in force."""
        keys, destinations = {""}, {_BLACK_HOLE, _PASSTHROUGH}
        for rule in rules:
            keys.add(rule.key)
            destinations.update(_labels(rule, str(destination)) for destination in rule.destinations)
        self._forget_rule_objects()
        self._families.decisions.keep(lambda values: values[3] in keys)
        for family in self._families.by_destination():
            family.keep(lambda values: values[4:7] in destinations)
        self._destinations = {labels: found for labels, found in self._destinations.items() if labels in destinations}

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format 0.0.4."""
        if self.names is not None:
            self._families.names.at().value = self.names()
        if self.access_log_dropped is not None:
            self._families.access_log_dropped.at().value = self.access_log_dropped()
        return "".join(self._lines()).encode("utf-8") + generate_latest(self.registry)

    def _lines(self) -> Iterator[str]:
        for family in self._families.all():
            yield from family.render()

    # Finding series; none of it runs twice for the same labels.

    def _forget_rule_objects(self) -> None:
        # A reload makes new objects for the same rules; their series stay.
        self._rules.clear()
        self._decisions.clear()

    def _decision(self, verdict: Verdict, protocol: str) -> Number:
        if verdict.rule is not None:
            self._rule(verdict.rule)
        known = protocol if protocol in PROTOCOLS else UNKNOWN
        series = self._families.decisions.at(action(verdict), verdict.reason.value, known, verdict.rule_key)
        if known == protocol:
            self._decisions[id(verdict.rule), verdict.reason, protocol] = series
        return series

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

    def _http(self, destination: _Destination, code: int, reason: Reason) -> _Http:
        values = _istio(destination, "http", code, reason)
        families = self._families
        series = destination.http[code, reason] = _Http(
            families.requests.at(*values),
            families.request_duration.at(*values),
            families.request_bytes.at(*values),
            families.response_bytes.at(*values),
        )
        return series

    def _tunnel(self, destination: _Destination, reason: Reason) -> _Tunnel:
        found = destination.tunnels.get(reason)
        if found is None:
            values = _istio(destination, "tcp", 0, reason)
            families = self._families
            found = destination.tunnels[reason] = _Tunnel(
                families.tcp_opened.at(*values),
                families.tcp_closed.at(*values),
                families.tcp_received.at(*values),
                families.tcp_sent.at(*values),
            )
        return found


def _is_http(exchange: Exchange) -> bool:
    return not exchange.is_tunnel and (exchange.protocol != "" or exchange.response_code != 0)


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
