"""TLS sessions of destinations, so that a new connection to one that was verified shortly before costs less.

A resumed handshake proves that the peer is the one whose certificate was verified then (RFC 8446, 2.2), for the name
it was verified for. So a session is used for the same name and the same settings only (context: authorities, versions,
client certificate), and for a bounded time, after which the certificate is looked at again.

It is used more than once. RFC 8446, C.4, advises against that, so that who watches the way cannot tell that two
connections have the same client; here he sees the same address ask for the same name anyway. And each time that
Python is asked for a session it loses the memory of one, some 6 KiB (seen with CPython 3.13.0), so it is asked seldom.
"""

from __future__ import annotations

import ssl
import time
from collections import OrderedDict
from collections.abc import Callable

from egress_gateway.policy.hostname import Host

_MOST_DESTINATIONS = 1_000
_LONGEST_USE = 3_600.0
_ASK_EVERY = 60.0
"""Seconds; a destination that resumes nothing is asked that seldom."""

type _Key = tuple[ssl.SSLContext, Host]


class Sessions:
    """The session of one destination: `take` it, and `put` one when there is none that it `wants`."""

    __slots__ = ("_ask_at", "_clock", "_kept", "_until")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: ssl.SSLSession | None = None
        self._until = 0.0
        """When it gets too old to be used."""
        self._ask_at = 0.0

    def take(self) -> ssl.SSLSession | None:
        if self._kept is not None and self._clock() >= self._until:
            self._kept = None
        return self._kept

    def wants(self) -> bool:
        """Whether a new connection's session should be looked at now. Who is told so does it."""
        now = self._clock()
        if now < self._ask_at or self.take() is not None:
            return False
        self._ask_at = now + _ASK_EVERY
        return True

    def put(self, session: ssl.SSLSession) -> None:
        self._kept, self._until = session, self._clock() + min(float(session.timeout), _LONGEST_USE)

    def refused(self) -> None:
        """The destination has not resumed what was taken."""
        self._kept = None


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
