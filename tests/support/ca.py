"""Certificates for one test run: a certificate authority, what it issues, and what a client must refuse."""

import datetime
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain and its private key, both PEM."""

    chain_pem: bytes
    key_pem: bytes

    def write(self, directory: Path, stem: str = "server") -> tuple[Path, Path]:
        """Write `stem.pem` and `stem.key`; returns both paths."""
        chain, key = directory / f"{stem}.pem", directory / f"{stem}.key"
        chain.write_bytes(self.chain_pem)
        key.write_bytes(self.key_pem)
        return chain, key

    def server_context(self, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as directory:
            context.load_cert_chain(*self.write(Path(directory)))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


class SessionCa:
    """The authority that gateways under test trust; `pem_path` is its certificate, for options."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA(organization_name="egress gateway tests")
        self.pem = self._ca.cert_pem.bytes()
        self.pem_path = directory / "test-ca.pem"
        self.pem_path.write_bytes(self.pem)

    def issue(self, *names: str) -> Certificate:
        """A good certificate for these host names, wildcards and addresses."""
        return _certificate(self._ca.issue_cert(*names))

    def expired(self, *names: str) -> Certificate:
        """Right in all but the time: it ran out yesterday."""
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        return _certificate(self._ca.issue_cert(*names, not_before=now - 30 * day, not_after=now - day))

    def untrusted(self, *names: str) -> Certificate:
        """Issued by another authority, which nobody trusts."""
        return _certificate(trustme.CA().issue_cert(*names))

    def self_signed(self, *names: str) -> Certificate:
        """Signed with its own key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(alternatives, critical=False)
            .sign(key, hashes.SHA256())
        )
        return Certificate(
            certificate.public_bytes(serialization.Encoding.PEM),
            _key_pem(key),
        )

    def client_context(self) -> ssl.SSLContext:
        """A client that trusts this authority and nothing else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.pem_path)
        return context


def _certificate(leaf: trustme.LeafCert) -> Certificate:
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return Certificate(chain, leaf.private_key_pem.bytes())


def with_small_key(authority: bytes) -> tuple[bytes, bytes]:
    """A self-signed authority like this one, with a key on a curve: that key, and the certificate, both PEM."""
    like = x509.load_pem_x509_certificate(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        like.subject,
        like.subject,
        key.public_key(),
        x509.random_serial_number(),
        like.not_valid_before_utc,
        like.not_valid_after_utc,
    )
    for extension in like.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectKeyIdentifier):
            value = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(value, extension.critical)
    return _key_pem(key), builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
