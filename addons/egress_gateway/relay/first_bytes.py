"""Waits for what an accepted tunnel begins with, in bounded time and memory."""

from __future__ import annotations

from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Spoken

from .classify import classify
from .client import Client
from .client_hello import BadHello, ClientHello, HelloReader
from .target import NotUnderstood

_ENOUGH_TO_KNOW = 64


async def await_first_bytes(client: Client) -> Spoken | NotUnderstood | None:
    """What the client begins to speak; its bytes stay in the buffer. None where it closed without a word."""
    limits = client.gate.settings.limits
    try:
        with client.deadline.within(limits.hello_timeout):
            while (spoken := classify(client.input.buffer[:_ENOUGH_TO_KNOW])) is None:
                if not await client.input.fill():
                    return Spoken.OTHER if client.input.buffer else None
    except TimeoutError:
        return NotUnderstood(Reason.CLIENT_TIMEOUT, f"no TLS or HTTP from the client within {limits.hello_timeout:g} s")
    except OSError:
        return None
    return spoken


async def await_hello(client: Client) -> ClientHello | NotUnderstood | None:
    """The client's complete ClientHello; its bytes stay in the buffer. None where the client went away."""
    limits = client.gate.settings.limits
    reader = HelloReader(limits.hello_bytes)
    try:
        if (hello := reader.read(client.input.buffer)) is not None:
            return hello
        with client.deadline.within(limits.hello_timeout):
            while (hello := reader.read(client.input.buffer)) is None:
                if not await client.input.fill():
                    return NotUnderstood(Reason.MALFORMED_HELLO, "the connection ended within the ClientHello")
    except BadHello as bad:
        return NotUnderstood(bad.reason, str(bad))
    except TimeoutError:
        return NotUnderstood(Reason.CLIENT_TIMEOUT, f"no complete ClientHello within {limits.hello_timeout:g} s")
    except OSError:
        return None
    return hello
