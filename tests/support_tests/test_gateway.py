"""`Gateway` with a stand-in for the addons, in a real mitmdump and a real mitmweb."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.dns_server import DnsServer
from support.gateway import REPOSITORY, Gateway, GatewayFailed
from support.http import request_via_proxy
from support.process import Process, group
from support.waiting import PATIENCE, eventually

pytestmark = pytest.mark.private_network

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture(scope="module")
def running(shared_gateway, module_dns: DnsServer) -> Gateway:
    gateway = shared_gateway({"a.yaml": "a: 1\n"}, script=STAND_IN, data_path="relay")
    assert shared_gateway({"a.yaml": "a: 1\n"}, script=STAND_IN, data_path="relay") is gateway
    return gateway


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_is_ready_with_the_options_it_was_given(running: Gateway, module_dns: DnsServer) -> None:
    assert running.metrics_get("/readyz") == (200, "ok")
    assert f"data path relay dns {module_dns.endpoint}" in running.output
    assert "the stand-in is loaded" in running.output
    assert (running.rules_dir / "a.yaml").read_text() == "a: 1\n"
    assert running.address == ("127.0.0.1", running.port)
    assert 10_000 < running.rss_kib() < 500_000
    assert exists(running.pid)


def test_requests_metrics_and_log_lines_agree(running: Gateway) -> None:
    before = running.metric("egress_decisions_total", action="deny")
    refused = request_via_proxy(running, "GET", "http://one.example/")
    assert (refused.status, refused.header("x-egress-reason")) == (403, "no_rule")
    request_via_proxy(running, "POST", "http://two.example/", body=b"x")
    assert running.wait_for_metric("egress_decisions_total", before + 2, action="deny") == before + 2
    labels = frozenset({("action", "deny"), ("reason", "no_rule"), ("method", "POST")})
    assert running.metrics()["egress_decisions_total", labels] >= 1
    assert running.metric("egress_decisions_total", action="allow") == 0
    assert running.metric("egress_decisions") == 0
    entry = running.wait_for_log(authority="two.example")
    assert entry == {"authority": "two.example", "verdict": "deny", "pid": running.pid}
    assert running.wait_for_log(lambda line: line["authority"] == "one.example")
    with pytest.raises(AssertionError, match="three"):
        running.wait_for_log(authority="three.example", timeout=0.1)


def test_a_raw_conversation_tells_how_it_ended(running: Gateway) -> None:
    head = b"GET http://raw.example/ HTTP/1.1\r\nHost: raw.example\r\nConnection: close\r\n\r\n"
    whole = running.raw(head)
    assert whole.startswith(b"HTTP/1.1 403")
    assert whole.ending == "closed"
    assert running.raw([head[:1], head[1:7], head[7:]]).startswith(b"HTTP/1.1 403")
    unfinished = running.raw(head[:-2], timeout=0.2)
    assert (unfinished, unfinished.ending) == (b"", "quiet")


def test_waits_for_changed_rules(running: Gateway) -> None:
    before = running.metric("egress_rules_reloads_total")
    path = running.write_rule("b.yaml", "b: 1\n")
    assert path.read_text() == "b: 1\n"
    assert running.metric("egress_rules_reloads_total") == before + 1
    running.delete_rule("b.yaml")
    assert running.metric("egress_rules_reloads_total") == before + 2
    assert not path.exists()
    with (
        pytest.raises(AssertionError, match="egress_rules_reloads_total"),
        running.reload_expected(timeout=0.3),
    ):
        pass


def test_a_broken_log_line_is_not_passed_over(gateway, tmp_path: Path) -> None:
    log = tmp_path / "log"
    idle = Gateway(options={"egress_access_log": log})
    idle.access_log_path = log
    log.write_text('{"a": 1}\n{"half')
    assert idle.access_log() == [{"a": 1}]
    log.write_text('{"a": 1}\nforged\n')
    with pytest.raises(AssertionError, match="not JSON: 'forged'"):
        idle.access_log()


def test_what_comes_to_the_log_is_seen_and_a_new_log_too(tmp_path: Path) -> None:
    idle = Gateway()
    idle.access_log_path = log = tmp_path / "log"
    assert idle.access_log() == []
    written = '{"a": 1}\n{"a": "\u00fc"}\n'
    for end in range(len(written.encode()) + 1):
        log.write_bytes(written.encode()[:end])
        assert len(idle.access_log()) == written.encode()[:end].count(b"\n")
    assert idle.access_log() == idle.access_log() == [{"a": 1}, {"a": "ü"}]
    log.rename(tmp_path / "log.1")
    log.write_text('{"b": 1}\n{"b": 2}\n')
    assert idle.access_log() == [{"b": 1}, {"b": 2}]
    log.write_text('{"c": 1}\n')
    assert idle.access_log() == [{"c": 1}]


def test_mitmweb_runs_too(gateway) -> None:
    web = gateway(script=STAND_IN, program="mitmweb", data_path="inspect", mode="socks5")
    assert "data path inspect" in web.output
    with web.connect() as sock:
        sock.sendall(b"\x05\x01\x00")
        assert sock.recv(2) == b"\x05\x00"
    with socket.create_connection(("127.0.0.1", web.web_port), timeout=PATIENCE):
        pass


def test_the_order_of_scripts_and_options() -> None:
    before, after = Path("before.py"), Path("after.py")
    idle = Gateway(
        options={"egress_public_ranges": None, "flag": True, "names": ["a", "b"]},
        scripts_before=[before],
        scripts_after=[after],
        mode=["regular", "socks5"],
        extra_args=["--quiet"],
    )
    command = " ".join(idle.command)
    assert f"-s before.py -s {REPOSITORY}/addons/egress.py -s after.py" in command
    assert "--mode regular --mode socks5" in command
    assert "--set flag=true --set names=a --set names=b" in command
    assert "egress_public_ranges" not in command
    assert command.endswith("--quiet")
    runner = Gateway(program="gateway", scripts_after=[after], workers=3, cold=True).command
    assert runner[:5] == [str(REPOSITORY / "scripts" / "gateway"), "--workers", "3", "-s", "after.py"]
    assert "-s" not in Gateway(program="gateway").command


def test_an_early_exit_shows_the_output() -> None:
    with pytest.raises(GatewayFailed, match=r"exited with 3 (.*\n)+the stand-in gives up"):
        Gateway(script=STAND_IN, env={"STAND_IN": "exit"}).start()


def test_a_start_that_must_fail_can_be_waited_for() -> None:
    with Gateway(script=STAND_IN, env={"STAND_IN": "exit"}, wait_ready=False) as failing:
        assert failing.wait_for_exit() == 3
        assert failing.exit_code == 3


def test_a_gateway_that_is_never_ready_fails_and_does_not_stay() -> None:
    stuck = Gateway(script=STAND_IN, env={"STAND_IN": "never ready"}, ready_timeout=0.2)
    with pytest.raises(GatewayFailed, match=r"not ready after 0.2 s \(/readyz: "):
        stuck.start()
    assert not exists(stuck.pid)


def test_what_a_gateway_says_that_is_not_ready_is_told() -> None:
    def answers() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            return unready.metrics_get("/readyz")[0] == 503
        return False

    with Gateway(script=STAND_IN, env={"STAND_IN": "never ready"}, wait_ready=False) as unready:
        eventually(answers, "its start")
        with pytest.raises(GatewayFailed, match=r"not ready after 0.2 s \(/readyz: 503\)"):
            unready.wait_ready(0.2)


def test_what_a_gateway_leaves_behind_is_reported_and_removed() -> None:
    with Gateway(script=STAND_IN, env={"STAND_IN": "orphan"}) as careless:
        eventually(lambda: len(group(careless.pid)) > 1, "the orphan")
    assert careless.process.left_behind
    assert not group(careless.pid)


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    stubborn = Process([sys.executable, "-c", code], os.environ, Path("/"))
    eventually(lambda: "up" in stubborn.output, "its start")
    assert stubborn.stop(timeout=0.3) == -signal.SIGKILL
    assert not exists(stubborn.pid)


def test_a_process_dies_with_the_test_process() -> None:
    code = f"""
        import os, sys
        sys.path.insert(0, {str(REPOSITORY / "tests")!r})
        from pathlib import Path
        from support.process import Process
        from support.waiting import eventually
        program = "import time; print('up', flush=True); time.sleep(60)"
        child = Process([sys.executable, "-c", program], os.environ, Path("/"))
        eventually(lambda: child.output, "its start")
        print(child.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    parent = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert parent.returncode == -signal.SIGKILL
    pid = int(parent.stdout)
    eventually(lambda: not group(pid), "the end of the child")


def test_every_path_of_a_run_is_forgotten() -> None:
    with Gateway(script=STAND_IN) as short:
        directory = short.rules_dir.parent
        assert short.inspect_ca.exists()
    assert short.exit_code == 0
    assert not directory.exists()
    with pytest.raises(ConnectionRefusedError):
        short.connect()


def test_the_data_path_fixture_takes_both_values(data_path: str) -> None:
    assert data_path in ("relay", "inspect")
