"""Only the plain part of YAML is taken; what is refused is refused at its place, never with a traceback."""

import time

import pytest
import yaml

from egress_gateway.config import compose
from egress_gateway.config.limits import Limits
from egress_gateway.config.load import parse_documents
from egress_gateway.config.scalars import NULLS, kind_of

GOOD = """\
kind: EgressRule
metadata: {name: good}
spec:
  destination: {service: www.example.com}
  ports:
  - {port: 443, protocol: https}
"""


def errors(data, **limits):
    return [str(problem) for problem in parse_documents(data, "x.yaml", limits=Limits(**limits)).errors]


def only_error(data, **limits):
    (error,) = errors(data, **limits)
    return error


def test_duplicate_keys_say_where_the_first_one_is():
    assert only_error(GOOD + "kind: EgressRule\n") == (
        "x.yaml:7:1: kind: duplicate key, the first one is at 1:1 (keep one of them)"
    )


def test_aliases_are_refused():
    text = GOOD.replace("443", "*port")
    assert only_error(text) == (
        'x.yaml:6:12: aliases are not supported, write the value out (or, if a wildcard is meant, in quotes: "*port")'
    )


def test_anchors_are_refused():
    assert only_error(GOOD.replace("443", "&port 443")).startswith("x.yaml:6:12: anchors are not supported (")


def test_an_anchored_object_is_refused_and_still_checked():
    text = GOOD.replace("spec:", "spec: &a").replace("www", "w..w")
    assert ["anchors are not supported" in errors(text)[0], "empty label" in errors(text)[1]] == [True, True]


@pytest.mark.parametrize("service", ["*.googleapis.com", "*", "*-bar.foo.com", "*cnn.com"])
def test_a_wildcard_without_quotes_says_so(service):
    assert only_error(GOOD.replace("www.example.com", service)) == (
        f'x.yaml:4:26: a value that begins with * must be quoted (write "{service}")'
    )


@pytest.mark.parametrize("tag", ["!!str", "!foo", "!!python/object/apply:os.system", "!"])
def test_tags_are_refused(tag):
    assert only_error(GOOD.replace("www.example.com", f"{tag} www.example.com")).startswith(
        "x.yaml:4:26: tags are not supported ("
    )


def test_merge_keys_are_refused():
    assert only_error(GOOD + "<<: {a: 1}\n") == "x.yaml:7:1: merge keys are not supported (write the merged fields out)"


@pytest.mark.parametrize("key", ["? [a, {b: c}]\n: x\n", "{a: {b: c}}: x\n"])
def test_a_key_that_is_no_word_is_refused(key):
    assert any(error.endswith("a field name must be a plain word") for error in errors(GOOD + key))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"a: \xff", "x.yaml:1:4: byte 0xff is not UTF-8 (save the file as UTF-8)"),
        ("kind: x".encode("utf-16"), "x.yaml:1:1: byte 0xff is not UTF-8 (save the file as UTF-8)"),
        (b"a: 1\nb\0: 2", "x.yaml:2:2: character U+0000 is not text (is this a binary file?)"),
        ("a: \ud800", "x.yaml:1:4: half of a surrogate pair is not text (save the file as UTF-8)"),
        *(
            (
                f"a: 1\nb:{end}c",
                f"x.yaml:2:3: character U+{ord(end):04X} ends a line to some readers and not to others "
                "(end lines with a newline)",
            )
            for end in "\r\x85\u2028\u2029"
        ),
        ("a: \x1b[0m", "x.yaml:1:4: character U+001B is not text (is this a binary file?)"),
    ],
)
def test_what_is_not_text(data, error):
    assert only_error(data) == error


def test_a_byte_order_mark_is_taken():
    assert errors(b"\xef\xbb\xbf" + GOOD.encode()) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "a: b: c",
            "x.yaml:1:5: not valid YAML: mapping values are not allowed in this context "
            "(check the indentation, and quote a value that holds ': ')",
        ),
        (
            "\tkind: x",
            "x.yaml:1:1: not valid YAML: found character that cannot start any token (indent with spaces, not tabs)",
        ),
        (
            "kind: [x",
            "x.yaml:1:9: not valid YAML: did not find expected ',' or ']', "
            "while parsing a flow sequence that begins at 1:7",
        ),
        ("kind: @x", "x.yaml:1:7: not valid YAML: found character that cannot start any token (quote the value)"),
        (
            'kind: "\\ud800"',
            "x.yaml:1:10: not valid YAML: found invalid Unicode character escape code, "
            "while parsing a quoted scalar that begins at 1:7",
        ),
        ("%YAML 9.0\n---\na: 1", "x.yaml:1:1: not valid YAML: found incompatible YAML document"),
    ],
)
def test_what_is_not_yaml(text, error):
    assert only_error(text) == error


@pytest.mark.parametrize("text", ["just text", "- a\n- b", "443", "[]"])
def test_what_is_yaml_but_no_object(text):
    assert only_error(text) == ("x.yaml:1:1: an EgressRule is needed here (write apiVersion, kind, metadata and spec)")


def test_problems_before_a_syntax_error_are_reported_as_well():
    assert [error.split(":")[1] for error in errors("kind: x\n---\nkind: [")] == ["1", "3"]


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# nothing\n", "---\n", "---\n---\n# x\n---\n", "--- \n...\n", "null\n", "~"]
)
def test_an_empty_file_has_no_objects_and_no_problems(text):
    parsed = parse_documents(text, "x.yaml")
    assert parsed.documents == ()
    assert parsed.problems == () or text in ("null\n", "~")


def test_a_file_that_is_too_large_is_not_looked_at():
    began = time.thread_time()
    assert only_error(b"\xff" * 50_000_000) == (
        "x.yaml: the file has 50000000 bytes, more than the 1048576 that are read (split it into several files)"
    )
    assert time.thread_time() - began < 1


@pytest.mark.parametrize(
    ("text", "place"), [("[" * 100_000, "1:33"), ("- " * 1000 + "a", "1:65"), ("{a: " * 500, "1:129")]
)
def test_deep_nesting_is_refused(text, place):
    assert errors(text)[0] == f"x.yaml:{place}: nested deeper than 32 levels (write it flatter)"


def test_nesting_up_to_the_limit_is_taken():
    assert "nested" not in errors("[" * 32 + "]" * 32)[0]


def test_a_million_brackets_take_no_time():
    began = time.thread_time()
    errors("[" * 1_000_000)
    errors("{" * 1_000_000)
    errors("? " * 500_000)
    errors("? [" * 300_000)
    errors("? " + "{" * 500_000)
    assert time.thread_time() - began < 5


def test_an_alias_bomb_does_nothing():
    lines = ["a0: &a0 x"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    found = errors("\n".join(lines))
    assert len(found) == 101
    assert found[-1].startswith("x.yaml: more errors that are not shown: ")


def test_too_many_documents():
    assert only_error("---\n".join(GOOD.replace("good", f"g{n}") for n in range(4)), max_documents=3) == (
        "x.yaml:22:1: more than 3 documents in one file (split it into several files)"
    )


def test_only_so_many_problems_are_shown():
    found = errors("---\n".join(["kind: x\n"] * 10), max_problems=4)
    assert len(found) == 5
    assert found[-1] == "x.yaml: more errors that are not shown: 6"


TRAPS = [
    ("no", "the boolean false"),
    ("yes", "the boolean true"),
    ("on", "the boolean true"),
    ("Off", "the boolean false"),
    ("22:22", "the number 1342"),
    ("0177", "the number 127"),
    ("0x10", "the number 16"),
    ("1_000", "the number 1000"),
    ("443", "the number 443"),
    ("1.10", "the number 1.1"),
    (".inf", "the number inf"),
    ("2027-01-31", "the date 2027-01-31"),
]


@pytest.mark.parametrize(("text", "reading"), TRAPS)
def test_where_a_string_is_meant_what_yaml_reads_is_told(text, reading):
    assert only_error(GOOD.replace("good", text)) == (
        f'x.yaml:2:18: metadata.name: YAML 1.1 reads {text} as {reading} (write "{text}")'
    )


@pytest.mark.parametrize(("text", "reading"), TRAPS)
def test_the_same_in_labels_and_services(text, reading):
    found = errors(GOOD.replace("{name: good}", f"{{name: good, labels: {{a: {text}}}}}"))
    assert found == [f'x.yaml:2:36: metadata.labels.a: YAML 1.1 reads {text} as {reading} (write "{text}")']
    assert f"YAML 1.1 reads {text} as {reading}" in only_error(GOOD.replace("www.example.com", text))


def test_a_date_that_does_not_exist_is_no_traceback():
    assert "YAML 1.1 reads 2027-02-31 as a date (write" in only_error(GOOD.replace("good", "2027-02-31"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("0177", "YAML 1.1 reads 0177 as the number 127 (write a plain decimal number)"),
        ("22:22", "YAML 1.1 reads 22:22 as the number 1342 (write a plain decimal number)"),
        ("0x1bb", "YAML 1.1 reads 0x1bb as the number 443 (write a plain decimal number)"),
        ("1_0", "YAML 1.1 reads 1_0 as the number 10 (write a plain decimal number)"),
        ("443.0", "YAML 1.1 reads 443.0 as the number 443.0 (write a plain decimal number)"),
        ("yes", "YAML 1.1 reads yes as the boolean true (write a plain decimal number)"),
        ('"443"', '"443" in quotes is a string (write 443 without quotes)'),
        ("https", "https is not a number (write a plain decimal number)"),
        ("[443]", "a number is needed, not a list"),
        ("9" * 5000, "YAML 1.1 reads 9999"),
    ],
)
def test_where_a_number_is_meant(text, error):
    found = only_error(GOOD.replace("443", text))
    assert found.startswith("x.yaml:6:12: spec.ports[0].port: ")
    assert error in found


@pytest.mark.parametrize(
    ("text", "error"), [('"true"', "true in quotes is not a boolean"), ("1", "1 is not a boolean")]
)
def test_where_a_boolean_is_meant(text, error):
    assert only_error(GOOD + f"  useEgressProxy: {text}\n") == (
        f"x.yaml:7:19: spec.useEgressProxy: {error} (write true or false)"
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            ("{name: good}", "good"),
            "x.yaml:2:11: metadata: an object is needed, not the value good (write fields, `name: value`, below it)",
        ),
        (
            ("{service: www.example.com}", "[a]"),
            "x.yaml:4:16: spec.destination: an object is needed, not a list (write fields, `name: value`, below it)",
        ),
        (
            ("  - {port: 443, protocol: https}", "    port: 443"),
            "x.yaml:6:5: spec.ports: a list is needed, not an object (write items, `- …`, below it)",
        ),
        (
            ("{port: 443, protocol: https}", "443"),
            "x.yaml:6:5: spec.ports[0]: an object is needed, not the value 443 (write fields, `name: value`, below it)",
        ),
        (
            ("{port: 443, protocol: https}", ""),
            "x.yaml:6:4: spec.ports[0]: an object is needed, not nothing (write fields, `name: value`, below it)",
        ),
        (("www.example.com", "[a]"), "x.yaml:4:26: spec.destination.service: a string is needed, not a list"),
        (
            ("{name: good}", "{name: good, labels: x}"),
            "x.yaml:2:32: metadata.labels: an object whose values are strings is needed, not the value x "
            "(write `name: text` pairs below it)",
        ),
    ],
)
def test_the_wrong_shape(change, error):
    assert only_error(GOOD.replace(*change)) == error


def test_json_is_taken_tabs_and_all():
    text = (
        '{\n\t"apiVersion": "config.istio.io/v1alpha2",\n\t"kind":"EgressRule",\n\t"metadata":{"name":"x"},\n'
        '\t"spec": {"destination":{"service":"\\u0062.example.com"},"ports":[{"port":443,"protocol":"https"}]}\n}\n'
    )
    parsed = parse_documents(text, "x.json")
    assert parsed.problems == ()
    assert str(parsed.rules[0].destinations[0]) == "b.example.com"


def test_lines_that_end_as_on_windows():
    text = GOOD.replace("443", "0").replace("\n", "\r\n")
    assert only_error(text).startswith("x.yaml:6:12: ")


@pytest.mark.parametrize("key", ["? [a, {b: c}]\n: x\n", "? {a: [b]}\n: [x, y]\n", "? - a\n  - b\n: x\n", "[[a]]: x\n"])
def test_what_follows_a_key_that_is_no_word_is_read_on(key):
    assert only_error(key + GOOD).endswith("a field name must be a plain word")


def test_a_file_of_just_the_largest_size_is_taken():
    assert errors(GOOD, max_file_bytes=len(GOOD)) == []
    assert len(errors(GOOD, max_file_bytes=len(GOOD) - 1)) == 1


@pytest.mark.parametrize("error", [yaml.YAMLError("odd"), ValueError("odd"), yaml.MarkedYAMLError(problem="odd")])
def test_whatever_the_parser_raises_is_an_error(error, monkeypatch):
    class Fails(yaml.SafeLoader):
        def get_event(self):
            raise error

    monkeypatch.setattr(compose, "_Loader", Fails)
    assert only_error(GOOD) == "x.yaml: not valid YAML: odd"


def test_documents_that_end_with_three_dots():
    other = GOOD.replace("good", "other")
    parsed = parse_documents(GOOD + "...\n# lost\n---\n# other\n" + other, "x.yaml")
    assert [document.text for document in parsed.documents] == [GOOD, "# other\n" + other]
    assert only_error(GOOD + "...\n" + other).endswith("did not find expected <document start>")


def test_what_kubernetes_writes_is_ignored_whatever_it_is():
    ignored = "creationTimestamp: 2018-01-01T00:00:00Z, generation: 3, uid: no, resourceVersion: [1], selfLink: {a: 1}"
    assert errors(GOOD.replace("{name: good}", f"{{name: good, {ignored}}}")) == []


def test_the_texts_that_are_null():
    words = ["", "~", "null", "Null", "NULL", "nULL", "nil", "none", "None", " ", "~~", "0", "NuLL", "nul", "nulls"]
    assert {word for word in words if kind_of(word) == "null"} == NULLS
