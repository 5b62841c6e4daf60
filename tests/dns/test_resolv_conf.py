"""resolver(5), line by line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.dns.resolv_conf import ResolvConf, parse_resolv_conf

LOCAL = (("127.0.0.1", 53),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", ResolvConf(LOCAL), id="an empty file means this host's server"),
        pytest.param("nameserver 192.0.2.1\nnameserver 2001:db8::1\n",
                     ResolvConf((("192.0.2.1", 53), ("2001:db8::1", 53))), id="servers in their order"),
        pytest.param("nameserver 192.0.2.1\n" * 2 + "nameserver 192.0.2.3\nnameserver 192.0.2.4",
                     ResolvConf((("192.0.2.1", 53), ("192.0.2.1", 53), ("192.0.2.3", 53))),
                     id="no more than three servers"),
        pytest.param("nameserver dns.example\nnameserver 192.0.2.1", ResolvConf((("192.0.2.1", 53),)),
                     id="a server that is no address is skipped"),
        pytest.param("nameserver fe80::1%eth0", ResolvConf((("fe80::1%eth0", 53),)), id="a zone is kept"),
        pytest.param("# nameserver 192.0.2.1\n; nameserver 192.0.2.1\n  nameserver 192.0.2.1\n",
                     ResolvConf(LOCAL), id="comments and indented lines say nothing"),
        pytest.param("search a.example B.Example. a.example", ResolvConf(LOCAL, ("a.example", "b.example")),
                     id="search domains are canonical and stand there once"),
        pytest.param("search a.example\ndomain b.example", ResolvConf(LOCAL, ("b.example",)),
                     id="domain after search wins"),
        pytest.param("domain b.example c.example\nsearch a.example", ResolvConf(LOCAL, ("a.example",)),
                     id="search after domain wins"),
        pytest.param("search .", ResolvConf(LOCAL), id="the root as a search domain is none"),
        pytest.param("search a.example\nsearch", ResolvConf(LOCAL), id="a bare search empties the list"),
        pytest.param("options ndots:5 timeout:1 attempts:3 rotate",
                     ResolvConf(LOCAL, (), 5, 1, 3), id="options that count, and one that does not"),
        pytest.param("options ndots:5\noptions timeout:1", ResolvConf(LOCAL, (), 5, 1), id="options add up"),
        pytest.param("options ndots:99 timeout:99 attempts:99", ResolvConf(LOCAL, (), 15, 30, 5),
                     id="options are cut to the limits of resolver(5)"),
        pytest.param("options ndots:0 timeout:0 attempts:0", ResolvConf(LOCAL, (), 0, 1, 1),
                     id="no time and no attempt become one of each"),
        pytest.param("options ndots:x ndots: ndots timeout:-1", ResolvConf(LOCAL), id="nonsense is skipped"),
        pytest.param("nameserver\noptions\nsearch\nnonsense 1\n", ResolvConf(LOCAL), id="keywords alone"),
    ],
)  # fmt: skip
def test_what_the_file_says(text: str, expected: ResolvConf) -> None:
    assert parse_resolv_conf(text) == expected


_words = st.sampled_from(["nameserver", "search", "domain", "options", "ndots:", "1.2.3.4", "\0", "é", "#", ":"])


@given(st.text() | st.lists(_words).map(" ".join) | st.lists(_words).map("\n".join))
def test_any_text_can_be_read(text: str) -> None:
    conf = parse_resolv_conf(text)
    assert 1 <= len(conf.servers) <= 3
    assert 0 <= conf.ndots <= 15
