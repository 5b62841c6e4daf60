"""The certificate authority of the demo: nobody else trusts it, and it is gone with its folder."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """Its own certificate is at `path`, for whoever is to trust it."""

    def __init__(self, folder: Path, name: str = "demo-ca") -> None:
        self._authority = trustme.CA(organization_name="Egress gateway demo")
        self.path = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(self.path))
        self.issued: dict[str, bytes] = {}
        """Certificates by their first name, DER."""

    def server_context(self, *names: str) -> ssl.SSLContext:
        certificate = self._authority.issue_cert(*names)
        self.issued[names[0]] = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode("ascii"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context
