"""The JSON Schema admits what loads and refuses what is misshapen, and says nothing that the loader does not."""

import json
import re
from pathlib import Path

import pytest

from egress_gateway.config.load import parse_documents
from egress_gateway.config.schema import json_schema

SCHEMA = json_schema()
RULES = sorted((Path(__file__).parents[2] / "rules").rglob("*.yaml"))


def violations(value, schema, path=""):
    """The part of JSON Schema that the schema uses, checked by hand; an unknown keyword is a failure."""
    known = {"$schema", "title", "description", "$defs", "oneOf", "$ref", "type", "additionalProperties", "required"}
    assert set(schema) <= known | {"properties", "items", "minItems", "enum", "const", "minimum", "maximum"}
    if "$ref" in schema:
        yield from violations(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], path)
    if "oneOf" in schema:
        tried = [list(violations(value, one, path)) for one in schema["oneOf"]]
        if sum(not found for found in tried) != 1:
            yield from min(tried, key=len) or [f"{path}: more than one"]
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if "type" in schema and type(value) is not kinds[schema["type"]]:
        yield f"{path}: not {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: not in enum"
    if "const" in schema and value != schema["const"]:
        yield f"{path}: not const"
    if type(value) is int and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: out of range"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{path}: too short"
        for index, item in enumerate(value):
            yield from violations(item, schema.get("items", {}), f"{path}[{index}]")
    if isinstance(value, dict):
        yield from (f"{path}.{name}: missing" for name in schema.get("required", ()) if name not in value)
        for name, inner in value.items():
            known_as = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
            if known_as is False:
                yield f"{path}.{name}: unknown"
            else:
                yield from violations(inner, known_as, f"{path}.{name}")


def data(text):
    parsed = parse_documents(text, "x.yaml")
    return [document.data() for document in parsed.documents]


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_the_examples_are_admitted(path):
    for rule in data(path.read_text()):
        assert list(violations(rule, SCHEMA)) == []


def good(version):
    return {
        "apiVersion": version,
        "kind": "EgressRule",
        "metadata": {"name": "x", "labels": {"a": "b"}, "creationTimestamp": None},
        "spec": {"destination": {"service": "a.example.com"}, "ports": [{"port": 443, "protocol": "https"}]},
    }


def changed(version, path, value):
    rule = good(version)
    inner = rule
    *parents, last = path
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return rule


BOTH = ["config.istio.io/v1alpha2", "egress.mitmproxy/v1"]
BAD = [
    (("kind",), "EgressRulez"),
    (("apiVersion",), "v1"),
    (("extra",), 1),
    (("metadata", "extra"), 1),
    (("metadata", "labels"), {"a": 1}),
    (("metadata",), {}),
    (("spec", "extra"), 1),
    (("spec", "destination"), "a.example.com"),
    (("spec", "destination", "name"), "x"),
    (("spec", "ports"), []),
    (("spec", "ports"), {}),
    (("spec", "ports", 0), 443),
    (("spec", "ports", 0), {"port": 443}),
    (("spec", "ports", 0, "port"), 0),
    (("spec", "ports", 0, "port"), 65536),
    (("spec", "ports", 0, "port"), "443"),
    (("spec", "ports", 0, "protocol"), "udp"),
]


@pytest.mark.parametrize("version", BOTH)
def test_a_good_rule_is_admitted(version):
    assert list(violations(good(version), SCHEMA)) == []


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize(("path", "value"), BAD)
def test_a_misshapen_rule_is_refused_as_the_loader_refuses_it(version, path, value):
    rule = changed(version, path, value)
    assert list(violations(rule, SCHEMA))
    assert parse_documents(json.dumps(rule), "x.json").errors


OURS_ONLY = [
    (("spec", "action"), "deny"),
    (("spec", "allowBroadWildcard"), True),
    (("spec", "destination"), {"services": ["a.example.com"], "allowPrivate": True}),
    (("spec", "ports", 0, "targetPort"), 8443),
    (("spec", "ports", 0, "tls"), {"mode": "originate"}),
    (("spec", "tls"), {"mode": "passthrough"}),
]


@pytest.mark.parametrize(("path", "value"), OURS_ONLY)
def test_what_only_our_version_has(path, value):
    istio, ours = (changed(version, path, value) for version in BOTH)
    assert list(violations(ours, SCHEMA)) == []
    assert not parse_documents(json.dumps(ours), "x.json").errors
    assert list(violations(istio, SCHEMA))
    assert parse_documents(json.dumps(istio), "x.json").errors


def test_the_proxy_of_istio_may_be_named():
    assert list(violations(changed(BOTH[0], ("spec", "useEgressProxy"), False), SCHEMA)) == []


def objects(schema):
    yield schema
    for value in schema.values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from objects(inner)


def test_every_object_is_closed_and_every_field_is_described():
    for definition in SCHEMA["$defs"].values():
        assert definition["additionalProperties"] is False
        for known in definition["properties"].values():
            assert re.match(r"\S.*\.$", known["description"]), known
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
