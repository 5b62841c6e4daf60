"""Documents that are alike are read by comparison, and what comes out is what the full reading says of them."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from egress_gateway.config import alike
from egress_gateway.config.alike import MOST_SORTS, Alike, Sorts, read_alike
from egress_gateway.config.limits import DEFAULT_LIMITS, Limits
from egress_gateway.config.load import read_rules
from egress_gateway.config.read import read_text
from egress_gateway.policy.rule import Source

FORMS = {
    "Istio's, in lines": """\
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata:
  name: {name}
  namespace: {namespace}
  labels:
    app: {label}
spec:
  destination:
    service: {service}
  ports:
  - port: {port}
    protocol: {protocol}
""",
    "Istio's, in braces": (
        'kind: EgressRule\nmetadata: {{name: {name}, labels: {{app: "{label}"}}}}\n'
        'spec:\n  destination: {{service: "{service}"}}\n  ports:\n  - {{port: {port}, protocol: {protocol}}}\n'
    ),
    "ours, two services": """\
# {label}
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {{name: '{name}', namespace: {namespace}}}
spec:
  destination:
    services:
    - '{service}'
    - other.example.com
  ports: [{{port: {port}, protocol: {protocol}}}]
""",
    "ours, that denies": """\
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {{name: {name}, annotations: {{why: {label}}}}}
spec: {{action: deny, destination: {{services: ["{service}", {service}]}}, ports: [{{port: {port}, protocol: tcp}}]}}
""",
    "private, with text below": """\
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata:
  name: {name}
  annotations:
    why: |
      service: {label}
    more: a
      name: {label}
spec:
  destination: {{services: ["{service}"], allowPrivate: true}}
  ports: [{{port: {port}, protocol: {protocol}}}]
""",
    "ours, one service that is no word": """\
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {{name: {name}, labels: {{app: {label}}}}}
spec:
  destination: {{services: [{service}, "2001:4860::8888"]}}
  ports: [{{port: {port}, protocol: tcp}}]
""",
    "a list": (
        "apiVersion: v1\nkind: List\nitems:\n- kind: EgressRule\n  metadata: {{name: {name}}}\n"
        "  spec: {{destination: {{service: {service}}}, ports: [{{port: {port}, protocol: {protocol}}}]}}\n"
    ),
    "nothing": "# {label}\n",
}

good_names = st.integers(0, 40).map("rule-{}".format)
ODD_WORDS = [
        "no", "1", "1.10", "0x1f", "null", "~", "2001-01-01", "Big", "a_b", "&a", "*a", "a,", "-", "'", '"',
        "a'b", 'a"b', "é", "a]", "{a", "|", "<<", "1:20", "y", "", "a b", "a: b", "a #b", "\n", "a\n  b",
        "!!str a", "a" * 64, "a" * 300,
]  # fmt: skip
SERVICES = [
        "www.example.com", "other.example.com", "*.example.com", "*-x.example.com", "*example.com", "*.com", "*",
        "WWW.A.COM.", "93.184.216.34", "10.0.0.1", "169.254.169.254", "203.0.113.0/24", "8.8.8.0/24",
        "8.8.8.8/24", "1.1", "0x7f.1", "2001:4860::8888", "bücher.example", "a..b", "http://a.com", "a.com/x",
        "a.com:443", "-a.com", "a.com-",
]  # fmt: skip
odd_words, services = st.sampled_from(ODD_WORDS), st.sampled_from(SERVICES)


@st.composite
def documents(draw):
    return draw(st.sampled_from(list(FORMS.values()))).format(
        name=draw(st.one_of(good_names, good_names, good_names, odd_words)),
        namespace=draw(st.one_of(st.sampled_from(["default", "shop", "shop-2"]), odd_words)),
        label=draw(st.one_of(st.sampled_from(["a", "b"]), odd_words)),
        service=draw(st.one_of(services, services, odd_words)),
        port=draw(st.sampled_from(["443", "80", "70000", "x"])),
        protocol=draw(st.sampled_from(["https", "tcp", "HTTP", "udp"])),
    )


MARKERS = ["---\n", "---\n---\n", "--- # b\n", "...\n---\n", "---\r\n", "...\n%YAML 1.1\n---\n", "---\t\n", " ---\n"]
markers = st.sampled_from(["---\n"] * 4 + MARKERS)
seen = Sorts()  # by all tests, as by all files


def check(text: str, limits: Limits = DEFAULT_LIMITS) -> None:
    data = text.encode("utf-8", "surrogatepass")
    full = read_text(data, "x.yaml", limits)
    for sorts in (Sorts(), seen, seen):
        rules, problems = read_rules(data, "x.yaml", limits, sorts)
        assert problems == full.problems
        if not any(problem.is_error for problem in problems):
            assert rules == tuple(document.rule for document in full.documents)


USUAL = {"namespace": "default", "label": "a", "port": "443", "protocol": "https"}


def text_of(form: str, *names: str, marker: str = "---\n", **values: str) -> str:
    return marker.join(
        FORMS[form].format(**({"name": name, "service": f"{name}.example.com"} | USUAL | values)) for name in names
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_second_document_with_one_odd_word(form):
    first = text_of(form, "a", "c") + "---\n"
    for word in ODD_WORDS:
        for field in ("name", "namespace", "label", "port", "protocol"):
            check(first + text_of(form, "b", **{field: word}))
    for service in SERVICES + ODD_WORDS:
        check(first + text_of(form, "b", service=service))
    for marker in MARKERS:
        check(text_of(form, "a", "c", "b", marker=marker))


@given(st.lists(st.tuples(markers, documents()), max_size=4), st.sampled_from(["", "---\n", "---", "# end"]))
@settings(max_examples=60, deadline=None)
def test_whatever_is_alike_is_read_as_in_full(parts, end):
    check("".join(marker + document for marker, document in parts) + end)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_second_document_that_differs_anywhere(data):
    form = data.draw(st.sampled_from(list(FORMS)))
    first, second = text_of(form, "a", "c"), text_of(form, "b")
    start = data.draw(st.integers(0, len(second)))
    length = data.draw(st.integers(0, 3))
    piece = data.draw(st.text(alphabet="aA1 .-_*/\"'[]{}:,#&!|>\n\t\\?%@`é", max_size=4))
    check(first + "---\n" + second[:start] + piece + second[start + length :])


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=60, deadline=None)
@example("a: b\n---", "")
@example("", "\ufeff")
@example("--- \n", "")
def test_arbitrary_text(one, other):
    check(one + "\n---\n" + other)


def test_too_many_documents():
    text = text_of("Istio's, in braces", "a", "b", "c", "d")
    check(text, Limits(max_documents=3))
    check(text, Limits(max_documents=4))


@pytest.fixture
def parsed(monkeypatch) -> list[str]:
    """The texts that were given to the YAML parser."""
    texts: list[str] = []

    def compose(text, problems, limits):
        texts.append(text)
        return really(text, problems, limits)

    really = alike.compose
    monkeypatch.setattr(alike, "compose", compose)
    return texts


def taken(text: str, sorts: Sorts, file: str = "x.yaml") -> Alike:
    found = read_alike(text, file, DEFAULT_LIMITS, sorts)
    assert found is not None
    return found


@pytest.mark.parametrize("form", ["Istio's, in lines", "Istio's, in braces", "ours, two services"])
def test_two_of_a_sort_are_parsed_and_the_others_are_not(form, parsed):
    sorts = Sorts()
    found = taken(text_of(form, *"abcd"), sorts)
    assert [rule.name for rule in found.rules] == list("abcd")
    assert [str(rule.destinations[0]) for rule in found.rules] == [f"{name}.example.com" for name in "abcd"]
    lines = FORMS[form].count("\n") + 1
    first = 2 if FORMS[form].startswith("#") else 1
    assert [rule.source for rule in found.rules] == [Source("x.yaml", first + i * lines) for i in range(4)]
    assert len(parsed) == 2
    assert [rule.source for rule in taken(text_of(form, "e"), sorts, "y.yaml").rules] == [Source("y.yaml", first)]
    assert len(parsed) == 2


def test_comments_in_front_make_no_difference_but_to_the_line(parsed):
    text = "---\n".join(f"# {name}\n\n  # {name}\n" + text_of("Istio's, in braces", name) for name in "abc")
    found = taken(text, Sorts())
    assert [rule.source for rule in found.rules] == [Source("x.yaml", line) for line in (4, 14, 24)]
    assert len(parsed) == 2
    check(text)
    check(text + "  # b\n")
    check("# a\n\t# b\n" + text)


def test_where_one_service_is_no_word_all_must_be_the_same(parsed):
    form, sorts = "ours, one service that is no word", Sorts()
    text = text_of(form, *"abcd", service="x.example.com")
    assert len(taken(text, sorts).rules) == 4
    assert len(parsed) == 2
    (rule,) = taken(text_of(form, "a", service="y.example.com"), sorts).rules
    assert [str(one) for one in rule.destinations] == ["y.example.com", "2001:4860::8888"]
    assert len(parsed) == 3


def test_other_ports_are_another_variant_and_labels_are_not(parsed):
    sorts = Sorts()
    taken(text_of("Istio's, in lines", "a"), sorts)
    for port, label in (("443", "a"), ("443", "b"), ("8443", "a"), ("8443", "b")):
        text = text_of("Istio's, in lines", "a", port=port, label=label)
        (rule,) = taken(text, sorts).rules
        assert rule.ports[0].number == int(port)
    assert len(parsed) == 3


@pytest.mark.parametrize(
    ("service", "warnings"),
    [("10.0.0.1", 1), ("*example.com", 1), ("*.com", 1), ("8.8.8.8", 0), ("*.example.com", 0), ("A.EXAMPLE.com", 0)],
)
def test_what_deserves_a_word_is_read_in_full_and_gets_it_where_it_stands(service, warnings, parsed):
    text = text_of("Istio's, in braces", "a", "b") + "---\n" + text_of("Istio's, in braces", "c", service=service)
    found = taken(text, Sorts())
    assert [(warning.line, warning.column) for warning in found.warnings] == [(18, 26)] * warnings
    assert len(parsed) == 2 + warnings


@pytest.mark.parametrize(
    "text",
    [
        text_of("Istio's, in braces", "a", "a"),
        text_of("Istio's, in braces", "a", service="a..b"),
        text_of("Istio's, in braces", "a", "b", "no"),
        "--- {}\n",
        "%YAML 1.1\n---\n",
        "a: b\r\n",
        "a: [\n",
    ],
)
def test_what_is_wrong_or_odd_is_left_to_the_full_reading(text):
    assert read_alike(text, "x.yaml", DEFAULT_LIMITS, Sorts()) is None


def test_no_more_than_so_many_sorts_are_remembered_and_those_in_use_are_kept(parsed):
    sorts = Sorts()
    for i in range(MOST_SORTS + 5):
        for kind in ("EgressRule", f"EgressRule # {i}"):
            text = text_of("Istio's, in braces", "a").replace("EgressRule", kind)
            read_alike(text, "x.yaml", DEFAULT_LIMITS, sorts)
    assert len(sorts.by_text) == MOST_SORTS
    assert len(parsed) == 2 + MOST_SORTS + 5


def test_it_takes_less_than_half_the_time_of_reading_in_full():
    text = text_of("Istio's, in lines", *(f"rule-{i}" for i in range(1_000)))
    full, alike = [], []
    for _ in range(3):  # the best of three: other tests may run at the same time
        began = time.thread_time()
        read_text(text, "x.yaml", DEFAULT_LIMITS)
        between = time.thread_time()
        read_alike(text, "x.yaml", DEFAULT_LIMITS, Sorts())
        full.append(between - began)
        alike.append(time.thread_time() - between)
    assert min(alike) < min(full) / 2
