"""HTTPS and SVCB records without what would lead a client round the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, cast

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from dns.rdtypes.svcbbase import SVCBBase
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.nameserver.bindings import Cleaned, clean, service_of
from egress_gateway.policy.hostname import Address, Hostname

ECH = "ech=AEX+DQBBGQAgACBcl/FWTU6V77HFpaXP7kyJ2v9vjyPZCrTLcLJHC4GaEAAEAAEAAQASY2xvdWRmbGFyZS1lY2guY29tAAA="
ALLOWED = {"other.example", "a.example"}


def record(text: str, kind: str = "HTTPS") -> SVCBBase:
    """`text` may give an alias parameters, which only bytes on the wire can."""
    priority, _, rest = text.partition(" ")
    made = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), f"1 {rest}")
    return cast(SVCBBase, made.replace(priority=int(priority)))


def reachable(addresses: Sequence[Address]) -> list[Address]:
    return [address for address in addresses if not address.is_private]


def cleaned(*records: SVCBBase, dot: Hostname | None = None, itself: Sequence[str] = ("a.example",)) -> Cleaned:
    return clean(
        records,
        itself=itself,
        dot=dot,
        ports={443, 8443},
        may_ask=lambda name: name in ALLOWED,
        reachable=reachable,
    )


def texts(*given: str, **more: Any) -> list[str]:
    return [kept.to_text() for kept in cleaned(*map(record, given), **more).records]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param(f"1 . alpn=h2,h3 {ECH}", '1 . alpn="h2,h3"', id="ech is taken out"),
        pytest.param(f"1 . mandatory=ech {ECH}", "1 .", id="also where it is mandatory"),
        pytest.param(f"1 . mandatory=alpn,ech alpn=h2 {ECH}", '1 . mandatory="alpn" alpn="h2"',
                     id="what else is mandatory stays so"),
        pytest.param("1 . alpn=h2 no-default-alpn", '1 . alpn="h2" no-default-alpn', id="alpn stays"),
        pytest.param('1 . alpn=h2 dohpath="/q{?dns}"', '1 . alpn="h2"', id="a way to ask another name server goes"),
        pytest.param("1 . alpn=h2 ohttp", '1 . alpn="h2"', id="a way through another proxy goes"),
        pytest.param("1 . alpn=h2 key65400=x", '1 . alpn="h2"', id="what nobody knows here goes"),
        pytest.param("1 . mandatory=key65400 key65400=x", None, id="and takes along a record that needs it"),
        pytest.param('1 . mandatory=dohpath alpn=h2 dohpath="/q{?dns}"', None,
                     id="likewise what is known and not passed"),
        pytest.param("1 . port=8443", '1 . port="8443"', id="a port that a rule allows"),
        pytest.param("1 . port=8444", None, id="a port that none allows"),
        pytest.param("1 . ipv4hint=93.184.216.34,10.0.0.5", '1 . ipv4hint="93.184.216.34"',
                     id="hints that may not be told are taken out"),
        pytest.param("1 . ipv4hint=10.0.0.5 ipv6hint=fd00::1,2606:2800:220:1::1", '1 . ipv6hint="2606:2800:220:1::1"',
                     id="of both families"),
        pytest.param("1 . mandatory=ipv4hint ipv4hint=10.0.0.5", "1 .", id="also where they were mandatory"),
        pytest.param("1 .", "1 .", id="nothing to take out"),
        pytest.param("1 other.example. alpn=h2", '1 other.example. alpn="h2"', id="another name that may be asked for"),
        pytest.param("1 OTHER.example.", "1 OTHER.example.", id="in whatever spelling"),
        pytest.param("1 evil.example. alpn=h2", None, id="another name that may not"),
        pytest.param("1 127.0.0.1.", None, id="an address in the place of a name"),
        pytest.param("1 a\\.b.example.", None, id="a name that is none"),
        pytest.param("1 A.Example. alpn=h2", '1 . alpn="h2"', id="the host by its name"),
        pytest.param("0 other.example.", "0 other.example.", id="an alias to a name that may be asked for"),
        pytest.param("0 evil.example.", None, id="an alias to one that may not"),
        pytest.param("0 .", None, id="an alias that says there is no service"),
        pytest.param("0 a.example.", None, id="an alias to itself"),
        pytest.param(f"0 other.example. alpn=h2 {ECH} ipv4hint=10.0.0.5", "0 other.example.",
                     id="an alias has no parameters"),
    ],
)  # fmt: skip
def test_one_record(given: str, kept: str | None) -> None:
    assert texts(given) == ([] if kept is None else [kept])


def test_each_record_is_looked_at_and_they_keep_their_order() -> None:
    assert texts("2 . port=8443", "1 . port=1", "1 evil.example.", f"3 . {ECH}") == ['2 . port="8443"', "3 ."]


def test_hints_and_other_names_are_told_once() -> None:
    found = cleaned(
        record("1 . ipv4hint=93.184.216.34 ipv6hint=2606:2800:220:1::1"),
        record("2 other.example. ipv4hint=93.184.216.34,10.0.0.5"),
        record("0 other.example."),
        record("3 evil.example. ipv4hint=93.184.216.35"),
    )
    assert set(found.hints) == {ip_address("93.184.216.34"), ip_address("2606:2800:220:1::1")}
    assert len(found.hints) == 2
    assert found.targets == ("other.example",)


def test_the_name_that_aliases_led_to_is_the_host_too() -> None:
    assert texts("1 edge.cdn.example. alpn=h2", itself=("a.example", "edge.cdn.example")) == ['1 . alpn="h2"']


def test_of_a_service_on_another_port_the_dot_is_a_name_of_its_own() -> None:
    dot = Hostname("_8443._https.a.example")
    assert texts("1 . alpn=h2", dot=dot, itself=()) == [], "which may not be asked for"
    assert texts("1 a.example. alpn=h2", dot=dot, itself=()) == ['1 a.example. alpn="h2"']
    ALLOWED.add(dot)
    try:
        assert texts("1 . alpn=h2", dot=dot, itself=()) == ['1 . alpn="h2"']
    finally:
        ALLOWED.discard(dot)


def test_svcb_records_stay_svcb_records() -> None:
    (kept,) = cleaned(record(f"1 . alpn=h2 {ECH}", "SVCB")).records
    assert kept.rdtype == dns.rdatatype.SVCB


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("a.example", ("a.example", None)),
        ("_8443._https.a.example", ("a.example", 8443)),
        ("_443._https.a.example", ("a.example", 443)),
        ("_0443._https.a.example", ("_0443._https.a.example", None)),
        ("_123456._https.a.example", ("_123456._https.a.example", None)),
        ("_8443._secret.a.example", ("_8443._secret.a.example", None)),
        ("_https.a.example", ("_https.a.example", None)),
        ("_8443._https", ("_8443._https", None)),
        ("_8443._https.", ("_8443._https.", None)),
    ],
)
def test_a_question_about_a_port_names_the_host_after_it(name: str, service: tuple[str, int | None]) -> None:
    assert service_of(name) == service


_params = st.lists(
    st.sampled_from([
        "alpn=h2", "port=443", "port=22", "ipv4hint=10.0.0.1", "ipv4hint=93.184.216.34,10.9.9.9", "ipv6hint=fd00::1",
        ECH, "no-default-alpn", "key65400=x", "ohttp",
    ]),
    max_size=6, unique_by=lambda text: text.partition("=")[0],
)  # fmt: skip


@given(_params, st.sampled_from([".", "a.example.", "other.example.", "evil.example."]), st.integers(0, 3))
def test_whatever_stood_there_nothing_is_told_that_may_not_be(params: list[str], target: str, priority: int) -> None:
    if "no-default-alpn" in params and "alpn=h2" not in params:
        params = [*params, "alpn=h2"]
    found = cleaned(record(f"{priority} {target} {' '.join(params)}"))
    for kept in found.records:
        wire = kept.to_wire()
        assert wire is not None
        text = dns.rdata.from_wire(kept.rdclass, kept.rdtype, wire, 0, len(wire)).to_text()
        for forbidden in ("ech", "10.", "fd00", "evil", "key65400", "22", "ohttp"):
            assert forbidden not in text
