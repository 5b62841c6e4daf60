"""Every way to start the gateway, and what it says when it cannot: one line with the fix, exit status 1."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.gateway import Gateway
from support.http import request_via_proxy
from support.waiting import eventually

RULE = """
kind: EgressRule
metadata: {name: plain}
spec: {destination: {service: plain.example}, ports: [{port: 80, protocol: http}]}
"""


@pytest.mark.parametrize("started", ["mitmdump", "mitmweb", "gateway"])
def test_it_starts_and_decides_in_every_program(started: str, world: Any) -> None:
    gw = world.gateway(program=started)
    assert request_via_proxy(gw, "GET", "http://plain.example/echo").status == 200
    assert request_via_proxy(gw, "GET", "http://denied.example/echo").status == 403
    path = "inspect" if started == "mitmweb" else "relay"
    eventually(lambda: f"data path {path}" in gw.output, "the data path in what it says")
    # A line a request on the relay path, without mitmproxy's own about who comes and goes.
    if path == "inspect":
        eventually(lambda: "client connect" in gw.output, "mitmproxy's lines")
    else:
        eventually(lambda: "denied.example" in gw.output, "a line for the second request")
        assert "client connect" not in gw.output


BAD_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "the rules directory does not exist": ({"egress_rules": "/nonexistent/rules"}, "/nonexistent/rules"),
    "the rules directory is a file": ({"egress_rules": "/etc/hostname"}, "/etc/hostname"),
    "the CA file does not exist": (
        {"ssl_verify_upstream_trusted_ca": "/nonexistent/ca.pem"},
        "ssl_verify_upstream_trusted_ca: cannot read /nonexistent/ca.pem",
    ),
    "the CA file is no certificate": ({"ssl_verify_upstream_trusted_ca": "/etc/hostname"}, "/etc/hostname"),
    "an option is misspelt": ({"egress_rulez": "x"}, "unknown option egress_rulez (did you mean egress_rules?)"),
    "a name server is a name": ({"egress_dns_servers": "dns.example"}, "egress_dns_servers: 'dns.example'"),
    "a public range is nonsense": ({"egress_public_ranges": "10/8x"}, "egress_public_ranges: '10/8x'"),
    "a limit is zero": ({"egress_idle_timeout": 0}, "egress_idle_timeout: 0 is too small"),
    "the metrics address is nonsense": ({"egress_metrics_listen": "nowhere"}, "nowhere"),
    "a number is a word": ({"egress_idle_timeout": "fast"}, "egress_idle_timeout: 'fast' is not a whole number"),
    "a number has a unit": ({"egress_max_hello_bytes": "64k"}, "egress_max_hello_bytes: '64k' is not a whole number"),
    "a number is empty": ({"egress_connect_timeout": ""}, "egress_connect_timeout: '' is not a whole number"),
    "an option is given twice": (
        {"egress_tls": ["passthrough", "inspect"]},
        "egress_tls: it is given more than once",
    ),
    "a choice is misspelt": ({"egress_ech": "denny"}, "egress_ech: 'denny' is not a choice (use allow or deny)"),
    "the access log cannot be written": ({"egress_access_log": "/nonexistent/log"}, "/nonexistent/log"),
}


@pytest.mark.parametrize("started", ["mitmdump", "mitmweb", "gateway"])
@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_wrong_option_is_one_line_and_exit_1(case: str, started: str, gateway: Callable[..., Gateway]) -> None:
    options, says = BAD_OPTIONS[case]
    gw = gateway(RULE, options, program=started, wait_ready=False, cold=False)
    assert gw.wait_for_exit() == 1
    assert says in gw.output
    assert "Traceback" not in gw.output
    assert len([line for line in gw.output.splitlines() if says in line]) == 1


def test_a_wrong_value_in_the_configuration_file_is_told_as_well(
    gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("egress_idle_timeout: fast\n")
    gw = gateway(RULE, {"confdir": tmp_path}, wait_ready=False)
    assert gw.wait_for_exit() == 1
    assert "egress_idle_timeout: 'fast' is not a whole number" in gw.output
    assert "Traceback" not in gw.output


def test_all_problems_of_the_rules_are_told_at_once(gateway: Callable[..., Gateway]) -> None:
    rules = {
        "a.yaml": "kind: EgressRule\nmetadata: {name: a}\nspec:\n  destination: {service: '**com'}\n  ports: []\n",
        "b.yaml": "kind: EgressRule\nmetadata: {name: b}\nspec: {ports: [{port: 70000, protocol: udp}]}\n",
        "c.yaml": "key: value: what\n",
    }
    gw = gateway(rules, wait_ready=False)
    assert gw.wait_for_exit() == 1
    for file in rules:
        assert f"{gw.rules_dir / file}:" in gw.output
    assert "Traceback" not in gw.output


def test_a_port_in_use_is_told(gateway: Callable[..., Gateway]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        metrics = gateway(RULE, {"egress_metrics_listen": f"127.0.0.1:{port}"}, wait_ready=False)
        assert metrics.wait_for_exit() == 1
        assert f"cannot serve metrics on 127.0.0.1:{port}" in metrics.output
        proxy = gateway(RULE, wait_ready=False, extra_args=["-p", str(port)])
        assert proxy.wait_for_exit() == 1
        assert f"failed to listen on 127.0.0.1:{port}" in proxy.output
    assert "Traceback" not in metrics.output + proxy.output


def test_it_ends_at_once_and_cleanly_on_sigterm(gateway: Callable[..., Gateway]) -> None:
    gw = gateway(RULE)
    with gw.connect():
        assert gw.stop() == 0
    assert "Traceback" not in gw.output
