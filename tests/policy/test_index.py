"""The index is held against a matcher that just tries every destination."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from egress_gateway.policy.hostname import Host, Hostname, MalformedHost, parse_host
from egress_gateway.policy.index import DestinationIndex, matches, specificity
from egress_gateway.policy.rule import AddressRange, Destination, ExactName, Wildcard

# Few labels, so that names and patterns meet often.
label = st.sampled_from(["a", "b", "ab", "x-ab", "com", "example", "-a", "_"])
name = st.lists(label, min_size=1, max_size=4).map(".".join).map(Hostname)
four = st.integers(0, 2**32 - 1).map(IPv4Address)
six = st.integers(0, 2**128 - 1).map(IPv6Address)
near = st.sampled_from(["10.0.0.1", "10.0.0.255", "10.0.1.0", "::1", "::ffff:a00:1", "2001:db8::", "2001:db8::1"])
hosts = st.one_of(name, four, six, near.map(ip_address))
networks = st.one_of(
    st.builds(
        lambda address, bits: ip_network(f"{address}/{min(bits, address.max_prefixlen)}", strict=False),
        st.one_of(four, six, near.map(ip_address)),
        st.one_of(st.integers(0, 128), st.sampled_from([0, 8, 24, 31, 32, 127, 128])),
    )
)
destinations = st.one_of(
    name.map(ExactName),
    name.map(lambda text: Wildcard(f".{text}")),
    name.map(Wildcard),
    name.map(lambda text: Wildcard(f"-{text}")),
    st.just(Wildcard("")),
    networks.map(AddressRange),
)


def indexed(made: list[Destination]) -> DestinationIndex[Destination]:
    index: DestinationIndex[Destination] = DestinationIndex()
    for destination in made:
        assert index.setdefault(destination, destination) == destination
    return index


@given(st.lists(destinations, max_size=12), hosts)
@example([Wildcard(".com"), Wildcard("om"), Wildcard(""), ExactName(Hostname("a.com"))], Hostname("a.com"))
@example([Wildcard(".com"), Wildcard("")], Hostname("com"))
@example([AddressRange(ip_network("0.0.0.0/0")), AddressRange(ip_network("::/0"))], ip_address("::a00:1"))
def test_the_index_finds_what_the_definition_matches_most_specific_first(made: list[Destination], host: Host) -> None:
    found = list(indexed(made).lookup(host))
    assert sorted(map(str, found)) == sorted({str(one) for one in made if matches(one, host)})
    ranks = [specificity(one) for one in found]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == len(ranks), "two destinations that match one host are never equally specific"


@given(st.lists(destinations, max_size=12), destinations)
def test_a_destination_that_is_there_keeps_its_value(made: list[Destination], one: Destination) -> None:
    index: DestinationIndex[int] = DestinationIndex()
    for position, destination in enumerate([one, *made]):
        index.setdefault(destination, position)
    assert index.setdefault(one, 99) == 0


@given(hosts)
def test_an_empty_index_finds_nothing(host: Host) -> None:
    assert list(DestinationIndex[int]().lookup(host)) == []


MATCHES = {
    "a name under the wildcard": (".example.com", "a.example.com", True),
    "two labels under it": (".example.com", "a.b.example.com", True),
    "another case and a trailing dot": (".example.com", "A.Example.COM.", True),
    "an underscore": (".example.com", "a_b.example.com", True),
    "the apex": (".example.com", "example.com", False),
    "a name that only ends alike": (".example.com", "notexample.com", False),
    "the suffix in the middle": (".example.com", "example.com.evil.net", False),
    "a wildcard inside a label": ("example.com", "notexample.com", True),
    "a wildcard inside a label, and a subdomain": ("example.com", "a.example.com", True),
    "a wildcard inside a label, and nothing for the star": ("example.com", "example.com", False),
    "a wildcard before a hyphen": ("-bar.foo.com", "baz-bar.foo.com", True),
    "a wildcard before a hyphen, and nothing for the star": ("-bar.foo.com", "-bar.foo.com", False),
    "an international name": (".xn--bcher-kva.example", "x.bücher.example", True),
    "the star alone, and a name": ("", "anything.example", True),
    "the star alone, and a single label": ("", "localhost", True),
    "the star alone, and an address": ("", "93.184.216.34", False),
    "the star alone, and IPv6": ("", "[2001:db8::1]", False),
    "a wildcard of digits, and an address": (".0.0.1", "127.0.0.1", False),
    "a wildcard of digits, and an address in another spelling": (".1", "0x7f.1", False),
}


@pytest.mark.parametrize(("suffix", "host", "expected"), MATCHES.values(), ids=MATCHES)
def test_wildcards(suffix: str, host: str, expected: bool) -> None:
    wildcard = Wildcard(suffix)
    assert matches(wildcard, parse_host(host)) is expected
    assert list(indexed([wildcard]).lookup(parse_host(host))) == ([wildcard] if expected else [])


@pytest.mark.parametrize(
    "host",
    [".example.com", "a..example.com", "a.example.com..", "a.example.com%00.evil", "evil.com\0.example.com"],
)
def test_what_is_malformed_never_comes_to_be_matched(host: str) -> None:
    with pytest.raises(MalformedHost):
        parse_host(host)


def test_a_name_never_matches_a_range_and_an_address_never_a_name() -> None:
    assert not matches(AddressRange(ip_network("0.0.0.0/0")), Hostname("a.example"))
    assert not matches(ExactName(Hostname("127.0.0.1")), ip_address("127.0.0.1"))
    assert not matches(AddressRange(ip_network("0.0.0.0/0")), ip_address("::1"))
