"""What can be seen wrong in the command line is said in one line, and nothing else is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from egress_gateway.network.command_line import parse_down, parse_up
from egress_gateway.network.layout import Kept
from egress_gateway.network.terminal import UsageError


def test_one_interface_is_enough() -> None:
    request = parse_up(["--inside", "eth1"])
    assert request.layout.inside == ("eth1",)
    assert (request.layout.proxy_port, request.layout.dns_port) == (8080, 5353)
    assert request.follow
    assert not request.start
    assert request.state == Path("/run/egress-gateway")


def test_everything_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    request = parse_up(
        [
            *("--inside", "eth1", "--inside=eth2", "--inside", "eth1", "--outside", "eth0", "--rules", "here"),
            *("--proxy-port", "9000", "--dns-port=9053", "--keep", "tcp/22", "--keep=icmp", "--sidecar"),
            *("--user", "egress", "--start", "--metrics-listen", "[::1]:9999", "--ready-timeout", "5", "--no-follow"),
            *("--dry-run", "--state-dir", "state", "-o", "json", "--", "--access-log", "-", "--", "more"),
        ]
    )
    assert request.layout.inside == ("eth1", "eth2")
    assert request.layout.kept == (Kept("tcp", 22), Kept("icmp"))
    assert request.rules == str(tmp_path / "here")
    assert request.state == tmp_path / "state"
    assert request.more == ("--access-log", "-", "--", "more")
    assert (request.sidecar, request.start, request.follow, request.dry_run, request.json) == (1, 1, 0, 1, 1)


def test_the_rules_are_those_of_the_environment_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGRESS_RULES", "/etc/egress/rules")
    assert parse_up(["--inside", "eth1"]).rules == "/etc/egress/rules"
    assert parse_up(["--inside", "eth1", "--rules", "/other"]).rules == "/other"
    monkeypatch.setenv("EGRESS_RULES", "")
    assert parse_up(["--inside", "eth1"]).rules.endswith("/rules")


INSIDE = ("--inside", "eth1")
WRONG = {
    "nothing": ((), "say where the clients are: --inside IF, or --sidecar"),
    "an unknown option": ((*INSIDE, "--forse"), "unrecognized arguments: --forse"),
    "a shortened option": (("--insid", "eth1"), "unrecognized arguments: --insid eth1"),
    "a word too many": ((*INSIDE, "eth2"), "unrecognized arguments: eth2"),
    "an option without its value": (("--inside",), "--inside: expected one argument"),
    "no name of an interface": (("--inside", "eth1; flush ruleset"), "is no interface's name"),
    "a quote in an interface": (("--inside", 'eth"1'), "is no interface's name"),
    "all interfaces at once": (("--inside", "eth*"), "is no interface's name"),
    "an interface that is too long": (("--inside", "a" * 16), "is no interface's name"),
    "lo inside": (("--inside", "lo"), "lo is this host itself, and the gateway would loop"),
    "lo outside": ((*INSIDE, "--outside", "lo"), "lo is this host itself, and the gateway would loop"),
    "inside is outside": ((*INSIDE, "--outside", "eth1"), "eth1 cannot be both inside and outside"),
    "one port for both": ((*INSIDE, "--dns-port", "8080"), "cannot share port 8080"),
    "a port that is none": ((*INSIDE, "--proxy-port", "0"), r"'0' is not a port \(use 1-65535\)"),
    "sidecar without a user": (("--sidecar",), "--sidecar needs --user NAME"),
    "start without a user": ((*INSIDE, "--start"), "--start needs --user NAME"),
    "a user for nothing": ((*INSIDE, "--user", "egress"), "--user says whom --start or --sidecar is about"),
    "arguments for a gateway that is not started": ((*INSIDE, "--", "-q"), "arguments after -- are for the gateway"),
    "the rules of the gateway alone": (
        (*INSIDE, "--start", "--user", "x", "--", "--rules=/x"),
        "--rules is gateway-up's own option",
    ),
    "the proxy port kept": ((*INSIDE, "--keep", "tcp/8080"), "--keep tcp/8080 would open the gateway's own port"),
    "another resolver kept": ((*INSIDE, "--keep", "udp/53"), "--keep udp/53 would open the gateway's own port"),
    "something kept that is nothing": ((*INSIDE, "--keep", "ssh"), "'ssh' is nothing to keep"),
    "no time at all": ((*INSIDE, "--ready-timeout", "0"), "'0' is not a number of seconds"),
    "no place for metrics": ((*INSIDE, "--metrics-listen", "9464"), "'9464' is not an address to listen on"),
    "metrics at a bare IPv6 address": ((*INSIDE, "--metrics-listen", "::1:9464"), "is not an address to listen on"),
    "an output that there is not": ((*INSIDE, "-o", "yaml"), "invalid choice: 'yaml'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case: str) -> None:
    arguments, said = WRONG[case]
    with pytest.raises(UsageError, match=said) as raised:
        parse_up(arguments)
    assert "\n" not in str(raised.value)


def test_down_takes_a_directory_and_a_form() -> None:
    assert parse_down([]).state == Path("/run/egress-gateway")
    assert parse_down(["--state-dir", "/x", "-o", "json"]).json
    with pytest.raises(UsageError, match="unrecognized arguments: --inside"):
        parse_down(["--inside", "eth1"])
