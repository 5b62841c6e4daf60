"""Every scenario runs against mitmdump and against the gateway's own runner, on both data paths."""

import pytest

from support.gateway import Program


@pytest.fixture(scope="module", params=["mitmdump", "gateway"])
def program(request: pytest.FixtureRequest) -> Program:
    """mitmdump with the script, then the runner, with two workers that share a port."""
    which: Program = request.param
    return which
