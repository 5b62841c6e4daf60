"""The names, labels, units and help texts of all metrics, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from .series import Family, Histogram, Number

ISTIO_LABELS = (
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "request_protocol",
    "response_code",
    "response_flags",
    "connection_security_policy",
)
INTERNAL_ERRORS = ("decide", "find_addresses", "judge_again", "explain", "relay", "dns", "server_connect", "observe")
"""The places that matter most; `increase()` misses the first error of a series that was not there before."""
MISMATCH_CLAIMS = ("sni", "host", "authority", "connect", "address")

_MILLISECONDS = (
    *(0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000),
    *(300000, 600000, 1800000, 3600000),
)  # Istio's
_BYTES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
_SHORT = (0.000001, 0.0000025, 0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.001, 0.01, 0.1)
_NETWORK = (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_FEW = 100
"""How many series a family of fixed words may have; more would be a mistake of ours."""


def _counter(name: str, text: str, labels: Sequence[str] = (), *, limit: int | None = _FEW) -> Family[Number]:
    return Family(name, "counter", text, Number, labels, limit=limit)


def _gauge(name: str, text: str, labels: Sequence[str] = ()) -> Family[Number]:
    return Family(name, "gauge", text, Number, labels, limit=_FEW)


def _seconds(name: str, text: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> Family[Histogram]:
    return Family(name, "histogram", text, partial(Histogram, bounds), labels, limit=_FEW)


def _istio_counter(name: str, text: str) -> Family[Number]:
    return _counter(name, text, ISTIO_LABELS, limit=None)


def _istio_histogram(name: str, text: str, bounds: Sequence[float]) -> Family[Histogram]:
    return Family(name, "histogram", text, partial(Histogram, bounds), ISTIO_LABELS)


class Families:
    """One of each. Series whose labels are known beforehand are there from the start, with the value 0."""

    def __init__(self) -> None:
        self.requests = _istio_counter("istio_requests_total", "HTTP requests, refused ones included.")
        self.request_duration = _istio_histogram(
            "istio_request_duration_milliseconds",
            "Time from the first byte of an HTTP request to the end of its response, in milliseconds.",
            _MILLISECONDS,
        )
        self.request_bytes = _istio_histogram("istio_request_bytes", "Size of HTTP request bodies, in bytes.", _BYTES)
        self.response_bytes = _istio_histogram(
            "istio_response_bytes", "Size of HTTP response bodies, in bytes.", _BYTES
        )
        self.tcp_opened = _istio_counter(
            "istio_tcp_connections_opened_total", "TLS and TCP tunnels opened, refused ones included."
        )
        self.tcp_closed = _istio_counter(
            "istio_tcp_connections_closed_total", "TLS and TCP tunnels closed, refused ones included."
        )
        self.tcp_sent = _istio_counter(
            "istio_tcp_sent_bytes_total", "Bytes sent to clients through tunnels that are closed."
        )
        self.tcp_received = _istio_counter(
            "istio_tcp_received_bytes_total", "Bytes received from clients through tunnels that are closed."
        )

        self.decisions = _counter(
            "egress_decisions_total",
            "Decisions about a connection or request.",
            ("action", "reason", "protocol", "rule"),
            limit=None,
        )
        self.decision_seconds = _seconds("egress_decision_seconds", "Time that a decision took.", _SHORT)
        self.identity_mismatches = _counter(
            "egress_identity_mismatches_total",
            "Names or addresses that a client claimed and that contradict the destination.",
            ("claim",),
        )
        self.client_hellos = _counter(
            "egress_client_hellos_total",
            "TLS ClientHellos that could be read; ech: whether they carried encrypted_client_hello.",
            ("ech",),
        )
        self.connections = _gauge("egress_connections", "Client connections open now.", ("protocol",))
        self.connections_total = _counter("egress_connections_total", "Client connections accepted.", ("protocol",))
        self.dns_lookups = _counter("egress_dns_lookups_total", "Names looked up.", ("result",))
        self.dns_lookup_seconds = _seconds(
            "egress_dns_lookup_seconds", "Time that looking up a name took.", _NETWORK, ("result",)
        )
        self.upstream_connect_seconds = _seconds(
            "egress_upstream_connect_seconds", "Time that connecting to a destination took.", _NETWORK
        )
        self.upstream_tls_seconds = _seconds(
            "egress_upstream_tls_seconds", "Time that a TLS handshake with a destination took.", _NETWORK
        )
        self.upstream_failures = _counter(
            "egress_upstream_failures_total", "Destinations that could not be reached or used.", ("reason",)
        )
        self.rules = _gauge("egress_rules", "Egress rules in force.")
        self.rules_reloads = _counter("egress_rules_reloads_total", "How often the rules were read.", ("result",))
        self.rules_last_reload_success_timestamp = _gauge(
            "egress_rules_last_reload_success_timestamp_seconds",
            "When the rules were last read without an error, in seconds since the epoch; 0 for never.",
        )
        self.rules_last_reload_successful = _gauge(
            "egress_rules_last_reload_successful",
            "Whether the rules could be read the last time (1) or not (0).",
        )
        self.names = _gauge("egress_names", "Names whose addresses are known.")
        self.internal_errors = _counter(
            "egress_internal_errors_total",
            "Errors inside the gateway; what they concerned was refused.",
            ("where",),
        )
        self.access_log_dropped = _counter(
            "egress_access_log_dropped_total",
            "Access log lines not written because writing was too slow or failed.",
        )
        self.build_info = _gauge(
            "egress_build_info", "What is running; the value is always 1.", ("version", "mitmproxy", "python")
        )
        for claim in MISMATCH_CLAIMS:
            self.identity_mismatches.at(claim)
        for where in INTERNAL_ERRORS:
            self.internal_errors.at(where)
        for ech in ("false", "true"):
            self.client_hellos.at(ech)
        for result in ("success", "failure"):
            self.rules_reloads.at(result)
        for single in (
            self.rules,
            self.rules_last_reload_success_timestamp,
            self.rules_last_reload_successful,
        ):
            single.at()
        self.names.at()
        self.access_log_dropped.at()

    def all(self) -> Iterator[Family[Number] | Family[Histogram]]:
        return iter(vars(self).values())

    def by_destination(self) -> Iterator[Family[Number] | Family[Histogram]]:
        """Those with Istio's labels."""
        return (family for family in self.all() if family.labels == ISTIO_LABELS)
