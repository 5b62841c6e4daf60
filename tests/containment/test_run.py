"""The whole of it, between two networks: green behind a gateway, red without, and what is said in between.

Which row is red without which rule of the packet filter is in `tests/transparent/test_gateway_check.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from egress_gateway.containment import run as run_module
from egress_gateway.containment.attempt.family import Family
from egress_gateway.containment.options import parse
from egress_gateway.containment.outcome import Status, Told, Verdict
from egress_gateway.containment.run import Report, run
from egress_gateway.network.layout import Layout
from support.containment_checks import CUT_SHORT, PATIENT, SILENT, run_checks
from support.everything import Everything
from support.gateway_stand_in import DNS_PORT, PORT, GatewayStandIn
from support.networks import Host, TwoNetworks
from support.origin import ScriptedOrigin

Check = Callable[..., Report]

TCP = {
    "TCP 22 (SSH)",
    "TCP 25 (SMTP)",
    "TCP 587 (submission)",
    "TCP 3128 (proxy)",
    "TCP 8080 (HTTP)",
    "TCP 8443 (HTTPS)",
    "TCP 50022",
    "DNS over TLS",
}
UDP = {
    "UDP 123 (NTP)",
    "UDP 853 (DNS over QUIC)",
    "UDP 3478 (STUN)",
    "UDP 5353 (DNS)",
    "UDP 51820 (WireGuard)",
    "UDP 33434",
}
QUIC, ICMP, GRE = {"UDP 443 (QUIC)"}, {"ICMP echo"}, {"IP protocol 47 (GRE)"}
TUNNELS = GRE | {"IP protocol 41 (IPv6 in IP)", "IP protocol 50 (ESP)", "IP protocol 132 (SCTP)"}
WEB = {"HTTP", "HTTPS", "DNS over HTTPS (dns.google)"}
DNS_UDP, DNS_TCP = {"DNS over UDP"}, {"DNS over TCP"}
OWN = {"gateway's own TCP 22 (SSH)", "gateway's own TCP 8081 (mitmweb)", "gateway's own TCP 9464 (metrics)"}


def rows(report: Report, *statuses: Status) -> set[tuple[str, str]]:
    return {(row.check, row.family) for row in report.outcomes if row.verdict.status in statuses}


def both(checks: set[str]) -> set[tuple[str, str]]:
    return {(check, family) for check in checks for family in ("IPv4", "IPv6")}


def how(report: Report) -> str:
    return "\n".join(f"{row.check} {row.family} {row.verdict}" for row in report.outcomes)


@pytest.fixture(autouse=True)
def nothing_listens_outside_but(everything: Everything) -> None:
    """Whatever gets through is answered."""


def test_behind_a_gateway_everything_is_stopped(gateway: GatewayStandIn, check: Check) -> None:
    report = check()
    everything_there_is = both(TCP | UDP | QUIC | ICMP | TUNNELS | WEB | DNS_UDP | DNS_TCP | OWN)
    everything_there_is.add(CUT_SHORT)
    assert rows(report, Status.STOPPED) == everything_there_is, how(report)
    assert len(report.outcomes) == len(everything_there_is)
    assert report.contained


def test_without_a_packet_filter_everything_is_open(gateway: GatewayStandIn, check: Check) -> None:
    with gateway.without_filter():
        report = check(silent={CUT_SHORT})
    assert rows(report, Status.STOPPED) == both(OWN) | {CUT_SHORT}, how(report)
    assert not report.contained
    assert report.count(Status.OPEN) == len(report.outcomes) - len(OWN) * 2 - 1
    assert {row.verdict.how for row in report.outcomes if row.check in TCP} == {"connected"}


REJECTS_WHAT_IT_WOULD_FORWARD = f"""
    table inet plain {{
        chain prerouting {{
            type nat hook prerouting priority dstnat
            iifname "inside" tcp dport {{ 80, 443 }} redirect to :{PORT}
            iifname "inside" meta l4proto {{ tcp, udp }} th dport 53 redirect to :{DNS_PORT}
        }}
        chain forward {{
            type filter hook forward priority filter
            iifname "inside" meta l4proto tcp reject with tcp reset
            iifname "inside" reject
        }}
    }}
"""


def test_a_plain_packet_filter_is_as_good(gateway: GatewayStandIn, check: Check) -> None:
    """By its own rules a packet is over before the filter sees it, if its time to live is."""
    with gateway.without_filter():
        gateway.host.run("nft", "-f", "-", input=REJECTS_WHAT_IT_WOULD_FORWARD)
        report = check()
        gateway.host.run("nft", "delete", "table", "inet", "plain")
    assert report.contained, how(report)


def test_well_known_targets_are_tried_when_nobody_names_one(gateway: GatewayStandIn, check: Check) -> None:
    """In this lab every address in the world is the evil host's."""
    assert check("--no-ipv6", targets=()).contained
    with gateway.without_filter():
        report = check("--no-ipv6", targets=(), silent=both(GRE))
    targets = {row.target for row in report.outcomes if row.verdict.status is Status.OPEN}
    assert {"1.1.1.1:443", "8.8.8.8:53", "8.8.8.8:853", "162.159.200.1:123", "1.1.1.1"} <= targets, how(report)
    # A raw socket answers from its own address only, so GRE to another one is not answered.
    assert rows(report, Status.STOPPED) <= both(OWN | GRE)


def test_it_takes_the_timeout_however_many_rows_there_are(gateway: GatewayStandIn, networks: TwoNetworks) -> None:
    """Nothing of what is sent is answered: the slowest case. One after the other they would take a minute."""
    targets = ("--target", networks.evil.ipv4, "--target", networks.evil.ipv6)
    drop_all = "table inet silence {\nchain silence {\ntype filter hook prerouting priority -300\ndrop\n}\n}\n"
    gateway.host.run("nft", "-f", "-", input=drop_all)
    try:
        started = time.monotonic()
        with networks.client.entered():
            report = run(parse(["--timeout", "1", *targets]))
        took = time.monotonic() - started
    finally:
        gateway.host.run("nft", "delete", "table", "inet", "silence")
    assert 1 <= took < 10
    assert len(report.outcomes) > 50
    told = {row.verdict.told for row in report.outcomes}
    assert told == {Told.SILENT}, how(report)
    assert rows(report, Status.BROKEN) == both(WEB | DNS_UDP | DNS_TCP)
    assert not report.contained


def test_a_service_on_the_gateway_is_open(gateway: GatewayStandIn, check: Check) -> None:
    with gateway.host.entered():
        service = ScriptedOrigin("10.66.0.1", 9464, answers=[b"HTTP/1.1 200 OK\r\n\r\n"])
    with service, gateway.without("refused: TCP"):
        report = check("--gateway-ports", "22,9464", "--ports", "", "--no-ipv6")
    expected = {("gateway's own TCP 9464 (metrics)", "IPv4"), ("DNS over TLS", "IPv4")}
    assert rows(report, Status.OPEN, Status.BROKEN) == expected, how(report)


def test_progress_counts_every_row(gateway: GatewayStandIn, networks: TwoNetworks) -> None:
    seen: list[tuple[int, int]] = []
    options = parse([*PATIENT, "--target", networks.evil.ipv4, "--no-ipv6"])
    with networks.client.entered():
        report = run(options, lambda done, total: seen.append((done, total)))
    assert seen == [(number, len(report.outcomes)) for number in range(len(report.outcomes) + 1)]


def test_a_family_without_a_route_is_untested_and_the_reason_is_said(
    gateway: GatewayStandIn, check: Check, networks: TwoNetworks
) -> None:
    networks.client.run("ip", "-6", "route", "del", "default")
    try:
        report = check()
    finally:
        networks.client.run("ip", "-6", "route", "add", "default", "via", networks.gateway.ipv6)
    (row,) = [row for row in report.outcomes if row.family == "IPv6"]
    assert (row.check, row.target, row.verdict.status) == ("all of IPv6", "", Status.UNTESTED)
    assert row.verdict.how == f"this machine has no route to {networks.evil.ipv6}"
    assert report.contained


def test_a_family_without_a_target_is_untested(gateway: GatewayStandIn, check: Check, networks: TwoNetworks) -> None:
    report = check(targets=(networks.evil.ipv4,))
    (row,) = [row for row in report.outcomes if row.family == "IPv6"]
    assert row.verdict.how == "no --target has an IPv6 address"


def test_when_nothing_can_be_tried_nothing_is_proven(networks: TwoNetworks, check: Check) -> None:
    report = check("--no-ipv6", targets=(networks.evil.ipv6,))
    assert [row.verdict.status for row in report.outcomes] == [Status.UNTESTED]
    assert not report.contained


def test_a_check_that_fails_has_proven_nothing(
    gateway: GatewayStandIn, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(*_: object) -> list[object]:
        def probe(_: object) -> Verdict:
            raise OSError(24, "Too many open files")

        return [run_module.Check("a check", Family.V4, "", probe)]

    monkeypatch.setattr(run_module, "plan", plan)
    report = check("--no-ipv6")
    (row,) = report.outcomes
    assert row.verdict.status is Status.BROKEN
    assert row.verdict.how == "could not be tried: OSError: [Errno 24] Too many open files"
    assert not report.contained


def test_a_gateway_behind_another_router_is_as_good(
    gateway: GatewayStandIn, inner: Host, networks: TwoNetworks
) -> None:
    four, six = ("--target", networks.evil.ipv4), ("--target", networks.evil.ipv6)
    with inner.entered():
        assert run_checks(*four, "--no-ipv6").contained
        with gateway.without("refused: UDP"):
            assert rows(run_checks(*four, *six), Status.OPEN, Status.BROKEN) == both(UDP)


def test_a_target_that_does_not_listen_proves_it_too(
    gateway: GatewayStandIn, check: Check, far: tuple[str, str]
) -> None:
    """The router before the target says that it had the packet."""
    ways = both(TCP | UDP | QUIC | TUNNELS | ICMP)
    refusals = ("refused: TCP", "refused: QUIC", "refused: UDP", "refused: ICMP", "refused: other protocols")
    with contextlib.ExitStack() as stack:
        for rule in refusals:
            stack.enter_context(gateway.without(rule))
        report = check(targets=far, silent={CUT_SHORT}, silent_at_first=ways)
    assert rows(report, Status.OPEN, Status.BROKEN) == ways, how(report)
    assert {row.verdict.told for row in report.outcomes if row.verdict.status is Status.OPEN} == {Told.PASSED}


def test_headers_that_end_too_early_are_seen_by_the_router_behind(
    gateway: GatewayStandIn, check: Check, far: tuple[str, str]
) -> None:
    with gateway.without("dropped: what the kernel cannot read or track"):
        report = check(targets=far, silent=SILENT - {CUT_SHORT}, silent_at_first={CUT_SHORT})
    assert rows(report, Status.OPEN, Status.BROKEN) == {CUT_SHORT}, how(report)


def test_the_programs_of_one_host_are_held_as_well(
    gateway: GatewayStandIn, check: Check, networks: TwoNetworks
) -> None:
    """The single-host form: the client's own kernel leads to the gateway, and refuses."""
    sidecar = Layout((), PORT, DNS_PORT, exempt_uid=65534)
    with contextlib.ExitStack() as stack:
        stack.enter_context(gateway.without_filter())
        here = stack.enter_context(GatewayStandIn(networks.client, sidecar))
        report = check()
        assert report.contained, how(report)
        with here.without("refused: QUIC"), here.without("refused: ICMP"):
            assert rows(check(), Status.OPEN, Status.BROKEN) == both(ICMP | QUIC)
