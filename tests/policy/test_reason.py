"""Every reason can be told: to a client, in a metric, in a log, and on a page of the documentation."""

import http
import re
from pathlib import Path

import pytest

from egress_gateway.policy.reason import ANSWERS, Reason

REASONS_PAGE = Path(__file__).parents[2] / "docs" / "reasons.md"

# Envoy's response flags (its access log's %RESPONSE_FLAGS%), and none.
FLAGS = {"-", "NR", "DPE", "DC", "RL", "DF", "UF", "UC", "UT"}

# RFC 9209, 2.3, and the empty string for what is allowed.
PROXY_ERRORS = {
    "", "dns_timeout", "dns_error", "destination_not_found", "destination_unavailable", "destination_ip_prohibited",
    "destination_ip_unroutable", "connection_refused", "connection_terminated", "connection_timeout",
    "connection_read_timeout", "connection_write_timeout", "connection_limit_reached", "tls_protocol_error",
    "tls_certificate_error", "tls_alert_received", "http_request_error", "http_request_denied",
    "http_response_incomplete", "http_protocol_error", "http_upgrade_failed", "proxy_internal_response",
    "proxy_internal_error", "proxy_configuration_error", "proxy_loop_detected",
}  # fmt: skip


def test_every_reason_has_an_answer() -> None:
    assert set(ANSWERS) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_an_answer_is_fit_for_where_it_is_put(reason: Reason) -> None:
    answer = ANSWERS[reason]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", reason.value), "a metric label and an anchor"
    assert reason.value == reason.name.lower()
    assert answer.flag in FLAGS
    assert answer.proxy_error in PROXY_ERRORS
    assert answer.sentence.isascii()
    assert answer.sentence.isprintable()
    assert '"' not in answer.sentence, "it stands in a quoted string of the Proxy-Status header"
    assert answer.status in {*map(int, http.HTTPStatus), 499}


def test_only_what_is_allowed_is_a_success() -> None:
    assert [reason for reason in Reason if ANSWERS[reason].status < 400] == [Reason.ALLOWED]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_anchor_in_the_documentation(reason: Reason) -> None:
    assert f'<a id="{reason.value}"></a>' in REASONS_PAGE.read_text()


def test_the_documentation_has_no_reason_that_does_not_exist() -> None:
    assert set(re.findall(r'<a id="([^"]+)"', REASONS_PAGE.read_text())) <= {reason.value for reason in Reason}
