import itertools
import random
import re
import shutil
import string
import subprocess
import time
import timeit
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families

from egress_gateway.observe.families import ISTIO_LABELS
from egress_gateway.observe.metrics import Metrics
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.rule import AddressRange, EgressRule, ExactName, Port, Protocol
from egress_gateway.policy.verdict import Treatment, Verdict, refuse

Make = Callable[..., Exchange]
MakeRule = Callable[..., EgressRule]

ISTIO = set(ISTIO_LABELS)
NAMES = {
    "istio_requests_total": ISTIO,
    "istio_request_duration_milliseconds": ISTIO,
    "istio_request_bytes": ISTIO,
    "istio_response_bytes": ISTIO,
    "istio_tcp_connections_opened_total": ISTIO,
    "istio_tcp_connections_closed_total": ISTIO,
    "istio_tcp_sent_bytes_total": ISTIO,
    "istio_tcp_received_bytes_total": ISTIO,
    "egress_decisions_total": {"action", "reason", "protocol", "rule"},
    "egress_decision_seconds": set(),
    "egress_identity_mismatches_total": {"claim"},
    "egress_client_hellos_total": {"ech"},
    "egress_connections": {"protocol"},
    "egress_connections_total": {"protocol"},
    "egress_clients_turned_away_total": {"cause"},
    "egress_dns_lookups_total": {"result"},
    "egress_dns_lookup_seconds": {"result"},
    "egress_upstream_connect_seconds": set(),
    "egress_upstream_tls_seconds": set(),
    "egress_upstream_failures_total": {"reason"},
    "egress_rules": set(),
    "egress_rules_reloads_total": {"result"},
    "egress_rules_last_reload_success_timestamp_seconds": set(),
    "egress_rules_last_reload_successful": set(),
    "egress_names": set(),
    "egress_internal_errors_total": {"where"},
    "egress_access_log_dropped_total": set(),
    "egress_build_info": {"version", "mitmproxy", "python"},
}


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of the exposition, as Prometheus' own parser reads it."""
    text = metrics.exposition().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """The sum of the samples of `name` that have these labels."""
    wanted = set(labels.items())
    return sum(number for (found, pairs), number in samples(metrics).items() if found == name and wanted <= pairs)


def series_of_ours(metrics: Metrics) -> set[str]:
    lines = metrics.exposition().decode().splitlines()
    return {line.rsplit(" ", 1)[0] for line in lines if line.startswith(("istio_", "egress_"))}


def use_everything(metrics: Metrics, request_: Make, tunnel: Make, refused: Make) -> None:
    """At least one sample in each family."""
    for exchange in (request_(), refused(), refused(protocol="TLS", response_code=0)):
        metrics.decided(exchange.verdict, "http", 0.000002)
        metrics.finished(exchange)
    open_tunnel = tunnel()
    metrics.tunnel_opened(open_tunnel)
    metrics.finished(open_tunnel)
    metrics.mismatch("sni")
    metrics.hello_seen(True)
    metrics.connection_opened("regular")
    metrics.connection_closed("regular")
    metrics.looked_up("success", 0.01)
    metrics.connected(0.01)
    metrics.secured(0.02)
    metrics.upstream_failed(Reason.CONNECT_FAILED)
    metrics.turned_away("descriptors")
    metrics.internal_error("observe")
    metrics.reloaded(3, successful=True)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="0.1.0", mitmproxy="12.2.3", clock=itertools.count(1700000000).__next__)


def test_every_name_is_there_with_exactly_its_labels(
    metrics: Metrics, request_: Make, tunnel: Make, refused: Make
) -> None:
    use_everything(metrics, request_, tunnel, refused)
    found: dict[str, set[str]] = {}
    for name, pairs in samples(metrics):
        base = re.sub("_(bucket|sum|count)$", "", name)
        found.setdefault(base, set()).update({label for label, _ in pairs} - {"le"})
    assert {name: labels for name, labels in found.items() if not name.startswith("process_")} == NAMES


def test_every_family_is_declared_before_anything_happened(metrics: Metrics) -> None:
    text = metrics.exposition().decode()
    for name in NAMES:
        assert f"# HELP {name} " in text
        assert f"# TYPE {name} " in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is not installed")
def test_promtool_finds_nothing_but_the_unit_in_a_name_that_istio_chose(
    metrics: Metrics, request_: Make, tunnel: Make, refused: Make
) -> None:
    use_everything(metrics, request_, tunnel, refused)
    assert promtool(metrics.exposition()) == [
        'istio_request_duration_milliseconds use base unit "seconds" instead of "milliseconds"'
    ]


def promtool(exposition: bytes) -> list[str]:
    ran = subprocess.run(["promtool", "check", "metrics"], input=exposition, capture_output=True, check=False)
    assert ran.returncode in (0, 3), ran.stderr  # 3: parsed, and has remarks
    return (ran.stdout + ran.stderr).decode().splitlines()


def test_a_request_is_counted_under_the_destination_of_its_rule(metrics: Metrics, request_: Make) -> None:
    metrics.finished(request_())
    expected = {
        "reporter": "source",
        "source_workload": "unknown",
        "source_workload_namespace": "unknown",
        "source_principal": "unknown",
        "destination_service": "www.googleapis.com",
        "destination_service_name": "www.googleapis.com",
        "destination_service_namespace": "default",
        "request_protocol": "http",
        "response_code": "200",
        "response_flags": "-",
        "connection_security_policy": "unknown",
    }
    found = samples(metrics)
    labels = frozenset(expected.items())
    assert found["istio_requests_total", labels] == 1
    assert found["istio_request_bytes_sum", labels] == 10
    assert found["istio_response_bytes_sum", labels] == 1229
    assert found["istio_request_duration_milliseconds_sum", labels] == pytest.approx(35)
    assert found["istio_request_duration_milliseconds_bucket", labels | {("le", "25")}] == 0
    assert found["istio_request_duration_milliseconds_bucket", labels | {("le", "50")}] == 1


def test_the_duration_has_istios_buckets(metrics: Metrics, request_: Make) -> None:
    metrics.finished(request_())
    found = [
        float(dict(pairs)["le"])
        for name, pairs in samples(metrics)
        if name == "istio_request_duration_milliseconds_bucket"
    ]
    istio = "0.5 1 5 10 25 50 100 250 500 1000 2500 5000 10000 30000 60000 300000 600000 1800000 3600000"
    assert found == [*map(float, istio.split()), float("inf")]


def test_a_refused_request_is_the_black_holes_and_names_no_host(metrics: Metrics, refused: Make) -> None:
    metrics.finished(refused())
    assert (
        value(
            metrics,
            "istio_requests_total",
            destination_service="unknown",
            destination_service_name="BlackHoleCluster",
            response_code="403",
            response_flags="NR",
        )
        == 1
    )
    assert b"denied.example" not in metrics.exposition()


def test_a_rule_that_denies_does_not_name_its_destination_to_istio(
    metrics: Metrics, refused: Make, rule: MakeRule
) -> None:
    metrics.finished(refused(verdict=refuse(Reason.DENIED_BY_RULE, rule("deny", "denied.example"))))
    assert value(metrics, "istio_requests_total", destination_service_name="BlackHoleCluster") == 1
    assert b"denied.example" not in metrics.exposition()


def test_what_was_let_through_without_a_rule_is_the_passthrough_clusters(metrics: Metrics, request_: Make) -> None:
    metrics.finished(request_(verdict=Verdict(Treatment.FORWARD, Reason.ALLOWED)))
    assert value(metrics, "istio_requests_total", destination_service_name="PassthroughCluster") == 1


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("www.googleapis.com", "www.googleapis.com"),
        ("books.googleapis.com", "*.googleapis.com"),
        ("a.b.googleapis.com", "*.b.googleapis.com"),
    ],
)
def test_of_several_destinations_the_most_specific_that_matches_is_named(
    metrics: Metrics, request_: Make, rule: MakeRule, host: str, expected: str
) -> None:
    several = rule("several", "*.googleapis.com", "*.b.googleapis.com", "www.googleapis.com", "other.example")
    verdict = Verdict(Treatment.ORIGINATE, Reason.ALLOWED, several, 443)
    metrics.finished(request_(host=Hostname(host), verdict=verdict))
    assert value(metrics, "istio_requests_total", destination_service=expected) == 1


def test_a_rule_for_the_address_dialled_is_named_by_its_range(metrics: Metrics, tunnel: Make) -> None:
    networks = (AddressRange(ip_network("192.0.2.0/25")), AddressRange(ip_network("192.0.2.128/25")))
    by_address = EgressRule("default", "net", networks, (Port(5432, Protocol.TCP),))
    verdict = Verdict(Treatment.BYTES, Reason.ALLOWED, by_address, 5432)
    metrics.finished(tunnel(verdict=verdict, upstream=(ip_address("192.0.2.200"), 5432)))
    destination = "192.0.2.128/25"
    assert value(metrics, "istio_tcp_connections_closed_total", destination_service=destination) == 1


def test_a_tunnel_counts_when_it_opens_and_when_it_closes(metrics: Metrics, tunnel: Make) -> None:
    exchange = tunnel(bytes_received=0, bytes_sent=0)
    metrics.tunnel_opened(exchange)
    labels = {"destination_service": "www.googleapis.com", "request_protocol": "tcp"}
    assert value(metrics, "istio_tcp_connections_opened_total", **labels) == 1
    assert value(metrics, "istio_tcp_connections_closed_total", **labels) == 0
    exchange.bytes_received, exchange.bytes_sent, exchange.failure = 100, 2000, Reason.UPSTREAM_CLOSED
    metrics.finished(exchange)
    assert value(metrics, "istio_tcp_connections_opened_total", **labels) == 1
    assert value(metrics, "istio_tcp_connections_closed_total", response_flags="UC", **labels) == 1
    assert value(metrics, "istio_tcp_received_bytes_total", **labels) == 100
    assert value(metrics, "istio_tcp_sent_bytes_total", **labels) == 2000
    assert value(metrics, "istio_requests_total") == 0


def test_a_refused_question_to_the_name_server_is_no_request_and_no_tunnel(metrics: Metrics, refused: Make) -> None:
    before = metrics.exposition().decode().count("BlackHoleCluster")
    metrics.finished(refused(protocol="DNS", method="A", path="", response_code=0))
    assert metrics.exposition().decode().count("BlackHoleCluster") == before
    metrics.decided(refuse(Reason.NO_RULE), "dns", 0.0)
    assert value(metrics, "egress_decisions_total", action="deny", reason="no_rule", protocol="dns", rule="") == 1


@pytest.mark.parametrize("protocol", ["TLS", "TCP", ""])
def test_a_refused_tunnel_is_opened_and_closed_in_the_black_hole(
    metrics: Metrics, refused: Make, protocol: str
) -> None:
    metrics.finished(refused(protocol=protocol, response_code=0))
    for name in ("istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total"):
        assert value(metrics, name, destination_service_name="BlackHoleCluster") == 1
    assert value(metrics, "istio_requests_total") == 0


def test_a_request_that_could_not_be_parsed_but_was_answered_is_a_request(metrics: Metrics, refused: Make) -> None:
    metrics.finished(refused(protocol="", response_code=400, verdict=refuse(Reason.MALFORMED_REQUEST)))
    assert value(metrics, "istio_requests_total", response_code="400", response_flags="DPE") == 1


@pytest.mark.parametrize(
    ("code", "label"), [(0, "0"), (499, "499"), (418, "418"), (299, "2xx"), (599, "5xx"), (777, "unknown")]
)
def test_status_codes_are_labels_only_if_they_have_a_name(
    metrics: Metrics, request_: Make, code: int, label: str
) -> None:
    metrics.finished(request_(response_code=code))
    assert value(metrics, "istio_requests_total", response_code=label) == 1


def test_decisions_name_the_rule_and_the_reason(metrics: Metrics, rule: MakeRule) -> None:
    metrics.decided(Verdict(Treatment.AWAIT, Reason.ALLOWED, rule(), 443), "connect", 0.000002)
    metrics.decided(refuse(Reason.NO_RULE), "tls", 0.000002)
    metrics.decided(refuse(Reason.NO_RULE), "tls", 0.000002)
    name = "egress_decisions_total"
    allowed = {"action": "allow", "reason": "allowed", "protocol": "connect", "rule": "default/googleapis"}
    assert value(metrics, name, **allowed) == 1
    assert value(metrics, name, action="deny", reason="no_rule", protocol="tls", rule="") == 2
    assert value(metrics, "egress_decision_seconds_count") == 3


def test_ten_thousand_hosts_that_no_rule_allows_add_no_series(
    metrics: Metrics, request_: Make, tunnel: Make, refused: Make
) -> None:
    use_everything(metrics, request_, tunnel, refused)
    before = series_of_ours(metrics)
    chance = random.Random(7)
    for _ in range(10_000):
        host = "".join(chance.choices(string.ascii_lowercase, k=20)) + ".example"
        exchange = refused(
            host=Hostname(host),
            authority=f"{host}:443",
            requested_server_name=host,
            path=f"/{host}",
            user=host,
            request_id=host,
            detail=host,
        )
        metrics.decided(exchange.verdict, "http", 0.000002)
        metrics.finished(exchange)
    assert series_of_ours(metrics) == before


def test_ten_thousand_hosts_under_one_wildcard_are_one_destination(
    metrics: Metrics, request_: Make, rule: MakeRule
) -> None:
    verdict = Verdict(Treatment.ORIGINATE, Reason.ALLOWED, rule("wild", "*.example", "other.test"), 443)
    metrics.finished(request_(verdict=verdict, host=Hostname("a.example")))
    before = series_of_ours(metrics)
    for i in range(10_000):
        metrics.finished(request_(verdict=verdict, host=Hostname(f"h{i}.example"), authority=f"h{i}.example:443"))
    assert series_of_ours(metrics) == before


def test_client_text_never_reaches_the_exposition(metrics: Metrics, refused: Make, hostile: str) -> None:
    before = series_of_ours(metrics)
    fields = ("protocol", "method", "path", "authority", "requested_server_name", "user", "detail", "request_id")
    metrics.finished(refused(**dict.fromkeys(fields, hostile)))
    metrics.decided(refuse(Reason.NO_RULE), hostile, 0.000002)  # against its contract, and harmless still
    added = series_of_ours(metrics) - before
    assert added
    assert all("BlackHoleCluster" in line or 'protocol="unknown"' in line for line in added)


def test_series_of_deleted_rules_are_forgotten_and_the_others_stay(
    metrics: Metrics, request_: Make, refused: Make, rule: MakeRule
) -> None:
    stays, goes = rule("stays", "stays.example"), rule("goes", "goes.example")
    for each in (stays, goes):
        verdict = Verdict(Treatment.ORIGINATE, Reason.ALLOWED, each, 443)
        metrics.decided(verdict, "http", 0.000002)
        metrics.finished(request_(verdict=verdict))
    metrics.finished(refused())
    metrics.keep([rule("stays", "stays.example")])
    text = metrics.exposition().decode()
    assert "goes" not in text
    assert value(metrics, "istio_requests_total", destination_service="stays.example") == 1
    assert value(metrics, "egress_decisions_total", rule="default/stays") == 1
    assert value(metrics, "istio_requests_total", destination_service_name="BlackHoleCluster") == 1


def test_after_a_reload_the_same_rule_goes_on_counting_where_it_was(
    metrics: Metrics, request_: Make, rule: MakeRule
) -> None:
    for _ in range(2):
        read_again = rule("stays", "stays.example")
        verdict = Verdict(Treatment.ORIGINATE, Reason.ALLOWED, read_again, 443)
        metrics.decided(verdict, "http", 0.000002)
        metrics.finished(request_(verdict=verdict))
        metrics.reloaded(1, successful=True)
        metrics.keep([read_again])
    assert value(metrics, "istio_requests_total", destination_service="stays.example") == 2
    assert value(metrics, "egress_decisions_total", rule="default/stays") == 2


def test_a_rule_that_comes_back_is_counted_anew(metrics: Metrics, request_: Make, rule: MakeRule) -> None:
    verdict = Verdict(Treatment.ORIGINATE, Reason.ALLOWED, rule("back", "back.example"), 443)
    for _ in range(2):
        metrics.decided(verdict, "http", 0.000002)
        metrics.finished(request_(verdict=verdict))
        assert value(metrics, "istio_requests_total", destination_service="back.example") == 1
        assert value(metrics, "egress_decisions_total", rule="default/back") == 1
        metrics.keep([])


def test_a_rule_that_denies_and_comes_back_is_counted_anew(metrics: Metrics, rule: MakeRule) -> None:
    denied = refuse(Reason.DENIED_BY_RULE, rule("back", "back.example"))
    for _ in range(2):
        metrics.decided(denied, "http", 0.0)
        assert value(metrics, "egress_decisions_total", rule="default/back") == 1
        metrics.keep([])


def test_what_is_counted_after_a_reload_is_never_anothers(
    metrics: Metrics, request_: Make, tunnel: Make, rule: MakeRule
) -> None:
    """The cells of a rule that is gone are another one's, while its verdicts and tunnels are still about."""
    gone = Verdict(Treatment.ORIGINATE, Reason.ALLOWED, rule("gone", "gone.example"), 443)
    new = Verdict(Treatment.ORIGINATE, Reason.ALLOWED, rule("new", "new.example"), 443)
    open_tunnel, request = tunnel(verdict=gone), request_(verdict=gone)
    metrics.tunnel_opened(open_tunnel)
    metrics.decided(gone, "http", 0.0)
    metrics.finished(request)
    metrics.keep([rule("new", "new.example")])
    for _ in range(2):
        metrics.finished(request_(verdict=new))
        metrics.finished(tunnel(verdict=new))
        metrics.decided(new, "http", 0.0)
    metrics.finished(open_tunnel)
    metrics.finished(request)
    metrics.decided(gone, "http", 0.0)
    for name in ("istio_requests_total", "istio_tcp_connections_closed_total", "istio_tcp_connections_opened_total"):
        assert value(metrics, name, destination_service="new.example") == 2
    assert value(metrics, "istio_request_bytes_count", destination_service="new.example") == 2
    assert value(metrics, "egress_decisions_total", rule="default/new") == 2


def test_collectors_of_others_are_scraped_too(metrics: Metrics) -> None:
    Gauge("somebody_elses", "X.", registry=metrics.merged.registry).set(3)
    assert value(metrics, "somebody_elses") == 3
    assert value(metrics, "process_cpu_seconds_total") > 0


def test_two_hundred_reloads_keep_no_old_rule(metrics: Metrics, request_: Make) -> None:
    for i in range(200):
        fresh = EgressRule("default", f"r{i}", (ExactName(Hostname(f"h{i}.example")),), (Port(443, Protocol.HTTPS),))
        metrics.finished(request_(verdict=Verdict(Treatment.ORIGINATE, Reason.ALLOWED, fresh, 443)))
        metrics.decided(Verdict(Treatment.ORIGINATE, Reason.ALLOWED, fresh, 443), "http", 0.000002)
        metrics.reloaded(1, successful=True)
        metrics.keep([fresh])
    text = metrics.exposition().decode()
    assert len(re.findall(r'istio_requests_total\{.*"h\d+\.example"', text)) == 1
    assert len(re.findall(r"egress_decisions_total\{", text)) == 1


def test_a_tunnel_that_outlives_its_rule_still_closes(metrics: Metrics, tunnel: Make, rule: MakeRule) -> None:
    exchange = tunnel(verdict=Verdict(Treatment.PASSTHROUGH, Reason.ALLOWED, rule("goes", "goes.example"), 443))
    metrics.tunnel_opened(exchange)
    metrics.keep([])
    metrics.finished(exchange)
    assert b"goes.example" not in metrics.exposition()


def test_connections_go_up_and_down(metrics: Metrics) -> None:
    for _ in range(3):
        metrics.connection_opened("transparent")
    metrics.connection_closed("transparent")
    assert value(metrics, "egress_connections", protocol="transparent") == 2
    assert value(metrics, "egress_connections_total", protocol="transparent") == 3


def test_a_reload_is_counted_when_the_rest_of_it_is_there() -> None:
    """Whoever waits for the count looks at the others next."""
    counted: list[float] = []

    def clock() -> float:
        counted.append(sum(count for (name, _), count in samples(made).items() if name == "egress_rules_reloads_total"))
        return 1.0

    made = Metrics(clock=clock)
    made.reloaded(5, successful=True)
    assert counted == [0]
    assert value(made, "egress_rules_reloads_total", result="success") == 1


def test_a_reload_that_failed_says_so_and_keeps_the_time_of_the_last_good_one(metrics: Metrics) -> None:
    metrics.reloaded(5, successful=True)
    metrics.reloaded(5, successful=False)
    assert value(metrics, "egress_rules") == 5
    assert value(metrics, "egress_rules_reloads_total", result="success") == 1
    assert value(metrics, "egress_rules_reloads_total", result="failure") == 1
    assert value(metrics, "egress_rules_last_reload_successful") == 0
    assert value(metrics, "egress_rules_last_reload_success_timestamp_seconds") == 1700000000


def test_the_rest_of_the_events_are_counted(metrics: Metrics) -> None:
    metrics.mismatch("sni")
    metrics.hello_seen(ech=True)
    metrics.looked_up("cached", 0.0)
    metrics.connected(0.02)
    metrics.secured(0.03)
    metrics.upstream_failed(Reason.UPSTREAM_TLS_FAILED)
    metrics.internal_error("decide")
    assert value(metrics, "egress_identity_mismatches_total", claim="sni") == 1
    assert value(metrics, "egress_client_hellos_total", ech="true") == 1
    assert value(metrics, "egress_client_hellos_total", ech="false") == 0
    assert value(metrics, "egress_dns_lookups_total", result="cached") == 1
    assert value(metrics, "egress_dns_lookup_seconds_count", result="cached") == 1
    assert value(metrics, "egress_upstream_connect_seconds_sum") == pytest.approx(0.02)
    assert value(metrics, "egress_upstream_tls_seconds_sum") == pytest.approx(0.03)
    assert value(metrics, "egress_upstream_failures_total", reason="upstream_tls_failed") == 1
    assert value(metrics, "egress_internal_errors_total", where="decide") == 1


def test_figures_of_others_are_asked_for_at_each_scrape(metrics: Metrics) -> None:
    known = [1]
    metrics.names = lambda: len(known)
    metrics.access_log_dropped = lambda: 4
    assert value(metrics, "egress_names") == 1
    known.append(2)
    assert value(metrics, "egress_names") == 2
    assert value(metrics, "egress_access_log_dropped_total") == 4


def test_what_is_running_is_told(metrics: Metrics) -> None:
    assert value(metrics, "egress_build_info", version="0.1.0", mitmproxy="12.2.3") == 1


def test_a_request_costs_microseconds(metrics: Metrics, request_: Make) -> None:
    exchange = request_()

    def one() -> None:
        metrics.decided(exchange.verdict, "http", 0.000002)
        metrics.finished(exchange)

    one()
    best = min(timeit.repeat(one, number=500, repeat=40, timer=time.thread_time)) / 500
    assert best < 6e-6, f"{best * 1e6:.1f} µs"
