"""The gateway of several workers as a whole: what clients and operators see while it starts, works, loses a worker."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Self

import pytest

from egress_gateway.compiled import LIBRARY
from support.compiled import require_compiled
from support.dns_server import DnsServer
from support.gateway import Gateway
from support.http import connect_tunnel, read_response, request_over, request_via_proxy
from support.lab import rule
from support.origin import Origins
from support.waiting import eventually

from .conftest import BYTES, PLAIN, RULES, Runner

pytestmark = [pytest.mark.private_network]

MANY = 24
"""Clients of which each of two workers has some: the kernel draws lots."""


def tunnel(gateway: Gateway) -> socket.socket:
    status, sock = connect_tunnel(gateway, f"{BYTES}:5432")
    assert status == 200
    assert echo(sock)
    return sock


def echo(sock: socket.socket) -> bool:
    sock.sendall(b"ping")
    return sock.recv(100) == b"ping"


def is_reset(sock: socket.socket) -> bool:
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    return True


def is_refused(gateway: Gateway) -> bool:
    try:
        gateway.connect().close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the system had let it in, and then nobody listened any more
        return False
    return False


# --- several workers, one gateway ---


def test_all_workers_serve_and_are_counted_as_one(two_workers: Runner) -> None:
    gateway = two_workers.gateway
    before = gateway.metric("egress_decisions_total", action="allow")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(MANY)]
        served = set(two_workers.serving(clients))
        assert served == set(two_workers.workers())
        assert len(served) == 2
        for number, client in enumerate(clients):
            assert request_over(client, "GET", f"http://{PLAIN}/echo?{number}", {"Host": PLAIN}).status == 200
    assert gateway.wait_for_metric("egress_decisions_total", before + MANY, action="allow") == before + MANY
    assert gateway.metric("egress_workers_wanted") == gateway.metric("egress_workers_ready") == 2
    assert gateway.metric("egress_draining") == 0
    eventually(lambda: len(_lines(gateway)) >= MANY, "a line of the access log for each request")
    lines = [line for line in gateway.access_log() if (line["authority"] or "").startswith(PLAIN)]
    assert {line["path"] for line in lines} >= {f"/echo?{number}" for number in range(MANY)}
    ids = [line["request_id"] for line in gateway.access_log()]
    assert len(set(ids)) == len(ids)


def _lines(gateway: Gateway) -> list[object]:
    return [line for line in gateway.access_log() if "/echo?" in (line["path"] or "")]


def test_what_all_of_them_would_say_is_said_once(runner: Callable[..., Runner]) -> None:
    """One of its own, of whose rules nothing has been said since."""
    output = runner("--workers", "2").gateway.output
    for said in ("data path relay", "2 rules in force", "listening at", "egress gateway: ready."):
        assert output.count(said) == 1, output


SLOW = """
import asyncio
class Slow:
    async def running(self):
        await asyncio.sleep(1)
addons = [Slow()]
"""


@pytest.mark.parametrize("listens", ["we", "mitmproxy"])
def test_who_reads_where_it_listens_may_connect_at_once(
    runner: Callable[..., Runner], tmp_path: Path, listens: str
) -> None:
    script = tmp_path / "slow.py"  # where mitmproxy listens, it does so long before the gateway lets anybody in
    script.write_text(SLOW)
    running = runner(*(["-s", str(script)] if listens == "mitmproxy" else []), wait_ready=False)
    gateway = running.gateway
    eventually(lambda: "listening at" in gateway.output, lambda: gateway.output, timeout=20, every=0.001)
    assert len(running.workers()) == (1 if listens == "mitmproxy" else 2)
    assert request_via_proxy(gateway, "GET", f"http://{PLAIN}/echo").status == 200
    assert gateway.output.count("listening at") == 1


def test_a_change_of_the_rules_is_in_force_in_all_of_them_and_said_once(two_workers: Runner) -> None:
    gateway = two_workers.gateway
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(MANY)]
        assert len(set(two_workers.serving(clients))) == 2

        def statuses() -> set[int]:
            target = "http://new.example/"
            return {request_over(client, "GET", target, {"Host": "new.example"}).status for client in clients}

        assert statuses() == {403}
        said = gateway.output.count("in force")
        gateway.write_rule("new.yaml", RULES["plain.yaml"].replace("plain", "new"), wait=False)
        # Allowed, and then there is no such name.
        eventually(lambda: statuses() == {502}, "the new rule everywhere", every=0.1)
        gateway.delete_rule("new.yaml", wait=False)
        eventually(lambda: statuses() == {403}, "the old rules everywhere", every=0.1)
    eventually(lambda: gateway.output.count("in force") >= said + 2, "both changes to be said")
    assert gateway.output.count("in force") == said + 2


def test_sighup_reads_the_rules_and_opens_the_access_log_anew(two_workers: Runner) -> None:
    gateway = two_workers.gateway
    moved = gateway.access_log_path.with_suffix(".moved")
    gateway.access_log_path.rename(moved)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(MANY)]
        serving = two_workers.serving(clients)
        two_workers.kill(gateway.pid, signal.SIGHUP)

        def all_write_there() -> bool:
            """What is asked before a worker has heard of it is still in the old one."""
            for client, pid in zip(clients, serving, strict=True):
                target = f"http://{PLAIN}/echo?again{pid}"
                assert request_over(client, "GET", target, {"Host": PLAIN}).status == 200
            paths = {line["path"] for line in gateway.access_log()}
            return paths >= {f"/echo?again{pid}" for pid in serving}

        eventually(all_write_there, "lines of both workers in the new access log", every=0.1)
    assert len(set(serving)) == 2
    said = "egress gateway: reading the rules again, and opening the access log anew"
    eventually(lambda: said in gateway.output, "that it is said")
    assert gateway.output.count(said) == 1
    assert gateway.process.exit_code is None
    assert len(two_workers.workers()) == 2


# --- a worker dies ---


def test_a_worker_that_is_killed_takes_nobody_else_along(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "2")
    gateway = running.gateway
    counted = _Counting(gateway)
    with contextlib.ExitStack() as stack:
        tunnels = [stack.enter_context(closing(tunnel(gateway))) for _ in range(MANY)]
        by_worker: dict[int, list[socket.socket]] = {}
        for sock, pid in zip(tunnels, running.serving(tunnels), strict=True):
            by_worker.setdefault(pid, []).append(sock)
        assert len(by_worker) == 2
        (doomed, lost), (living, kept) = by_worker.items()
        stack.enter_context(counted)
        requested = stack.enter_context(_Requesting(gateway))
        eventually(lambda: requested.answered > 20, "requests")
        running.kill(gateway.pid, signal.SIGSTOP)  # for the time being nobody takes its place
        running.kill(doomed)
        died = time.monotonic()
        assert all(map(is_reset, lost)), "half a conversation does not look like a whole one"
        assert all(map(echo, kept))
        before = requested.answered
        eventually(lambda: requested.answered > before + 20, "requests that the living one serves alone")
        running.kill(gateway.pid, signal.SIGCONT)
        eventually(lambda: len(running.workers()) == 2, "another worker")
        assert doomed not in running.workers()
        assert living in running.workers()
        fresh = [stack.enter_context(closing(tunnel(gateway))) for _ in range(MANY)]
        assert len(set(running.serving(fresh))) == 2
        assert all(map(echo, kept))
        assert requested.longest_gap_since(died) < 0.8 * _Requesting.PATIENCE, "nobody waits for who does not answer"
    # What the dead one was serving in that moment is lost, and nothing that came after.
    assert requested.failed <= 1
    assert counted.went_back == []
    assert gateway.metric("egress_worker_restarts_total") == 1
    assert gateway.wait_for_metric("egress_workers_ready", 2) == 2
    eventually(lambda: "serves in its place" in gateway.output, "that it is said")
    (successor,) = {*running.workers()} - {living}
    ended = re.findall(rf"worker (\d) \(pid {doomed}\) was ended by SIGKILL; starting it again\.", gateway.output)
    assert re.findall(rf"worker (\d) \(pid {successor}\) serves in its place\.", gateway.output) == ended
    assert len(ended) == 1
    assert gateway.stop() == 0
    assert gateway.process.left_behind == []


class _Meanwhile:
    """Does something again and again, in a thread, while the block lasts."""

    pause: float
    """Seconds in between."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(15)

    def _run(self) -> None:
        while not self._over.wait(self.pause):
            self.act()

    def act(self) -> None:
        raise NotImplementedError


class _Counting(_Meanwhile):
    """Looks whether a counter goes backwards."""

    pause = 0.05
    NAMES = (
        "egress_decisions_total",
        "egress_connections_total",
        "istio_requests_total",
        "istio_tcp_connections_opened",
    )

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._last = dict.fromkeys(self.NAMES, 0.0)
        self.went_back: list[tuple[str, float, float]] = []

    def act(self) -> None:
        samples = self.gateway.metrics()
        for name in self.NAMES:
            now = sum(value for (found, _), value in samples.items() if found.startswith(name))
            if now < self._last[name]:
                self.went_back.append((name, self._last[name], now))
            self._last[name] = now


class _Requesting(_Meanwhile):
    """Requests in a row, each on a connection of its own, as new clients come."""

    pause = 0.005
    PATIENCE = 10.0

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._times: list[float] = []
        self.failed = 0

    @property
    def answered(self) -> int:
        return len(self._times)

    def longest_gap_since(self, moment: float) -> float:
        """Seconds without an answer."""
        times = [moment, *(at for at in self._times if at > moment)]
        return max(later - earlier for earlier, later in pairwise(times))

    def act(self) -> None:
        try:
            with self.gateway.connect(self.PATIENCE) as sock:
                answer = request_over(sock, "GET", f"http://{PLAIN}/echo", {"Host": PLAIN})
            assert answer.status == 200
            self._times.append(time.monotonic())
        except (OSError, AssertionError):
            self.failed += 1


def test_a_worker_that_takes_the_place_of_a_dead_one_lets_nobody_in_before_the_rules_load(
    runner: Callable[..., Runner],
) -> None:
    running = runner("--workers", "1")
    gateway = running.gateway
    (gateway.rules_dir / "plain.yaml").unlink()
    eventually(
        lambda: request_via_proxy(gateway, "GET", f"http://{PLAIN}/").status == 403, "the rule is gone", every=0.05
    )
    (gateway.rules_dir / "broken.yaml").write_text("key: value: what\n")
    eventually(lambda: "the last good ones stay in force" in gateway.output, "the rules do not load")
    running.kill(running.workers()[0])
    eventually(lambda: "lets nobody in before the rules load" in gateway.output, "the new worker waits")
    # What it was forked with allows more than what was in force.
    with pytest.raises(ConnectionRefusedError):
        gateway.connect()
    assert gateway.metrics_get("/readyz")[0] == 503
    assert gateway.metrics_get("/healthz")[0] == 200
    assert "serves in its place" not in gateway.output
    (gateway.rules_dir / "broken.yaml").unlink()
    gateway.wait_ready()
    eventually(lambda: gateway.output.count("serves in its place") == 1, "that it is said")
    assert request_via_proxy(gateway, "GET", f"http://{PLAIN}/").status == 403
    assert gateway.stop() == 0


def test_the_process_that_serves_metrics_is_started_again_as_well(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "1")
    gateway = running.gateway
    assert request_via_proxy(gateway, "GET", f"http://{PLAIN}/").status == 200
    before = gateway.wait_for_metric("egress_decisions_total", 1)
    (telemetry,) = set(running.children()) - set(running.workers())
    running.kill(telemetry)
    gateway.wait_ready()
    assert gateway.metric("egress_decisions_total") == before
    eventually(
        lambda: "the process that serves metrics was ended by SIGKILL; starting it again" in gateway.output,
        "that it is said",
    )


def test_when_the_supervisor_is_killed_nothing_is_left(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "2")
    children = running.children()
    assert len(children) == 3
    running.kill(running.gateway.pid)
    eventually(lambda: not running.children(), lambda: f"the end of {running.children()}")


# --- the end ---


def test_without_clients_it_ends_at_once(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "2")
    gateway = running.gateway
    with gateway.connect(), gateway.connect() as asked:  # one says nothing, one has been answered
        assert request_over(asked, "GET", f"http://{PLAIN}/", {"Host": PLAIN}).status == 200
        started = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - started < 8.0, "they have no half a minute"
        assert asked.recv(1) == b""
    assert gateway.process.left_behind == []
    assert "Traceback" not in gateway.output


def test_who_is_served_has_time_to_finish(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "2", "--drain-timeout", "20")
    gateway = running.gateway
    with tunnel(gateway) as busy, gateway.connect() as idle, gateway.connect() as slow:
        assert request_over(idle, "GET", f"http://{PLAIN}/", {"Host": PLAIN}).status == 200
        slow.sendall(f"GET http://{PLAIN}/slow HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n".encode())
        assert slow.recv(1)
        running.kill(gateway.pid, signal.SIGTERM)
        assert idle.recv(1) == b""
        eventually(lambda: is_refused(gateway), "no worker lets anybody in")
        assert gateway.metrics_get("/readyz") == (503, "not ready: the gateway is shutting down\n")
        assert gateway.metric("egress_draining") == 1
        assert echo(busy)
        rest = bytearray()
        while data := slow.recv(65536):
            rest += data
        assert rest.endswith(b"0\r\n\r\n") or b"content-length" in rest.lower()
        assert echo(busy)
    assert gateway.wait_for_exit() == 0
    assert "egress gateway: ending, 3 connections open." in gateway.output
    assert "cut off" not in gateway.output


def end_in_the_middle_of_a_request(running: Runner, sock: socket.socket, path: str) -> None:
    """Tells the gateway to end when it has half of a request, and sends the other half when it lets nobody in."""
    gateway = running.gateway
    before = gateway.metric("egress_decisions_total", protocol="http")
    # Of this type the inspect path passes on what it has, so that it can be seen that it has it.
    kind = "Content-Type: text/event-stream\r\nContent-Length: 2\r\n\r\n"
    sock.sendall(f"POST http://{PLAIN}{path} HTTP/1.1\r\nHost: {PLAIN}\r\n{kind}a".encode())
    eventually(lambda: gateway.metric("egress_decisions_total", protocol="http") > before, "half a request has come")
    running.kill(gateway.pid, signal.SIGTERM)
    eventually(lambda: is_refused(gateway), "no worker lets anybody in")
    sock.sendall(b"b")


@pytest.mark.parametrize("path", ["relay", "inspect"])
def test_who_is_answered_meanwhile_is_told_to_connect_anew(runner: Callable[..., Runner], path: str) -> None:
    running = runner("--workers", "1", "--drain-timeout", "20", data_path=path)
    gateway = running.gateway
    with gateway.connect() as idle, gateway.connect() as busy:
        assert request_over(idle, "GET", f"http://{PLAIN}/", {"Host": PLAIN}).header("connection") != "close"
        end_in_the_middle_of_a_request(running, busy, "/echo")
        answer = read_response(busy)
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert busy.recv(1) == b""
        assert gateway.wait_for_exit() == 0
    assert "cut off" not in gateway.output


def asking(path: str) -> bytes:
    return f"GET http://{PLAIN}{path} HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n".encode()


@pytest.mark.parametrize("pace", ["fast", "slow"])
def test_the_last_answer_arrives_whole_whatever_is_asked_behind_it(runner: Callable[..., Runner], pace: str) -> None:
    """Who closes with something unread resets, and what is still to be sent is lost."""
    much = 2_000_000
    running = runner("--workers", "1", "--drain-timeout", "20", data_path="inspect")
    gateway = running.gateway
    with socket.socket() as busy:
        if pace == "slow":
            busy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        busy.settimeout(15)
        busy.connect(gateway.address)
        end_in_the_middle_of_a_request(running, busy, f"/bytes/{much}")
        gateway.wait_for_log(lambda line: "/bytes/" in (line["path"] or ""))  # it is over, for the gateway
        received = _read_slowly(busy, 2.5) if pace == "slow" else bytearray()
        busy.sendall(asking("/next"))
        time.sleep(0.1)
        while data := busy.recv(65536):
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"connection: close" in head.lower()
        assert len(body) == much
    assert gateway.wait_for_exit() == 0
    assert "cut off" not in gateway.output


def _read_slowly(sock: socket.socket, seconds: float) -> bytearray:
    """What comes in that time, taken little by little."""
    received = bytearray()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        received += sock.recv(4096)
        time.sleep(0.01)
    return received


@pytest.mark.parametrize("then", ["reads", "asks on", "has said that it asks no more"])
@pytest.mark.parametrize(
    ("path", "much"),
    [("inspect", 8_000_000), ("relay", 900_000)],
    ids=["asyncio has what the kernel did not take", "the kernel has it"],
)
def test_who_is_still_taking_an_answer_has_time_to_finish(
    runner: Callable[..., Runner], path: str, much: int, then: str
) -> None:
    """The answer is over for the gateway, which has written it; its client does not have all of it."""
    options = {"stream_large_bodies": "100m"} if path == "inspect" else {}
    running = runner("--workers", "1", "--drain-timeout", "20", data_path=path, options=options)
    gateway = running.gateway
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(15)
        slow.connect(gateway.address)
        slow.sendall(asking(f"/bytes/{much}"))
        if then == "has said that it asks no more":
            slow.shutdown(socket.SHUT_WR)
        gateway.wait_for_log(lambda line: "/bytes/" in (line["path"] or ""))
        running.kill(gateway.pid, signal.SIGTERM)
        eventually(lambda: is_refused(gateway), "no worker lets anybody in")
        if then == "asks on":
            slow.sendall(asking("/next"))
        time.sleep(0.3)
        received = bytearray()
        while data := slow.recv(65536):
            received += data
        _, _, rest = received.partition(b"\r\n\r\n")
        if then == "asks on":
            assert b"connection: close" in rest[much:].lower()
        else:
            assert len(rest) == much
    assert gateway.wait_for_exit() == 0
    assert "cut off" not in gateway.output


@pytest.mark.parametrize("path", ["relay", "inspect"])
def test_who_took_an_answer_and_asked_on_while_a_worker_did_not_run_is_answered(
    runner: Callable[..., Runner], path: str
) -> None:
    """It learns in the same moment that the answer has arrived, as of a client that is idle, and that there is more."""
    much = 900_000
    options = {"stream_large_bodies": "100m"} if path == "inspect" else {}
    running = runner("--workers", "1", "--drain-timeout", "20", data_path=path, options=options)
    gateway = running.gateway
    (worker,) = running.workers()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(15)
        client.connect(gateway.address)
        client.sendall(asking(f"/bytes/{much}"))
        gateway.wait_for_log(lambda line: "/bytes/" in (line["path"] or ""))
        running.kill(gateway.pid, signal.SIGTERM)
        eventually(lambda: is_refused(gateway), "no worker lets anybody in")
        running.kill(worker, signal.SIGSTOP)
        assert len(read_response(client).body) == much
        client.sendall(asking("/next"))
        running.kill(worker, signal.SIGCONT)
        answer = read_response(client)
        assert (answer.status, answer.header("connection")) == (200, "close")
    assert gateway.wait_for_exit() == 0
    assert "cut off" not in gateway.output


ASKS_FOR_A_PASSWORD = """
import asyncio
from pathlib import Path
from mitmproxy import http
async def http_connect(flow):
    folder = Path(__file__).parent
    (folder / "asked").touch()
    while not (folder / "go on").exists():
        await asyncio.sleep(0.01)
    flow.response = http.Response.make(407, b"", {"Proxy-Authenticate": "Basic"})
"""


def test_another_addons_answer_to_connect_is_the_last_one_as_well(
    runner: Callable[..., Runner], tmp_path: Path
) -> None:
    script = tmp_path / "password.py"
    script.write_text(ASKS_FOR_A_PASSWORD)
    running = runner("--workers", "1", "--drain-timeout", "20", "-s", str(script), data_path="inspect")
    gateway = running.gateway
    with gateway.connect() as busy:
        busy.sendall(f"CONNECT {PLAIN}:443 HTTP/1.1\r\nHost: {PLAIN}:443\r\n\r\n".encode())
        eventually((tmp_path / "asked").exists, "the other addon is asked")
        running.kill(gateway.pid, signal.SIGTERM)
        eventually(lambda: is_refused(gateway), "no worker lets anybody in")
        (tmp_path / "go on").touch()
        answer = read_response(busy)
        assert (answer.status, answer.header("connection")) == (407, "close")
        assert busy.recv(1) == b""
    assert gateway.wait_for_exit() == 0


def test_who_does_not_finish_in_time_is_cut_off_and_that_is_said(
    runner: Callable[..., Runner], dns: DnsServer, origin: Origins
) -> None:
    dns.set("endless.example", ["203.0.113.40"])
    origin.scripted("203.0.113.40", 80, b"HTTP/1.0 200 OK\r\n\r\nhalf", stays_open=True)
    endless = {"endless.yaml": rule("endless", "endless.example", "80 http")}
    running = runner("--workers", "2", "--drain-timeout", "1", rules=RULES | endless)
    gateway = running.gateway
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(closing(tunnel(gateway))) for _ in range(2)]
        busy.append(stack.enter_context(gateway.connect()))
        busy[2].sendall(b"GET http://endless.example/ HTTP/1.0\r\n\r\n")
        answer = b""
        while not answer.endswith(b"half"):
            answer += busy[2].recv(1000) or pytest.fail(str(answer))
        started = time.monotonic()
        assert gateway.stop() == 0
        assert 1.0 <= time.monotonic() - started < 8.0
        # Nobody shall take half of it for the whole.
        assert all(map(is_reset, busy))
    assert "egress gateway: 3 connections had not ended in time and were cut off." in gateway.output
    # They were let out by a rule, and are in the log like any other.
    assert len([line for line in gateway.access_log() if line["authority"] == f"{BYTES}:5432"]) == 2
    assert "Traceback" not in gateway.output


def test_a_second_signal_ends_at_once(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "2", "--drain-timeout", "20")
    gateway = running.gateway
    with tunnel(gateway) as busy:
        running.kill(gateway.pid, signal.SIGINT)
        eventually(lambda: "ending, 1 connection open" in gateway.output, "the first signal")
        started = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - started < 8.0
        assert is_reset(busy)
    assert "egress gateway: 1 connection was cut off, since it was told to end a second time." in gateway.output
    assert "in time" not in gateway.output


def test_what_a_worker_had_that_does_not_hear_is_said_as_well(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "1", "--drain-timeout", "20")
    gateway = running.gateway
    with closing(tunnel(gateway)), closing(tunnel(gateway)):
        running.kill(running.workers()[0], signal.SIGSTOP)
        running.kill(gateway.pid, signal.SIGTERM)
        eventually(lambda: "ending, 2 connections open" in gateway.output, "the first signal")
        assert gateway.stop() == 0
    assert "egress gateway: 2 connections were cut off, since it was told to end a second time." in gateway.output


# --- what it cannot have ---


def test_a_port_that_somebody_has_is_told(runner: Callable[..., Runner], two_workers: Runner) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        proxy = runner("-p", str(port), wait_ready=False).gateway
        assert proxy.wait_for_exit() == 1
        assert f"HTTP(S) proxy failed to listen on 127.0.0.1:{port}: address already in use" in proxy.output
        metrics = runner(options={"egress_metrics_listen": f"127.0.0.1:{port}"}, wait_ready=False).gateway
        assert metrics.wait_for_exit() == 1
        assert f"cannot serve metrics on 127.0.0.1:{port}" in metrics.output
        assert "starting it again" not in metrics.output
    # Another gateway of the same user: the system would let both of them listen, and halve the clients.
    port = two_workers.gateway.port
    other = runner("-p", str(port), wait_ready=False).gateway
    assert other.wait_for_exit() == 1
    assert f"failed to listen on 127.0.0.1:{port}: address already in use" in other.output
    assert "Traceback" not in proxy.output + metrics.output + other.output


@pytest.mark.parametrize("more", [(), ("-w", "flows")], ids=["ours", "mitmproxy listens"])
def test_all_ports_that_somebody_has_are_told_at_once(
    runner: Callable[..., Runner], tmp_path: Path, more: tuple[str, ...]
) -> None:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(3)]
        proxy, socks, metrics = (sock.getsockname()[1] for sock in taken)
        gateway = runner(
            *(f"{tmp_path}/{word}" if word == "flows" else word for word in more),
            mode=[f"regular@{proxy}", "regular@0", f"socks5@{socks}"],
            options={"egress_metrics_listen": f"127.0.0.1:{metrics}"},
            wait_ready=False,
        ).gateway
        assert gateway.wait_for_exit() == 1
    why = "address already in use"
    assert [line for line in gateway.output.splitlines() if why in line] == [
        f"gateway: HTTP(S) proxy failed to listen on 127.0.0.1:{proxy}: {why} "
        "(choose another address: --mode regular@HOST:PORT)",
        f"gateway: SOCKS v5 proxy failed to listen on 127.0.0.1:{socks}: {why} "
        "(choose another address: --mode socks5@HOST:PORT)",
        f"gateway: cannot serve metrics on 127.0.0.1:{metrics}: {why} "
        "(set egress_metrics_listen to another address, or to nothing to do without)",
    ]
    assert "Traceback" not in gateway.output


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "an option that is misspelt": ({"egress_rulez": "x"}, "unknown option egress_rulez (did you mean egress_rules?)"),
    "a number that is a word": (
        {"egress_max_connections": "few"},
        "egress_max_connections: 'few' is not a whole number",
    ),
    "a number that is too small": ({"egress_listen_backlog": 0}, "egress_listen_backlog: 0 is too small"),
    "a log that cannot be written": ({"egress_access_log": "/nonexistent/log"}, "/nonexistent/log"),
    "an option that would open a hole": ({"ssl_insecure": True}, "the gateway refuses option ssl_insecure"),
    "a mode that is none": ({"mode": "sideways"}, "Invalid proxy mode specification: sideways"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_one_line_however_many_workers_there_are(case: str, runner: Callable[..., Runner]) -> None:
    options, says = WRONG[case]
    gateway = runner("--workers", "2", options=options, wait_ready=False).gateway
    assert gateway.wait_for_exit() == 1
    assert len([line for line in gateway.output.splitlines() if says in line]) == 1, gateway.output
    assert "Traceback" not in gateway.output


def test_rules_that_do_not_load_are_told_with_their_places_and_once(runner: Callable[..., Runner]) -> None:
    rules = {"a.yaml": "key: value: what\n", "b.yaml": RULES["bytes.yaml"].replace("5432", "70000")}
    gateway = runner("--workers", "2", rules=rules, wait_ready=False).gateway
    assert gateway.wait_for_exit() == 1
    for file in rules:
        assert gateway.output.count(f"{gateway.rules_dir / file}:") == 1, gateway.output
    assert "Traceback" not in gateway.output


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_it_is_compiled_and_says_so(runner: Callable[..., Runner], cold: bool) -> None:
    require_compiled()
    one = runner("--workers", "1", cold=cold)
    assert re.search(r"egress gateway: 1 worker on \w+, compiled\.$", one.gateway.output, re.MULTILINE)
    for pid in one.workers():
        assert LIBRARY in Path(f"/proc/{pid}/maps").read_text()


def test_it_is_interpreted_where_that_is_asked_for(runner: Callable[..., Runner]) -> None:
    one = runner("--workers", "1", env={"EGRESS_INTERPRETED": "1"})
    assert "interpreted: EGRESS_INTERPRETED is set." in one.gateway.output
    for pid in one.workers():
        assert LIBRARY not in Path(f"/proc/{pid}/maps").read_text()


def test_mitmdump_is_not_compiled(gateway: Callable[..., Gateway], world: None) -> None:
    started = gateway(RULES, program="mitmdump")
    assert LIBRARY not in Path(f"/proc/{started.pid}/maps").read_text()


def test_without_uvloop_it_works_and_says_so_once(runner: Callable[..., Runner]) -> None:
    gateway = runner("--workers", "2", env={"EGRESS_NO_UVLOOP": "1"}).gateway
    assert request_via_proxy(gateway, "GET", f"http://{PLAIN}/echo").status == 200
    assert gateway.output.count("without uvloop") == 1
    assert "2 workers on asyncio, " in gateway.output


def test_what_works_on_flows_has_one_worker_and_that_is_said(runner: Callable[..., Runner], tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    gateway = runner("--workers", "2", "-w", str(flows)).gateway
    assert request_via_proxy(gateway, "GET", f"http://{PLAIN}/echo").status == 200
    assert gateway.output.count("one worker, because option save_stream_file works on flows") == 1
    assert gateway.metric("egress_workers_wanted") == 1
    assert gateway.stop() == 0
    assert flows.stat().st_size > 0


def test_the_inspect_path_has_several_workers(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "2", data_path="inspect")
    gateway = running.gateway
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(MANY)]
        for client in clients:
            assert request_over(client, "GET", f"http://{PLAIN}/echo", {"Host": PLAIN}).status == 200
        assert len(set(running.serving(clients))) == 2
        busy = stack.enter_context(closing(tunnel(gateway)))
        started = time.monotonic()
        running.kill(gateway.pid, signal.SIGTERM)
        assert all(client.recv(1) == b"" for client in clients)
        assert echo(busy)
        busy.close()
        assert gateway.wait_for_exit() == 0
        assert time.monotonic() - started < 15.0, "and not only after half a minute"
    assert "Traceback" not in gateway.output


@pytest.mark.parametrize("where", ["2>/dev/full", "2> >(exit)", ">/dev/full", "> >(exit)"])
def test_where_nobody_can_be_told_it_goes_on(runner: Callable[..., Runner], where: str) -> None:
    running = runner("--workers", "1", wait_ready=False)
    gateway = running.gateway
    gateway.stop()
    gateway.command[:0] = ["/bin/bash", "-c", f'exec "$@" {where}', "bash"]
    gateway.start()
    gateway.wait_ready()
    before = running.workers()
    gateway.write_rule("broken.yaml", "what: is this", wait=False)
    gateway.wait_for_metric("egress_rules_reloads_total", result="failure")
    assert request_via_proxy(gateway, "GET", f"http://{PLAIN}/echo").status == 200
    assert running.workers() == before


# --- when descriptors run out ---


def test_when_descriptors_run_out_clients_are_told_so_and_others_are_served_on(runner: Callable[..., Runner]) -> None:
    running = runner("--workers", "1", wait_ready=False)
    gateway = running.gateway
    gateway.stop()
    gateway.command[:0] = ["/bin/bash", "-c", 'ulimit -n 200; exec "$@"', "bash"]
    gateway.start()
    gateway.wait_ready()
    with contextlib.ExitStack() as stack:
        before = stack.enter_context(closing(tunnel(gateway)))
        asking = f"GET http://{PLAIN}/echo HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n".encode()
        clients = []
        for _ in range(200):
            clients.append(stack.enter_context(gateway.connect()))
            with contextlib.suppress(OSError):
                clients[-1].sendall(asking)
        statuses = []
        for client in clients:
            with contextlib.suppress(OSError):  # so many are told so at a time, the others are let go
                statuses.append(read_response(client).status)
        assert set(statuses) == {200, 503}, gateway.output
        assert statuses.count(200) >= 20
        assert statuses.count(503) >= 20
        assert echo(before)
        # Nobody spins.
        (worker,) = running.workers()
        eventually(lambda: _cpu_in(worker, 0.5) < 0.1, "a moment of rest")
    assert gateway.metric("egress_clients_turned_away_total", cause="descriptors") >= 20
    assert gateway.output.count("no room for more clients") == 1
    eventually(
        lambda: request_via_proxy(gateway, "GET", f"http://{PLAIN}/echo").status == 200, "room again", every=0.05
    )
    assert running.workers() == [worker]
    assert "Traceback" not in gateway.output


def _cpu(pid: int) -> float:
    """Seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu_in(pid: int, seconds: float) -> float:
    """Seconds that it uses meanwhile."""
    used = _cpu(pid)
    time.sleep(seconds)
    return _cpu(pid) - used


def test_on_the_inspect_path_a_client_that_is_gone_before_it_is_accepted_is_nobodys_error(
    runner: Callable[..., Runner],
) -> None:
    running = runner("--workers", "1", data_path="inspect")
    gateway = running.gateway
    (worker,) = running.workers()
    running.kill(worker, signal.SIGSTOP)
    with gateway.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    running.kill(worker, signal.SIGCONT)
    assert request_via_proxy(gateway, "GET", f"http://{PLAIN}/echo").status == 200
    assert "error" not in gateway.output.lower()
    assert "Traceback" not in gateway.output


def test_who_was_not_redirected_to_a_transparent_gateway_is_refused_and_counted(runner: Callable[..., Runner]) -> None:
    gateway = runner("--workers", "1", mode="transparent").gateway
    with gateway.connect() as client:
        assert client.recv(1) == b""
    entry = gateway.wait_for_log(reason="mode_not_supported")
    assert entry["detail"] == "the connection was not redirected here"
    assert gateway.metric("egress_internal_errors_total") in (None, 0)
    assert "Traceback" not in gateway.output


def test_the_operator_may_set_a_bound_for_all_workers_together(runner: Callable[..., Runner]) -> None:
    gateway = runner("--workers", "2", options={"egress_max_connections": 10}).gateway
    with contextlib.ExitStack() as stack:
        tunnels = [stack.enter_context(closing(tunnel(gateway))) for _ in range(10)]
        assert request_via_proxy(gateway, "GET", f"http://{PLAIN}/echo").status == 503
        assert gateway.metric("egress_clients_turned_away_total", cause="max_connections") == 1
        eventually(lambda: "egress_max_connections is 10" in gateway.output, "the reason in the log")
        tunnels[0].close()
        eventually(
            lambda: request_via_proxy(gateway, "GET", f"http://{PLAIN}/echo").status == 200, "room again", every=0.05
        )


def test_a_tunnel_that_is_reset_is_no_fault_of_ours(two_workers: Runner) -> None:
    """Compiled code would go on within the handling of the reset, see compile/pitfalls.py."""
    gateway = two_workers.gateway
    before = gateway.metric("egress_internal_errors_total") or 0
    for _ in range(6):
        with closing(tunnel(gateway)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: not gateway.metric("egress_connections", protocol="regular"), "all are over")
    assert request_via_proxy(gateway, "GET", f"http://{PLAIN}/echo").status == 200
    assert (gateway.metric("egress_internal_errors_total") or 0) == before
    assert "Traceback" not in gateway.output
