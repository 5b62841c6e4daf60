"""The gateway, started by gateway-up as an ordinary user: it works, it is waited for, and it goes with the rest."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dns.message
import dns.query
import pytest

from egress_gateway.network.gateway_process import Readiness, command, environment, home_of, wait_ready
from egress_gateway.network.machine import User, ordinary_user
from egress_gateway.network.processes import Process
from egress_gateway.network.terminal import Failure
from support.attempts import tcp
from support.dns_server import DnsServer
from support.gateway_machine import Done, GatewayMachine
from support.http import request_over
from support.networks import PUBLIC_RANGES, TwoNetworks
from support.ordinary_user import NAME, reachable
from support.origin import Origins
from support.sockets import free_port
from support.waiting import PATIENCE

pytestmark = [pytest.mark.private_network, pytest.mark.root]

INSIDE = ("--inside", "inside")
START = ("--start", "--user", NAME)


class Running(NamedTuple):
    machine: GatewayMachine
    arguments: tuple[str, ...]
    before: tuple[str, ...]
    done: Done

    def again(self, *more: str) -> Done:
        return self.machine.up(*self.arguments, *more, before=self.before)

    @property
    def process(self) -> Process:
        found = Process.read(self.machine.state / "gateway.json")
        assert found
        return found


@pytest.fixture(scope="module")
def internet_dns(networks: TwoNetworks) -> Iterator[DnsServer]:
    with networks.names.entered():
        server = DnsServer("::", 53)
    with server:
        server.set("web.example", [networks.web.ipv4, networks.web.ipv6])
        yield server


@pytest.fixture(scope="module", params=["inside", "sidecar"])
def running(request: pytest.FixtureRequest, networks: TwoNetworks, internet_dns: DnsServer) -> Iterator[Running]:
    """By the scripts themselves, as users do it."""
    form = {"inside": INSIDE, "sidecar": ("--sidecar",)}[request.param]
    options = (f"egress_dns_servers={networks.names.ipv4}:53", f"egress_public_ranges={PUBLIC_RANGES}")
    arguments = (*form, *START, "--", *(text for option in options for text in ("--set", option)))
    with GatewayMachine(networks.gateway) as machine:
        (machine.folder / "held").mkdir()
        before = tuple(reachable(machine.folder / "held"))
        yield Running(machine, arguments, before, machine.up(*arguments, script=True, before=before).check())


def test_it_is_ready_before_the_table_is_loaded(running: Running) -> None:
    said = [line.removeprefix("gateway-up: ") for line in running.done.lines]
    assert said[0].startswith(f"the gateway is ready, as user {NAME} (pid {running.process.pid}, log in ")
    assert said[1] == "loaded nftables table inet egress_gateway"
    assert not [line for line in said if "warning" in line]


def test_it_runs_as_the_ordinary_user_with_nothing_of_roots(running: Running) -> None:
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    user = ordinary_user(NAME)
    assert f"\nUid:\t{user.uid}\t{user.uid}\t{user.uid}\t{user.uid}\n" in status
    assert f"\nGid:\t{user.gid}\t{user.gid}\t{user.gid}\t{user.gid}\n" in status
    assert "\nCapEff:\t0000000000000000\n" in status
    variables = Path(f"/proc/{running.process.pid}/environ").read_bytes().decode().split("\0")
    assert f"HOME={running.machine.state}/home" in variables  # that user has none
    assert not [variable for variable in variables if variable.startswith("SUDO")]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_clients_come_through_it(family: str, running: Running, networks: TwoNetworks, origin: Origins) -> None:
    client = networks.client if running.arguments[0] == "--inside" else networks.gateway
    address = getattr(networks.web, family)
    with networks.web.entered():
        server = origin.http(address)
    with client.connect(address, 80) as sock:
        assert request_over(sock, "GET", "/", {"Host": "web.example"}).status == 200
    with client.connect(address, 80) as sock:
        assert request_over(sock, "GET", "/", {"Host": "evil.example"}).status == 403
    (connection,) = server.connections
    assert connection.peer[0] == {"ipv4": "203.0.113.1", "ipv6": "2001:db8::1"}[family]
    assert tcp(2222)(client, address) == "refused"


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_clients_ask_it_for_names(family: str, running: Running, networks: TwoNetworks) -> None:
    client = networks.client if running.arguments[0] == "--inside" else networks.gateway
    with client.entered():
        for ask in (dns.query.udp, dns.query.tcp):
            answer = ask(dns.message.make_query("web.example", "A"), getattr(networks.evil, family), timeout=PATIENCE)
            assert [str(record) for records in answer.answer for record in records] == [networks.web.ipv4]


def test_twice_is_once(running: Running) -> None:
    before = running.process
    done = running.again().check()
    assert f"gateway-up: the gateway runs already (pid {before.pid})" in done.lines
    assert running.process == before
    assert before.runs


def test_another_one_is_not_started_beside_it(running: Running) -> None:
    loaded = running.machine.ruleset()
    done = running.again("--set", "egress_idle_timeout=5")
    assert done.code == 1
    assert done.lines == [
        f"gateway-up: a gateway with other arguments runs already, pid {running.process.pid} (gateway-down ends it)"
    ]
    assert running.machine.ruleset() == loaded
    assert running.process.runs


def test_without_start_it_is_left_alone(running: Running) -> None:
    form = ("--sidecar", "--user", NAME) if running.arguments[0] == "--sidecar" else INSIDE
    told = json.loads(running.machine.up(*form, "-o", "json", before=running.before).check().out)
    assert told["gateway"] == running.process.pid
    assert told["warnings"] == []


# What does not work.


def test_one_that_is_never_ready_is_not_waited_for_without_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\n\ntwo\n")
    with subprocess.Popen(["sleep", "60"]) as started:
        try:
            with pytest.raises(Failure, match=r"was not ready within 0.2 s \(.*refused\): one \| two"):
                wait_ready(started, Readiness("127.0.0.1", free_port()), tmp_path / "log", 0.2)
        finally:
            started.kill()


# Its command line and surroundings.


def test_what_the_operator_says_comes_in_the_place_of_the_defaults() -> None:
    plain = command(8080, 5353, "/rules", "127.0.0.1:9464", ())
    assert plain[1:5] == ("--rules", "/rules", "--metrics-listen", "127.0.0.1:9464")
    assert plain[5:7] == ("--drain-timeout", "5")
    assert plain[7:11] == ("--mode", "transparent@8080", "--mode", "dns@5353")
    assert plain[11:] == ("--set", "flow_detail=0", "--set", "block_global=false")
    more = ("--access-log", "/var/log/flow_detail=/block_global=true.jsonl")
    assert command(8080, 5353, "/r", "m", more)[11:] == (*plain[11:], *more), "a path is no setting"
    both = ("--set", "flow_detail=1", "--set=block_global=true")
    assert command(8080, 5353, "/rules", "127.0.0.1:9464", both)[11:] == both


def test_nothing_of_roots_surroundings_goes_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    found = environment(User("egress", 1000, 1000, "/home/egress"), tmp_path)
    assert "SECRET" not in found
    assert found["LANG"] == "C.UTF-8"
    assert found["HOME"] == str(tmp_path)


def test_its_home_is_the_users_own_or_one_of_ours(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    assert home_of(User("root", 0, 0, str(own)), tmp_path / "ours") == own
    ours = home_of(User("somebody", 4711, 4711, str(own)), tmp_path / "ours")
    assert ours == tmp_path / "ours"
    assert ours.stat().st_uid == 4711
    assert ours.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9464", "127.0.0.1", 9464),
        ("[::1]:9464", "::1", 9464),
        (":9464", "127.0.0.1", 9464),
        ("0.0.0.0:1", "127.0.0.1", 1),
        ("[::]:1", "::1", 1),
    ],
)
def test_where_to_ask_whether_it_is_ready(text: str, host: str, port: int) -> None:
    assert Readiness.parse(text) == Readiness(host, port)
