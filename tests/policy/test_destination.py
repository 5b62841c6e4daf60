"""Which addresses of an allowed host may be dialled."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.policy.addresses import AddressClass, classify
from egress_gateway.policy.destination import judge, name_refused, plain
from egress_gateway.policy.hostname import Address
from support.relay_server import rule

PUBLIC = rule("a.example", (443, "https"))
PRIVATE = rule("a.example", (443, "https"), allow_private=True)

ONE_OF_EACH = {
    AddressClass.PUBLIC: "93.184.216.34",
    AddressClass.PRIVATE: "10.0.0.1",
    AddressClass.LOOPBACK: "127.0.0.1",
    AddressClass.LINK_LOCAL: "169.254.1.1",
    AddressClass.METADATA: "169.254.169.254",
    AddressClass.SHARED: "100.64.0.1",
    AddressClass.BENCHMARKING: "198.18.0.1",
    AddressClass.DOCUMENTATION: "203.0.113.1",
    AddressClass.RESERVED: "240.0.0.1",
    AddressClass.MULTICAST: "224.0.0.1",
}
NEVER = (AddressClass.METADATA, AddressClass.RESERVED, AddressClass.MULTICAST)


def allowed(made: Any, texts: Sequence[str], **more: Any) -> list[str]:
    judged = judge(made, [ip_address(text) for text in texts], **more)
    assert len(judged.allowed) + len(judged.refused) == len(texts)
    return [str(address) for address in judged.allowed]


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_without_allow_private_only_public_addresses(kind: AddressClass) -> None:
    address = ip_address(ONE_OF_EACH[kind])
    judged = judge(PUBLIC, [address])
    if kind is AddressClass.PUBLIC:
        assert (judged.allowed, judged.refused) == ((address,), ())
    else:
        assert (judged.allowed, judged.refused) == ((), ((address, kind),))


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_allow_private_opens_all_but_metadata_and_what_nobody_dials(kind: AddressClass) -> None:
    assert bool(allowed(PRIVATE, [ONE_OF_EACH[kind]])) is (kind not in NEVER)


METADATA = {
    "a rule that names the address, with allowPrivate": (
        rule("169.254.169.254", (80, "http"), allow_private=True),
        True,
    ),
    "a rule that names the address, without allowPrivate": (rule("169.254.169.254", (80, "http")), False),
    "a network that holds the address": (rule("169.254.0.0/16", (80, "tcp"), allow_private=True), False),
    "everything": (rule("0.0.0.0/0", (80, "tcp"), allow_private=True), False),
    "a name": (PRIVATE, False),
    "the network of just this address": (rule("169.254.169.254/32", (80, "tcp"), allow_private=True), True),
    "another metadata address": (rule("100.100.100.200", (80, "http"), allow_private=True), False),
}


@pytest.mark.parametrize(("made", "expected"), METADATA.values(), ids=METADATA)
def test_cloud_metadata_needs_a_rule_that_names_the_very_address(made: object, expected: bool) -> None:
    assert bool(allowed(made, ["169.254.169.254"])) is expected


@pytest.mark.parametrize("wrapped", ["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"])
def test_wrapped_metadata_is_metadata(wrapped: str) -> None:
    assert allowed(PRIVATE, [wrapped]) == []


def test_a_mapped_address_is_the_ipv4_address() -> None:
    assert plain(ip_address("::ffff:192.0.2.1")) == ip_address("192.0.2.1")
    assert plain(ip_address("::192.0.2.1")) == ip_address("::192.0.2.1")
    assert allowed(PUBLIC, ["::ffff:93.184.216.34"]) == ["93.184.216.34"]
    assert allowed(PUBLIC, ["::ffff:127.0.0.1"]) == []


def test_public_ranges_are_public_whatever_their_class() -> None:
    ranges = [ip_network("203.0.113.0/24"), ip_network("2001:db8::/32")]
    texts = ["203.0.113.1", "::ffff:203.0.113.2", "2001:db8::1", "198.51.100.1", "64:ff9b::203.0.113.1"]
    assert allowed(PUBLIC, texts, public_ranges=ranges) == ["203.0.113.1", "203.0.113.2", "2001:db8::1"]


def test_an_address_of_our_own_needs_allow_private_though_its_number_is_public() -> None:
    def is_own(address: Address) -> bool:
        return str(address) == "93.184.216.34"

    judged = judge(PUBLIC, [ip_address("93.184.216.34"), ip_address("1.1.1.1")], is_own=is_own)
    assert judged.refused == ((ip_address("93.184.216.34"), AddressClass.OWN),)
    assert judged.allowed == (ip_address("1.1.1.1"),)
    assert allowed(PRIVATE, ["93.184.216.34"], is_own=is_own) == ["93.184.216.34"]


def test_the_order_of_the_answer_is_kept_and_each_address_judged() -> None:
    texts = ["1.1.1.1", "10.0.0.1", "2606:4700::1", "127.0.0.1", "8.8.8.8"]
    assert allowed(PUBLIC, texts) == ["1.1.1.1", "2606:4700::1", "8.8.8.8"]
    assert allowed(PUBLIC, []) == []


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.booleans())
def test_what_is_allowed_is_public_or_was_opened(address: Address, private: bool) -> None:
    judged = judge(PRIVATE if private else PUBLIC, [address])
    kind = classify(plain(address))
    if judged.allowed:
        assert kind is AddressClass.PUBLIC or (private and kind not in NEVER)
        assert judged.allowed == (plain(address),)
    else:
        assert judged.refused == ((plain(address), kind),)


@pytest.mark.parametrize(
    ("declared", "address"), [("100.64.0.0/10", "100.100.100.200"), ("64:ff9b::/96", "64:ff9b::a9fe:a9fe")]
)
def test_no_public_range_opens_cloud_metadata(declared: str, address: str) -> None:
    judged = judge(rule("a.example"), [ip_address(address)], public_ranges=[ip_network(declared)])
    assert judged.allowed == ()
    assert judged.refused[0][1] is AddressClass.METADATA


def test_a_denied_address_is_refused_by_whatever_name_and_range() -> None:
    address = ip_address("93.184.216.34")
    judged = judge(
        rule("a.example"), [address], public_ranges=[ip_network("93.184.216.0/24")], is_denied=lambda _: True
    )
    assert judged.refused == ((address, AddressClass.DENIED),)


def test_refused_addresses_are_named_with_their_class_and_what_would_open_them() -> None:
    assert name_refused(()) == "there is no address to dial"
    private = [(ip_address(f"10.0.0.{number}"), AddressClass.PRIVATE) for number in range(1, 7)]
    assert name_refused(private[:1]) == "10.0.0.1 (private) may not be reached without allowPrivate"
    assert name_refused([(ip_address("224.0.0.1"), AddressClass.MULTICAST)]) == (
        "224.0.0.1 (multicast) may not be reached"
    )
    assert name_refused(private).endswith("10.0.0.4 (private) and 2 more may not be reached without allowPrivate")
