import dataclasses
import json
import re
from html import unescape
from typing import Any

import pytest

from egress_gateway.answer.refusal import Refusal, render
from egress_gateway.policy.decide import decide
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.explain import Explanation, explain
from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.reason import ANSWERS, Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.rule import EgressRule, ExactName, Port, Protocol, Source
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Treatment, Verdict, refuse
from support.exchanges import change
from support.exchanges import exchange as over

NEAR = EgressRule(
    "default",
    "near",
    (ExactName(Hostname("www.denied.example")),),
    (Port(443, Protocol.HTTPS),),
    source=Source("/etc/egress/rules/near.yaml", 3),
)
REQUEST = Request(Hostname("api.denied.example"), 443, Spoken.HTTP)
VERDICT = decide(RuleSet.build([NEAR]), REQUEST)
EXPLANATION = explain(RuleSet.build([NEAR]), REQUEST, VERDICT)

HOSTILE = [
    'a\r\nx-egress-reason: allowed\r\n\r\n<script>alert("1")</script>',
    '"; error=none; details="',
    "\\",
    "</pre><script>alert(1)</script>",
    "\x1b[2J\x9b31m\x00\x7f",
    "\u202egnp.exe\u2028",
    "\ud800\udc80\xff",
    "x" * 100_000,
]
JSON = "application/problem+json"
FORMS = ["text/plain", JSON, "text/html"]


def exchange(**changes: Any) -> Exchange:
    made = over(
        protocol="HTTP/1.1",
        method="GET",
        path="/v1/items?key=secret",
        authority="api.denied.example:443",
        host=Hostname("api.denied.example"),
        port=443,
        verdict=VERDICT,
    )
    return change(made, **changes)


def headers(refusal: Refusal) -> dict[bytes, bytes]:
    assert len({name for name, _ in refusal.headers}) == len(refusal.headers)
    return dict(refusal.headers)


def test_text_says_what_why_what_was_near_and_what_would_do() -> None:
    refusal = render(exchange(), EXPLANATION)
    assert refusal.body.decode() == (
        "403 Forbidden\n"
        "\n"
        "Refused:      GET api.denied.example:443/v1/items\n"
        "Reason:       no_rule: no egress rule allows this host\n"
        "Nearest rule: default/near\n"
        f"Hint:         {EXPLANATION.hint}\n"
        "\n"
        "The smallest rule that would allow it (egressctl create -f - reads it):\n"
        "\n"
        "apiVersion: config.istio.io/v1alpha2\n"
        "kind: EgressRule\n"
        "metadata: {name: allow-api-denied-example}\n"
        "spec:\n"
        '  destination: {service: "api.denied.example"}\n'
        "  ports:\n"
        "  - {port: 443, protocol: https}\n"
    )


def test_the_headers_of_a_refusal() -> None:
    refusal = render(exchange(), EXPLANATION)
    assert refusal.status == 403
    assert headers(refusal) == {
        b"proxy-status": (
            b'egress; error=http_request_denied; details="no_rule: no egress rule allows this host (default/near)"'
        ),
        b"x-egress-reason": b"no_rule",
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": str(len(refusal.body)).encode(),
        b"cache-control": b"no-store",
        b"x-content-type-options": b"nosniff",
    }


@pytest.mark.parametrize("accept", [JSON, "application/json"])
def test_a_problem_document(accept: str) -> None:
    refusal = render(exchange(), EXPLANATION, accept)
    assert headers(refusal)[b"content-type"] == b"application/problem+json"
    assert json.loads(refusal.body) == {
        "type": "urn:x-egress:reason:no_rule",
        "title": "Forbidden",
        "status": 403,
        "detail": "no egress rule allows this host",
        "reason": "no_rule",
        "target": "GET api.denied.example:443/v1/items",
        "rule": "default/near",
        "hint": EXPLANATION.hint,
        "smallestRule": EXPLANATION.smallest_rule,
    }


def test_a_page_for_browsers() -> None:
    refusal = render(exchange(), EXPLANATION, "text/html,*/*;q=0.8")
    found = headers(refusal)
    assert found[b"content-type"] == b"text/html; charset=utf-8"
    assert found[b"content-security-policy"].startswith(b"default-src 'none'")
    assert EXPLANATION.smallest_rule.strip() in unescape(refusal.body.decode())


@pytest.mark.parametrize("accept", FORMS)
def test_with_the_reason_only_nothing_of_the_rules_is_told(accept: str) -> None:
    refusal = render(exchange(hint="see default/near", detail="10.0.0.1"), EXPLANATION, accept, "reason")
    everything = refusal.body + b"".join(name + value for name, value in refusal.headers)
    assert b"no_rule" in everything
    assert b"api.denied.example:443" in everything
    for secret in (b"default/near", b"www.denied.example", b"EgressRule", b"10.0.0.1"):
        assert secret not in everything


@pytest.mark.parametrize("accept", FORMS)
def test_neither_a_query_nor_the_place_of_a_rule_is_told(accept: str) -> None:
    refusal = render(exchange(), EXPLANATION, accept)
    assert b"secret" not in refusal.body
    assert b"/etc/egress" not in refusal.body


@pytest.mark.parametrize("accept", FORMS)
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_client_text_stays_text(hostile: str, accept: str) -> None:
    fields = ("method", "path", "authority", "requested_server_name", "detail", "hint", "protocol", "user")
    explanation = Explanation(None, hostile, f"kind: EgressRule\nx: {hostile}\n")
    refusal = render(exchange(**dict.fromkeys(fields, hostile)), explanation, accept)
    for name, value in refusal.headers:
        assert re.fullmatch(rb"[a-z-]+", name)
        assert re.fullmatch(rb"[ -~]{0,512}", value)
    assert re.fullmatch(rb'egress; error=[a-z_]+; details="([^"\\]|\\["\\])*"', headers(refusal)[b"proxy-status"])
    assert headers(refusal)[b"x-egress-reason"] == b"no_rule"
    assert re.fullmatch(rb"[\n -~]*", refusal.body)
    assert b"<script>" not in refusal.body or accept != "text/html"
    assert len(refusal.body) < 32_000
    if accept == JSON:
        assert json.loads(refusal.body)["reason"] == "no_rule"


def test_quotes_and_backslashes_of_a_rules_name_are_escaped_in_the_structured_field() -> None:
    odd = dataclasses.replace(NEAR, name='a"b\\c\xe9')
    refusal = render(exchange(verdict=refuse(Reason.DENIED_BY_RULE, odd)))
    details = headers(refusal)[b"proxy-status"].partition(b"details=")[2]
    assert details.endswith(rb'(default/a\"b\\\\c\\xe9)"')


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ALLOWED])
@pytest.mark.parametrize("accept", FORMS)
def test_every_reason_has_its_answer(reason: Reason, accept: str) -> None:
    refusal = render(exchange(verdict=refuse(reason)), None, accept)
    found = headers(refusal)
    assert refusal.status == ANSWERS[reason].status
    assert found[b"x-egress-reason"] == reason.encode()
    assert f"error={ANSWERS[reason].proxy_error};".encode() in found[b"proxy-status"]
    assert found[b"content-length"] == str(len(refusal.body)).encode()
    assert reason.encode() in refusal.body


def test_a_failure_of_what_was_allowed_is_told_with_its_cause() -> None:
    allowed = Verdict(Treatment.ORIGINATE, Reason.ALLOWED, NEAR, 443)
    failed = exchange(verdict=allowed, failure=Reason.UPSTREAM_TLS_FAILED, detail="certificate has expired")
    refusal = render(failed)
    assert refusal.status == 502
    assert b"Detail:       certificate has expired\n" in refusal.body
    problem = json.loads(render(failed, None, JSON).body)
    assert problem["detail"].endswith("verified: certificate has expired")
    assert problem["rule"] == "default/near"


def test_an_exchange_that_was_allowed_is_never_answered_with_that() -> None:
    refusal = render(exchange(verdict=Verdict(Treatment.FORWARD, Reason.ALLOWED, NEAR, 80)))
    assert refusal.status == 503
    assert headers(refusal)[b"x-egress-reason"] == b"internal_error"


def test_who_must_log_in_is_told_how() -> None:
    refusal = render(exchange(verdict=refuse(Reason.PROXY_AUTHENTICATION_REQUIRED)))
    assert refusal.status == 407
    assert headers(refusal)[b"proxy-authenticate"] == b'Basic realm="egress gateway"'


def test_who_has_too_many_connections_is_told_when_to_come_back() -> None:
    refusal = render(exchange(verdict=refuse(Reason.TOO_MANY_CONNECTIONS)))
    assert refusal.status == 503
    assert headers(refusal)[b"retry-after"] == b"5"
    assert b"retry-after" not in headers(render(exchange()))


def test_head_gets_the_length_and_no_body() -> None:
    refusal = render(exchange(method="HEAD"), EXPLANATION)
    assert refusal.body == b""
    body = render(exchange(method="HEAD "), EXPLANATION).body
    assert abs(int(headers(refusal)[b"content-length"]) - len(body)) <= 1


def test_connect_is_told_the_authority_only() -> None:
    refusal = render(exchange(method="CONNECT", path="/x"), EXPLANATION)
    assert b"Refused:      CONNECT api.denied.example:443\n" in refusal.body


def test_where_nothing_is_known_nothing_is_made_up() -> None:
    refusal = render(over(verdict=refuse(Reason.MALFORMED_REQUEST)))
    assert refusal.status == 400
    assert refusal.body == b"400 Bad Request\n\nReason:       malformed_request: the request is not well-formed\n"


def test_inner_addresses_are_told_to_the_log_and_not_to_the_client() -> None:
    exchange = over(detail="10.0.0.1 (private) may not be reached")
    exchange.verdict = refuse(Reason.ADDRESS_NOT_ALLOWED)
    assert b"10.0.0.1" not in render(exchange).body
    exchange.verdict = refuse(Reason.MALFORMED_HOST)
    assert b"10.0.0.1" in render(exchange).body
