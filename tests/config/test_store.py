"""The rules directory as a store: one object a file, hand-written files edited in place, all or nothing."""

import fcntl
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from egress_gateway.config import atomic
from egress_gateway.config import store as store_module
from egress_gateway.config.limits import Limits
from egress_gateway.config.load import parse_documents
from egress_gateway.config.problem import RuleErrors
from egress_gateway.config.store import AlreadyExists, NotFound, Store, StoreError


def rule(name, service="www.example.com", protocol="https", namespace="default"):
    return (
        f"kind: EgressRule\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec:\n  destination: {{service: '{service}'}}\n  ports: [{{port: 443, protocol: {protocol}}}]\n"
    )


def documents(*texts):
    parsed = parse_documents("---\n".join(texts), "input.yaml")
    parsed.raise_for_errors()
    return parsed.documents


def files(directory):
    return {path.name: path.read_text() for path in directory.iterdir() if not path.name.startswith(".")}


def key(name, namespace="default"):
    return ("EgressRule", namespace, name)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_create_writes_a_file_an_object(store, tmp_path):
    written = store.create(documents(rule("a"), rule("a", namespace="shop")))
    assert files(tmp_path) == {"a.yaml": rule("a"), "shop.a.yaml": rule("a", namespace="shop")}
    assert [(change.ref, change.revision, Path(change.file).name) for change in written.changes] == [
        ("egress-rule/default/a", 1, "a.yaml"),
        ("egress-rule/shop/a", 2, "shop.a.yaml"),
    ]
    assert written.warnings == ()


def test_create_keeps_the_authors_comments(store, tmp_path):
    text = "# why\n" + rule("a").replace("spec:", "spec: # what\n  # and\n")
    store.create(documents(text))
    assert files(tmp_path) == {"a.yaml": text}


def test_create_of_a_list_writes_plain_yaml(store, tmp_path):
    store.create(
        documents(
            '{"kind": "List", "items": [{"kind": "EgressRule", "metadata": {"name": "a"}, "spec": '
            '{"destination": {"service": "*.a.example"}, "ports": [{"port": 443, "protocol": "https"}]}}]}'
        )
    )
    assert files(tmp_path) == {
        "a.yaml": "kind: EgressRule\nmetadata:\n  name: a\nspec:\n  destination:\n    service: '*.a.example'\n"
        "  ports:\n  - port: 443\n    protocol: https\n"
    }


def test_create_of_one_that_exists_changes_nothing(store, tmp_path):
    store.create(documents(rule("a")))
    before = files(tmp_path)
    with pytest.raises(AlreadyExists) as caught:
        store.create(documents(rule("b"), rule("a", "other.example.com")))
    assert str(caught.value) == (
        f"egress-rule/default/a exists already at {tmp_path}/a.yaml:1 (replace it, or give the new one another name)"
    )
    assert (files(tmp_path), store.revision) == (before, 1)


def test_the_same_object_twice_changes_nothing(store, tmp_path):
    both = parse_documents(rule("a"), "one.yaml").documents + parse_documents(rule("a"), "two.yaml").documents
    for act in (store.create, store.replace):
        with pytest.raises(StoreError, match=r"egress-rule/default/a is given twice, at one\.yaml:1 and two\.yaml:1"):
            act(both)
    assert files(tmp_path) == {}


def test_create_beside_a_file_of_the_same_name_takes_another(store, tmp_path):
    (tmp_path / "a.yaml").write_text(rule("other"))
    store.create(documents(rule("a")))
    assert files(tmp_path) == {"a.yaml": rule("other"), "a.2.yaml": rule("a")}


def test_nothing_is_written_while_the_directory_does_not_load(store, tmp_path):
    (tmp_path / "broken.yaml").write_text("kind: [")
    for act in (lambda: store.create(documents(rule("a"))), lambda: store.delete([key("a")]), store.list):
        with pytest.raises(RuleErrors, match=r"broken\.yaml:1:8"):
            act()
    assert files(tmp_path) == {"broken.yaml": "kind: ["}


def test_a_missing_directory(tmp_path):
    with pytest.raises(RuleErrors, match="does not exist"):
        Store(tmp_path / "no").create(documents(rule("a")))
    assert Store(tmp_path / "no").revision == 0


def test_get_and_list(store):
    store.create(documents(rule("b"), rule("a", namespace="shop"), rule("a")))
    assert store.get("EgressRule", "shop", "a").text == rule("a", namespace="shop")
    assert [document.ref for document in store.list()] == [
        "egress-rule/default/a",
        "egress-rule/default/b",
        "egress-rule/shop/a",
    ]
    assert [document.ref for document in store.list("EgressRule", "shop")] == ["egress-rule/shop/a"]
    assert store.list("EgressSource") == []
    with pytest.raises(NotFound, match=r"^egress-rule/shop/b does not exist$"):
        store.get("EgressRule", "shop", "b")


def test_replace_counts_on_and_writes_over(store, tmp_path):
    store.create(documents(rule("a")))
    (change,) = store.replace(documents(rule("a", "new.example.com"))).changes
    assert (change.revision, store.revision) == (2, 2)
    assert files(tmp_path) == {"a.yaml": rule("a", "new.example.com")}


def test_replace_of_one_that_does_not_exist_changes_nothing(store, tmp_path):
    store.create(documents(rule("a")))
    with pytest.raises(NotFound, match=r"egress-rule/default/b does not exist \(create it first\)"):
        store.replace(documents(rule("a", "new.example.com"), rule("b")))
    assert files(tmp_path) == {"a.yaml": rule("a")}


def test_delete_removes_the_file_of_the_last_object(store, tmp_path):
    store.create(documents(rule("a"), rule("b")))
    (change,) = store.delete([key("a")]).changes
    assert (change.ref, change.revision) == ("egress-rule/default/a", 3)
    assert files(tmp_path) == {"b.yaml": rule("b")}


def test_delete_of_one_that_does_not_exist_changes_nothing(store, tmp_path):
    store.create(documents(rule("a")))
    with pytest.raises(NotFound, match="egress-rule/default/b does not exist"):
        store.delete([key("a"), key("b")])
    assert files(tmp_path) == {"a.yaml": rule("a")}


HAND_WRITTEN = (
    "# The rules of the shop.\n\n"
    + rule("a")
    + "# between, about b?\n---\n# about b\n"
    + rule("b").replace("spec:", "spec:   # odd   spacing")
    + "\n--- # third\n"
    + rule("c").removesuffix("\n")
    + "   # no newline at the end"
)


def test_replace_in_a_hand_written_file_leaves_every_other_byte_alone(store, tmp_path):
    (tmp_path / "hand.yml").write_text(HAND_WRITTEN)
    old = rule("b").replace("spec:", "spec:   # odd   spacing")
    new = rule("b", "new.example.com") + "# its own comment\n"
    store.replace(documents("# ignored: the comments in front stay\n" + new))
    assert files(tmp_path) == {"hand.yml": HAND_WRITTEN.replace(old, rule("b", "new.example.com"))}


def test_replace_of_the_first_and_the_last_object_of_a_file(store, tmp_path):
    (tmp_path / "hand.yml").write_text(HAND_WRITTEN)
    store.replace(documents(rule("c", "c.example.com"), rule("a", "a.example.com")))
    expected = HAND_WRITTEN.replace(rule("a"), rule("a", "a.example.com"))
    expected = expected[: expected.index("--- # third\n")] + "--- # third\n" + rule("c", "c.example.com")
    assert files(tmp_path) == {"hand.yml": expected}


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("a", HAND_WRITTEN.replace(rule("a"), "").replace("about b?\n---\n", "about b?\n")),
        ("b", HAND_WRITTEN[: HAND_WRITTEN.index("---\n")] + HAND_WRITTEN[HAND_WRITTEN.index("\n--- # third") :]),
        ("c", HAND_WRITTEN[: HAND_WRITTEN.index("--- # third")]),
    ],
)
def test_delete_in_a_hand_written_file_leaves_every_other_byte_alone(store, tmp_path, name, left):
    (tmp_path / "hand.yml").write_text(HAND_WRITTEN)
    store.delete([key(name)])
    assert files(tmp_path) == {"hand.yml": left}
    assert name not in {document.name for document in store.list()}


def test_delete_of_several_and_at_last_all(store, tmp_path):
    (tmp_path / "hand.yml").write_text(HAND_WRITTEN)
    store.delete([key("a"), key("c")])
    assert [document.name for document in store.list()] == ["b"]
    assert "# The rules of the shop." in files(tmp_path)["hand.yml"]
    store.delete([key("b")])
    assert files(tmp_path) == {}


def test_a_new_header_takes_the_place_of_the_old_one_where_the_file_is_one_object(store, tmp_path):
    store.create(documents("# old\n" + rule("a")))
    store.replace(documents(rule("a", "b.example.com")))
    assert files(tmp_path) == {"a.yaml": "# old\n" + rule("a", "b.example.com")}
    store.replace(documents("# new\n" + rule("a", "c.example.com")))
    assert files(tmp_path) == {"a.yaml": "# new\n" + rule("a", "c.example.com")}


def test_an_object_on_the_line_of_its_marker(store, tmp_path):
    flow = '--- {"kind": "EgressRule", "metadata": {"name": "a"}, "spec": '
    flow += '{"destination": {"service": "a.example"}, "ports": [{"port": 1, "protocol": "tcp"}]}}\n---\n'
    (tmp_path / "hand.yaml").write_text(flow + rule("b"))
    store.replace(documents(rule("a")))
    assert files(tmp_path) == {"hand.yaml": "--- \n" + rule("a") + "---\n" + rule("b")}


def test_a_byte_order_mark_and_the_ends_of_lines_stay(store, tmp_path):
    text = ("# ü\n" + rule("a") + "---\n" + rule("b")).replace("\n", "\r\n")
    (tmp_path / "hand.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    store.delete([key("b")])
    expected = b"\xef\xbb\xbf" + ("# ü\n" + rule("a")).replace("\n", "\r\n").encode()
    assert (tmp_path / "hand.yaml").read_bytes() == expected


def test_indented_objects_and_block_scalars(store, tmp_path):
    block = rule("a").replace("namespace: default}", "annotations: {}}").replace("\n", "\n  ")
    text = (
        "---\n  " + block.rstrip() + "\n---\nkind: EgressRule\nmetadata:\n  name: b\n" + rule("x").partition("}\n")[2]
    )
    text += "---\n" + rule("c")
    (tmp_path / "hand.yaml").write_text(text)
    store.replace(documents(rule("a", "new.example.com")))
    store.replace(documents("  " + block.rstrip()))
    assert files(tmp_path) == {"hand.yaml": text}


@pytest.mark.parametrize("style", ["|", "|+", ">-"])
def test_an_object_that_ends_in_a_block_of_text(store, tmp_path, style):
    head = "kind: EgressRule\nspec: {destination: {service: a.example}, ports: [{port: 1, protocol: tcp}]}\n"
    block = head + f"metadata:\n  name: a\n  annotations:\n    why: {style}\n      some\n      text\n"
    (tmp_path / "hand.yaml").write_text(block + "# between\n---\n" + rule("b"))
    assert store.get(*key("a")).text == block
    store.replace(documents(rule("a")))
    assert files(tmp_path) == {"hand.yaml": rule("a") + "# between\n---\n" + rule("b")}


LIST = "kind: List\napiVersion: v1\nitems:\n" + "".join(
    "- " + rule(name).replace("\n", "\n  ").rstrip() + "\n" for name in "abc"
)


def test_an_item_of_a_list_is_replaced_and_deleted(store, tmp_path):
    (tmp_path / "list.yaml").write_text("# kept\n" + LIST + "---\n" + rule("d"))
    store.replace(documents(rule("b", "new.example.com")))
    store.delete([key("a")])
    assert [(document.name, str(document.rule.destinations[0])) for document in store.list()] == [
        ("b", "new.example.com"),
        ("c", "www.example.com"),
        ("d", "www.example.com"),
    ]
    text = files(tmp_path)["list.yaml"]
    assert text.startswith("# kept\nkind: List\n")
    assert text.endswith("---\n" + rule("d"))
    store.delete([key("b"), key("c")])
    assert files(tmp_path) == {"list.yaml": "# kept\n" + rule("d")}


def test_a_json_file_stays_json(store, tmp_path):
    data = [document.data() for document in documents(rule("a"), rule("b"))]
    (tmp_path / "one.json").write_text(json.dumps(data[0]))
    (tmp_path / "two.json").write_text(json.dumps({"kind": "List", "items": [data[1]]}))
    store.replace(documents(rule("a", "new.example.com"), rule("b", "new.example.com")))
    assert json.loads((tmp_path / "one.json").read_text())["spec"]["destination"] == {"service": "new.example.com"}
    assert json.loads((tmp_path / "two.json").read_text())["items"][0]["metadata"]["name"] == "b"


def test_conflicts_with_what_is_there_are_told(store):
    assert store.create(documents(rule("b"))).warnings == ()
    (warning,) = store.create(documents(rule("c", protocol="tcp"))).warnings
    assert "default/c has no effect on www.example.com port 443: default/b " in warning.message
    (warning,) = store.create(documents(rule("a", protocol="http"), rule("z", "z.example.com"))).warnings[:1]
    assert "default/a treats it differently" in warning.message
    assert store.create(documents(rule("y", "y.example.com"))).warnings == ()


def test_a_file_that_would_be_too_large_is_not_written(tmp_path):
    store = Store(tmp_path, limits=Limits(max_file_bytes=len(rule("a"))))
    store.create(documents(rule("a")))
    with pytest.raises(RuleErrors, match="more than the"):
        store.replace(documents(rule("a", "a-longer-name.example.com")))
    assert files(tmp_path) == {"a.yaml": rule("a")}


def test_an_edit_that_would_mean_something_else_is_refused(store, tmp_path, monkeypatch):
    store.create(documents(rule("a")))
    monkeypatch.setattr(store_module, "edited", lambda *_, **__: rule("a", "evil.example.com"))
    with pytest.raises(StoreError, match="is written in a way that cannot be edited"):
        store.replace(documents(rule("a", "new.example.com")))
    assert files(tmp_path) == {"a.yaml": rule("a")}


def test_a_symbolic_link_is_not_written_through(store, tmp_path):
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "a.yaml").write_text(rule("a"))
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    with pytest.raises(StoreError, match=r"a.yaml is a symbolic link \(change the rule where the link leads to\)"):
        store.delete([key("a")])


def test_the_mode_of_a_file_stays_and_new_files_follow_the_umask(store, tmp_path):
    before = os.umask(0o027)
    try:
        store.create(documents(rule("a")))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.yaml").stat().st_mode) == 0o640
    (tmp_path / "a.yaml").chmod(0o604)
    store.replace(documents(rule("a", "new.example.com")))
    assert stat.S_IMODE((tmp_path / "a.yaml").stat().st_mode) == 0o604


def test_a_full_disk_changes_nothing_and_leaves_nothing_behind(store, tmp_path, monkeypatch):
    store.create(documents(rule("a")))
    calls = []

    def fail_at_the_second(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail_at_the_second)
    with pytest.raises(StoreError, match="No space left on device"):
        store.create(documents(rule("b"), rule("c")))
    assert sorted(os.listdir(tmp_path)) == [".egressctl.lock", ".revision", "a.yaml"]
    assert store.revision == 1


def test_a_rename_that_fails_half_way_says_what_was_done(store, tmp_path, monkeypatch):
    renamed = []

    def fail_at_the_second(source, target):
        if renamed:
            raise PermissionError(1, "Operation not permitted", target)
        renamed.append(target)
        os.rename(source, target)

    monkeypatch.setattr(atomic.os, "replace", fail_at_the_second)
    with pytest.raises(StoreError) as caught:
        store.create(documents(rule("a"), rule("b")))
    assert str(caught.value) == (f"{tmp_path}/b.yaml: Operation not permitted (changed so far: {tmp_path}/a.yaml)")
    assert sorted(files(tmp_path)) == ["a.yaml"]
    assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] == []


def test_the_revision_file_is_checked(store, tmp_path):
    (tmp_path / ".revision").write_text("many")
    with pytest.raises(StoreError, match="does not hold a number"):
        store.create(documents(rule("a")))
    assert files(tmp_path) == {}


def test_a_second_writer_waits_for_the_first(store, tmp_path):
    (tmp_path / ".egressctl.lock").touch()
    with (tmp_path / ".egressctl.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = threading.Event()
        thread = threading.Thread(target=lambda: (store.create(documents(rule("a"))), done.set()))
        thread.start()
        assert not done.wait(0.2)
        assert files(tmp_path) == {}
    assert done.wait(15)
    thread.join()
    assert files(tmp_path) == {"a.yaml": rule("a")}


def test_a_lock_that_is_never_released_is_an_error(store, tmp_path, monkeypatch):
    real = atomic.locked
    monkeypatch.setattr(store_module, "locked", lambda file: real(file, patience=0.05))
    with real(f"{tmp_path}/.egressctl.lock"), pytest.raises(StoreError, match=r"somebody else \(try again\)"):
        store.create(documents(rule("a")))


def test_many_writers_lose_nothing(tmp_path):
    def write(number):
        for index in range(5):
            Store(tmp_path).create(documents(rule(f"r{number}-{index}")))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(files(tmp_path)), Store(tmp_path).revision) == (20, 20)


def test_a_reader_never_sees_half_a_change(store, tmp_path):
    store.create(documents(rule("a", "x" * 60 + ".example.com")))
    stop = threading.Event()
    seen = set()

    def read():
        while not stop.is_set():
            seen.add((tmp_path / "a.yaml").read_text())

    thread = threading.Thread(target=read)
    thread.start()
    texts = [rule("a", f"{'y' * n}.example.com") for n in range(1, 30)]
    for text in texts:
        store.replace(documents(text))
    stop.set()
    thread.join()
    assert seen <= {rule("a", "x" * 60 + ".example.com"), *texts}


def test_contents_are_on_the_disk_before_they_have_their_name(store, tmp_path, monkeypatch):
    done: list[tuple[str, object]] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(("sync", os.fstat(descriptor).st_size)))
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (done.append(("rename", Path(names[1]).name)), real(*names)))
    store.create(documents(rule("a")))
    size = len(rule("a"))
    assert done[:4] == [("sync", size), ("sync", 2), ("rename", "a.yaml"), ("rename", ".revision")]
    assert [what for what, _ in done[4:]] == ["sync"]  # of the directory


def test_the_owner_of_a_file_stays(store, tmp_path, monkeypatch):
    store.create(documents(rule("a")))
    owners = []
    monkeypatch.setattr(os, "fchown", lambda _descriptor, user, group: owners.append((user, group)))
    store.replace(documents(rule("a", "new.example.com")))
    assert (os.getuid(), os.getgid()) in owners


def test_no_file_stays_open(store, tmp_path):
    for name in "abc":
        store.create(documents(rule(name)))
    store.delete([key("a")])
    held = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert [file for file in held if file.startswith(str(tmp_path))] == []
