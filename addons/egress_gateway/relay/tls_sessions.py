"""TLS sessions of destinations, so that a new connection to one that was verified shortly before costs less.

A resumed handshake proves that the peer is the one whose certificate was verified then (RFC 8446, 2.2), for the name
it was verified for. So a session is used for the same name and the same settings only (context: authorities, versions,
client certificate), once (RFC 8446, C.4), and for a bounded time, after which the certificate is looked at again.
"""

from __future__ import annotations

import ssl
import time
from collections import OrderedDict
from collections.abc import Callable

from egress_gateway.policy.hostname import Host

_MOST_DESTINATIONS = 1_000
_MOST_OF_ONE = 8
_LONGEST_USE = 3_600.0
"""Seconds."""

type _Key = tuple[ssl.SSLContext, Host]


class Sessions:
    """The sessions of one destination: take one, and put back what the new connection brings."""

    __slots__ = ("_clock", "_kept")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: list[tuple[float, ssl.SSLSession]] = []  # until when it may be used; the newest last

    def take(self) -> ssl.SSLSession | None:
        now = self._clock()
        while self._kept:
            until, session = self._kept.pop()
            if now < until:
                return session
        return None

    def put(self, session: ssl.SSLSession) -> None:
        until = self._clock() + min(float(session.timeout), _LONGEST_USE)
        self._kept.append((until, session))
        if len(self._kept) > _MOST_OF_ONE:
            del self._kept[0]


class TlsSessions:
    """By context and server name; the destination that was not used for longest makes room."""

    def __init__(self) -> None:
        self._of: OrderedDict[_Key, Sessions] = OrderedDict()

    def of(self, context: ssl.SSLContext, host: Host) -> Sessions:
        key = (context, host)
        found = self._of.get(key)
        if found is None:
            found = self._of[key] = Sessions()
            if len(self._of) > _MOST_DESTINATIONS:
                self._of.popitem(last=False)
        else:
            self._of.move_to_end(key)
        return found
