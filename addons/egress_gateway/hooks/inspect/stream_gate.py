"""A byte stream to one destination, judged by its first bytes: what CONNECT, SOCKS5 and the transparent modes end in.

TLS passes undecrypted, or is decrypted where the gateway was told to; HTTP goes through the HTTP gate; whatever is
neither is refused. Nothing falls back to raw bytes. Waiting is bounded in bytes and in seconds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from mitmproxy.connection import Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import ClientTLSLayer, ServerTLSLayer

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import format_authority
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.verdict import Treatment, Verdict
from egress_gateway.relay.classify import classify
from egress_gateway.relay.client_hello import BadHello, ClientHello, HelloReader
from egress_gateway.relay.refuse import alert_for
from egress_gateway.relay.stream_relay import Destination, describe
from egress_gateway.relay.target import OriginalTarget, Target, TunnelTarget

from .byte_tunnel import ByteTunnel
from .client import InspectedClient
from .ending import Gate
from .handshake import HandshakeGate
from .http1_gate import Http1Gate
from .http2_gate import Http2Gate
from .opening import byte_host, open_way, original_of
from .pin import hold_back
from .requests import Scene

_ENOUGH_TO_KNOW = 64


class _Child(Protocol):
    def handle_event(self, event: events.Event) -> CommandGenerator[None]: ...


class FirstBytes(Gate):
    """Waits for the first bytes, within `hello_timeout`, and hands the stream on to the layer they call for."""

    def __init__(self, context: Context, client: InspectedClient) -> None:
        super().__init__(context, client)
        self._buffer = bytearray()
        self._meanwhile: list[events.Event] = []
        self._on = self._waiting

    def _spoken(self, spoken: Spoken) -> CommandGenerator[None]:
        """The client speaks this; asked again with every byte until `_hand_over` or a refusal."""
        raise NotImplementedError

    def _refuse(self, reason: Reason, detail: str) -> CommandGenerator[None]:
        """There will be no more bytes to judge by."""
        raise NotImplementedError

    def _started(self) -> CommandGenerator[None]:
        yield from self._wake_in(self._client.gate.settings.limits.hello_timeout)

    def _waiting(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield from self._started()
        elif isinstance(event, events.Wakeup) and event.command is self._timer:
            seconds = self._client.gate.settings.limits.hello_timeout
            yield from self._refuse(Reason.CLIENT_TIMEOUT, f"no TLS or HTTP from the client within {seconds:g} s")
        elif isinstance(event, events.DataReceived) and self._is_from_client(event):
            self._buffer += event.data
            spoken = classify(self._buffer[:_ENOUGH_TO_KNOW])
            if spoken is not None:
                yield from self._spoken(spoken)
        elif isinstance(event, events.ConnectionClosed) and self._is_from_client(event):
            yield from self._ended()
        else:
            # The destination's side may speak first, where it is open already.
            self._meanwhile.append(event)

    def _ended(self) -> CommandGenerator[None]:
        if not self._buffer:
            yield from self._close()
        elif classify(self._buffer[:_ENOUGH_TO_KNOW]) is Spoken.TLS:
            yield from self._refuse(Reason.MALFORMED_HELLO, "the connection ended within the ClientHello")
        else:
            yield from self._spoken(Spoken.OTHER)

    def _hand_over(self, child: _Child) -> CommandGenerator[None]:
        self._timer = None
        self._on = child.handle_event
        first, self._buffer = bytes(self._buffer), bytearray()
        yield from child.handle_event(events.Start())
        yield from child.handle_event(events.DataReceived(self.context.client, first))
        for event in self._meanwhile:
            yield from child.handle_event(event)
        self._meanwhile.clear()


class StreamGate(FirstBytes):
    """An accepted tunnel, or a redirected connection."""

    def __init__(self, context: Context, client: InspectedClient, destination: Destination) -> None:
        super().__init__(context, client)
        self._destination = destination
        self._hello: HelloReader | None = None
        context.server = Server(address=(str(destination.host), destination.port))

    def _spoken(self, spoken: Spoken) -> CommandGenerator[None]:
        if spoken is Spoken.HTTP:
            yield from self._hand_over(Http1Gate(self.context, self._client, Scene(self._target())))
        elif spoken is Spoken.TLS:
            yield from self._tls()
        else:
            yield from self._unknown(spoken)

    def _target(self) -> Target:
        destination = self._destination
        if destination.original is not None:
            return OriginalTarget(destination.original, destination.port)
        return TunnelTarget(destination.host, destination.port)

    def _begin(self, protocol: str) -> Exchange:
        exchange = self._client.begin()
        exchange.protocol = protocol
        describe(exchange, self._destination)
        return exchange

    def _refuse(self, reason: Reason, detail: str) -> CommandGenerator[None]:
        is_tls = self._hello is not None
        exchange = self._begin("TLS" if is_tls else "")
        self._client.refuse(exchange, reason, detail, "tls" if is_tls else "unknown")
        yield from self._farewell(alert_for(exchange.reason) if is_tls else b"")
        self._client.finish(exchange)

    # --- TLS ---

    def _tls(self) -> CommandGenerator[None]:
        if self._hello is None:
            self._hello = HelloReader(self._client.gate.settings.limits.hello_bytes)
        try:
            hello = self._hello.read(self._buffer)
        except BadHello as bad:
            yield from self._refuse(bad.reason, str(bad))
            return
        if hello is None:
            return
        exchange = self._begin("TLS")
        exchange.requested_server_name = hello.sni or ""
        exchange.ech = hello.ech
        if hello.sni is None:
            yield from self._name_by_address(exchange)
        request = self._request(hello, exchange)
        verdict = self._client.gate.decide(request, "tls")
        ech_denied = hello.ech and self._client.gate.settings.ech == "deny"
        if verdict.allowed and ech_denied and verdict.treatment is not Treatment.BYTES:
            verdict = self._client.gate.refused(Reason.ECH_DENIED, "tls", verdict.rule)
        exchange.verdict = verdict
        if not verdict.allowed:
            exchange.hint = self._client.gate.explain(request, verdict).hint
            yield from self._farewell(alert_for(exchange.reason))
            self._client.finish(exchange)
        elif verdict.treatment is Treatment.PASSTHROUGH and self._client.decrypts:
            yield from self._decrypt(request, verdict, exchange)
        else:
            yield from self._pass_through(request, verdict, exchange, hello)

    def _request(self, hello: ClientHello, exchange: Exchange) -> Request:
        request = replace(self._destination.request(Spoken.TLS), sni=hello.sni)
        if self._destination.original is not None and hello.sni is not None:
            request = replace(request, host=hello.sni)
            exchange.host = hello.sni
            exchange.authority = format_authority(hello.sni, self._destination.port)
        return request

    def _name_by_address(self, exchange: Exchange) -> CommandGenerator[None]:
        """The client names nobody: a name of the dialled address may have a `tcp` rule."""
        host = yield from byte_host(self._client, self._destination, has_spoken=True)
        if host is not None:
            self._destination = replace(self._destination, host=host)
            describe(exchange, self._destination)

    def _pass_through(
        self, request: Request, verdict: Verdict, exchange: Exchange, hello: ClientHello
    ) -> CommandGenerator[None]:
        if verdict.treatment is Treatment.PASSTHROUGH:
            exchange.tls_mode = "passthrough"
        if (yield from open_way(self.context, self._client, request, verdict, exchange, "tls")):
            tunnel = ByteTunnel(self.context, self._client, exchange)
            if verdict.treatment is Treatment.PASSTHROUGH:
                yield from self._hand_over(HandshakeGate(self.context, self._client, exchange, hello, tunnel))
            else:
                yield from self._hand_over(tunnel)
        else:
            yield from self._farewell(alert_for(exchange.reason))
            self._client.finish(exchange)

    def _decrypt(self, request: Request, verdict: Verdict, exchange: Exchange) -> CommandGenerator[None]:
        # The destination's TLS first: the client is then offered what the destination speaks, so that HTTP/2 is
        # never translated into HTTP/1, where a body without a length would be read as the next request.
        assert isinstance(request.sni, str)
        exchange.tls_mode = "inspect"
        self._client.grant(request, verdict, exchange, "tls", tls=True)
        self._client.decrypting = exchange
        self.context.server = Server(address=(str(request.host), verdict.port), sni=request.sni)
        scene = Scene(TunnelTarget(request.host, self._destination.port), request.sni, original_of(self._client))
        outer = ServerTLSLayer(self.context)
        inner = ClientTLSLayer(self.context)
        outer.child_layer = inner
        inner.child_layer = DecryptedGate(self.context, self._client, scene)
        yield from self._hand_over(_Connecting(self._client, outer))

    # --- neither ---

    def _unknown(self, spoken: Spoken) -> CommandGenerator[None]:
        exchange = self._begin("HTTP/2" if spoken is Spoken.HTTP2 else "TCP")
        yield from self._name_by_address(exchange)
        request = self._destination.request(spoken)
        verdict = self._client.gate.decide(request, "http" if spoken is Spoken.HTTP2 else "unknown")
        exchange.verdict = verdict
        if verdict.allowed:
            if (yield from open_way(self.context, self._client, request, verdict, exchange, "tcp")):
                yield from self._hand_over(ByteTunnel(self.context, self._client, exchange))
                return
        else:
            exchange.hint = self._client.gate.explain(request, verdict).hint
        yield from self._farewell()
        self._client.finish(exchange)


class _Connecting:
    """A layer whose client has to wait while it connects: what comes meanwhile is only queued."""

    def __init__(self, client: InspectedClient, child: layer.Layer) -> None:
        self._client = client
        self._child = child

    def handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.OpenConnectionCompleted):
            self._client.pace.stall(self, False)
        for command in self._child.handle_event(event):
            if isinstance(command, commands.OpenConnection):
                hold_back(command)
                self._client.pace.stall(self)
            yield command


class DecryptedGate(FirstBytes):
    """Inside TLS that is decrypted: HTTP/1, or HTTP/2 where ALPN says so; nothing else."""

    def __init__(self, context: Context, client: InspectedClient, scene: Scene) -> None:
        super().__init__(context, client)
        self._scene = scene

    def _started(self) -> CommandGenerator[None]:
        # A handshake has been made; until a request comes this is an idle connection like any other.
        yield from ()

    def _spoken(self, spoken: Spoken) -> CommandGenerator[None]:
        expected = Spoken.HTTP2 if self.context.client.alpn == b"h2" else Spoken.HTTP
        if spoken is expected:
            gate = Http2Gate if spoken is Spoken.HTTP2 else Http1Gate
            yield from self._hand_over(gate(self.context, self._client, self._scene))
        else:
            yield from self._refuse(Reason.PROTOCOL_UNKNOWN, "neither HTTP/1 nor HTTP/2 inside decrypted TLS")

    def _refuse(self, reason: Reason, detail: str) -> CommandGenerator[None]:
        exchange = self._client.begin()
        exchange.protocol, exchange.tls_mode = "TLS", "inspect"
        exchange.requested_server_name = self._scene.sni or ""
        if isinstance(self._scene.target, TunnelTarget):
            describe(exchange, Destination(self._scene.target.host, self._scene.target.port))
        self._client.refuse(exchange, reason, detail, "unknown")
        yield from self._farewell()
        self._client.finish(exchange)
