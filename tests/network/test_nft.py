"""The table in the kernel, and what nft says when it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from egress_gateway.network.layout import Layout
from egress_gateway.network.nft import Nft, NftError
from egress_gateway.network.ruleset import render
from support.gateway_machine import GatewayMachine

pytestmark = [pytest.mark.private_network, pytest.mark.root]

LAYOUT = Layout(("inside",), 8080, 5353)


def test_a_table_is_loaded_read_changed_and_removed(machine: GatewayMachine) -> None:
    nft = Nft.find()
    with machine.host.entered():
        assert not nft.is_there()
        assert nft.table() is None
        assert nft.ports() is None
        nft.check(render(LAYOUT, {80, 443}))
        assert not nft.is_there()

        nft.load(render(LAYOUT, {80, 443}))
        assert nft.is_there()
        assert nft.ports() == {80, 443}
        nft.swap({80, 8443})
        assert nft.ports() == {80, 8443}

        text = nft.table()
        assert text
        nft.remove()
        nft.remove()
        assert not nft.is_there()
        nft.load(text)
        assert nft.table() == text
        nft.remove()


def test_many_ports_come_back(machine: GatewayMachine) -> None:
    with machine.host.entered():
        nft = Nft.find()
        nft.load(render(LAYOUT, range(1, 2001)))
        assert nft.ports() == set(range(1, 2001))
        nft.remove()


def test_what_is_wrong_changes_nothing_and_is_one_line_with_the_rule(machine: GatewayMachine) -> None:
    with machine.host.entered():
        nft = Nft.find()
        nft.load(render(LAYOUT, {80}))
        before = nft.table()
        wrong = render(LAYOUT, {80, 443}).replace("reject with tcp reset", "rejekt")
        for attempt in (nft.check, nft.load):
            with pytest.raises(
                NftError, match=r"^nft: syntax error.* in: meta l4proto tcp counter rejekt comment"
            ) as raised:
                attempt(wrong)
            assert "\n" not in str(raised.value)
        assert nft.table() == before
        nft.remove()


def test_an_nft_without_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "nft").write_text("#!/bin/sh\necho 'table inet x'\n")
    (tmp_path / "nft").chmod(0o755)
    with pytest.raises(NftError, match="does not speak JSON"):
        Nft(str(tmp_path / "nft")).is_there()
    with pytest.raises(NftError, match="/nft could not be run: "):
        Nft("/nonexistent/nft").is_there()
