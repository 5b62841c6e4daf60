"""Which ports the rules name."""

from __future__ import annotations

from pathlib import Path

import pytest

from egress_gateway.network.ports import listed, read_ports
from egress_gateway.network.terminal import Failure
from support.lab import rule

CASES = {
    "without rules 80 and 443, so that a refused client is told why": ("", {80, 443}),
    "every port of an allow rule, whatever the protocol": (
        rule("a", "a.example", "8443 https", "8080 http", "25 tcp"),
        {80, 443, 8443, 8080, 25},
    ),
    "the port that is dialled by the client, not the one behind it": (
        rule("a", "a.example", "81 http 8081"),
        {80, 443, 81},
    ),
    "not the ports of a deny rule, which are refused anyway": (
        rule("a", "a.example", "8443 https", action="deny"),
        {80, 443},
    ),
    "a port once, however many name it": (
        rule("a", "a.example", "9000 tcp") + rule("b", "b.example", "9000 tcp"),
        {80, 443, 9000},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_ports_of_the_rules(case: str, tmp_path: Path) -> None:
    text, ports = CASES[case]
    (tmp_path / "rules.yaml").write_text(text)
    assert read_ports(str(tmp_path)) == ports


def test_rules_that_do_not_load_are_one_line_that_names_the_first_problem(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(rule("a", "a.example", "70000 https", "0 http", "70001 tcp"))
    with pytest.raises(Failure) as raised:
        read_ports(str(tmp_path))
    assert str(raised.value).startswith(f"{tmp_path}/bad.yaml:9:")
    assert "70000 must be in the range 1..65535" in str(raised.value)
    assert "(and 2 more: scripts/egressctl check tells all)" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_directory_that_is_not_there_is_said_with_the_fix() -> None:
    with pytest.raises(Failure, match=r"/nonexistent: the rules directory does not exist \(create it"):
        read_ports("/nonexistent")


def test_ports_are_told_in_order_and_not_without_end() -> None:
    assert listed({443, 80}) == "80, 443"
    assert listed(range(1, 101), most=3) == "1, 2, 3 and 97 more"
