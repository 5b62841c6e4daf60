"""What all tests of the relay share."""

import pytest

from egress_gateway.relay import client


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused client is waited for so long; the tests' clients often wait for the relay."""
    monkeypatch.setattr(client, "LINGER_SECONDS", 0.02)
