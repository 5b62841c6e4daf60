"""What a worker's chain of addons is without those that would have nothing to do."""

from __future__ import annotations

from typing import Any

from mitmproxy.options import Options
from mitmproxy.tools.dump import DumpMaster

from egress_gateway.hooks.data_path import FLOW_OPTIONS
from egress_gateway.runner.lean import IDLE, make_lean

# mitmproxy's addons that have hooks on connections or flows beside those that wait for an option.
STAYS = {
    "termlog", "core", "block", "stripdnshttpsrecords", "disableh2c", "onboarding", "proxyserver", "dnsresolver",
    "nextlayer", "tlsconfig", "updatealtsvc", "dumper", "errorcheck",
}  # fmt: skip


class NoLoop:
    def call_soon_threadsafe(self, *_: Any) -> None:
        pass


def names(master: DumpMaster) -> set[str]:
    return {name for name, addon in master.addons.lookup.items() if addon in master.addons.chain}


def test_each_addon_of_mitmdump_either_stays_or_is_known_to_be_idle() -> None:
    master = DumpMaster(Options(), loop=NoLoop())
    assert names(master) == STAYS | IDLE
    make_lean(master)
    assert names(master) == STAYS


def test_options_that_work_on_flows_are_still_known() -> None:
    master = DumpMaster(Options(), loop=NoLoop())
    make_lean(master)
    assert {name for name in FLOW_OPTIONS if name not in master.options} == {"intercept"}  # which mitmdump has not
