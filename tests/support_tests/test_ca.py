"""Certificates: the good one is accepted and each bad one is refused for its own reason."""

import contextlib
import socket
import ssl
import threading

import pytest

from support.ca import Certificate, SessionCa


def handshake(ca: SessionCa, certificate: Certificate, name: str = "www.example.com") -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def serve() -> None:
            with contextlib.suppress(OSError):
                certificate.server_context().wrap_socket(theirs, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            ca.client_context().wrap_socket(ours, server_hostname=name).close()
        finally:
            ours.close()
            thread.join()


def test_an_issued_certificate_is_good_for_its_names_only(ca: SessionCa) -> None:
    handshake(ca, ca.issue("www.example.com"))
    handshake(ca, ca.issue("*.example.com"))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(ca, ca.issue("other.example"))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (SessionCa.expired, "certificate has expired"),
        (SessionCa.untrusted, "unable to get local issuer"),
        (SessionCa.self_signed, "self-signed certificate"),
    ],
)
def test_bad_certificates_are_refused_for_their_own_reason(ca: SessionCa, make, complaint: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
        handshake(ca, make(ca, "www.example.com"))
