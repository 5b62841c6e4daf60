"""The names, labels, units and help texts of all metrics, and nothing else."""

from __future__ import annotations

from typing import Literal

from .arena import Arena
from .series import Declaration, Family, Histograms, Numbers, Table

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
TURNED_AWAY = ("descriptors", "max_connections")
INTERNAL_ERRORS = (
    "decide",
    "find_addresses",
    "judge_again",
    "explain",
    "relay",
    "dns",
    "server_connect",
    "observe",
    "rules",
)
"""The places that matter most; `increase()` misses the first error of a series that was not there before."""
MISMATCH_CLAIMS = ("sni", "host", "authority", "connect", "address")

MILLISECONDS = (
    *(0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000),
    *(300000, 600000, 1800000, 3600000),
)  # Istio's
BYTES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
_SHORT = (0.000001, 0.0000025, 0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.001, 0.01, 0.1)
_NETWORK = (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_FEW = 100
"""How many series a family of fixed words may have; more would be a mistake of ours."""
_NOT_TOLD = float("nan")

Labels = tuple[str, ...]


def _counter(arena: Arena, name: str, text: str, labels: Labels = (), *, limit: int | None = _FEW) -> Numbers:
    return Numbers(arena, Declaration((Family(name, "counter", text),), labels), limit=limit)


def _gauge(
    arena: Arena, name: str, text: str, labels: Labels = (), *, merged: Literal["sum", "max", "min"] = "max"
) -> Numbers:
    """The greatest counts where the processes of a gateway all say the same, but for a moment."""
    declaration = Declaration((Family(name, "gauge", text),), labels, merged)
    return Numbers(arena, declaration, limit=_FEW, start=0.0 if merged == "sum" else _NOT_TOLD)


def _seconds(arena: Arena, name: str, text: str, bounds: tuple[float, ...], labels: Labels = ()) -> Histograms:
    return Histograms(arena, Declaration((Family(name, "histogram", text, bounds),), labels), limit=_FEW)


class Families:
    """One of each, counted in `arena`. Series whose labels are known beforehand are there from the start, with 0."""

    def __init__(self, arena: Arena) -> None:
        self.requests = Table(
            arena,
            Declaration(
                (
                    Family("istio_requests_total", "counter", "HTTP requests, refused ones included."),
                    Family(
                        "istio_request_duration_milliseconds",
                        "histogram",
                        "Time from the first byte of an HTTP request to the end of its response, in milliseconds.",
                        MILLISECONDS,
                    ),
                    Family("istio_request_bytes", "histogram", "Size of HTTP request bodies, in bytes.", BYTES),
                    Family("istio_response_bytes", "histogram", "Size of HTTP response bodies, in bytes.", BYTES),
                ),
                ISTIO_LABELS,
            ),
        )
        self.tunnels = Table(
            arena,
            Declaration(
                (
                    Family(
                        "istio_tcp_connections_opened_total",
                        "counter",
                        "TLS and TCP tunnels opened, refused ones included.",
                    ),
                    Family(
                        "istio_tcp_connections_closed_total",
                        "counter",
                        "TLS and TCP tunnels closed, refused ones included.",
                    ),
                    Family(
                        "istio_tcp_sent_bytes_total",
                        "counter",
                        "Bytes sent to clients through tunnels that are closed.",
                    ),
                    Family(
                        "istio_tcp_received_bytes_total",
                        "counter",
                        "Bytes received from clients through tunnels that are closed.",
                    ),
                ),
                ISTIO_LABELS,
            ),
        )

        self.decisions = _counter(
            arena,
            "egress_decisions_total",
            "Decisions about a connection or request.",
            ("action", "reason", "protocol", "rule"),
            limit=None,
        )
        self.decision_seconds = _seconds(arena, "egress_decision_seconds", "Time that a decision took.", _SHORT)
        self.identity_mismatches = _counter(
            arena,
            "egress_identity_mismatches_total",
            "Names or addresses that a client claimed and that contradict the destination.",
            ("claim",),
        )
        self.client_hellos = _counter(
            arena,
            "egress_client_hellos_total",
            "TLS ClientHellos that could be read; ech: whether they carried encrypted_client_hello.",
            ("ech",),
        )
        self.connections = _gauge(
            arena, "egress_connections", "Client connections open now.", ("protocol",), merged="sum"
        )
        self.connections_total = _counter(
            arena, "egress_connections_total", "Client connections accepted.", ("protocol",)
        )
        self.turned_away = _counter(
            arena, "egress_clients_turned_away_total", "Clients for whom there was no room.", ("cause",)
        )
        self.dns_lookups = _counter(arena, "egress_dns_lookups_total", "Names looked up.", ("result",))
        self.dns_lookup_seconds = _seconds(
            arena, "egress_dns_lookup_seconds", "Time that looking up a name took.", _NETWORK, ("result",)
        )
        self.upstream_connect_seconds = _seconds(
            arena, "egress_upstream_connect_seconds", "Time that connecting to a destination took.", _NETWORK
        )
        self.upstream_tls_seconds = _seconds(
            arena, "egress_upstream_tls_seconds", "Time that a TLS handshake with a destination took.", _NETWORK
        )
        self.upstream_failures = _counter(
            arena, "egress_upstream_failures_total", "Destinations that could not be reached or used.", ("reason",)
        )
        self.rules = _gauge(arena, "egress_rules", "Egress rules in force.")
        self.rules_reloads = _counter(
            arena, "egress_rules_reloads_total", "How often the rules were read.", ("result",)
        )
        self.rules_last_reload_success_timestamp = _gauge(
            arena,
            "egress_rules_last_reload_success_timestamp_seconds",
            "When the rules were last read without an error, in seconds since the epoch; 0 for never.",
        )
        self.rules_last_reload_successful = _gauge(
            arena,
            "egress_rules_last_reload_successful",
            "Whether the rules could be read the last time (1) or not (0).",
            merged="min",
        )
        self.names = _gauge(arena, "egress_names", "Names whose addresses are known.")
        self.internal_errors = _counter(
            arena,
            "egress_internal_errors_total",
            "Errors inside the gateway; what they concerned was refused.",
            ("where",),
        )
        self.access_log_dropped = _counter(
            arena,
            "egress_access_log_dropped_total",
            "Access log lines not written because writing was too slow or failed.",
        )
        self.build_info = _gauge(
            arena, "egress_build_info", "What is running; the value is always 1.", ("version", "mitmproxy", "python")
        )
        for claim in MISMATCH_CLAIMS:
            self.identity_mismatches.at(claim)
        for where in INTERNAL_ERRORS:
            self.internal_errors.at(where)
        for cause in TURNED_AWAY:
            self.turned_away.at(cause)
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


class SupervisorFamilies:
    """What the process counts that starts the others, in an arena of its own."""

    def __init__(self, arena: Arena) -> None:
        self.workers_wanted = _gauge(arena, "egress_workers_wanted", "Processes that are to serve clients.")
        self.workers_ready = _gauge(arena, "egress_workers_ready", "Processes that serve clients.")
        self.draining = _gauge(
            arena, "egress_draining", "Whether the gateway is stopping and lets connections finish (1) or not (0)."
        )
        self.restarts = _counter(
            arena, "egress_worker_restarts_total", "How often a worker that had ended was started again."
        )
        for single in (self.workers_wanted, self.workers_ready, self.draining, self.restarts):
            single.at().value = 0.0
