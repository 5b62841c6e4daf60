"""What `mitmdump -s addons/egress.py` loads, and what happens when that script goes away.

mitmproxy unloads a script that was deleted or no longer parses, and carries on without it. The gateway is therefore
added to the master itself, where nothing unloads it; the script is only its leash: while it is not loaded, everything
is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from mitmproxy import ctx

from . import options
from .gateway import EgressGateway

logger = logging.getLogger(__name__)


class EgressScript:
    """The script's only addon."""

    name = "egressscript"

    def __init__(self, make_gateway: Callable[[], EgressGateway]) -> None:
        self._make_gateway = make_gateway

    def load(self, _: Any) -> None:
        gateway = ctx.master.addons.get(EgressGateway.name)
        if gateway is None:
            self._add(self._make_gateway())
        else:
            gateway.attach()

    def _add(self, gateway: EgressGateway) -> None:
        # mitmproxy swallows what is raised while a script loads, and would run without us. Whatever goes wrong from
        # here on, the gateway is in the chain, and it refuses everything until all is well.
        addons = ctx.master.addons
        try:
            gateway.problems += options.take_unusable(ctx.options)
            addons.add(gateway)
        except Exception as error:
            gateway.problems.append(str(error) or type(error).__name__)
            if gateway not in addons.chain:
                addons.chain.append(gateway)
            addons.lookup.setdefault(gateway.name, gateway)

    def configure(self, _: set[str]) -> None:
        self._gateway().begin()

    def done(self) -> None:
        gateway = self._gateway()
        gateway.detach()
        try:
            # A changed script is unloaded and loaded again in one go; only one that stays away ends connections.
            asyncio.get_running_loop().call_soon(gateway.end_if_detached)
        except RuntimeError:
            gateway.end_if_detached()

    def _gateway(self) -> EgressGateway:
        gateway: EgressGateway = ctx.master.addons.get(EgressGateway.name)
        return gateway
