"""`schema` and `version`."""

import json
from typing import Any

from egress_gateway import __version__


def test_version(ctl: Any) -> None:
    for arguments in (("version",), ("--version",)):
        done = ctl(*arguments)
        assert (done.status, done.out, done.err) == (0, f"egressctl {__version__}\n", "")


def test_schema_is_a_json_schema_of_both_versions(ctl: Any) -> None:
    done = ctl("schema")
    assert (done.status, done.err) == (0, "")
    schema = json.loads(done.out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "config.istio.io/v1alpha2" in done.out
    assert "egress.mitmproxy/v1" in done.out
