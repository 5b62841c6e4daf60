"""HTTP, TLS and DNS to a gateway in all its moods."""

from __future__ import annotations

import time

import dns.rcode
import pytest

from egress_gateway.containment.attempt.family import Family
from egress_gateway.containment.outcome import Status, Told, Verdict
from egress_gateway.containment.place import Place
from egress_gateway.containment.probes import allowed_name, led, tcp
from egress_gateway.containment.probes.setting import Probe, Setting
from egress_gateway.containment.spoken import dns as spoken
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.refuse import INTERNAL_ERROR, UNRECOGNIZED_NAME
from support.everything import Everything
from support.gateway_stand_in import GatewayStandIn, http_refusal
from support.networks import Host, TwoNetworks

BOTH = pytest.mark.parametrize("family", Family)
SERVER_HELLO = b"\x16\x03\x03\x00\x2c\x02\x00"


def run(host: Host, probe: Probe, seconds: float = 30) -> Verdict:
    """`seconds` are few where nobody answers."""
    place = Place(1, ("10.66.0.1", "fd66::1"), host.ipv4)
    now = time.monotonic()
    with host.entered():
        return probe(Setting(place, "denied.example", now + seconds / 2, now + seconds))


def evil(networks: TwoNetworks, family: Family) -> str:
    return networks.evil.ipv4 if family is Family.V4 else networks.evil.ipv6


def stopped(how: str) -> Verdict:
    return Verdict(Status.STOPPED, Told.GATEWAY, f"led to the gateway: {how}")


@BOTH
def test_http_is_refused(networks: TwoNetworks, gateway: GatewayStandIn, family: Family) -> None:
    probe = led.http_request(evil(networks, family))
    assert run(networks.client, probe) == stopped("HTTP 403 no_rule")
    gateway.http = http_refusal(Reason.NOT_READY)
    assert run(networks.client, probe) == Verdict(
        Status.BROKEN, Told.GATEWAY, "the gateway is not in order: HTTP 503 not_ready"
    )
    gateway.http = b"HTTP/1.1 200 OK\r\n\r\n"
    assert run(networks.client, probe) == Verdict(Status.OPEN, Told.ANSWERED, "the gateway lets it through: HTTP 200")


@BOTH
def test_https_is_refused(networks: TwoNetworks, gateway: GatewayStandIn, family: Family) -> None:
    probe = led.https(evil(networks, family))
    assert run(networks.client, probe) == stopped("TLS alert access_denied")
    gateway.tls = UNRECOGNIZED_NAME
    assert run(networks.client, probe) == stopped("TLS alert unrecognized_name")
    gateway.tls = INTERNAL_ERROR
    assert run(networks.client, probe) == Verdict(
        Status.BROKEN, Told.GATEWAY, "the gateway is not in order: TLS alert internal_error"
    )
    gateway.tls = SERVER_HELLO
    assert run(networks.client, probe) == Verdict(
        Status.OPEN, Told.ANSWERED, "the gateway lets it through: TLS ServerHello"
    )


@BOTH
@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_a_question_is_refused(networks: TwoNetworks, gateway: GatewayStandIn, over: str, family: Family) -> None:
    server = evil(networks, family)
    probe = led.dns_over_udp(server) if over == "udp" else led.dns_over_tcp(server)
    assert run(networks.client, probe) == stopped("REFUSED")
    assert [(query.name, query.transport) for query in gateway.dns.queries] == [("denied.example", over)]
    gateway.extended_dns_error = 15
    assert run(networks.client, probe) == stopped("REFUSED (Blocked)")
    gateway.dns_code = dns.rcode.NXDOMAIN
    assert run(networks.client, probe) == stopped("NXDOMAIN (Blocked)")
    gateway.extended_dns_error = None
    assert run(networks.client, probe) == Verdict(
        Status.OPEN, Told.ANSWERED, "the gateway lets it through: NXDOMAIN, as any resolver says"
    )
    gateway.dns_code = dns.rcode.SERVFAIL
    assert run(networks.client, probe) == Verdict(Status.BROKEN, Told.GATEWAY, "the gateway is not in order: SERVFAIL")
    gateway.dns.set("denied.example", ["203.0.113.7", "2001:db8::7"])
    assert run(networks.client, probe) == Verdict(
        Status.OPEN, Told.ANSWERED, "the gateway lets it through: NOERROR with 1 records"
    )


def test_a_dns_server_that_keeps_silent_is_broken(networks: TwoNetworks, gateway: GatewayStandIn) -> None:
    gateway.dns.silent = True
    verdict = run(networks.client, led.dns_over_udp(networks.evil.ipv4), 0.4)
    assert verdict == Verdict(Status.BROKEN, Told.SILENT, "does not lead to the gateway: no answer")


WORDS = {"REFUSED": "REFUSED", "NXDOMAIN": "NXDOMAIN, as any resolver says"}


@BOTH
@pytest.mark.parametrize("code", WORDS)
def test_another_servers_refusal_is_not_the_gateways(
    networks: TwoNetworks, gateway: GatewayStandIn, everything: Everything, code: str, family: Family
) -> None:
    """It says the very same; but it is too far away."""
    everything.dns.fail("denied.example", code)
    with gateway.without_filter():
        verdict = run(networks.client, led.dns_over_udp(evil(networks, family)))
    everything.dns.fail("denied.example", None)
    assert verdict == Verdict(Status.OPEN, Told.ANSWERED, f"answered from behind the gateway: {WORDS[code]}")


def test_an_allowed_name_whose_addresses_are_held_back_does_not_work(
    networks: TwoNetworks, gateway: GatewayStandIn
) -> None:
    gateway.dns_code, gateway.extended_dns_error = dns.rcode.NOERROR, 15
    verdict = run(networks.client, allowed_name.has_addresses(networks.evil.ipv4, "inner.example", spoken.A))
    assert verdict == Verdict(Status.BROKEN, Told.GATEWAY, "the gateway answered for inner.example: NOERROR (Blocked)")


def test_an_allowed_name_works(networks: TwoNetworks, gateway: GatewayStandIn) -> None:
    gateway.dns.set("good.example", ["203.0.113.10"])

    def ask(name: str, kind: int = spoken.A, seconds: float = 30) -> Verdict:
        return run(networks.client, allowed_name.has_addresses(networks.evil.ipv4, name, kind), seconds)

    assert ask("good.example") == Verdict(
        Status.WORKS, Told.GATEWAY, "the gateway answered for good.example: NOERROR with 1 records"
    )
    assert ask("good.example", spoken.AAAA).status is Status.WORKS
    assert ask("other.example") == Verdict(
        Status.BROKEN, Told.GATEWAY, "the gateway answered for other.example: REFUSED"
    )
    gateway.dns.silent = True
    assert ask("good.example", seconds=0.3) == Verdict(
        Status.BROKEN, Told.SILENT, "no answer for good.example by the gateway: no answer"
    )


@BOTH
def test_a_port_that_a_rule_names_is_led_to_the_gateway_too(
    networks: TwoNetworks, gateway: GatewayStandIn, family: Family
) -> None:
    probe = tcp.outside(evil(networks, family), 443)
    assert run(networks.client, probe) == stopped("HTTP 403 no_rule")
    gateway.http = b""
    assert run(networks.client, probe) == Verdict(Status.STOPPED, Told.GATEWAY, "led to the gateway, which closed it")
    gateway.http = b"SSH-2.0-OpenSSH_9.2\r\n"
    assert run(networks.client, probe) == Verdict(
        Status.OPEN, Told.ANSWERED, "the gateway took it and did not refuse: a rule may allow it"
    )
