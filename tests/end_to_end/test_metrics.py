"""What a scrape of a live gateway looks like to Prometheus' own checker, and that clients cannot make it grow."""

from __future__ import annotations

import random
import shutil
import subprocess
from typing import Any

import pytest

from support.gateway import Gateway
from support.http import request_over, request_via_proxy


@pytest.fixture(scope="module")
def gw(world: Any, data_path: str) -> Gateway:
    gateway: Gateway = world.gateway(data_path=data_path)
    return gateway


# Istio chose the name, and dashboards made for Istio ask for it.
REMARK = 'istio_request_duration_milliseconds use base unit "seconds" instead of "milliseconds"'


def test_promtool_has_one_remark_about_a_live_scrape(gw: Gateway) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (scripts/test installs it with prometheus)")
    assert request_via_proxy(gw, "GET", "http://plain.example/echo").status == 200
    assert request_via_proxy(gw, "GET", "http://www.googleapis.com:443/echo").status == 200
    assert request_via_proxy(gw, "GET", "http://denied.example/echo").status == 403
    status, text = gw.metrics_get("/metrics")
    assert status == 200
    assert "istio_requests_total{" in text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.stdout + done.stderr).splitlines() == [REMARK]
    # Without that one metric nothing is left to say.
    rest = "\n".join(line for line in text.split("\n") if "istio_request_duration_milliseconds" not in line)
    done = subprocess.run([promtool, "check", "metrics"], input=rest, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_thousands_of_random_denied_hosts_add_no_series(gw: Gateway, data_path: str) -> None:
    times = 10_000 if data_path == "relay" else 1_000  # who counts is the same, and mitmproxy's layers take long
    chance = random.Random(20261123)

    def ask(sock: Any) -> None:
        host = f"{chance.randbytes(8).hex()}.example.{chance.choice(['com', 'net', 'org'])}"
        assert request_over(sock, "GET", f"http://{host}/{chance.randbytes(4).hex()}", {"Host": host}).status == 403

    with gw.connect() as sock:
        ask(sock)
        before = set(gw.metrics())
        for _ in range(times):
            ask(sock)
    assert set(gw.metrics()) == before
    assert gw.metric("egress_decisions_total", action="deny", reason="no_rule") >= times
