"""TLS to a destination: the certificate is verified, the name is checked, the SNI is sent. There is no way to turn
that off."""

from __future__ import annotations

import os
import ssl

from egress_gateway.gate.settings import UpstreamTls
from egress_gateway.policy.hostname import Host

from .connection import Connection
from .tls_connection import TlsConnection, wrap
from .tls_sessions import TlsSessions


class TlsContexts:
    """Contexts made once, when the gateway starts, so that an unreadable file is found then. Raises OSError."""

    def __init__(self, settings: UpstreamTls) -> None:
        self._settings = settings
        self._sessions = TlsSessions()
        self._by_certificate: dict[str | None, ssl.SSLContext] = {None: self._make(None)}
        place = settings.client_certificates
        if place and not os.path.isdir(os.path.expanduser(place)):
            self._by_certificate[os.path.expanduser(place)] = self._make(os.path.expanduser(place))

    def wrap(self, connection: Connection, host: Host) -> TlsConnection:
        """TLS with `host` over `connection`, which it takes over; the handshake is still to be done. Raises OSError or
        ValueError."""
        context = self.context_for(host)
        return wrap(connection, context, str(host), self._sessions.of(context, host))

    def context_for(self, host: Host) -> ssl.SSLContext:
        """The context for connections to `host`: with its client certificate, where there is one."""
        certificate = self._client_certificate(host)
        context = self._by_certificate.get(certificate)
        if context is None:
            context = self._by_certificate[certificate] = self._make(certificate)
        return context

    def _client_certificate(self, host: Host) -> str | None:
        place = self._settings.client_certificates
        if not place:
            return None
        place = os.path.expanduser(place)
        if os.path.isfile(place):
            return place
        own = os.path.join(place, f"{host}.pem")
        return own if os.path.isfile(own) else None

    def _make(self, certificate: str | None) -> ssl.SSLContext:
        settings = self._settings
        # Arguments given replace the system's store, as mitmproxy's options of the same meaning do.
        try:
            context = ssl.create_default_context(
                cafile=os.path.expanduser(settings.ca_file) if settings.ca_file else None,
                capath=os.path.expanduser(settings.ca_directory) if settings.ca_directory else None,
            )
        except OSError as error:
            raise OSError(f"{settings.ca_file}: {_reason(error)} (give a PEM file of CA certificates)") from None
        # RFC 5280's fine print on CA certificates, on by default from Python 3.13: private CAs fail it, browsers and
        # curl do not ask for it, and it adds nothing to who is trusted.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        # Who has asked for it and then says no more would have every write tried again and again.
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.minimum_version = _version(settings.min_version, ssl.TLSVersion.TLSv1_2)
        context.maximum_version = _version(settings.max_version, ssl.TLSVersion.MAXIMUM_SUPPORTED)
        if settings.ciphers:
            try:
                context.set_ciphers(settings.ciphers)
            except ssl.SSLError:
                raise OSError(f"ciphers_server: OpenSSL knows none of {settings.ciphers}") from None
        context.set_alpn_protocols(["http/1.1"])
        if certificate:
            try:
                context.load_cert_chain(certificate)
            except OSError as error:
                raise OSError(f"{certificate}: {_reason(error)} (give a PEM file with certificate and key)") from None
        return context


_VERSIONS = {
    "TLS1_2": ssl.TLSVersion.TLSv1_2,
    "TLS1_3": ssl.TLSVersion.TLSv1_3,
}


def _version(name: str, otherwise: ssl.TLSVersion) -> ssl.TLSVersion:
    """mitmproxy's name for a TLS version; what is older than 1.2 is not offered to destinations."""
    return _VERSIONS.get(name, otherwise)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (getattr(error, "reason", None) or str(error)).lower().replace("_", " ")
    return error.strerror or str(error)


def describe(error: Exception) -> str:
    """One line about a failed handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_reason(error)}"
    if isinstance(error, TimeoutError):
        return "the TLS handshake took too long"
    return f"TLS failed: {str(error) or type(error).__name__}"
