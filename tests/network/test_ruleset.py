"""The text of the table, looked at without a kernel. What it does to packets is in test_traffic.py."""

from __future__ import annotations

import re

import pytest

from egress_gateway.network.layout import Kept, Layout
from egress_gateway.network.ruleset import REFUSALS, remove, render, swap_ports

INSIDE = Layout(("eth1", "eth2"), 8080, 5353)
SIDECAR = Layout((), 8080, 5353, exempt_uid=1234, served=(22, 8000))
BOTH = Layout(("eth1",), 8080, 5353, kept=(Kept("tcp", 22), Kept("icmp")), exempt_uid=1234)
LAYOUTS = {"inside": INSIDE, "sidecar": SIDECAR, "both": BOTH}


def chain(text: str, name: str) -> list[str]:
    """The rules of a chain."""
    found = re.search(rf"^    chain {name} {{\n(.*?)^    }}", text, re.MULTILINE | re.DOTALL)
    assert found, f"no chain {name} in:\n{text}"
    return [line.strip() for line in found[1].splitlines()]


@pytest.mark.parametrize("name", LAYOUTS)
def test_it_is_one_table_in_one_transaction_that_replaces_itself(name: str) -> None:
    text = render(LAYOUTS[name], {80, 443})
    assert text.startswith(
        "add table inet egress_gateway\ndelete table inet egress_gateway\ntable inet egress_gateway {"
    )
    assert len(re.findall(r"^table ", text, re.MULTILINE)) == 1
    assert "flush ruleset" not in text
    assert remove() == "add table inet egress_gateway\ndelete table inet egress_gateway\n"


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_layout_and_ports_give_the_same_text(name: str) -> None:
    ports = {443, 80, 9000, 25}
    assert render(LAYOUTS[name], ports) == render(LAYOUTS[name], sorted(ports, reverse=True))


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_refusal_is_one_rule_with_a_counter_and_a_comment(name: str) -> None:
    rules = chain(render(LAYOUTS[name], {80}), "refuse")
    assert [re.findall(r'comment "([^"]*)"', rule) for rule in rules] == [[comment] for comment in REFUSALS]
    assert all(" counter " in rule for rule in rules)
    assert all(re.search(r" (reject with \S+|drop) ", rule) for rule in rules)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_jump_leads_to_a_chain_and_every_chain_is_used(name: str) -> None:
    text = render(LAYOUTS[name], {80})
    chains = set(re.findall(r"^    chain (\w+) {", text, re.MULTILINE))
    hooked = set(re.findall(r"^    chain (\w+) {\n        type ", text, re.MULTILINE))
    assert set(re.findall(r"(?:jump|goto) (\w+)", text)) == chains - hooked


def test_the_interfaces_are_matched_by_name() -> None:
    text = render(INSIDE, {80})
    assert chain(text, "nat_inside")[1] == 'iifname { "eth1", "eth2" } jump redirect_inside'
    assert chain(text, "filter_inside")[1] == 'iifname { "eth1", "eth2" } jump from_inside'
    assert all('iifname != { "lo", "eth1", "eth2" }' in rule for rule in chain(text, "input")[1:])


def test_containment_stands_where_packets_come_in_after_the_redirect() -> None:
    text = render(INSIDE, {80})
    assert chain(text, "nat_inside")[0] == "type nat hook prerouting priority -110; policy accept;"
    assert chain(text, "filter_inside")[0] == "type filter hook prerouting priority -90; policy accept;"
    assert chain(text, "from_inside")[-1] == "goto refuse"
    assert "hook forward" not in text


def test_the_ports_of_the_gateway_are_those_asked_for() -> None:
    text = render(Layout(("eth1",), 9000, 9053), {80, 443, 8443})
    assert "elements = { 80, 443, 8443 }" in text
    assert "udp dport 53 counter redirect to :9053" in text
    assert "tcp dport 53 counter redirect to :9053" in text
    assert "tcp dport @ports counter redirect to :9000" in text
    assert "8080" not in text
    assert "5353" not in text


def test_without_a_sidecar_nothing_of_this_host_is_touched() -> None:
    text = render(INSIDE, {80})
    assert "skuid" not in text
    assert "hook postrouting" not in text
    assert re.findall(r"chain (\w+) {\n *type \w+ hook output", text) == ["complaints"]
    assert 'oifname != { "lo", "eth1", "eth2" } icmpv6 type parameter-problem ' in chain(text, "complaints")[1]


def test_sources_are_judged_before_fragments_are_put_together() -> None:
    text = render(INSIDE, {80})
    hook, rule = chain(text, "sources")
    assert hook == "type filter hook prerouting priority -450; policy accept;"
    assert rule.startswith('iifname { "eth1", "eth2" } fib saddr . iif oif missing counter drop ')


def test_a_sidecar_exempts_the_gateways_user_by_number() -> None:
    text = render(SIDECAR, {80})
    assert chain(text, "nat_host")[1] == 'oifname != "lo" meta skuid != 1234 jump to_gateway'
    assert chain(text, "filter_host")[1] == "meta skuid != 1234 jump from_host"
    assert chain(text, "from_host")[-1] == "goto refuse"
    assert "hook prerouting" not in text


def test_what_is_kept_is_neither_redirected_nor_refused_at_this_hosts_own_addresses() -> None:
    text = render(BOTH, {80, 22})
    assert chain(text, "redirect_inside") == [
        'fib daddr type local tcp dport 22 counter return comment "kept: tcp/22"',
        "jump to_gateway",
    ]
    assert 'fib daddr type local tcp dport 22 counter accept comment "kept: tcp/22"' in chain(text, "from_inside")
    echo = 'fib daddr type local icmp type echo-request counter accept comment "kept: icmp"'
    assert echo in chain(text, "from_inside")
    assert "echo-request" not in render(INSIDE, {80})


def test_nothing_that_others_decide_reaches_the_routes_of_this_host() -> None:
    text = render(INSIDE, {80})
    assert "nd-router-advert" not in text
    assert "nd-redirect" not in text


def test_a_port_53_that_need_not_be_translated_is_reached_all_the_same() -> None:
    passes = chain(render(Layout(("eth1",), 8080, 53), {80}), "from_inside")
    assert any(rule.startswith("fib daddr type local udp dport 53 counter accept") for rule in passes)
    assert any(rule.startswith("ct status dnat fib daddr type local tcp dport 8080 ") for rule in passes)


def test_a_swap_of_ports_is_one_transaction_on_the_set_alone() -> None:
    assert swap_ports({443, 80}) == (
        "flush set inet egress_gateway ports\nadd element inet egress_gateway ports { 80, 443 }\n"
    )
