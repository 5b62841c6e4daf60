"""The rules directory as a store of objects, for the command line.

The directory is the one source of truth: every call reads it anew. A change is checked as a whole, against the rules
that are there, before the first byte is written; then every file is written beside its place and renamed into it.
New objects get a file each. Objects in files that people wrote are changed in place (`edit`).
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from os import PathLike

from egress_gateway.policy.ruleset import RuleSet

from .atomic import Busy, Staged, locked, stage, sync_directory
from .document import Document, object_ref
from .edit import edited
from .limits import DEFAULT_LIMITS, Limits
from .load import Loaded, ReadCache, conflict_warning, load_directory
from .problem import Problem, RuleErrors, errors_of
from .read import read_text

ObjectKey = tuple[str, str, str]
"""`(kind, namespace, name)`, e.g. `("EgressRule", "default", "googleapis")`."""

_LOCK = ".egressctl.lock"
_REVISION = ".revision"


class StoreError(Exception):
    """The directory cannot be changed as asked. The message is one line; unless it says so, nothing was changed."""


class AlreadyExists(StoreError):
    pass


class NotFound(StoreError):
    pass


class WouldNotLoad(RuleErrors):
    """The directory loads, and would not with the change. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Change:
    """One object written or deleted."""

    key: ObjectKey
    revision: int
    """The revision of the store after this object."""
    file: str
    removed: bool = False
    """The file is gone, since nothing else was in it."""

    @property
    def ref(self) -> str:
        """`egress-rule/default/googleapis`"""
        return object_ref(*self.key)


@dataclass(frozen=True, slots=True)
class Written:
    changes: tuple[Change, ...]
    """In the order of the objects given."""
    warnings: tuple[Problem, ...] = ()
    """Conflicts of the written rules with others: which one has no effect, and why."""


@dataclass(slots=True)
class _Plan:
    """What will be on the disk: the new bytes of files, None for a file that goes."""

    files: dict[str, bytes | None] = field(default_factory=dict)
    places: dict[ObjectKey, str] = field(default_factory=dict)
    """The file of each object that changes, in the order given."""


class Store:
    """Every method raises `RuleErrors` when the directory does not load, its `WouldNotLoad` when only the change is to
    blame, and `StoreError` otherwise."""

    def __init__(self, directory: str | PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._directory = os.fspath(directory)
        self._limits = limits

    @property
    def revision(self) -> int:
        """Counts the objects ever written or deleted through a store; 0 for a directory that never was."""
        file = self._path(_REVISION)
        try:
            with open(file, "rb") as opened:
                text = opened.read(64).strip()
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as error:
            raise StoreError(f"{file} cannot be read: {error.strerror}") from None
        if not text.isdigit():
            raise StoreError(f"{file} does not hold a number (delete it to count from 1 again)")
        return int(text)

    def load(self) -> Loaded:
        """Everything that is there."""
        return load_directory(self._directory, limits=self._limits, revision=self.revision)

    def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[Document]:
        """The objects, sorted by namespace and name; None stands for all."""
        found = [
            document
            for document in self.load().documents
            if kind in (None, document.kind) and namespace in (None, document.namespace)
        ]
        return sorted(found, key=lambda document: (document.namespace, document.name, document.kind))

    def get(self, kind: str, namespace: str, name: str) -> Document:
        """Raises `NotFound`."""
        key = (kind, namespace, name)
        for document in self.load().documents:
            if document.key == key:
                return document
        raise NotFound(f"{object_ref(*key)} does not exist")

    def create(self, documents: Iterable[Document]) -> Written:
        """Writes new objects, all or none. Raises `AlreadyExists`."""
        given = _each_once(documents)
        with self._changing() as (there, cache):
            for key in given:
                if key in there:
                    place = there[key].source
                    raise AlreadyExists(
                        f"{object_ref(*key)} exists already at {place} (replace it, or give the new one another name)"
                    )
            plan = _Plan()
            for key, document in given.items():
                file = self._new_file(document, taken=plan.files)
                plan.files[file] = document.text.encode()
                plan.places[key] = file
            return self._carry_out(plan, cache, {**there, **given}, changed=given)

    def replace(self, documents: Iterable[Document]) -> Written:
        """Writes over existing objects, all or none. Raises `NotFound`."""
        given = _each_once(documents)
        with self._changing() as (there, cache):
            _require(given, there, "create it first")
            plan = self._plan_edits(given, there, cache)
            return self._carry_out(plan, cache, {**there, **given}, changed=given)

    def delete(self, keys: Iterable[ObjectKey]) -> Written:
        """Deletes objects, all or none. Raises `NotFound`."""
        gone: dict[ObjectKey, None] = dict.fromkeys(keys)
        with self._changing() as (there, cache):
            _require(gone, there, "nothing was deleted")
            plan = self._plan_edits(gone, there, cache)
            left = {key: document for key, document in there.items() if key not in gone}
            return self._carry_out(plan, cache, left, changed={})

    @contextmanager
    def _changing(self) -> Iterator[tuple[dict[ObjectKey, Document], ReadCache]]:
        """Holds the lock; gives the objects that are there, and the files they were read from."""
        try:
            if not os.path.isdir(self._directory):
                self.load()  # says what is wrong with it
            with locked(self._path(_LOCK)):
                cache = ReadCache()
                loaded = load_directory(self._directory, limits=self._limits, cache=cache)
                yield {document.key: document for document in loaded.documents}, cache
        except Busy:
            raise StoreError(f"{self._directory} is being changed by somebody else (try again)") from None
        except OSError as error:
            raise StoreError(
                f"{error.filename or self._directory} cannot be written: {error.strerror} (nothing was changed)"
            ) from None

    def _plan_edits(
        self,
        edits: dict[ObjectKey, Document] | dict[ObjectKey, None],
        there: dict[ObjectKey, Document],
        cache: ReadCache,
    ) -> _Plan:
        plan = _Plan(places={key: there[key].source.file for key in edits})
        for file in dict.fromkeys(plan.places.values()):
            if os.path.islink(file):
                raise StoreError(f"{file} is a symbolic link (change the rule where the link leads to)")
            data, reading = cache.readings[file]
            text = edited(reading, dict(edits), as_json=file.endswith(".json"))
            mark = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
            plan.files[file] = None if text is None else mark + text.encode()
        return plan

    def _carry_out(
        self,
        plan: _Plan,
        cache: ReadCache,
        after: dict[ObjectKey, Document],
        changed: dict[ObjectKey, Document],
    ) -> Written:
        self._check(plan, cache, after)
        revision = self.revision
        self._write(plan, revision + len(plan.places))
        changes = [
            Change(key, revision + number, file, removed=plan.files[file] is None)
            for number, (key, file) in enumerate(plan.places.items(), start=1)
        ]
        return Written(tuple(changes), _conflicts(after, changed))

    def _check(self, plan: _Plan, cache: ReadCache, after: dict[ObjectKey, Document]) -> None:
        """Reads what is about to be written, and holds it against what is meant to be there afterwards."""
        meant: dict[str, dict[ObjectKey, Document]] = {file: {} for file in plan.files}
        for key, document in after.items():
            file = plan.places.get(key, document.source.file)
            if file in meant:
                meant[file][key] = document
        for file, data in plan.files.items():
            if data is None:
                continue
            reading = read_text(data, file, self._limits)
            if errors_of(reading.problems):
                raise WouldNotLoad(reading.problems)
            found = {document.key: document for document in reading.documents}
            if {key: _meaning(one) for key, one in found.items()} != {
                key: _meaning(one) for key, one in meant[file].items()
            }:
                raise StoreError(f"{file} is written in a way that cannot be edited (edit it by hand)")

    def _write(self, plan: _Plan, revision: int) -> None:
        staged: list[Staged] = []
        try:
            for file, data in plan.files.items():
                if data is not None:
                    staged.append(stage(file, data))
            staged.append(stage(self._path(_REVISION), b"%d\n" % revision))
            self._put_in_place(staged, [file for file, data in plan.files.items() if data is None])
        finally:
            for one in staged:
                one.discard()

    def _put_in_place(self, staged: Iterable[Staged], gone: Iterable[str]) -> None:
        """Renames and removes; what was staged is on the disk, so that little is left that can fail half-way."""
        done: builtins.list[str] = []
        try:
            for one in staged:
                one.commit()
                done.append(one.file)
            for file in gone:
                os.unlink(file)
                done.append(file)
            sync_directory(self._directory)
        except OSError as error:
            so_far = f"changed so far: {', '.join(done)}" if done else "nothing was changed"
            raise StoreError(f"{error.filename or self._directory}: {error.strerror} ({so_far})") from None

    def _new_file(self, document: Document, taken: Iterable[str]) -> str:
        stem = document.name if document.namespace == "default" else f"{document.namespace}.{document.name}"
        names = (f"{stem}.yaml", *(f"{stem}.{number}.yaml" for number in range(2, 1000)))
        for name in names:
            file = self._path(name)
            if file not in taken and not os.path.lexists(file):
                return file
        raise StoreError(f"no file name is left for {document.ref} (delete some of {stem}.*.yaml)")

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


def _each_once(documents: Iterable[Document]) -> dict[ObjectKey, Document]:
    given: dict[ObjectKey, Document] = {}
    for document in documents:
        earlier = given.setdefault(document.key, document)
        if earlier is not document:
            raise StoreError(f"{document.ref} is given twice, at {earlier.source} and {document.source}")
    return given


def _require(keys: Iterable[ObjectKey], there: dict[ObjectKey, Document], advice: str) -> None:
    for key in keys:
        if key not in there:
            raise NotFound(f"{object_ref(*key)} does not exist ({advice})")


def _meaning(document: Document) -> object:
    return replace(document.rule, source=None)


def _conflicts(after: dict[ObjectKey, Document], changed: dict[ObjectKey, Document]) -> tuple[Problem, ...]:
    rules = {document.rule.key for document in changed.values()}
    if not rules:
        return ()
    ruleset = RuleSet.build([document.rule for document in after.values()])
    return tuple(
        conflict_warning(conflict)
        for conflict in ruleset.conflicts
        if conflict.winner.key in rules or conflict.loser.key in rules
    )
