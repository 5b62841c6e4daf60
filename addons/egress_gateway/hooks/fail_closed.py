"""An exception in a hook must refuse, since mitmproxy logs it and lets the flow go on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol, cast

from egress_gateway.gate.gatekeeper import Gatekeeper

REFUSED = "refused by the egress gateway"
"""The error of a connection that is not to be: of a client's, or of one to a destination."""


class HasGate(Protocol):
    gate: Gatekeeper


def nothing(_: Any, __: Any) -> None:
    """For a hook that lets nothing through, so that there is nothing to take back."""


def refusing[H: Callable[..., Any]](refuse: Callable[[Any, Any], None]) -> Callable[[H], H]:
    """Wraps a hook (sync or async, of an object with a `gate`): when it raises, `refuse(addon, hook argument)` runs."""

    def wrap(hook: H) -> H:
        def failed(addon: HasGate, argument: Any) -> None:
            addon.gate.failed(hook.__name__)
            refuse(addon, argument)

        if inspect.iscoroutinefunction(hook):

            @functools.wraps(hook)
            async def guarded_async(self: Any, argument: Any) -> None:
                try:
                    await hook(self, argument)
                except Exception:
                    failed(self, argument)

            return cast(H, guarded_async)

        @functools.wraps(hook)
        def guarded(self: Any, argument: Any) -> None:
            try:
                hook(self, argument)
            except Exception:
                failed(self, argument)

        return cast(H, guarded)

    return wrap
