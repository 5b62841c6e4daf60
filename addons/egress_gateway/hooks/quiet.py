"""mitmproxy says when a client comes and goes. On the relay path a line a request says more, so that is left out."""

from __future__ import annotations

import logging

_LOGGER = logging.getLogger("mitmproxy.proxy.server")
_CHATTER = frozenset({"client connect", "client disconnect"})


class Quiet(logging.Filter):
    """Install it with `begin`, take it away with `end`; `relaying` says whether it has an effect."""

    def __init__(self) -> None:
        super().__init__()
        self.relaying = False

    def begin(self) -> None:
        _LOGGER.addFilter(self)

    def end(self) -> None:
        _LOGGER.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        return not (self.relaying and record.msg in _CHATTER)
