import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from egress_gateway.observe.access_log import AccessLog, cut, line
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import ANSWERS, Reason
from egress_gateway.policy.rule import EgressRule
from egress_gateway.policy.verdict import refuse
from support.waiting import eventually

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


def test_the_file_holds_a_line_for_each_exchange(tmp_path: Path, request_: Make, refused: Make) -> None:
    log = AccessLog(str(tmp_path / "access.log"))
    log.finished(request_())
    log.finished(refused())
    log.close(2)
    entries = [json.loads(text) for text in (tmp_path / "access.log").read_text().splitlines()]
    assert [entry["verdict"] for entry in entries] == ["allow", "deny"]
    assert log.dropped == 0


def test_after_a_rotation_lines_go_to_the_new_file(tmp_path: Path, request_: Make) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.finished(request_(path="/1"))
    eventually(lambda: path.read_text(), "the first line")
    path.rename(tmp_path / "access.log.1")
    log.reopen()
    log.finished(request_(path="/2"))
    eventually(lambda: path.exists() and path.read_text(), "the second line")
    log.close()
    assert json.loads((tmp_path / "access.log.1").read_text())["path"] == "/1"
    assert json.loads(path.read_text())["path"] == "/2"


def test_a_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot open access log"):
        AccessLog(str(tmp_path))


def test_a_disk_that_is_full_drops_and_counts(request_: Make) -> None:
    log = AccessLog("/dev/full")
    for _ in range(100):
        log.finished(request_())
    log.close()
    assert log.dropped == 100


def test_a_fifo_without_a_reader_never_slows_traffic(tmp_path: Path, request_: Make) -> None:
    os.mkfifo(tmp_path / "fifo")
    log = AccessLog(str(tmp_path / "fifo"), queue_size=50)
    exchange = request_()
    started = time.monotonic()
    for _ in range(20_000):
        log.finished(exchange)
    log.close(1)
    assert time.monotonic() - started < 2
    assert log.dropped == 20_000


def test_a_dash_is_standard_output_and_a_stopped_pipe_does_not_keep_the_process() -> None:
    program = """if True:
        from egress_gateway.observe.access_log import AccessLog
        from egress_gateway.policy.events import Exchange
        log = AccessLog("-")
        for i in range(2000):
            log.finished(Exchange(start_time=0.0, path=f"/{i}"))
        log.close(0.5)
        import sys
        print(log.dropped, file=sys.stderr)
    """
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stderr is not None
        lines = process.stdout.read().splitlines(keepends=True)
        dropped = int(process.stderr.read())
    whole = [text for text in lines if text.endswith(b"\n")]
    assert [json.loads(text)["path"] for text in whole] == [f"/{i}" for i in range(len(whole))]
    assert len(whole) + dropped == 2000
    assert whole
    assert dropped
