"""The inspect data path as one addon, made of those for clients, destinations and replayed requests.

At the end of mitmproxy's chain, each of their hooks refuses where it fails.
"""

from __future__ import annotations

from typing import Any

from mitmproxy import ctx

from egress_gateway.gate.gatekeeper import Gatekeeper

from .client_hooks import ClientHooks
from .destination_hooks import DestinationHooks
from .replay_hooks import ReplayHooks

CHANGED_DEFAULTS: dict[str, Any] = {
    # The app that hands out mitmproxy's certificate would answer without a verdict.
    "onboarding": False,
    # What is larger passes while it comes, instead of being kept.
    "stream_large_bodies": "1m",
}
"""Defaults of mitmproxy that do not suit a gateway; what the operator has set stays."""


class InspectHooks:
    """What mitmproxy is given in one piece; `client_hooks` is for those who let clients in, and end them."""

    def __init__(self, gate: Gatekeeper) -> None:
        self.client_hooks = ClientHooks(gate)
        self.addons = [self.client_hooks, DestinationHooks(gate, self.client_hooks.clients), ReplayHooks(gate)]

    def load(self, _: Any) -> None:
        ours = {
            name: value
            for name, value in CHANGED_DEFAULTS.items()
            if name in ctx.options and not ctx.options.has_changed(name)
        }
        ctx.options.update(**ours)
