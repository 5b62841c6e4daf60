"""Serves one client connection from its first byte to its last, and lets nothing of ours escape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from egress_gateway.policy.reason import Reason

from .client import Client, abort, finish
from .explicit_proxy import serve_explicit_proxy
from .socks5 import serve_socks5
from .stream_relay import Rest
from .transparent import serve_transparent
from .upstream_tls import TlsContexts

Serve = Callable[[Client, TlsContexts], Awaitable[Rest | None]]

_BY_MODE: dict[str, Serve] = {
    "regular": serve_explicit_proxy,
    "socks5": serve_socks5,
    "transparent": serve_transparent,
    "wireguard": serve_transparent,
    "local": serve_transparent,
    "tun": serve_transparent,
}

MODES = frozenset(_BY_MODE)
"""mitmproxy's proxy modes that can be served."""


async def serve(client: Client, mode: str, contexts: TlsContexts) -> None:
    """Serves `client` as mitmproxy's proxy mode `mode` (its type name) says. Raises CancelledError, and otherwise only
    where a fault of our own cannot even be told; the connection is over then."""
    observer = client.gate.observer
    observer.connection_opened(mode)
    raised: BaseException | None = None
    try:
        # All of it in one coroutine, since a tunnel may be idle for long and each one on the way costs memory.
        try:
            rest = await _BY_MODE[mode](client, contexts)
            if rest is not None:
                await rest()
        except OSError:
            abort(client.writer)
        except Exception:
            _fail(client)
        except BaseException as error:
            raised = error
        await finish(client.writer)
    finally:
        observer.connection_closed(mode)
    if raised is not None:
        raise raised


def _fail(client: Client) -> None:
    """After a fault of our own: ends the connection, and tells."""
    abort(client.writer)
    gate = client.gate
    gate.failed("relay")
    exchange = client.begin()
    exchange.verdict = gate.refused(Reason.INTERNAL_ERROR, "unknown")
    gate.finish(exchange)
