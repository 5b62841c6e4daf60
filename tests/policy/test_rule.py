"""A rule as the policy sees it."""

from dataclasses import FrozenInstanceError
from ipaddress import ip_address, ip_network

import pytest

from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.rule import (
    FAMILY,
    AddressRange,
    EgressRule,
    ExactName,
    Family,
    Port,
    Protocol,
    Source,
    TlsMode,
    Wildcard,
)


def test_every_protocol_has_a_family() -> None:
    assert set(FAMILY) == set(Protocol)
    assert {Protocol.HTTP2, Protocol.GRPC, Protocol.HTTP} == {p for p in Protocol if FAMILY[p] is Family.HTTP}


def test_the_port_dialled_is_the_target_port_where_there_is_one() -> None:
    assert Port(80, Protocol.HTTP).dialled == 80
    assert Port(80, Protocol.HTTP, target_port=8080).dialled == 8080


def test_http_with_tls_origination_is_what_https_means() -> None:
    originating = Port(80, Protocol.HTTP, 443, TlsMode.ORIGINATE)
    assert originating.family is Family.HTTPS
    assert originating.treatment_key == Port(443, Protocol.HTTPS, None, TlsMode.ORIGINATE).treatment_key
    assert Port(80, Protocol.HTTP, 443).family is Family.HTTP
    assert Port(80, Protocol.TCP, 443, TlsMode.ORIGINATE).family is Family.TCP


def test_a_mode_makes_another_treatment() -> None:
    keys = {Port(443, Protocol.HTTPS, None, mode).treatment_key for mode in (None, *TlsMode)}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("destination", "text"),
    [
        (ExactName(Hostname("a.example")), "a.example"),
        (Wildcard(".a.example"), "*.a.example"),
        (Wildcard(""), "*"),
        (AddressRange.of(ip_address("192.0.2.1")), "192.0.2.1"),
        (AddressRange(ip_network("192.0.2.0/24")), "192.0.2.0/24"),
        (AddressRange.of(ip_address("2001:db8::1")), "2001:db8::1"),
        (AddressRange(ip_network("::/0")), "::/0"),
    ],
)
def test_a_destination_is_written_as_in_a_rule_file(destination: object, text: str) -> None:
    assert str(destination) == text


def test_a_rule_is_known_by_namespace_and_name_and_cannot_be_changed() -> None:
    rule = EgressRule("shop", "books", (), ())
    assert rule.key == "shop/books"
    with pytest.raises(FrozenInstanceError):
        rule.allow_private = True  # type: ignore[misc]  # that is what is tested


def test_where_a_rule_stands() -> None:
    assert str(Source("rules/a.yaml", 10, 3)) == "rules/a.yaml:10"
