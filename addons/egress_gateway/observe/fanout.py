"""One observer made of several. What fails in one of them stops here, and is counted by the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from egress_gateway.policy.events import Exchange, Observer
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.verdict import Verdict

_LOG = logging.getLogger(__name__)
_Listeners = tuple[Callable[..., None], ...]


class Observers(Observer):
    """Forwards each event to those of `observers` that do something with it, in their order."""

    def __init__(self, *observers: Observer) -> None:
        self._said: set[tuple[type, str, type]] = set()
        self.use(*observers)

    def use(self, *observers: Observer) -> None:
        """Forwards to these from now on. Whoever has nothing to do for now is left out, and costs nothing."""
        self._decided = _listeners(observers, "decided")
        self._mismatch = _listeners(observers, "mismatch")
        self._finished = _listeners(observers, "finished")
        self._connection_opened = _listeners(observers, "connection_opened")
        self._connection_closed = _listeners(observers, "connection_closed")
        self._turned_away = _listeners(observers, "turned_away")
        self._hello_seen = _listeners(observers, "hello_seen")
        self._tunnel_opened = _listeners(observers, "tunnel_opened")
        self._looked_up = _listeners(observers, "looked_up")
        self._connected = _listeners(observers, "connected")
        self._secured = _listeners(observers, "secured")
        self._upstream_failed = _listeners(observers, "upstream_failed")
        self._internal_error = _listeners(observers, "internal_error")
        self._reloaded = _listeners(observers, "reloaded")

    # The two of every request are written out: passing arguments on by a star costs as much as counting.

    def decided(self, verdict: Verdict, protocol: str, seconds: float) -> None:
        for listener in self._decided:
            try:
                listener(verdict, protocol, seconds)
            except Exception as error:
                self._failed(listener, error)

    def finished(self, exchange: Exchange) -> None:
        for listener in self._finished:
            try:
                listener(exchange)
            except Exception as error:
                self._failed(listener, error)

    def mismatch(self, claim: str) -> None:
        self._tell(self._mismatch, claim)

    def connection_opened(self, protocol: str) -> None:
        self._tell(self._connection_opened, protocol)

    def connection_closed(self, protocol: str) -> None:
        self._tell(self._connection_closed, protocol)

    def turned_away(self, cause: str) -> None:
        self._tell(self._turned_away, cause)

    def hello_seen(self, ech: bool) -> None:
        self._tell(self._hello_seen, ech)

    def tunnel_opened(self, exchange: Exchange) -> None:
        self._tell(self._tunnel_opened, exchange)

    def looked_up(self, result: str, seconds: float) -> None:
        self._tell(self._looked_up, result, seconds)

    def connected(self, seconds: float) -> None:
        self._tell(self._connected, seconds)

    def secured(self, seconds: float) -> None:
        self._tell(self._secured, seconds)

    def upstream_failed(self, reason: Reason) -> None:
        self._tell(self._upstream_failed, reason)

    def internal_error(self, where: str) -> None:
        self._tell(self._internal_error, where)

    def reloaded(self, rules: int, *, successful: bool) -> None:
        self._tell(self._reloaded, rules, successful=successful)

    def _tell(self, listeners: _Listeners, *event: Any, **more: Any) -> None:
        for listener in listeners:
            try:
                listener(*event, **more)
            except Exception as error:
                self._failed(listener, error)

    def _failed(self, failing: Callable[..., None], error: Exception) -> None:
        owner: object = getattr(failing, "__self__", failing)
        self._say(owner, getattr(failing, "__name__", "?"), error)
        for listener in self._internal_error:
            if getattr(listener, "__self__", listener) is not owner:
                try:
                    listener("observe")
                except Exception as another:  # told, and not forwarded again
                    self._say(getattr(listener, "__self__", listener), "internal_error", another)

    def _say(self, owner: object, event: str, error: Exception) -> None:
        kind = (type(owner), event, type(error))
        if kind not in self._said:
            self._said.add(kind)
            text = "%s failed in %s; the traffic is not affected (said once)"
            _LOG.error(text, type(owner).__name__, event, exc_info=error)


def _listeners(observers: tuple[Observer, ...], event: str) -> _Listeners:
    """The methods of `observers` for `event`, without those that only inherit "do nothing"."""
    nothing = getattr(Observer, event)
    return tuple(getattr(each, event) for each in observers if getattr(type(each), event) is not nothing)
