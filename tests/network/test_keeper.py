"""The keeper: the ports are those of the rules soon afterwards, and stay when the rules do not load."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from egress_gateway.config.watch import RulesWatcher
from egress_gateway.network.keeper import _RETRY_SECONDS, _SETTLE_SECONDS
from egress_gateway.network.processes import Process
from support.gateway_machine import GatewayMachine
from support.lab import rule
from support.networks import TwoNetworks
from support.waiting import eventually

pytestmark = [pytest.mark.private_network, pytest.mark.root]

MORE = rule("more", "more.example", "9000 tcp", "9443 https")


@pytest.fixture(scope="module")
def kept(networks: TwoNetworks) -> Iterator[GatewayMachine]:
    """One keeper for nearly all tests here."""
    with GatewayMachine(networks.gateway) as machine:
        machine.up("--inside", "inside").check()
        yield machine


@pytest.fixture
def followed(kept: GatewayMachine) -> Iterator[GatewayMachine]:
    """Each test finds the rules as they were first, also where one failed."""
    yield kept
    left = [path for path in kept.rules.iterdir() if path.name != "web.yaml"]
    for path in left:
        path.unlink()
    if left:
        eventually(lambda: kept.ports() == {80, 443, 8443}, "the first ports")


def wait_for(machine: GatewayMachine, ports: set[int]) -> None:
    eventually(lambda: machine.ports() == ports, lambda: f"{ports}, there are {machine.ports()}", every=0.02)


def log(machine: GatewayMachine) -> str:
    return (machine.state / "keeper.log").read_text()


def log_from_now(machine: GatewayMachine) -> Callable[[], str]:
    """What its keeper logs from now on, as earlier tests may have made it say the same."""
    known = len(log(machine))
    return lambda: log(machine)[known:]


def keeper(machine: GatewayMachine) -> Process:
    found = Process.read(machine.state / "keeper.json")
    assert found
    return found


def test_a_rule_that_comes_and_goes_is_followed(followed: GatewayMachine) -> None:
    told = log_from_now(followed)
    followed.write_rule("more.yaml", MORE)
    wait_for(followed, {80, 443, 8443, 9000, 9443})
    said = "ports redirected: 80, 443, 8443, 9000, 9443 (new 9000, 9443)"
    eventually(lambda: said in told(), "the keeper to say so")
    (followed.rules / "more.yaml").unlink()
    wait_for(followed, {80, 443, 8443})
    said = "ports redirected: 80, 443, 8443 (gone 9000, 9443)"
    eventually(lambda: said in told(), "the keeper to say so")


def test_rules_that_do_not_load_leave_the_ports_and_the_mended_ones_count(followed: GatewayMachine) -> None:
    followed.write_rule("more.yaml", MORE)
    wait_for(followed, {80, 443, 8443, 9000, 9443})
    told = log_from_now(followed)
    followed.write_rule("broken.yaml", "kind: [")
    eventually(lambda: "the rules do not load, the ports stay: " in told(), "the keeper to say so")
    (followed.rules / "more.yaml").unlink()
    time.sleep(0.4)
    assert followed.ports() == {80, 443, 8443, 9000, 9443}
    assert "the rules load again" not in told()
    (followed.rules / "broken.yaml").unlink()
    wait_for(followed, {80, 443, 8443})
    eventually(lambda: "the rules load again" in told(), "the keeper to say so")
    assert told().count("the rules load again") == 1


def test_a_directory_that_is_gone_leaves_the_ports(followed: GatewayMachine) -> None:
    told = log_from_now(followed)
    followed.rules.rename(followed.folder / "elsewhere")
    try:
        eventually(lambda: "the rules directory does not exist" in told(), "the keeper to say so")
        assert followed.ports() == {80, 443, 8443}
    finally:
        (followed.folder / "elsewhere").rename(followed.rules)
    followed.write_rule("more.yaml", MORE)
    wait_for(followed, {80, 443, 8443, 9000, 9443})
    (followed.rules / "more.yaml").unlink()
    wait_for(followed, {80, 443, 8443})


def test_a_table_that_somebody_flushed_is_put_back(followed: GatewayMachine) -> None:
    before, told = followed.ruleset(), log_from_now(followed)
    followed.nft("flush", "ruleset")
    eventually(lambda: followed.ruleset() == before, "the table to be there again")
    said = "table inet egress_gateway was gone and is loaded again (gateway-down removes it for good)"
    eventually(lambda: said in told(), "the keeper to say so")


def test_ports_that_somebody_changed_are_put_right(followed: GatewayMachine) -> None:
    followed.nft("add", "element", "inet", "egress_gateway", "ports", "{ 22 }")
    wait_for(followed, {80, 443, 8443})


@pytest.mark.parametrize("what", [("table",), ("chain", "refuse"), ("chain", "from_inside"), ("chain", "to_gateway")])
def test_an_emptied_chain_is_filled_again(followed: GatewayMachine, what: tuple[str, ...]) -> None:
    before = followed.ruleset()
    kind, *chain = what
    followed.nft("flush", kind, "inet", "egress_gateway", *chain)
    eventually(lambda: followed.ruleset() == before, "the rules to be there again")


def test_a_single_rule_is_the_operators_to_try_out(followed: GatewayMachine) -> None:
    before = followed.ruleset()
    listed = followed.nft("-a", "list", "chain", "inet", "egress_gateway", "refuse")
    (handle,) = re.findall(r'"refused: TCP" # handle (\d+)', listed)
    followed.nft("delete", "rule", "inet", "egress_gateway", "refuse", "handle", handle)
    followed.write_rule("more.yaml", MORE)
    wait_for(followed, {80, 443, 8443, 9000, 9443})
    assert "refused: TCP" not in followed.ruleset()
    (followed.rules / "more.yaml").unlink()
    wait_for(followed, {80, 443, 8443})
    followed.nft("flush", "chain", "inet", "egress_gateway", "refuse")  # the others find it whole
    eventually(lambda: followed.ruleset() == before, "the rule to be there again")


def test_it_does_not_rest_for_two_seconds_whatever_it_waits_for() -> None:
    """As the manual says. The tests here wait for longer, since a busy machine has pauses of its own."""
    watcher = inspect.signature(RulesWatcher).parameters
    looks = watcher["poll_interval"].default + watcher["debounce"].default
    assert max(looks, _SETTLE_SECONDS, _RETRY_SECONDS) < 1.5


def test_tables_of_others_are_not_its_business(followed: GatewayMachine) -> None:
    earlier = log_from_now(followed)
    followed.nft("add", "element", "inet", "egress_gateway", "ports", "{ 22 }")
    eventually(lambda: "(gone 22)" in earlier(), "the keeper to have said all that it has to say of earlier tests")
    before = len(log(followed))
    followed.nft("-f", "-", text="table inet others { set s { type inet_service; elements = { 1 }; }; }")
    time.sleep(0.4)
    followed.nft("delete", "table", "inet", "others")
    assert len(log(followed)) == before
    assert keeper(followed).runs


def test_it_says_when_nft_fails_and_goes_on_when_it_works(followed: GatewayMachine) -> None:
    """A table of the same name that is not ours: no such set is in it, and it cannot be changed."""
    told = log_from_now(followed)
    followed.nft("-f", "-", text="delete table inet egress_gateway\ntable inet egress_gateway { chain c { }; }")
    eventually(lambda: "failed, trying again: nft: " in told(), "the keeper to say so")
    followed.nft("delete", "table", "inet", "egress_gateway")
    wait_for(followed, {80, 443, 8443})


def test_a_keeper_that_was_ended_is_replaced_by_the_next_gateway_up(followed: GatewayMachine) -> None:
    earlier, told = keeper(followed), log_from_now(followed)
    assert earlier.stop()
    assert " ended\n" in told()
    followed.up("--inside", "inside").check()
    assert keeper(followed).runs
    assert keeper(followed) != earlier


def test_what_failed_for_a_moment_is_tried_again(networks: TwoNetworks) -> None:
    with GatewayMachine(networks.client) as machine:
        _failing_for_a_moment(machine)


def _failing_for_a_moment(machine: GatewayMachine) -> None:
    nft = machine.folder / "nft"
    nft.write_text(
        f'#!/bin/sh\n[ -e {nft}.fails ] && echo "Error: busy" >&2 && exit 1\nexec {shutil.which("nft")} "$@"\n'
    )
    nft.chmod(0o755)
    machine.up("--inside", "eth0", before=("env", f"PATH={machine.folder}:{os.environ['PATH']}")).check()
    Path(f"{nft}.fails").touch()
    machine.write_rule("more.yaml", MORE)
    eventually(lambda: "failed, trying again: nft: busy" in log(machine), "the keeper to say so")
    Path(f"{nft}.fails").unlink()
    wait_for(machine, {80, 443, 8443, 9000, 9443})
    assert log(machine).count("busy") == 1
