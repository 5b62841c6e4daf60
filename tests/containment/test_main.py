"""The program as a client's machine runs it: `scripts/gateway-check`, by whatever Python there is."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from egress_gateway.containment.options import parse
from support.containment_checks import PATIENT
from support.everything import Everything
from support.gateway_stand_in import GatewayStandIn
from support.networks import TwoNetworks

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "gateway-check"
CARRIED = (
    "scripts/gateway-check",
    "scripts/lib.sh",
    "addons/egress_gateway/__init__.py",
    "addons/egress_gateway/containment",
)


@pytest.fixture
def targets(networks: TwoNetworks, everything: Everything) -> list[str]:
    """IPv4 only: there nothing is dropped, so it is over as soon as all is refused."""
    return ["--target", networks.evil.ipv4, "--no-ipv6", *PATIENT]


def run_script(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=60, **more)


def test_a_contained_client_sees_a_table_and_exits_with_0(
    networks: TwoNetworks, gateway: GatewayStandIn, targets: list[str]
) -> None:
    done = networks.client.run(SCRIPT, *targets, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.split(r" {2,}", lines[0]) == ["CHECK", "IP", "TARGET", "RESULT", "HOW"]
    assert re.split(r" {2,}", lines[1])[:4] == ["UDP 443 (QUIC)", "IPv4", "203.0.113.66:443", "stopped"]
    assert lines[-3:-1] == ["", "IPv4: the gateway is next door (10.66.0.1)"]
    assert lines[-1] == ("28 stopped, 0 open, 0 broken, 0 untested: nothing goes round the gateway")


def test_a_way_out_is_shown_and_exits_with_1(
    networks: TwoNetworks, gateway: GatewayStandIn, targets: list[str]
) -> None:
    with gateway.without("refused: QUIC"):
        quiet = networks.client.run(SCRIPT, *targets, "--quiet", check=False)
        said = networks.client.run(SCRIPT, *targets, "-o", "json", check=False)
    assert quiet.returncode == said.returncode == 1
    assert quiet.stdout.splitlines()[1].split()[:3] == ["UDP", "443", "(QUIC)"]
    assert quiet.stdout.endswith("\n27 stopped, 1 open, 0 broken, 0 untested: there are ways round the gateway\n")
    document = json.loads(said.stdout)
    assert document["contained"] is False
    assert document["summary"]["open"] == 1
    assert {row["check"] for row in document["rows"] if row["status"] == "open"} == {"UDP 443 (QUIC)"}
    assert document["gateway"]["IPv4"] == {"addresses": ["10.66.0.1"], "hops": 1, "found": True}


def test_quiet_and_contained_says_nothing(networks: TwoNetworks, gateway: GatewayStandIn, targets: list[str]) -> None:
    done = networks.client.run(SCRIPT, *targets, "-q", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@contextlib.contextmanager
def a_clients_copy() -> Iterator[Path]:
    """What the manual says is enough, where anybody may read it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in CARRIED:
            source, target = ROOT / name, Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        yield Path(folder)


def test_what_needs_rights_is_untested_without_them(
    networks: TwoNetworks, gateway: GatewayStandIn, everything: Everything
) -> None:
    """Run as a carried copy, without the right to raw sockets."""
    drop = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
    with a_clients_copy() as copy:
        script, both = (
            copy / "scripts" / "gateway-check",
            ("--target", networks.evil.ipv4, "--target", networks.evil.ipv6),
        )
        done = networks.client.run(*drop, script, *both, *PATIENT, "-o", "json", check=False)
        assert not list(copy.rglob("__pycache__"))
    assert done.stderr == ""
    rows = json.loads(done.stdout)["rows"]
    untested = {(row["check"], row["family"]): row["how"] for row in rows if row["status"] == "untested"}
    assert untested[("IP protocol 47 (GRE)", "IPv4")] == "needs root, for a raw socket"
    assert untested[("IPv6 headers cut short", "IPv6")] == "needs root, for a raw socket"
    assert untested[("ICMP echo", "IPv6")].startswith("this user may not send ICMP: run it as root")
    assert {row["status"] for row in rows} == {"stopped", "untested"}
    assert len(untested) == 2 * 4 + 1 + 2
    assert done.returncode == 0


def test_a_ping_socket_will_do(networks: TwoNetworks, gateway: GatewayStandIn, targets: list[str]) -> None:
    drop = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
    networks.client.run("sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 1000")
    try:
        done = networks.client.run(*drop, SCRIPT, *targets, "-o", "json", check=False)
        with gateway.without("refused: ICMP"):
            leaks = networks.client.run(*drop, SCRIPT, *targets, "-o", "json", check=False)
    finally:
        networks.client.run("sysctl", "-q", "-w", "net.ipv4.ping_group_range=1 0")
    for run, status in ((done, "stopped"), (leaks, "open")):
        rows = json.loads(run.stdout)["rows"]
        assert [row["status"] for row in rows if row["check"] == "ICMP echo"] == [status]


def test_on_a_terminal_there_are_colours_and_a_counter(
    networks: TwoNetworks, gateway: GatewayStandIn, targets: list[str]
) -> None:
    def shown(**environment: str) -> str:
        ours, its = pty.openpty()
        with networks.client.entered():
            command = [str(SCRIPT), *targets, "--ports", "22"]
            with subprocess.Popen(command, stdout=its, stderr=its, env=os.environ | environment) as run:
                os.close(its)
                written = b""
                with contextlib.suppress(OSError):  # how Linux says that nobody has the terminal open any more
                    while part := os.read(ours, 4096):
                        written += part
                run.wait(timeout=30)
        os.close(ours)
        return written.decode()

    text = shown(TERM="xterm", NO_COLOR="")
    assert "\x1b[32mstopped\x1b[0m" in text
    assert "\r\x1b[Kgateway-check: 0 of 22 ways tried, up to 30 s\r\x1b[K" in text
    assert re.search(r"\r\x1b\[KCHECK", text)  # the counter is gone before the table comes
    assert "\x1b[32m" not in shown(TERM="xterm", NO_COLOR="1")


def test_a_reader_that_goes_away_early_is_no_disaster(
    networks: TwoNetworks, gateway: GatewayStandIn, targets: list[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = networks.client.run(
        SCRIPT, *targets, check=False, capture_output=False, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_manual_names_every_option_with_its_default() -> None:
    done = run_script("--ports", "x", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    titles = [line for line in done.stdout.splitlines() if line.isupper() and not line.startswith(" ")]
    assert titles == [
        "NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "EXAMPLES", "EXIT STATUS", "SEE ALSO",
    ]  # fmt: skip
    own = subprocess.run(
        [sys.executable, "-m", "egress_gateway.containment", "--help"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "addons")},
        capture_output=True,
        text=True,
        check=True,
    )
    options = set(re.findall(r"--[a-z0-9-]+", own.stdout))
    assert "--dns-server" in options
    assert options <= set(re.findall(r"--[a-z0-9-]+", done.stdout))
    given = parse([])
    for default in (given.ports, given.udp_ports, given.gateway_ports):
        assert f"Default: {','.join(map(str, default))}" in done.stdout
    assert f"Default: {given.denied_name}" in done.stdout
    assert f"Default: {given.timeout:g}" in done.stdout


def test_a_command_line_that_is_not_understood_exits_with_2() -> None:
    done = run_script("--target", "example.com")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "gateway-check: argument --target: 'example.com' is not an IP address (see gateway-check --help)\n"
    )


def test_without_a_usable_python_it_says_so(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = run_script(env=os.environ | {"EGRESS_PYTHON": str(old)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"gateway-check: no Python 3.9 or later: {old} (set EGRESS_PYTHON to one)\n"


def test_nothing_of_the_users_comes_between(tmp_path: Path) -> None:
    """A file with the name of a module of Python's, in the current folder or on the user's path."""
    (tmp_path / "socket.py").write_text("raise SystemExit('not this one')\n")
    done = run_script("--timeout", "x", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    assert "is not a time" in done.stderr
