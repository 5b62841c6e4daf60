"""A line of the access log: what is in it, how long it may be, and that it is written by hand as `record` says."""

import json
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egress_gateway.observe.access_line import _Remembered, cut, line, record
from egress_gateway.policy.address_check import Agreement
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.reason import ANSWERS, Reason
from egress_gateway.policy.rule import EgressRule, ExactName, Port, Protocol, Source
from egress_gateway.policy.verdict import Treatment, Verdict, refuse
from support.exchanges import exchange as over

Make = Callable[..., Exchange]

KEYS = [
    "start_time",
    "method",
    "path",
    "protocol",
    "response_code",
    "response_flags",
    "response_code_details",
    "bytes_received",
    "bytes_sent",
    "duration",
    "authority",
    "upstream_host",
    "requested_server_name",
    "downstream_remote_address",
    "upstream_transport_failure_reason",
    "request_id",
    "verdict",
    "reason",
    "rule",
    "rule_source",
    "source_workload",
    "source_namespace",
    "original_destination",
    "resolved_addresses",
    "tls_mode",
    "ech",
    "trace_id",
]


def test_every_key_is_there_whatever_happened(request_: Make, refused: Make) -> None:
    for exchange in (request_(), refused(), Exchange(start_time=0.0)):
        assert set(json.loads(line(exchange))) == {*KEYS, "user", "detail", "address_check"}


def test_a_request(request_: Make) -> None:
    assert json.loads(line(request_())) == {
        "start_time": "2025-11-23T16:09:09.500Z",
        "method": "GET",
        "path": "/books/v1/volumes?q=isbn",
        "protocol": "HTTP/1.1",
        "response_code": 200,
        "response_flags": "-",
        "response_code_details": "via_upstream",
        "bytes_received": 10,
        "bytes_sent": 1229,
        "duration": 35,
        "authority": "www.googleapis.com:443",
        "upstream_host": "142.250.1.1:443",
        "requested_server_name": None,
        "downstream_remote_address": "203.0.113.7:51234",
        "upstream_transport_failure_reason": None,
        "request_id": "7b1c",
        "verdict": "allow",
        "reason": "allowed",
        "detail": None,
        "rule": "default/googleapis",
        "rule_source": "rules/google.yaml:3",
        "user": None,
        "source_workload": None,
        "source_namespace": None,
        "original_destination": None,
        "resolved_addresses": ["142.250.1.1", "2a00:1450::1"],
        "address_check": None,
        "tls_mode": "originate",
        "ech": False,
        "trace_id": None,
    }


def test_a_refusal(refused: Make, rule: Callable[..., EgressRule]) -> None:
    entry = json.loads(line(refused(verdict=refuse(Reason.DENIED_BY_RULE, rule()), detail="by order")))
    expected = {
        "verdict": "deny",
        "reason": "denied_by_rule",
        "response_code_details": "denied_by_rule",
        "response_flags": "NR",
        "rule": "default/googleapis",
        "detail": "by order",
        "upstream_transport_failure_reason": None,
        "upstream_host": None,
        "resolved_addresses": [],
    }
    assert {key: entry[key] for key in expected} == expected


def test_a_failure_of_what_was_allowed(request_: Make) -> None:
    exchange = request_(failure=Reason.UPSTREAM_TLS_FAILED, detail="certificate has expired", response_code=502)
    entry = json.loads(line(exchange))
    assert entry["verdict"] == "allow"
    assert entry["reason"] == "upstream_tls_failed"
    assert entry["response_flags"] == "UF"
    assert entry["upstream_transport_failure_reason"] == "certificate has expired"


def test_ipv6_and_the_original_destination(tunnel: Make) -> None:
    exchange = tunnel(
        client=("2001:db8::7", 5),
        upstream=(ip_address("2001:db8::1"), 443),
        original_destination=("2001:db8::2", 443),
        ech=True,
    )
    entry = json.loads(line(exchange))
    assert entry["downstream_remote_address"] == "[2001:db8::7]:5"
    assert entry["upstream_host"] == "[2001:db8::1]:443"
    assert entry["original_destination"] == "[2001:db8::2]:443"
    assert entry["ech"] is True


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_flag(refused: Make, reason: Reason) -> None:
    entry = json.loads(line(refused(verdict=refuse(reason))))
    assert (entry["reason"], entry["response_flags"]) == (reason.value, ANSWERS[reason].flag)


CLIENT_FIELDS = ("protocol", "method", "path", "authority", "requested_server_name", "user", "detail", "request_id")


def test_client_text_stays_in_its_field_and_on_its_line(refused: Make, hostile: str) -> None:
    text = line(refused(**dict.fromkeys(CLIENT_FIELDS, hostile)))
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert all(" " <= character <= "~" for character in text[:-1])
    assert len(text) <= 16 * 1024
    entry = json.loads(text)
    assert set(entry) == {*KEYS, "user", "detail", "address_check"}
    assert entry["verdict"] == "deny"
    json.dumps(entry, ensure_ascii=False).encode("utf-8")  # no halves of surrogate pairs


def test_text_that_fits_is_not_changed(refused: Make) -> None:
    for text in ("/päth?q=\U0001f600", '/"quoted"\\', "/" + "x" * 2047):
        assert json.loads(line(refused(path=text)))["path"] == text


@pytest.mark.parametrize("text", ["x" * 5000, "\x01" * 5000, "\U0001f600" * 5000, '"' * 2048, "x" * 2040 + "\x01" * 9])
def test_long_text_is_cut_and_says_how_much(text: str) -> None:
    shown = cut(text, 2048)
    assert shown is not None
    assert len(json.dumps(shown)) - 2 <= 2048
    kept, _, rest = shown.rpartition("...[")
    assert text.startswith(kept)
    assert len(kept) + int(rest.removesuffix(" more]")) == len(text)
    assert len(json.dumps(kept)) > 2048 - 64, "as much as fits is kept"


def test_a_shorter_line_can_be_asked_for(refused: Make) -> None:
    exchange = refused(**dict.fromkeys(CLIENT_FIELDS, "x" * 5000))
    assert 2048 < len(line(exchange)) <= 16 * 1024
    assert len(line(exchange, 2048)) <= 2048
    assert json.loads(line(exchange, 2048))["path"].startswith("xxx")


TEXTS = st.text() | st.text(st.characters(max_codepoint=0x2FF), max_size=400) | st.integers(0, 5000).map("x".__mul__)
ADDRESSES = st.ip_addresses()
PORTS = st.integers(0, 65535)
RULES = st.builds(
    EgressRule,
    TEXTS,
    TEXTS,
    st.just((ExactName(Hostname("a.example")),)),
    st.just((Port(443, Protocol.HTTPS),)),
    source=st.none() | st.builds(Source, TEXTS, st.integers(1, 99)),
)
VERDICTS = st.builds(Verdict, st.sampled_from(Treatment), st.sampled_from(Reason), st.none() | RULES, PORTS)


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        over,
        start_time=st.floats(0, 4e9),
        client=st.tuples(ADDRESSES.map(str) | TEXTS, PORTS),
        verdict=VERDICTS,
        failure=st.none() | st.sampled_from(Reason),
        response_code=st.integers(0, 999),
        bytes_received=st.integers(0, 1 << 60),
        bytes_sent=st.integers(0, 1 << 60),
        duration=st.floats(0, 1e6),
        upstream=st.none() | st.tuples(ADDRESSES, PORTS),
        resolved=st.lists(ADDRESSES, max_size=20).map(tuple),
        original_destination=st.none() | st.tuples(ADDRESSES.map(str), PORTS),
        ech=st.booleans(),
        address_check=st.sampled_from(["", *Agreement]),
        tls_mode=st.sampled_from(["", "originate", "inspect"]),
        **dict.fromkeys(CLIENT_FIELDS, TEXTS),
    )
)
def test_the_line_is_the_record_in_json(exchange: Exchange) -> None:
    """Written by hand and by the library: the same to the last character."""
    by_library = json.dumps(record(exchange), ensure_ascii=True, separators=(",", ":")) + "\n"
    assert line(exchange, 1_000_000) == by_library


@pytest.mark.parametrize("length", [341, 342, 512, 2048])
def test_what_grows_by_escaping_is_cut_where_it_has_grown(request_: Make, length: int) -> None:
    for character in ("\x01", '"', "x", "\x7f"):
        exchange = request_(path=character * length)
        assert json.loads(line(exchange, 1_000_000)) == record(exchange)


def test_what_many_lines_have_in_common_is_not_kept_for_ever() -> None:
    remembered = _Remembered[list[int]](str, most=10)
    kept = [[number] for number in range(25)]
    for _ in range(2):
        assert [remembered(each) for each in kept] == [str(each) for each in kept]
    assert [remembered([number]) for number in range(1000)] == [f"[{number}]" for number in range(1000)]
    assert len(remembered._known) <= 10
