"""Chromium without a window, on a machine of the lab."""

import base64
import hashlib
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from support.ca import Certificate
from support.machine import Ended, Machine

# It is root that starts it, and what it looks at is ours. Its own traffic (updates, accounts) is kept low, not stopped.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def load_page(desk: Machine, url: str, trusted: Certificate, profile: Path, *more: str) -> Ended:
    """Opens the page in a new profile; what it is once all has been loaded comes as `out`.

    A browser does not read the files that other clients trust, so it is told the key of the one certificate.
    """
    browser = find_browser()
    assert browser is not None
    trust = f"--ignore-certificate-errors-spki-list={_pin(trusted)}"
    return desk.run(browser, *_FLAGS, *more, trust, f"--user-data-dir={profile}", "--dump-dom", url, timeout=60)


def _pin(certificate: Certificate) -> str:
    """The SHA-256 of the public key in base64, as in RFC 7469."""
    key = x509.load_pem_x509_certificate(certificate.chain_pem).public_key()
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(encoded).digest()).decode()
