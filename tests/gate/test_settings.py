"""What an operator can set, with safe defaults."""

from dataclasses import FrozenInstanceError, fields

import pytest

from egress_gateway.gate.settings import Limits, Settings, UpstreamTls


def test_without_a_word_from_the_operator_nothing_is_without_limit_or_unverified() -> None:
    settings = Settings()
    without = {field.name for field in fields(Limits) if getattr(settings.limits, field.name) <= 0}
    assert without == {"connections"}, "which the limit of open files bounds"
    assert settings.public_ranges == ()
    assert settings.tls == UpstreamTls()
    assert (settings.tls.min_version, settings.tls.ca_file) == ("TLS1_2", None)


def test_settings_cannot_be_changed_under_a_connection() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().ech = "deny"  # type: ignore[misc]  # that is what is tested
    with pytest.raises(FrozenInstanceError):
        Limits().header_bytes = 0  # type: ignore[misc]  # that is what is tested
