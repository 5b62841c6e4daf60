"""gateway-up as a whole: twice is once, down is as before, and what fails leaves nothing."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from egress_gateway.network.processes import Process
from support.attempts import as_user
from support.gateway_machine import Done, GatewayMachine
from support.networks import TwoNetworks
from support.ordinary_user import NAME

pytestmark = [pytest.mark.private_network, pytest.mark.root]

SEES_ITS_OWN_INTERFACES = ("unshare", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$@"', "sh")

FOREIGN = """
table inet others {
    chain forward { type filter hook forward priority 0; policy accept; tcp dport 25 counter drop; }
}
table ip nat {
    chain postrouting { type nat hook postrouting priority 100; policy accept; oifname "outside" masquerade; }
}
"""


def test_twice_is_once_and_down_leaves_the_machine_as_it_was(machine: GatewayMachine) -> None:
    machine.nft("-f", "-", text=FOREIGN)
    before = machine.ruleset()

    machine.up("--inside", "inside", "--outside", "outside", script=True).check()
    once, first = machine.ruleset(), Process.read(machine.state / "keeper.json")
    machine.up("--inside", "inside", "--outside", "outside").check()
    assert machine.ruleset() == once
    assert re.findall(r"^table .*(?= {)", once, re.MULTILINE) == [
        "table inet others",
        "table ip nat",
        "table inet egress_gateway",
    ]
    second = Process.read(machine.state / "keeper.json")
    assert first
    assert second
    assert not first.runs
    assert second.runs

    down = machine.down(script=True).check()
    assert down.lines == [
        f"gateway-down: ended the keeper (pid {second.pid})",
        "gateway-down: removed nftables table inet egress_gateway",
    ]
    assert machine.ruleset() == before
    assert not second.runs
    assert not machine.state.exists()

    again = machine.down().check()
    assert again.lines == ["gateway-down: nothing to do"]
    assert not machine.state.exists()


def test_it_says_what_it_does_a_line_a_step(machine: GatewayMachine) -> None:
    done = machine.up("--inside", "inside", "--keep", "tcp/22", "-o", "json").check()
    said = "\n".join(done.lines)
    assert "warning: nothing listens on proxy port 8080 yet: clients are refused until the gateway runs" in said
    assert "loaded nftables table inet egress_gateway" in said
    assert "clients are what comes in by inside" in said
    assert "DNS goes to port 5353, TCP to port 8080, everything else is refused" in said
    assert "this machine forwards, which the gateway does not need: without the table, clients would pass" in said
    assert "TCP ports redirected: 80, 443, 8443" in said
    assert f"following {machine.rules}: the ports change as the rules do" in said
    assert all(line.startswith("gateway-up: ") for line in done.lines)

    told = json.loads(done.out)
    assert told["table"] == "inet egress_gateway"
    assert told["ports"] == [80, 443, 8443]
    assert told["inside"] == ["inside"]
    assert told["kept"] == ["tcp/22"]
    assert told["ipv6"] is True
    assert told["gateway"] is None
    assert len(told["warnings"]) == 2
    ended = json.loads(machine.down("-o", "json").check().out)
    assert ended == {"keeper": told["keeper"], "gateway": None, "table": "inet egress_gateway"}


def test_without_a_keeper_nothing_runs_afterwards(machine: GatewayMachine) -> None:
    machine.up("--inside", "inside", "--no-follow").check()
    assert machine.ports() == {80, 443, 8443}
    assert machine.host.processes() == []


def test_a_second_one_may_want_something_else(machine: GatewayMachine) -> None:
    machine.install("--inside", "inside")
    machine.install("--inside", "outside", "--proxy-port", "9000")
    assert "redirect to :9000" in machine.ruleset()
    assert 'iifname "inside"' not in machine.ruleset()


# What is printed only.


def test_a_dry_run_prints_what_would_be_loaded_and_touches_nothing(
    machine: GatewayMachine, checked: Callable[..., Done]
) -> None:
    done = checked("--inside", "inside", "--dry-run", uid=65534).check()
    assert done.err == ""
    assert machine.ruleset() == ""
    assert not machine.state.exists()
    machine.nft("-f", "-", text=done.out)
    loaded = machine.ruleset()
    machine.install("--inside", "inside")
    assert machine.ruleset() == loaded


def test_a_dry_run_for_programs(machine: GatewayMachine, checked: Callable[..., Done]) -> None:
    told = json.loads(checked("--sidecar", "--user", NAME, "--dry-run", "-o", "json").check().out)
    assert told["exemptUid"] == 65534
    assert "meta skuid != 65534" in told["ruleset"]


# What cannot be done: one line with the fix, and nothing is changed.

INSIDE = ("--inside", "inside")
BAD = {
    "no such interface": (("--inside", "eth7"), 1, "there is no interface eth7 (there are: inside, lo, outside)"),
    "no such interface outside": ((*INSIDE, "--outside", "eth7"), 1, "there is no interface eth7 (there are: "),
    "the rules directory is not there": ((*INSIDE, "--rules", "/nonexistent"), 1, "create it: mkdir -p /nonexistent"),
    "no such user": (
        ("--sidecar", "--user", "nobody-at-all"),
        1,
        "there is no user 'nobody-at-all' (create it: useradd --system --shell /usr/sbin/nologin nobody-at-all)",
    ),
    "the gateway's user is root": (("--sidecar", "--user", "root"), 1, "the gateway runs as an ordinary user"),
    "started as root": ((*INSIDE, "--start", "--user", "root"), 1, "the gateway runs as an ordinary user"),
    "a port that needs root": (
        (*INSIDE, "--start", "--user", NAME, "--dns-port", "53"),
        1,
        "user nobody may not listen on port 53 (choose --dns-port 1024 or higher)",
    ),
    "a state directory that is a file": ((*INSIDE, "--state-dir", "/etc/hostname"), 1, "is not a directory"),
    "a state directory of everybody": ((*INSIDE, "--state-dir", "/tmp"), 1, "/tmp belongs to others (it must belong"),
    "inside and outside are one": ((*INSIDE, "--outside", "inside"), 2, "the gateway would loop"),
    "nothing is said at all": ((), 2, "say where the clients are: --inside IF"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_changes_nothing(
    case: str, machine: GatewayMachine, checked: Callable[..., Done]
) -> None:
    arguments, code, said = BAD[case]
    refused(checked(*arguments), machine, said, code=code)


def test_rules_that_do_not_load_are_named(machine: GatewayMachine, checked: Callable[..., Done]) -> None:
    machine.write_rule("bad.yaml", "kind: EgressRule\n")
    refused(checked(*INSIDE), machine, f"{machine.rules}/bad.yaml:1:1: ")


def test_it_needs_root(machine: GatewayMachine, checked: Callable[..., Done]) -> None:
    said = "gateway-up changes the packet filter and needs root (run it with sudo)"
    refused(checked(*INSIDE, uid=65534), machine, said)


@pytest.mark.parametrize("which", ["up", "down"])
def test_it_needs_nft(which: str, machine: GatewayMachine) -> None:
    found = {path for path in ("/usr/local/sbin/nft", "/usr/sbin/nft", "/sbin/nft") if os.path.exists(path)}
    hidden = "".join(f"mount --bind /dev/null {path}; " for path in sorted({os.path.realpath(path) for path in found}))
    before = ("unshare", "--mount", "sh", "-c", f'{hidden}exec "$@"', "sh")
    done = machine.up(*INSIDE, before=before) if which == "up" else machine.down(before=before)
    refused(done, machine, "nft is not installed (Debian, Ubuntu: apt-get install nftables; ")


def test_it_needs_a_kernel_that_rejects_what_comes_in(
    machine: GatewayMachine, checked: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What nft 1.0 on Linux 5.8 says to it. No such kernel is at hand, so a script says it.
    said = "/dev/stdin:{line}:9-60: Error: Could not process rule: Operation not supported"
    script = '#!/bin/sh\nline=$(grep -n "reject with tcp" | head -n1 | cut -d: -f1)\necho "' + said + '" >&2\nexit 1\n'
    (machine.folder / "nft").write_text(script.replace("{line}", "$line"))
    (machine.folder / "nft").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{machine.folder}:{os.environ['PATH']}")
        done = checked(*INSIDE)
    refused(done, machine, "the packet filter needs Linux 5.9 or newer with nft_reject_inet: nft: Could not process")


@pytest.mark.parametrize(
    ("transport", "port", "option"),
    [
        ("TCP", 8080, "--proxy-port"),
        ("TCP", 5353, "--dns-port"),
        ("UDP", 5353, "--dns-port"),
        ("TCP", 9464, "--metrics"),
    ],
)
@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_a_port_that_is_taken_is_told_with_who_holds_it(
    address: str, transport: str, port: int, option: str, machine: GatewayMachine, checked: Callable[..., Done]
) -> None:
    with listening(machine, transport, address, port):
        done = checked(*INSIDE, "--start", "--user", NAME)
    refused(done, machine, f"{transport} port {port} is taken by ", option, f"(pid {os.getpid()}, user root)")


def test_a_metrics_port_of_another_address_is_free(machine: GatewayMachine, checked: Callable[..., Done]) -> None:
    with listening(machine, "TCP", "203.0.113.1", 9464), listening(machine, "UDP", "0.0.0.0", 5353):
        refused(checked(*INSIDE, "--start", "--user", NAME), machine, "UDP port 5353 is taken by ")


def test_a_sidecar_that_would_loop_is_refused(machine: GatewayMachine, checked: Callable[..., Done]) -> None:
    with listening(machine, "TCP", "127.0.0.1", 8080):
        done = checked("--sidecar", "--user", NAME)
    refused(done, machine, "the gateway would loop: proxy port 8080 is held by ", "user root) (run it as nobody, or")
    with listening(machine, "UDP", "::", 5353):
        done = checked("--sidecar", "--user", NAME)
    # The warning comes first: nothing is at the proxy port.
    assert done.code == 1
    assert "the gateway would loop: DNS port 5353 is held by " in done.lines[-1]
    assert machine.ruleset() == ""


@pytest.mark.parametrize("server", ["127.0.0.53", "203.0.113.1", "2001:db8::1"])
def test_a_name_server_on_this_host_would_ask_through_the_gateway_that_asks_it(
    server: str, machine: GatewayMachine
) -> None:
    sidecar, said = ("--sidecar", "--user", NAME), f"name server {server} of /etc/resolv.conf is on this host"
    here = with_resolv_conf(machine, f"nameserver {server}\n")
    refused(machine.up(*sidecar, "--start", before=here), machine, f"the gateway would loop: {said}", "-- --set egr")
    done = machine.up(*sidecar, "--no-follow", before=here).check()
    assert [line for line in done.lines if f"warning: {said}" in line]


def test_a_name_server_elsewhere_or_of_the_gateways_own_user_does_not(machine: GatewayMachine) -> None:
    sidecar = ("--sidecar", "--user", NAME, "--no-follow")
    elsewhere = with_resolv_conf(machine, "nameserver 203.0.113.53\nsearch example\n")
    assert "/etc/resolv.conf" not in machine.up(*sidecar, before=elsewhere).check().err
    with listening(machine, "UDP", "127.0.0.53", 53, uid=65534):
        resolved = with_resolv_conf(machine, "nameserver 127.0.0.53\n")
        assert "/etc/resolv.conf" not in machine.up(*sidecar, before=resolved).check().err


def test_a_gateway_that_was_given_name_servers_asks_those(machine: GatewayMachine) -> None:
    listen = "import os, socket, time; os.seteuid(65534); s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 5353))"
    words = (sys.executable, "-c", f"{listen}; print(flush=True); time.sleep(60)")
    with machine.host.entered():
        gateway = subprocess.Popen((*words, "--set", "egress_dns_servers=203.0.113.53"), stdout=subprocess.PIPE)
    try:
        assert gateway.stdout
        gateway.stdout.readline()
        resolved = with_resolv_conf(machine, "nameserver 127.0.0.53\n")
        done = machine.up("--sidecar", "--user", NAME, "--no-follow", before=resolved).check()
        assert "/etc/resolv.conf" not in done.err
    finally:
        gateway.kill()
        gateway.communicate()


def test_what_cannot_be_finished_is_taken_back(machine: GatewayMachine) -> None:
    """The table is there already when the keeper, or something before it, turns out not to work."""
    machine.install("--inside", "inside", "--proxy-port", "9000")
    before, installed = machine.ruleset(), (machine.state / "installed.json").read_text()
    (machine.state / "keeper.log").mkdir()
    done = machine.up("--inside", "inside")
    (machine.state / "keeper.log").rmdir()
    assert done.code == 1
    assert done.lines[-1] == f"gateway-up: {machine.state}/keeper.log: Is a directory"
    assert machine.ruleset() == before
    assert (machine.state / "installed.json").read_text() == installed
    assert machine.host.processes() == []


def test_an_interface_whose_packets_come_in_by_its_bridge_is_told(machine: GatewayMachine) -> None:
    ip = "link add name br9 type bridge\nlink add name port9 type veth peer name far9\nlink set port9 master br9\n"
    machine.host.run("ip", "-batch", "-", input=ip)
    try:
        done = machine.up("--inside", "port9", before=SEES_ITS_OWN_INTERFACES)
        refused(done, machine, "port9 is a port of br9, by which its packets come in (use --inside br9)")
    finally:
        machine.host.run("ip", "-batch", "-", input="link del port9\nlink del br9\n")


def test_an_interface_without_addresses_is_warned_about(machine: GatewayMachine, checked: Callable[..., Done]) -> None:
    machine.host.run("ip", "link", "add", "name", "bare9", "type", "veth", "peer", "name", "far9")
    try:
        done = checked("--inside", "bare9", "--outside", "inside", "--dry-run").check()
    finally:
        machine.host.run("ip", "link", "del", "bare9")
    assert done.lines == [
        "gateway-up: warning: bare9 has no IPv4 address, so clients there are not served over IPv4",
        "gateway-up: warning: bare9 has no IPv6 address, so clients there are not served over IPv6",
        "gateway-up: warning: no default route leaves by inside",
    ]


def test_one_arm_is_warned_about(checked: Callable[..., Done]) -> None:
    done = checked("--inside", "outside", "--dry-run").check()
    assert done.lines == [
        "gateway-up: warning: the default route leaves by outside too, so clients there can claim to be anybody outside"
    ]


def test_without_ipv6_it_goes_on_and_says_so(machine: GatewayMachine) -> None:
    # In a network of its own, since addresses do not come back when IPv6 does.
    elsewhere = (
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1; "
        'ip link add name inside type veth peer name far; ip addr add 10.66.0.1/24 dev inside; "$@"; nft list tables'
    )
    done = machine.up(*INSIDE, "--no-follow", before=("unshare", "--net", "sh", "-ec", elsewhere, "sh")).check()
    assert [line for line in done.lines if "IPv6" in line] == [
        "gateway-up: IPv6 is switched off on this machine: going on with IPv4 only"
    ]
    assert done.out == "table inet egress_gateway\n"


def test_two_networks_do_not_share_a_state_directory(
    machine: GatewayMachine, networks: TwoNetworks, checked: Callable[..., Done]
) -> None:
    machine.up(*INSIDE).check()
    with GatewayMachine(networks.web) as other:
        other.state = machine.state
        for done in (other.up("--inside", "eth0"), other.down()):
            assert done.code == 1
            assert "is in use by a gateway in another network namespace (name another --state-dir)" in done.err
        assert other.ruleset() == ""
        other.state = other.folder / "state"
    assert machine.ports() == {80, 443, 8443}


def test_a_proxy_on_loopback_is_warned_about(machine: GatewayMachine) -> None:
    with listening(machine, "TCP", "127.0.0.1", 8080), listening(machine, "UDP", "0.0.0.0", 5353):
        done = machine.up(*INSIDE, "--no-follow").check()
    (warning,) = [line for line in done.lines if "warning" in line]
    assert "proxy port 8080 is listened to on loopback only, which clients do not reach" in warning


def refused(done: Done, machine: GatewayMachine, *said: str, code: int = 1) -> None:
    """One line that has all of `said`; nothing was installed, and nothing runs."""
    assert done.code == code, done.err
    (line,) = done.lines
    assert re.match("gateway-(up|down): ", line)
    for text in said:
        assert text in line
    assert done.out == ""
    assert machine.ruleset() == ""
    assert not machine.state.exists()
    assert machine.host.processes() == []


def with_resolv_conf(machine: GatewayMachine, text: str) -> tuple[str, ...]:
    """Words to put before a command that is to see this file."""
    file = machine.folder / "resolv.conf"
    file.write_text(text)
    script = f'mount --bind {file} "$(realpath /etc/resolv.conf)" && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


@contextmanager
def listening(machine: GatewayMachine, transport: str, address: str, port: int, uid: int = 0) -> Iterator[None]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if transport == "TCP" else socket.SOCK_DGRAM
    with machine.host.entered(), as_user(uid):
        sock = socket.socket(family, kind)
    with closing(sock):
        sock.bind((address, port))
        if transport == "TCP":
            sock.listen()
        yield
