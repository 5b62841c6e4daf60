"""What an object looks like to the command line."""

import pytest

from egress_gateway.config.document import object_ref
from egress_gateway.config.load import parse_documents
from egress_gateway.config.problem import RuleErrors

TEXT = """\
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {name: x, creationTimestamp: null, uid: 2027-02-31, labels: {a: "yes", b: "443", c: 'null', d: plain}}
spec:
  allowBroadWildcard: no
  destination: {services: [a.example.com], allowPrivate: On}
  ports:
  - {port: 443, protocol: https}
"""


def test_data_has_the_types_that_the_rule_was_read_with():
    (document,) = parse_documents(TEXT, "x.yaml").documents
    assert document.data() == {
        "apiVersion": "egress.mitmproxy/v1",
        "kind": "EgressRule",
        "metadata": {
            "name": "x",
            "creationTimestamp": None,
            "uid": "2027-02-31",
            "labels": {"a": "yes", "b": "443", "c": "null", "d": "plain"},
        },
        "spec": {
            "allowBroadWildcard": False,
            "destination": {"services": ["a.example.com"], "allowPrivate": True},
            "ports": [{"port": 443, "protocol": "https"}],
        },
    }


def test_what_names_a_document():
    (document,) = parse_documents(TEXT, "x.yaml").documents
    assert (document.key, document.ref) == (("EgressRule", "default", "x"), "egress-rule/default/x")
    assert (document.kind, document.api_version) == ("EgressRule", "egress.mitmproxy/v1")
    assert str(document.source) == "x.yaml:1"
    assert object_ref("EgressSource", "shop", "details") == "egress-source/shop/details"


def test_errors_are_raised_only_when_there_are_some():
    parse_documents(TEXT, "x.yaml").raise_for_errors()
    parsed = parse_documents(TEXT.replace("443,", "0,"), "x.yaml")
    with pytest.raises(RuleErrors, match="port number 0") as caught:
        parsed.raise_for_errors()
    assert caught.value.problems == parsed.problems
