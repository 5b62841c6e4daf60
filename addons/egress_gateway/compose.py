"""Puts the rooms together for mitmproxy's own programs: hooks, and what observes them. For ours `runner` does it."""

from __future__ import annotations

from egress_gateway.hooks.gateway import EgressGateway
from egress_gateway.hooks.script import EgressScript
from egress_gateway.observe.observation import Observation


def make_gateway() -> EgressGateway:
    """A gateway, to be added to a mitmproxy master."""
    return EgressGateway(Observation)


def make_script_addons() -> list[object]:
    """The addons of `addons/egress.py`."""
    return [EgressScript(make_gateway)]
