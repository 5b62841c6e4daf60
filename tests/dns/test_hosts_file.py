"""hosts(5), line by line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.dns.hosts_file import parse_hosts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", {}, id="an empty file says nothing"),
        pytest.param("192.0.2.1 a.example a", {"a.example": ["192.0.2.1"], "a": ["192.0.2.1"]},
                     id="a name and its short form"),
        pytest.param("192.0.2.1\ta.example # and why", {"a.example": ["192.0.2.1"]}, id="a comment behind"),
        pytest.param("#192.0.2.1 a.example", {}, id="a comment"),
        pytest.param("192.0.2.1 A.Example.", {"a.example": ["192.0.2.1"]}, id="names are made canonical"),
        pytest.param("192.0.2.1 a\n192.0.2.2 a\n2001:db8::1 a",
                     {"a": ["2001:db8::1", "192.0.2.1", "192.0.2.2"]},
                     id="all lines of a name count, the families in turn"),
        pytest.param("192.0.2.300 a\n127.1 b\n192.0.2.1 c", {"c": ["192.0.2.1"]},
                     id="a line without an address is skipped"),
        pytest.param("192.0.2.1", {}, id="an address without names"),
    ],
)  # fmt: skip
def test_what_the_file_says(text: str, expected: dict[str, list[str]]) -> None:
    found = parse_hosts(text)
    assert {name: [str(address) for address in addresses] for name, addresses in found.items()} == expected


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    assert all(addresses for addresses in parse_hosts(text).values())
