"""No bytes, whatever they are, make the reader raise anything or say something that is not one line."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from egress_gateway.config.load import parse_documents

RULE = b"""\
# a comment
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {name: x, labels: {a: "b"}}
spec:
  action: allow
  destination:
    services: ["*.example.com", 10.0.0.1, 2001:db8::/32]
    allowPrivate: true
  ports:
  - {port: 443, protocol: https, targetPort: 8443, tls: {mode: originate}}
---
kind: EgressRule
metadata: {name: y}
spec: {destination: {service: 50.1.2.3/24}, ports: [{port: 1, protocol: tcp}], useEgressProxy: no}
"""


def check(data):
    parsed = parse_documents(data, "x.yaml")
    for problem in parsed.problems:
        assert str(problem).isprintable(), str(problem)
        assert len(str(problem)) < 1000
    for document in parsed.documents:
        json.dumps(document.data())
        if not parsed.errors:
            again = parse_documents(document.text, "y.yaml")
            assert again.errors == ()
            assert [one.key for one in again.documents] == [document.key]


@given(st.binary(max_size=400))
@settings(max_examples=400, deadline=None)
def test_arbitrary_bytes(data):
    check(data)


@given(st.text(max_size=200))
@settings(max_examples=400, deadline=None)
@example("\ud800")
@example("?")
@example("? [a]\n: b")
@example("<<: *a")
@example("!")
@example("%TAG ! x\n--- !a b")
@example("a: 190:20:30.15e+9")
@example("kind: EgressRule\nmetadata: {name: 0x}\n")
def test_arbitrary_text(text):
    check(text)


PIECES = [b"", b"&a ", b"*a", b"!!x ", b"<<: ", b"- ", b"? ", b"[", b"{", b"}", b"]", b"'", b'"', b"|\n", b">-\n"]
PIECES += [b"\n---\n", b"\n...\n", b"\t", b"\r", b"\xc2\x85", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"no", b"22:22"]
PIECES += [b"0177", b"null", b"~", b"#", b"1e999", b"2027-02-31", b"2001-1-1t1:1:1Z", b"0b12", b"="]
PIECES += [b"kind: List\nitems:\n- "]


@given(st.data())
@settings(max_examples=600, deadline=None)
def test_a_rule_with_a_piece_replaced(data):
    start = data.draw(st.integers(0, len(RULE)))
    length = data.draw(st.integers(0, 40))
    piece = data.draw(st.sampled_from(PIECES) | st.binary(max_size=4))
    check(RULE[:start] + piece + RULE[start + length :])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["apiVersion", "kind", "metadata", "spec", "name", "destination", "ports", "port", "items"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_arbitrary_json(value):
    check(json.dumps(value))
    check(json.dumps({"kind": "EgressRule", "metadata": {"name": "x"}, "spec": value}))
