"""Which rows there are."""

from __future__ import annotations

from egress_gateway.containment.attempt.family import Family
from egress_gateway.containment.options import parse
from egress_gateway.containment.place import Place
from egress_gateway.containment.plan import plan

PLACE = Place(1, ("10.0.0.1",), "10.0.0.7")


def rows(*arguments: str, family: Family = Family.V4, place: Place = PLACE) -> list[tuple[str, str]]:
    return [(check.name, check.target) for check in plan(parse(arguments), family, place)]


def test_the_rows_for_one_target() -> None:
    found = rows("--target", "203.0.113.9", "--ports", "22,1234", "--udp-ports", "443,4500", "--gateway-ports", "22,99")
    assert found == [
        ("UDP 443 (QUIC)", "203.0.113.9:443"),
        ("ICMP echo", "203.0.113.9"),
        ("UDP 4500", "203.0.113.9:4500"),
        ("HTTP", "203.0.113.9:80"),
        ("HTTPS", "203.0.113.9:443"),
        ("DNS over UDP", "203.0.113.9:53"),
        ("DNS over TCP", "203.0.113.9:53"),
        ("DNS over TLS", "203.0.113.9:853"),
        ("DNS over HTTPS (dns.google)", "203.0.113.9:443"),
        ("TCP 22 (SSH)", "203.0.113.9:22"),
        ("TCP 1234", "203.0.113.9:1234"),
        ("IP protocol 41 (IPv6 in IP)", "203.0.113.9"),
        ("IP protocol 47 (GRE)", "203.0.113.9"),
        ("IP protocol 50 (ESP)", "203.0.113.9"),
        ("IP protocol 132 (SCTP)", "203.0.113.9"),
        ("gateway's own TCP 22 (SSH)", "10.0.0.1:22"),
        ("gateway's own TCP 99", "10.0.0.1:99"),
    ]


def test_every_target_and_every_resolver_has_its_rows() -> None:
    found = rows("--target", "203.0.113.9", "--target", "203.0.113.10", "--dns-server", "203.0.113.53")
    assert {"203.0.113.9:80", "203.0.113.10:80", "203.0.113.53:53"} <= {target for _, target in found}
    assert {target for name, target in found if name.startswith("DNS")} == {
        "203.0.113.53:53",
        "203.0.113.53:853",
        "203.0.113.53:443",
    }


def test_the_time_is_asked_of_a_time_server() -> None:
    assert ("UDP 123 (NTP)", "162.159.200.1:123") in rows()


def test_only_ipv6_has_headers_to_cut_short() -> None:
    assert ("IPv6 headers cut short", "2001:db8::9") in rows("--target", "2001:db8::9", family=Family.V6)
    assert "IPv6 headers cut short" not in dict(rows())


def test_an_allowed_name_is_asked_once() -> None:
    found = rows("--allowed-name", "good.example")
    assert [target for name, target in found if name == "allowed name"] == ["8.8.8.8:53"]
    assert "allowed name" not in dict(rows())


def test_a_gateway_without_a_known_address_has_no_rows_of_its_own() -> None:
    assert not [name for name, _ in rows(place=Place(1, (), "10.0.0.7")) if name.startswith("gateway")]
