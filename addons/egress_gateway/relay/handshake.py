"""Passes a judged ClientHello on and sees the handshake to where no further hello can name another host."""

from __future__ import annotations

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import Reason

from .client import Client
from .client_hello import BadHello, ClientHello
from .hello_retry import SecondHello, asks_to_retry
from .target import NotUnderstood
from .upstream import Upstream


async def pass_hello(
    client: Client, upstream: Upstream, hello: ClientHello, exchange: Exchange
) -> NotUnderstood | None:
    """Sends `hello`, which stands at the front of the client's buffer, and waits for the destination's answer.

    What is in the two buffers afterwards may pass. Returns why nothing may. Raises OSError.
    """
    limits = client.gate.settings.limits
    first = bytes(client.input.buffer[: hello.size])
    del client.input.buffer[: hello.size]
    upstream.connection.write(first)
    exchange.bytes_received += len(first)
    try:
        with client.deadline.within(limits.hello_timeout):
            while (again := asks_to_retry(upstream.input.buffer)) is None:
                if not await upstream.input.fill():
                    return None
            if not again:
                return None
            answer = await upstream.input.read()
            client.writer.write(answer)
            exchange.bytes_sent += len(answer)
            second = SecondHello(hello, limits.hello_bytes)
            while not second.read(client.input.buffer):
                if not await client.input.fill():
                    return NotUnderstood(Reason.MALFORMED_HELLO, "the connection ended within the second ClientHello")
    except BadHello as bad:
        return NotUnderstood(bad.reason, str(bad))
    except TimeoutError:
        return NotUnderstood(Reason.UPSTREAM_TIMEOUT, f"no TLS handshake within {limits.hello_timeout:g} s")
    return None
