"""One message: which addresses does it hold for the name that was asked, and for how long?"""

import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.dns.answer import ResolveError, ResolveFailure
from egress_gateway.dns.chain import MAX_ALIASES, MAX_BINDINGS, Elsewhere, Found, Nothing, read

A = dns.rdatatype.A
AAAA = dns.rdatatype.AAAA
NAME = dns.name.from_text("a.example")

SOA = "example. {ttl} IN SOA ns.example. host.example. 1 3600 600 86400 {minimum}"


def message(
    answer: list[str], *, authority: list[str] | None = None, rcode: str = "NOERROR", flags: str = "QR RD RA"
) -> dns.message.Message:
    """As it would arrive: written to the wire and read from there."""
    header = ["id 1", "opcode QUERY", f"rcode {rcode}", f"flags {flags}"]
    text = [*header, ";QUESTION", "a.example. IN A", ";ANSWER", *answer, ";AUTHORITY", *(authority or [])]
    written = dns.message.from_text("\n".join(text), one_rr_per_rrset=True)  # else to_wire() shuffles the addresses
    return dns.message.from_wire(written.to_wire())


def _names_of(*texts: str) -> tuple[dns.name.Name, ...]:
    return tuple(dns.name.from_text(text) for text in texts)


def found(*addresses: str, ttl: int) -> tuple[list[str], int]:
    return list(addresses), ttl


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(["a.example. 60 IN A 192.0.2.1"], found("192.0.2.1", ttl=60), id="one address"),
        pytest.param(["a.example. 60 IN A 192.0.2.2", "a.example. 30 IN A 192.0.2.1"],
                     found("192.0.2.2", "192.0.2.1", ttl=30), id="two keep their order and the least TTL"),
        pytest.param(["A.EXAMPLE. 60 IN A 192.0.2.1"], found("192.0.2.1", ttl=60), id="case does not matter"),
        pytest.param(["b.example. 5 IN A 192.0.2.66", "a.example. 60 IN A 192.0.2.1"],
                     found("192.0.2.1", ttl=60), id="another name's address is ignored, and its TTL"),
        pytest.param(["a.example. 60 IN CNAME b.example.", "b.example. 20 IN CNAME c.example.",
                      "c.example. 40 IN A 192.0.2.1"], found("192.0.2.1", ttl=20), id="the least TTL of all"),
        pytest.param(["c.example. 40 IN A 192.0.2.1", "b.example. 20 IN CNAME c.example.",
                      "a.example. 60 IN CNAME b.example."], found("192.0.2.1", ttl=20), id="in any order"),
        pytest.param(["a.example. 60 IN CNAME b.example.", "a.example. 60 IN A 192.0.2.1",
                      "b.example. 60 IN A 192.0.2.66"], found("192.0.2.1", ttl=60),
                     id="an address of the name itself goes before an alias"),
        pytest.param(["a.example. 60 IN AAAA 2001:db8::1", "a.example. 50 IN A 192.0.2.1"],
                     found("192.0.2.1", ttl=50), id="the other family is ignored"),
        pytest.param(["a.example. 2147483647 IN A 192.0.2.1"], found("192.0.2.1", ttl=2147483647),
                     id="the largest TTL there is"),
        pytest.param(["a.example. 50 IN A 192.0.2.1", r"a.example. 60 HS A \# 4 C0000242"],
                     found("192.0.2.1", ttl=50), id="another class is ignored"),
    ],
)  # fmt: skip
def test_addresses(answer: list[str], expected: tuple[list[str], int]) -> None:
    outcome = read(message(answer), NAME, A)
    assert isinstance(outcome, Found)
    assert ([str(address) for address in outcome.addresses], outcome.ttl) == expected


def test_the_aliases_that_led_there_are_told_in_their_order() -> None:
    records = ["b.example. 20 IN CNAME c.example.", "c.example. 40 IN A 192.0.2.1", "a.example. 60 IN CNAME b.example."]
    outcome = read(message(records), NAME, A)
    assert isinstance(outcome, Found)
    assert outcome.aliases == _names_of("b.example", "c.example")


def bindings(*records: str) -> Found | Nothing | Elsewhere:
    header = ["id 1", "opcode QUERY", "rcode NOERROR", "flags QR RD RA", ";QUESTION", "a.example. IN HTTPS", ";ANSWER"]
    written = dns.message.from_text("\n".join([*header, *records]), one_rr_per_rrset=True)
    return read(dns.message.from_wire(written.to_wire(max_size=65535)), NAME, dns.rdatatype.HTTPS)


def test_service_bindings_are_read_with_their_aliases() -> None:
    outcome = bindings(
        "a.example. 60 IN CNAME b.example.",
        "b.example. 30 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1",
        "b.example. 30 IN HTTPS 0 c.example.",
    )
    assert isinstance(outcome, Found)
    assert (outcome.addresses, outcome.ttl, outcome.aliases) == ((), 30, _names_of("b.example"))
    assert [record.to_text() for record in outcome.bindings] == [
        '1 . alpn="h2" ipv4hint="192.0.2.1"',
        "0 c.example.",
    ]


def test_more_or_larger_bindings_than_anyone_needs_are_cut() -> None:
    many = bindings(*(f"a.example. 60 IN HTTPS {number} ." for number in range(1, 40)))
    assert isinstance(many, Found)
    assert len(many.bindings) == MAX_BINDINGS
    padding = " ".join(f"key{number}={'x' * 255}" for number in range(7000, 7005))
    large = bindings(f"a.example. 60 IN HTTPS 1 . {padding}", "a.example. 60 IN HTTPS 2 .")
    assert isinstance(large, Found)
    assert [record.priority for record in large.bindings] == [2]


def test_a_ttl_with_the_high_bit_set_is_zero() -> None:
    wire = bytearray(message(["a.example. 60 IN A 192.0.2.1"]).to_wire())
    position = wire.index(bytes([192, 0, 2, 1])) - 6
    wire[position : position + 4] = b"\x80\0\0\x3c"
    as_it_is = read(message(["a.example. 60 IN A 192.0.2.1"]), NAME, A)
    assert isinstance(as_it_is, Found)
    assert read(dns.message.from_wire(bytes(wire)), NAME, A) == Found(as_it_is.addresses, ttl=0)


@pytest.mark.parametrize(
    ("answer", "authority", "rcode", "expected"),
    [
        pytest.param([], [SOA.format(ttl=900, minimum=30)], "NXDOMAIN", Nothing(ResolveFailure.NXDOMAIN, 30),
                     id="no such name, for the SOA's minimum"),
        pytest.param([], [SOA.format(ttl=10, minimum=30)], "NXDOMAIN", Nothing(ResolveFailure.NXDOMAIN, 10),
                     id="no such name, for the SOA's own TTL when that is less"),
        pytest.param([], [SOA.format(ttl=900, minimum=30)], "NOERROR", Nothing(ResolveFailure.NO_DATA, 30),
                     id="no data"),
        pytest.param([], [], "NXDOMAIN", Nothing(ResolveFailure.NXDOMAIN, 0),
                     id="no such name without an SOA is not remembered"),
        pytest.param([], [], "NOERROR", Nothing(ResolveFailure.NO_DATA, 0),
                     id="no data without an SOA is not remembered"),
        pytest.param([], ["other.test. 900 IN SOA ns.test. host.test. 1 3600 600 86400 300"], "NXDOMAIN",
                     Nothing(ResolveFailure.NXDOMAIN, 0), id="the SOA of another zone does not count"),
        pytest.param(["a.example. 60 IN CNAME b.example."], [SOA.format(ttl=900, minimum=300)], "NOERROR",
                     Nothing(ResolveFailure.NO_DATA, 60), id="an alias to a name without data"),
        pytest.param(["a.example. 60 IN CNAME b.example."], [SOA.format(ttl=900, minimum=30)], "NXDOMAIN",
                     Nothing(ResolveFailure.NXDOMAIN, 30), id="an alias to a name that does not exist"),
        pytest.param(["a.example. 60 IN CNAME b.example."], [], "NOERROR",
                     Elsewhere(dns.name.from_text("b.example"), _names_of("b.example"), 60),
                     id="an alias that ends outside"),
        pytest.param(["a.example. 60 IN CNAME b.example.", "b.example. 50 IN CNAME c.test."],
                     [SOA.format(ttl=900, minimum=300)], "NOERROR",
                     Elsewhere(dns.name.from_text("c.test"), _names_of("b.example", "c.test"), 50),
                     id="aliases that end outside the zone of the SOA"),
        pytest.param(["a.example. 60 IN A 192.0.2.1"], [SOA.format(ttl=900, minimum=30)], "NXDOMAIN",
                     Nothing(ResolveFailure.NXDOMAIN, 30), id="no such name goes before an address"),
    ],
)  # fmt: skip
def test_no_addresses(answer: list[str], authority: list[str], rcode: str, expected: Nothing | Elsewhere) -> None:
    assert read(message(answer, authority=authority, rcode=rcode), NAME, A) == expected


def test_the_family_that_was_asked_is_the_one_that_is_read() -> None:
    both = message(["a.example. 60 IN A 192.0.2.1", "a.example. 60 IN AAAA 2001:db8::1"])
    outcome = read(both, NAME, AAAA)
    assert isinstance(outcome, Found)
    assert [str(address) for address in outcome.addresses] == ["2001:db8::1"]


def _aliases(number: int) -> list[str]:
    names = ["a.example.", *(f"n{i}.example." for i in range(1, number + 1))]
    chain = [f"{names[i]} 60 IN CNAME {names[i + 1]}" for i in range(number)]
    return [*chain, f"{names[-1]} 60 IN A 192.0.2.1"]


def test_as_many_aliases_as_are_allowed_are_followed() -> None:
    assert isinstance(read(message(_aliases(MAX_ALIASES)), NAME, A), Found)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(_aliases(MAX_ALIASES + 1), id="one alias too many"),
        pytest.param(["a.example. 60 IN CNAME a.example."], id="a name that is its own alias"),
        pytest.param(["a.example. 60 IN CNAME b.example.", "b.example. 60 IN CNAME A.EXAMPLE."],
                     id="two names that are each other's"),
    ],
)  # fmt: skip
def test_aliases_that_lead_nowhere_are_malformed(answer: list[str]) -> None:
    with pytest.raises(ResolveError, match="aliases lead nowhere") as caught:
        read(message(answer), NAME, A)
    assert caught.value.kind is ResolveFailure.MALFORMED


def test_a_referral_is_a_failure_of_the_server_and_not_an_empty_answer() -> None:
    referral = message([], authority=["example. 60 IN NS ns.example."], flags="QR RD")
    with pytest.raises(ResolveError) as caught:
        read(referral, NAME, A)
    assert caught.value.kind is ResolveFailure.SERVFAIL


_names = st.sampled_from(["a.example.", "b.example.", "c.example.", "d.test."])
_records = st.one_of(
    st.builds("{} {} IN A 192.0.2.{}".format, _names, st.integers(0, 300), st.integers(1, 9)),
    st.builds("{} {} IN CNAME {}".format, _names, st.integers(0, 300), _names),
    st.builds("{} {} IN AAAA 2001:db8::{}".format, _names, st.integers(0, 300), st.integers(1, 9)),
)


@given(st.lists(_records, max_size=12), st.sampled_from(["NOERROR", "NXDOMAIN"]))
def test_an_address_is_only_found_where_the_name_leads(records: list[str], rcode: str) -> None:
    arrived = message(records, rcode=rcode)
    try:
        outcome = read(arrived, NAME, A)
    except ResolveError:
        return
    if isinstance(outcome, Found):
        assert rcode == "NOERROR"
        reachable, frontier = set(), {"a.example."}
        while frontier:
            reachable |= frontier
            lines = [record.split() for record in records]
            frontier = {line[4] for line in lines if line[3] == "CNAME" and line[0] in reachable} - reachable
        allowed = {record.split()[4] for record in records if record.split()[0] in reachable}
        assert {str(address) for address in outcome.addresses} <= allowed
