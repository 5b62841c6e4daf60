"""Tests that are about compiled code need some."""

import pytest

from egress_gateway.compiled import CURRENT, PLACE, SOURCES, Stamp, Unusable


def require_compiled() -> None:
    """Skips where scripts/compile has not been run since the last edit; where CI=true a skipped test has failed."""
    try:
        Stamp.read(PLACE / CURRENT).verify(PLACE / CURRENT, SOURCES)
    except Unusable as error:
        pytest.skip(str(error))
