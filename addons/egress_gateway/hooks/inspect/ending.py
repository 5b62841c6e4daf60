"""What all gates share: a failure of theirs closes the connection, and a refusal reaches its client.

mitmproxy logs an exception in a layer and leaves the connection hanging. Closing a socket that has unread bytes makes
the kernel send RST, which can overtake the refusal just written (RFC 9112, 9.6); so after a refusal, and after an
answer that is the last, the gateway stops writing, reads on within bounds, and closes then.
"""

from __future__ import annotations

from collections.abc import Callable

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator

from egress_gateway.policy.reason import Reason
from egress_gateway.relay.client import LINGER_BYTES, LINGER_SECONDS

from .client import InspectedClient
from .idle import Idle

_LOOKS = 2
"""That find nothing taken, one after the other, until a client is given up that has not got all of its last words."""


class Gate(layer.Layer):
    """A layer that fails closed. Subclasses set `_on` to what takes the next event."""

    _on: Callable[[events.Event], CommandGenerator[None]]

    def __init__(self, context: Context, client: InspectedClient) -> None:
        super().__init__(context)
        self._client = client
        self._timer: commands.RequestWakeup | None = None
        self._asked: set[commands.RequestWakeup] = set()
        self._left = LINGER_BYTES
        self._untaken = 0
        """Bytes of the last words that had not arrived when it was last looked."""
        self._still = 0
        """How often it was looked in a row and nothing had been taken."""

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Wakeup) and event.command in self._asked:
            self._asked.discard(event.command)
            if event.command is not self._timer:
                return  # the wait it was for is over
        try:
            yield from self._idle(event) if isinstance(event, Idle) else self._on(event)
        except Exception:
            self._client.gate.failed(type(self).__name__)
            exchange = self._client.begin()
            self._client.refuse(exchange, Reason.INTERNAL_ERROR, "", "unknown")
            self._client.finish(exchange)
            yield from self._close()

    def _idle(self, event: Idle) -> CommandGenerator[None]:
        """Nothing has moved for too long. A gate that has handed the stream on lets its successor end it."""
        if getattr(self._on, "__self__", None) is self:
            yield from self._close()
        else:
            yield from self._on(event)

    def _is_from_client(self, event: events.Event) -> bool:
        return isinstance(event, events.ConnectionEvent) and event.connection == self.context.client

    def _wake_in(self, seconds: float) -> CommandGenerator[None]:
        """Sets the one timer of this layer; it comes back as a `Wakeup` unless `_timer` is something else by then."""
        self._timer = commands.RequestWakeup(seconds)
        self._asked.add(self._timer)
        yield self._timer

    def _close(self) -> CommandGenerator[None]:
        self._on = self._over
        yield commands.CloseConnection(self.context.client)

    def _farewell(self, last_words: bytes = b"") -> CommandGenerator[None]:
        """Sends `last_words` and closes, so that they arrive, and what was sent before them."""
        self._client.pace.stall(self, False)
        self._client.dismissed = True
        if last_words:
            yield commands.SendData(self.context.client, last_words)
        if not self.context.client.state & ConnectionState.CAN_READ:
            yield from self._close()
            return
        self._on = self._lingering
        yield commands.CloseTcpConnection(self.context.client, half_close=True)
        self._untaken = self._client.on_the_way
        yield from self._wake_in(LINGER_SECONDS)

    def _lingering(self, event: events.Event) -> CommandGenerator[None]:
        if self._is_from_client(event) and isinstance(event, events.DataReceived):
            self._left -= len(event.data)
        elif not isinstance(event, events.Wakeup) or event.command is not self._timer:
            yield from self._aside(event)
        ended = self._is_from_client(event) and isinstance(event, events.ConnectionClosed)
        late = isinstance(event, events.Wakeup) and event.command is self._timer
        if ended or self._left <= 0 or (late and not self._takes_more()):
            yield from self._close()
        elif late:
            yield from self._wake_in(LINGER_SECONDS)

    def _takes_more(self) -> bool:
        """Whether the client is still taking what it was sent: a slow one has a large answer for long.

        One that has taken nothing since the last look has another one: it may not have run, and nor may we.
        """
        before, self._untaken = self._untaken, self._client.on_the_way
        self._still = self._still + 1 if self._untaken == before else 0
        return self._untaken > 0 and self._still < _LOOKS

    def _over(self, event: events.Event) -> CommandGenerator[None]:
        if not (self._is_from_client(event) and isinstance(event, events.DataReceived)):
            yield from self._aside(event)

    def _aside(self, _: events.Event) -> CommandGenerator[None]:
        """What happens elsewhere when the client has been dismissed."""
        yield from ()
