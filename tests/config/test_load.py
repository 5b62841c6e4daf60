"""A directory of rule files in, a rule set or every problem out."""

import gc
import json
import os
import re
import time
from pathlib import Path

import pytest

from egress_gateway.config import load
from egress_gateway.config.limits import Limits
from egress_gateway.config.load import ReadCache, RulesCache, load_directory, load_rules, parse_documents
from egress_gateway.config.problem import RuleErrors, Severity


def rule(name, service="www.example.com", port="{port: 443, protocol: https}", namespace="default"):
    return (
        f"kind: EgressRule\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec:\n  destination: {{service: '{service}'}}\n  ports: [{port}]\n"
    )


def problems(directory, **limits):
    with pytest.raises(RuleErrors) as caught:
        load_directory(directory, limits=Limits(**limits))
    return str(caught.value).splitlines()


def test_an_empty_directory_is_a_rule_set_without_rules(tmp_path):
    loaded = load_directory(tmp_path, revision=7)
    assert (loaded.ruleset.rules, loaded.ruleset.revision, loaded.files, loaded.warnings) == ((), 7, (), ())


def test_which_files_are_rule_files(tmp_path):
    for name in ("a.yaml", "b.yml", "c.json"):
        (tmp_path / name).write_text(rule(name[0]))
    for name in (".hidden.yaml", "d.yaml~", "e.yaml.bak", "README.md", "f.YAML", "g"):
        (tmp_path / name).write_text("not: [yaml")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "h.yaml").write_text("not: [yaml")
    (tmp_path / "dir.yaml").mkdir()
    loaded = load_directory(tmp_path)
    assert [Path(file).name for file in loaded.files] == ["a.yaml", "b.yml", "c.json"]
    assert [document.name for document in loaded.documents] == ["a", "b", "c"]


def test_a_config_map_is_read_through_its_links(tmp_path):
    (tmp_path / "..2024_01").mkdir()
    (tmp_path / "..2024_01" / "a.yaml").write_text(rule("a"))
    (tmp_path / "..data").symlink_to("..2024_01")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    loaded = load_directory(tmp_path)
    assert [document.ref for document in loaded.documents] == ["egress-rule/default/a"]


def test_all_problems_of_all_files_come_at_once(tmp_path):
    (tmp_path / "a.yaml").write_text(rule("a", port="{port: 0, protocol: udp}"))
    (tmp_path / "b.yaml").write_text("kind: [")
    (tmp_path / "c.yaml").write_bytes(b"\xff")
    assert [re.sub(r".*/", "", line).split(": ")[0] for line in problems(tmp_path)] == [
        "a.yaml:5:18",
        "a.yaml:5:31",
        "b.yaml:1:8",
        "c.yaml:1:1",
    ]


def test_the_path_in_a_message_is_the_one_that_was_given(tmp_path, monkeypatch):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "github.yaml").write_text(rule("a", port="{port: 70000, protocol: tcp}"))
    monkeypatch.chdir(tmp_path)
    assert problems("rules")[0].startswith("rules/github.yaml:5:18: spec.ports[0].port: port number 70000 ")


def test_two_objects_of_one_name_name_both_places(tmp_path):
    (tmp_path / "a.yaml").write_text(rule("a") + "---\n" + rule("x"))
    (tmp_path / "b.yaml").write_text(rule("x"))
    assert problems(tmp_path) == [
        f"{tmp_path}/b.yaml:1:1: metadata.name: egress-rule/default/x exists already at {tmp_path}/a.yaml:7:1 "
        "(rename or delete one of them)"
    ]


def test_two_objects_of_one_name_in_one_file_are_reported_once(tmp_path):
    (tmp_path / "a.yaml").write_text(rule("x") + "---\n" + rule("x"))
    assert problems(tmp_path) == [
        f"{tmp_path}/a.yaml:7:1: metadata.name: egress-rule/default/x exists already at {tmp_path}/a.yaml:1:1 "
        "(rename or delete one of them)"
    ]


def test_one_name_in_two_namespaces_is_fine(tmp_path):
    (tmp_path / "a.yaml").write_text(rule("x") + "---\n" + rule("x", namespace="shop"))
    assert [document.ref for document in load_directory(tmp_path).documents] == [
        "egress-rule/default/x",
        "egress-rule/shop/x",
    ]


def test_rules_that_contradict_each_other_warn_at_the_one_without_effect(tmp_path):
    (tmp_path / "a.yaml").write_text(rule("a"))
    (tmp_path / "b.yaml").write_text("# b\n" + rule("b", port="{port: 443, protocol: tcp}"))
    loaded = load_directory(tmp_path)
    (warning,) = loaded.warnings
    assert str(warning).startswith(
        f"{tmp_path}/b.yaml:2:1: spec: default/b has no effect on www.example.com port 443: "
    )
    assert warning.severity is Severity.WARNING


def test_a_rule_knows_where_it_stands(tmp_path):
    (tmp_path / "a.yaml").write_text("# a comment\n---\n# another\n" + rule("a"))
    (document,) = load_directory(tmp_path).documents
    assert (document.source.file, document.source.line, document.source.column) == (f"{tmp_path}/a.yaml", 4, 1)
    assert document.rule.source == document.source


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_what_is_no_directory_says_what_to_do(tmp_path, kind):
    path = tmp_path / "rules"
    if kind == "file":
        path.write_text("")
        assert problems(path) == [f"{path}: is not a directory (name the directory that holds the rule files)"]
    else:
        assert problems(path) == [f"{path}: the rules directory does not exist (create it: mkdir -p {path})"]


def test_a_link_that_leads_nowhere(tmp_path):
    (tmp_path / "a.yaml").symlink_to("nowhere.yaml")
    assert problems(tmp_path) == [
        f"{tmp_path}/a.yaml: the file is gone, or a symbolic link that leads nowhere (delete the link)"
    ]


def test_a_link_to_itself(tmp_path):
    (tmp_path / "a.yaml").symlink_to("a.yaml")
    assert problems(tmp_path) == [f"{tmp_path}/a.yaml: the file cannot be read: Too many levels of symbolic links"]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    assert problems(tmp_path) == [f"{tmp_path}/a.yaml: is not a regular file (move it out of the rules directory)"]


def test_permission_is_explained(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text(rule("a"))

    def refuse(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert problems(tmp_path)[0].endswith(f"(allow it: chmod a+r {tmp_path}/a.yaml)")
    monkeypatch.setattr(os, "listdir", refuse)
    assert problems(tmp_path) == [f"{tmp_path}: the rules directory cannot be read (allow it: chmod a+rx {tmp_path})"]


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(50_000_000)
    assert problems(tmp_path) == [
        f"{tmp_path}/a.yaml: the file has 50000000 bytes, more than the 1048576 that are read "
        "(split it into several files)"
    ]


def test_the_digest_tells_whether_anything_changed(tmp_path):
    (tmp_path / "a.yaml").write_text(rule("a"))
    first = load_directory(tmp_path).digest
    assert load_directory(tmp_path).digest == first
    (tmp_path / "a.yaml").write_text(rule("b"))
    second = load_directory(tmp_path).digest
    (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
    assert len({first, second, load_directory(tmp_path).digest}) == 3


def test_a_cache_reads_only_what_changed(tmp_path):
    cache = ReadCache()
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(rule(name))
    first = load_directory(tmp_path, cache=cache)
    (tmp_path / "b.yaml").write_text(rule("c"))
    second = load_directory(tmp_path, cache=cache)
    assert second.documents[0] is first.documents[0]
    assert [document.name for document in second.documents] == ["a", "c"]
    (tmp_path / "a.yaml").unlink()
    assert load_directory(tmp_path, cache=cache).files == (f"{tmp_path}/b.yaml",)
    assert list(cache.readings) == [f"{tmp_path}/b.yaml"]


DIRECTORIES = {
    "nothing": {},
    "two files": {"a.yaml": rule("a"), "b.json": json.dumps({"kind": "EgressRule"}), "c.txt": "x"},
    "the same name in two files": {"a.yaml": rule("a"), "b.yaml": rule("b") + "---\n" + rule("a")},
    "a warning": {"a.yaml": rule("a", "10.0.0.1")},
    "a conflict": {"a.yaml": rule("a"), "b.yaml": rule("b").replace("https", "http")},
    "an error": {"a.yaml": rule("a"), "b.yaml": rule("b", "b..c"), "c.yaml": rule("c", "d..e")},
    "a file that is too large": {"a.yaml": "#" * 2_000_000},
    "bytes that are no text": {"a.yaml": "\0"},
}


def outcome(read, directory):
    try:
        loaded = read(directory)
    except RuleErrors as errors:
        return [str(problem) for problem in errors.problems]
    conflicts = [str(conflict) for conflict in loaded.ruleset.conflicts]
    return loaded.ruleset.rules, [str(warning) for warning in loaded.warnings], conflicts, loaded.digest


@pytest.mark.parametrize("files", DIRECTORIES.values(), ids=DIRECTORIES)
def test_both_ways_to_read_a_directory_find_the_same(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert outcome(load_rules, tmp_path) == outcome(load_directory, tmp_path)
    assert outcome(load_rules, tmp_path / "none") == outcome(load_directory, tmp_path / "none")


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that were read."""
    names = []

    def read(file, limits):
        names.append(os.path.basename(file))
        return really(file, limits)

    really = load._read
    monkeypatch.setattr(load, "_read", read)
    return names


def test_rules_of_files_that_did_not_change_are_the_same_objects(tmp_path):
    cache = RulesCache()
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(rule(name))
    first = load_rules(tmp_path, revision=1, cache=cache)
    assert load_rules(tmp_path, revision=2, cache=cache) is first
    (tmp_path / "b.yaml").write_text(rule("c"))
    second = load_rules(tmp_path, revision=2, cache=cache)
    assert second.ruleset.rules[0] is first.ruleset.rules[0]
    assert ([one.name for one in second.ruleset.rules], second.ruleset.revision) == (["a", "c"], 2)
    (tmp_path / "a.yaml").unlink()
    assert [one.name for one in load_rules(tmp_path, cache=cache).ruleset.rules] == ["c"]
    assert list(cache.files) == [f"{tmp_path}/b.yaml"]


def test_a_file_that_looks_the_same_is_not_read_unless_it_changed_just_now(tmp_path, opened, monkeypatch):
    cache = RulesCache()
    file = tmp_path / "a.yaml"
    file.write_text(rule("a"))
    for _ in range(3):
        load_rules(tmp_path, cache=cache)
    assert opened == ["a.yaml"] * 3
    monkeypatch.setattr(load, "_SETTLED", -(10**12))
    for _ in range(3):
        load_rules(tmp_path, cache=cache)
    assert opened == ["a.yaml"] * 4
    status = file.stat()
    file.write_text(rule("b"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [one.name for one in load_rules(tmp_path, cache=cache).ruleset.rules] == ["b"]
    (tmp_path / "b.yaml").symlink_to(file)
    with pytest.raises(RuleErrors, match="exists already"):
        load_rules(tmp_path, cache=cache)
    file.unlink()
    with pytest.raises(RuleErrors, match="leads nowhere"):
        load_rules(tmp_path, cache=cache)


def test_what_did_not_load_loads_again_when_it_is_as_before(tmp_path):
    cache = RulesCache()
    (tmp_path / "a.yaml").write_text(rule("a"))
    first = load_rules(tmp_path, cache=cache)
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(RuleErrors):
        load_rules(tmp_path, cache=cache)
    (tmp_path / "a.yaml").write_text(rule("a"))
    assert load_rules(tmp_path, cache=cache) is first


def test_something_else_may_happen_after_each_document_file_and_rule(tmp_path):
    (tmp_path / "a.yaml").write_text("---\n".join(rule(name) for name in "abc"))
    (tmp_path / "b.yaml").write_text("# with another end of line\r\n---\r\n" + rule("d"))
    calls = []
    load_rules(tmp_path, between=lambda: calls.append(1))
    # Documents that are read by likeness, files, rules; then what collections leave out: the rules of each file, and
    # those of the set with what is said of the one destination.
    assert len(calls) == 3 + 2 + 4 + (3 + 1) + (4 + 1)


LIST = """\
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- kind: EgressRule
  metadata: {name: a}
  spec: {destination: {service: a.example.com}, ports: [{port: 443, protocol: https}]}
- apiVersion: egress.mitmproxy/v1
  kind: EgressRule
  metadata: {name: b, labels: {a: "yes"}}
  spec: {destination: {service: b.example.com}, ports: [{port: 80, protocol: http}]}
"""


def test_a_list_holds_several_objects():
    parsed = parse_documents(LIST, "x.yaml")
    assert parsed.problems == ()
    assert [(document.ref, document.source.line) for document in parsed.documents] == [
        ("egress-rule/default/a", 5),
        ("egress-rule/default/b", 8),
    ]
    again = parse_documents("---\n".join(document.text for document in parsed.documents), "x.yaml")
    assert [document.data() for document in again.documents] == [document.data() for document in parsed.documents]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("443", "0"), "x.yaml:7:64: items[0].spec.ports[0].port: port number 0 "),
        (
            ("kind: EgressRule\n  metadata: {name: a}", "kind: List\n  items: []"),
            "x.yaml:5:9: items[0].kind: List is not a kind here",
        ),
        (("items:", "itemz:"), "x.yaml:4:1: itemz: unknown field in a List"),
        (("v1\n", "v2\n"), "x.yaml:1:13: apiVersion: a List is of apiVersion v1"),
        (("{name: a}", ""), "x.yaml:6:3: items[0].metadata.name: is missing (write metadata: {name: …})"),
    ],
)
def test_a_list_that_is_wrong(change, error):
    old, new = change
    errors = parse_documents(LIST.replace(old, new, 1), "x.yaml").errors
    assert any(str(found).startswith(error) for found in errors)


def test_too_many_objects_in_a_list():
    errors = parse_documents(LIST, "x.yaml", limits=Limits(max_documents=1)).errors
    assert [str(error) for error in errors] == [
        "x.yaml:1:1: more than 1 objects in one file (split it into several files)"
    ]


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ("{}", "x.yaml:2:11: metadata.name: is missing (write name: …)"),
        (
            "{name: ''}",
            "x.yaml:2:18: metadata.name: an empty string is not a DNS-1123 label "
            "(use lower-case letters, digits and -, at most 63, a letter or digit first and last)",
        ),
        (
            "{name: Big_Name}",
            "x.yaml:2:18: metadata.name: Big_Name is not a DNS-1123 label "
            "(use lower-case letters, digits and -, at most 63, a letter or digit first and last, e.g. big-name)",
        ),
        ("{name: a.b}", "e.g. a-b)"),
        ("{name: -a}", "e.g. a)"),
        ("{name: ../../etc/passwd}", "e.g. etc-passwd)"),
        ("{name: " + "a" * 64 + "}", "is not a DNS-1123 label"),
        ("{name: a, namespace: Shop}", "x.yaml:2:32: metadata.namespace: Shop is not a DNS-1123 label"),
        ("{name: a, labels: [a]}", "x.yaml:2:29: metadata.labels: an object whose values are strings is needed"),
        (
            "{name: a, annotations: {b: {c: d}}}",
            "x.yaml:2:38: metadata.annotations.b: a string is needed, not an object",
        ),
        ("{name: a, finalizers: []}", "x.yaml:2:21: metadata.finalizers: unknown field (use name, namespace, "),
    ],
)
def test_metadata_that_is_wrong(metadata, error):
    text = rule("a").replace("{name: a, namespace: default}", metadata)
    parsed = parse_documents(text, "x.yaml")
    (found,) = parsed.errors
    assert error in str(found)
    assert all(document.namespace == "default" and document.name == "a" for document in parsed.documents)


@pytest.mark.parametrize(
    ("version", "error"),
    [
        ("config.istio.io/v1alpha1", "is not an API version here (did you mean config.istio.io/v1alpha2?)"),
        ("networking.istio.io/v1alpha3", "is not an API version here (did you mean config.istio.io/v1alpha2?)"),
        ("v1", "is not an API version here (use config.istio.io/v1alpha2, egress.mitmproxy/v1)"),
        ("", "nothing is not an API version here"),
    ],
)
def test_an_unknown_api_version(version, error):
    (found,) = parse_documents(f"apiVersion: {version}\n" + rule("a"), "x.yaml").errors
    assert error in str(found)


def test_the_text_of_a_document_is_its_authors():
    first, second = "# about a\n" + rule("a") + "  # at the end of a\n", rule("b").removesuffix("\n")
    parsed = parse_documents("# the file\n---\n" + first + "--- # odd\n" + second, "x.yaml")
    assert parsed.documents[0].text == "# the file\n# about a\n" + rule("a")
    assert parsed.documents[1].text == "# odd\n" + second + "\n"
    assert parsed.documents[0].data() == {
        "kind": "EgressRule",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"destination": {"service": "www.example.com"}, "ports": [{"port": 443, "protocol": "https"}]},
    }


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 10])
def test_ten_thousand_rules_cost_no_more_a_rule_than_a_thousand(tmp_path, files):
    few, many = (_cpu_time_a_rule(tmp_path / str(count), count, files) for count in (1_000, 10_000))
    assert many < 2 * few


def _cpu_time_a_rule(directory, count, files):
    directory.mkdir()
    for number in range(files):
        names = [f"r{number}-{index}" for index in range(count // files)]
        (directory / f"{number}.yaml").write_text("---\n".join(rule(name, f"*.{name}.example.com") for name in names))
    times = []
    for _ in range(3):  # the best of three: other tests may run at the same time
        began = time.thread_time()
        loaded = load_directory(directory, limits=Limits(max_file_bytes=1 << 24))
        times.append(time.thread_time() - began)
    assert len(loaded.ruleset.rules) == count
    return min(times) / count


def test_no_collection_of_garbage_looks_at_the_rules(tmp_path):
    """Or each would hold up requests for as long as there are rules; ten thousand take it 20 ms."""
    text = "---\n".join(rule(f"r{number}", f"r{number}.example.com") for number in range(1_000))
    (tmp_path / "a.yaml").write_text(text)
    cache = RulesCache()
    load_rules(tmp_path, cache=cache)
    (tmp_path / "a.yaml").write_text("# changed\n" + text.replace(".com", ".org"))
    gc.collect()
    before = len(gc.get_objects())
    snapshot = load_rules(tmp_path, cache=cache)
    assert len(snapshot.ruleset.rules) == 1_000
    assert len(gc.get_objects()) - before < 200


@pytest.mark.parametrize("service", ["a.example.com", "*.example.com", "93.184.215.0/24", "2606:2800::1"])
def test_whatever_a_rule_allows_it_is_left_out(tmp_path, service):
    text = rule("a", service, "{port: 53, protocol: tcp}").replace("service: ", "services: [").replace("'}", "']}")
    (tmp_path / "a.yaml").write_text(f"apiVersion: egress.mitmproxy/v1\n{text}")
    ruleset = load_rules(tmp_path).ruleset
    assert [gc.is_tracked(part) for part in ruleset.parts()] == [False, False]
    assert not gc.is_tracked(ruleset.rules[0].destinations[0])
