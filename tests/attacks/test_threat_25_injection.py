"""Threat 25: client text in log, metrics, terminal and refusals."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from support.gateway import read_reply
from support.http import client_hello, read_response, request_via_proxy, socks5_connect
from support.lab import ALLOWED, Lab, alert_for, log_from_now, say
from support.waiting import eventually

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
FORGED = '{"verdict":"allow","reason":"allowed","authority":"forged.example:443"}'

HEADS = {
    "escape codes in a path": b"GET http://denied.example/\x1b[2J\x1b]0;owned\x07 HTTP/1.1\r\nHost: denied.example\r\n",
    "a newline in a path": b"GET http://denied.example/\n" + FORGED.encode() + b"\n HTTP/1.1\r\nHost: x\r\n",
    "a carriage return in a path": b"GET http://denied.example/\rforged HTTP/1.1\r\nHost: x\r\n",
    "percent-encoded escape codes in a path": (
        b"GET http://denied.example/%1b%5b2J%0a HTTP/1.1\r\nHost: denied.example\r\n"
    ),
    "quotes in a path": b'GET http://denied.example/","verdict":"allow HTTP/1.1\r\nHost: denied.example\r\n',
    "a backslash in a path": b"GET http://denied.example/\\u001b\\n\\ HTTP/1.1\r\nHost: denied.example\r\n",
    "braces in a path": b'GET http://denied.example/"}{"verdict":"allow"} HTTP/1.1\r\nHost: denied.example\r\n',
    "escape codes in Host": b"GET http://allowed.example/ HTTP/1.1\r\nHost: \x1b[31mallowed.example\r\n",
    "a newline in Host": b"GET http://allowed.example/ HTTP/1.1\r\nHost: allowed.example\n" + FORGED.encode() + b"\r\n",
    "bytes beyond ASCII in Host": b"GET http://allowed.example/ HTTP/1.1\r\nHost: \xe2\x80\xa8\xff\xfe\r\n",
    "right-to-left marks in Host": "GET http://allowed.example/ HTTP/1.1\r\nHost: \u202eelpmaxe\r\n".encode(),
    "escape codes in the method": b"G\x1b[2JT http://denied.example/ HTTP/1.1\r\nHost: denied.example\r\n",
    "a method of odd but legal characters": (
        b"G!#$%&'*+.^_`|~T http://denied.example/ HTTP/1.1\r\nHost: denied.example\r\n"
    ),
    "a method of 10,000 letters": b"G" * 10_000 + b" http://denied.example/ HTTP/1.1\r\nHost: denied.example\r\n",
    "a path of 60,000 letters": b"GET http://denied.example/"
    + b"a" * 60_000
    + b" HTTP/1.1\r\nHost: denied.example\r\n",
    "escape codes in a header": (
        b"GET http://denied.example/ HTTP/1.1\r\nHost: denied.example\r\nUser-Agent: \x1b[2J\r\n"
    ),
    "C1 codes in a header": (
        b"GET http://denied.example/ HTTP/1.1\r\nHost: denied.example\r\nUser-Agent: \xc2\x9b2J\x9b\r\n"
    ),
    "escape codes in a CONNECT": b"CONNECT \x1b[2Jdenied.example:443 HTTP/1.1\r\nHost: denied.example\r\n",
    "quotes in a CONNECT": b'CONNECT ","rule":"x:443 HTTP/1.1\r\nHost: denied.example\r\n',
    "label syntax in a CONNECT": b'CONNECT denied.example",action="allow"}:443 HTTP/1.1\r\nHost: denied.example\r\n',
    "a format string": b"GET http://denied.example/%s%n{0}{exchange.__class__} HTTP/1.1\r\nHost: denied.example\r\n",
}


def check_what_was_told(lab: Lab, told_since: Callable[[], list[dict[str, Any]]], lines: int = 1) -> None:
    """Log, metrics and terminal are whole, and hold no control code."""
    eventually(lambda: len(told_since()) >= lines, lambda: f"{lines} lines in the access log, saw {told_since()}")
    entries = told_since()  # every line is one JSON object, or this raises
    text = lab.gateway.access_log_path.read_bytes()
    assert text.isascii()
    assert not CONTROL.search(text.decode().replace("\n", ""))
    assert all(len(line) <= 16 * 1024 for line in text.splitlines())
    assert len(entries) == lines, entries
    assert {entry["verdict"] for entry in entries} == {"deny"}
    assert "forged.example:443" not in {entry["authority"] for entry in lab.gateway.access_log()}
    status, metrics = lab.gateway.metrics_get("/metrics")
    assert status == 200
    assert not CONTROL.search(metrics.replace("\n", ""))
    assert "forged" not in metrics
    assert "denied" not in metrics
    assert not CONTROL.search(lab.gateway.output.replace("\n", "").replace("\r", ""))
    assert not any(line.startswith("{") for line in lab.gateway.output.splitlines())


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_threat_25_nothing_of_a_request_becomes_more_than_text(lab: Lab, head: bytes) -> None:
    told_since = log_from_now(lab.gateway)
    for accept in ("text/plain", "text/html", "application/problem+json"):
        reply = lab.gateway.raw(head + f"Connection: close\r\nAccept: {accept}\r\n\r\n".encode())
        assert re.match(rb"HTTP/1\.1 4[0-9][0-9] ", reply), reply[:200]
        head_bytes, _, body = bytes(reply).partition(b"\r\n\r\n")
        for text in (*head_bytes.split(b"\r\n"), body.replace(b"\n", b"")):
            assert text.isascii()
            assert not CONTROL.search(text.decode())
        assert b"forged" not in head_bytes.lower()
    check_what_was_told(lab, told_since, 3)


SNIS = [b"\x1b[2Jdenied.example", b"a\nb.example", b'a","verdict":"allow', b"\x00", b"\xff" * 200, b"a" * 20_000]


@pytest.mark.parametrize("sni", SNIS, ids=lambda sni: repr(sni[:20]))
def test_threat_25_server_names(lab: Lab, sni: bytes) -> None:
    told_since = log_from_now(lab.gateway)
    with lab.refused("sni_malformed"):
        alert_for(lab.tunnel("connect", ALLOWED), client_hello(sni))
    check_what_was_told(lab, told_since)


@pytest.mark.parametrize("name", [b"\x1b[2J", b"a\r\nb", b'","verdict":"allow', b"\xff\xfe", b"\xc2\x9b2J.example"])
def test_threat_25_socks5_names(lab: Lab, name: bytes) -> None:
    told_since = log_from_now(lab.gateway)
    code, sock = socks5_connect(lab.socks, name, 443)
    with sock:
        assert (code, read_reply(sock)) == (2, b"")
    check_what_was_told(lab, told_since)


def test_threat_25_a_refusal_as_a_page_runs_nothing(lab: Lab) -> None:
    path = "/<script>alert(1)</script>'\"&<img/src=x>"
    with lab.gateway.connect() as sock:
        say(
            sock,
            f"GET http://denied.example{path} HTTP/1.1\r\nHost: denied.example\r\nAccept: text/html\r\n\r\n".encode(),
        )
        response = read_response(sock)
    assert str(response.header("content-type")).startswith("text/html")
    assert "<script" not in response.text
    assert "<img" not in response.text
    assert "default-src 'none'" in str(response.header("content-security-policy"))


def series(lab: Lab) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return set(lab.gateway.metrics())


def test_threat_25_random_hosts_methods_and_paths_make_no_series(lab: Lab) -> None:
    def attack(number: int) -> None:
        host = f"h{number}.random.example"
        assert request_via_proxy(lab.gateway, f"M{number}", f"http://{host}:{1 + number}/{number}").status == 403
        code, sock = socks5_connect(lab.socks, host, 1 + number)
        sock.close()
        assert code == 2
        allowed = f"h{number}.wild.example"
        lab.dns.set(allowed, ["203.0.113.10"])
        assert request_via_proxy(lab.gateway, f"M{number}", f"http://{allowed}/{number}").status == 200

    attack(0)
    # An answer may be there before it is counted, and what is written to the log has been.
    lab.gateway.wait_for_log(method="M0", response_code=403)
    lab.gateway.wait_for_log(lambda entry: entry["method"] != "M0", authority="h0.random.example:1")
    lab.gateway.wait_for_log(method="M0", response_code=200)
    before = series(lab)
    for number in range(1, 200):
        attack(number)
    lab.gateway.wait_for_log(authority="h199.random.example:200")
    assert series(lab) == before
