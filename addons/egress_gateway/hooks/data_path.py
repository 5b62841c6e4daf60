"""Relay or inspect? Pure, and never silent about an option that needs the other one.

The relay path makes no flows. Whatever works on flows (options of mitmproxy, other scripts) would have nothing to work
on there, so where one is in use the data path is inspect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FLOW_OPTIONS = (
    "anticache",
    "anticomp",
    "block_list",
    "body_size_limit",
    "client_replay",
    "dumper_filter",
    "hardump",
    "intercept",
    "map_local",
    "map_remote",
    "modify_body",
    "modify_headers",
    "proxyauth",
    "readfile_filter",
    "rfile",
    "save_stream_file",
    "save_stream_filter",
    "server_replay",
    "stickyauth",
    "stickycookie",
    "upstream_auth",
)
"""Options of mitmproxy that act on flows."""


@dataclass(frozen=True, slots=True)
class DataPath:
    relay: bool
    because: str
    """One line for the operator."""


def choose(
    wanted: str, *, has_flow_view: bool, flow_options: list[str], other_scripts: list[str], tls: str
) -> DataPath:
    """`wanted` is option `egress_data_path`; `has_flow_view` is true in mitmweb and mitmproxy."""
    needs = []
    if flow_options:
        needs.append(f"option {', '.join(flow_options)} works on flows")
    if other_scripts:
        needs.append(f"script {', '.join(other_scripts)} works on flows")
    if tls == "inspect":
        needs.append("egress_tls=inspect decrypts")
    if wanted == "inspect":
        return DataPath(relay=False, because="data path inspect, as egress_data_path says")
    if needs:
        return DataPath(relay=False, because=f"data path inspect, because {' and '.join(needs)}")
    if wanted == "relay":
        return DataPath(relay=True, because="data path relay, as egress_data_path says")
    if has_flow_view:
        return DataPath(relay=False, because="data path inspect, so that flows can be seen here")
    return DataPath(relay=True, because="data path relay")


def flow_options_in_use(options: Any) -> list[str]:
    """The options that act on flows and are set."""
    return [name for name in FLOW_OPTIONS if name in options and getattr(options, name)]


def works_on_flows(flow_options: list[str], other_scripts: list[str]) -> list[str]:
    """What is in use that works on flows: `option proxyauth`, `script x.py`."""
    return [f"option {name}" for name in flow_options] + [f"script {path}" for path in other_scripts]
