"""Rule files in, one immutable `RuleSet` out; or every problem at once.

Two ways to read a directory: `load_directory` for the command line, which also wants the text of every object, and
`load_rules` for the gateway, which wants the rules alone, quickly, again and again. They find the same rules and the
same problems.

Rule files are those directly in the directory that end in `.yaml`, `.yml` or `.json` and do not begin with a dot.
Sub-directories are not read. Symbolic links to files are followed, as a Kubernetes ConfigMap needs them.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from os import PathLike

from egress_gateway.policy.rule import AddressRange, EgressRule, ExactName, Port, Source, Wildcard
from egress_gateway.policy.ruleset import Conflict, RuleSet, Slot

from .alike import Sorts, read_alike
from .compose import decode
from .document import Document
from .left_out import leave_out
from .limits import DEFAULT_LIMITS, Limits
from .problem import Problem, Problems, RuleErrors, Severity, errors_of, warnings_of
from .read import Reading, clashes, read_text

SUFFIXES = (".yaml", ".yml", ".json")
_RULES_ARE_MADE_OF = frozenset(
    {tuple, dict, EgressRule, AddressRange, ExactName, Wildcard, Port, Source, Slot, Conflict, Problem}
)
"""Kinds of which many are kept, and which refer to nothing that refers back to them. (A network of two addresses does:
`ipaddress` gives it a method of its own.)"""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one text holds. With errors among `problems`, `documents` holds only the objects that could be read."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]

    @property
    def rules(self) -> tuple[EgressRule, ...]:
        return tuple(document.rule for document in self.documents)

    @property
    def errors(self) -> tuple[Problem, ...]:
        return errors_of(self.problems)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return warnings_of(self.problems)

    def raise_for_errors(self) -> None:
        """Raises `RuleErrors` with all problems if one of them is an error."""
        if self.errors:
            raise RuleErrors(self.problems)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rules of a directory that loaded without an error."""

    ruleset: RuleSet
    warnings: tuple[Problem, ...]
    """Warnings of the files, then rules that have no effect because another one comes first."""
    digest: str
    """Equal for two loads that read the same bytes from files of the same names."""


@dataclass(frozen=True, slots=True)
class Loaded(Snapshot):
    """The same with the objects of the files."""

    documents: tuple[Document, ...]
    files: tuple[str, ...]


@dataclass(slots=True)
class ReadCache:
    """What was read of each file the last time, so that a reload costs only the files that changed."""

    readings: dict[str, tuple[bytes, Reading]] = field(default_factory=dict)

    def read(self, file: str, data: bytes, limits: Limits) -> Reading:
        known = self.readings.get(file)
        if known is not None and known[0] == data:
            return known[1]
        reading = read_text(data, file, limits)
        self.readings[file] = (data, reading)
        return reading

    def keep_only(self, files: list[str]) -> None:
        self.readings = {file: self.readings[file] for file in files if file in self.readings}


_Stamp = tuple[int, int, int, int, int]
_SETTLED = 2_000_000_000
"""Nanoseconds after which a file that changes again has another time."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """What `load_rules` keeps of a file."""

    digest: bytes
    rules: tuple[EgressRule, ...]
    problems: tuple[Problem, ...]
    stamp: _Stamp | None
    """As long as the file looks like this it need not be read; None while it could change and look the same."""


@dataclass(slots=True)
class RulesCache:
    """The same for the gateway: the rules of each file, no text, and what the documents of all files looked like."""

    files: dict[str, _Rules] = field(default_factory=dict)
    sorts: Sorts = field(default_factory=Sorts)
    last: Snapshot | None = None

    def read(self, file: str, limits: Limits, between: Callable[[], None]) -> _Rules | Problem:
        known = self.files.get(file)
        if known is not None and known.stamp is not None and known.stamp == _stamp_of(file):
            return known
        read = _read(file, limits)
        if isinstance(read, Problem):
            return read
        data, status = read
        digest = hashlib.sha256(data).digest()
        if known is not None and known.digest == digest:
            found = replace(known, stamp=_stamp(status))
        else:
            rules, problems = read_rules(data, file, limits, self.sorts, between)
            leave_out((*rules, *problems), _RULES_ARE_MADE_OF, between)
            found = _Rules(digest, rules, problems, _stamp(status))
        self.files[file] = found
        return found

    def keep_only(self, files: set[str]) -> None:
        for file in self.files.keys() - files:
            del self.files[file]


def parse_documents(text: str | bytes, file: str, *, limits: Limits = DEFAULT_LIMITS) -> Parsed:
    """The objects in `text` (YAML or JSON, several documents, `kind: List`). Never raises; see `Parsed.problems`."""
    reading = read_text(text, file, limits)
    return Parsed(reading.documents, reading.problems)


def load_directory(
    path: str | PathLike[str],
    *,
    limits: Limits = DEFAULT_LIMITS,
    revision: int = 0,
    cache: ReadCache | None = None,
) -> Loaded:
    """Reads every rule file directly in `path`. Raises `RuleErrors` with all problems of all files.

    `revision` becomes the rule set's. With a `cache`, files that have not changed since it was filled are not parsed.
    """
    cache = cache or ReadCache()
    files: list[str] = []
    documents: list[Document] = []
    problems: list[Problem] = []
    digest = _Digest()
    for file in _files(os.fspath(path)):
        read = _read(file, limits)
        if isinstance(read, Problem):
            problems.append(read)
            continue
        data, _ = read
        reading = cache.read(file, data, limits)
        files.append(file)
        documents += reading.documents
        problems += reading.problems
        digest.add(file, hashlib.sha256(data).digest())
    cache.keep_only(files)
    ruleset, warnings = _put_together([document.rule for document in documents], problems, revision)
    return Loaded(ruleset, warnings, digest.text(), tuple(documents), tuple(files))


def load_rules(
    path: str | PathLike[str],
    *,
    limits: Limits = DEFAULT_LIMITS,
    revision: int = 0,
    cache: RulesCache | None = None,
    between: Callable[[], None] = lambda: None,
) -> Snapshot:
    """The rules of every rule file directly in `path`. Raises `RuleErrors` with all problems of all files.

    With a `cache`, files that have not changed since it was filled are not parsed; where none has changed, the last
    snapshot is returned, with the revision it has. `between` is called after each file and, as far as that can be done,
    each document and each rule.
    """
    cache = cache or RulesCache()
    files: set[str] = set()
    rules: list[EgressRule] = []
    problems: list[Problem] = []
    digest = _Digest()
    for file in _files(os.fspath(path)):
        found = cache.read(file, limits, between)
        if isinstance(found, Problem):
            problems.append(found)
            continue
        files.add(file)
        rules += found.rules
        problems += found.problems
        digest.add(file, found.digest)
        between()
    cache.keep_only(files)
    if not errors_of(problems) and cache.last is not None and cache.last.digest == digest.text():
        return cache.last
    ruleset, warnings = _put_together(rules, problems, revision, between)
    leave_out((*ruleset.parts(), *ruleset.conflicts, *warnings), _RULES_ARE_MADE_OF, between)
    cache.last = Snapshot(ruleset, warnings, digest.text())
    return cache.last


def read_rules(
    data: bytes, file: str, limits: Limits, sorts: Sorts, between: Callable[[], None] = lambda: None
) -> tuple[tuple[EgressRule, ...], tuple[Problem, ...]]:
    """The rules in `data`, and what is wrong with it; `sorts` are the documents that were seen before."""
    text = decode(data, Problems(file, limits.max_problems), limits)
    alike = read_alike(text, file, limits, sorts, between) if text is not None else None
    if alike is not None:
        return alike.rules, alike.warnings
    reading = read_text(data, file, limits)
    return tuple(document.rule for document in reading.documents), reading.problems


def _put_together(
    rules: list[EgressRule], problems: list[Problem], revision: int, between: Callable[[], None] = lambda: None
) -> tuple[RuleSet, tuple[Problem, ...]]:
    """The rule set and its warnings. Raises `RuleErrors`."""
    known = set(problems)
    problems += (clash for clash in clashes(rules) if clash not in known)
    if errors_of(problems):
        raise RuleErrors(problems)
    ruleset = RuleSet.build(rules, revision, between)
    return ruleset, (*warnings_of(problems), *conflict_warnings(ruleset))


class _Digest:
    def __init__(self) -> None:
        self._all = hashlib.sha256()

    def add(self, file: str, digest: bytes) -> None:
        name = os.fsencode(os.path.basename(file))
        self._all.update(b"%d %s " % (len(name), name) + digest)

    def text(self) -> str:
        return self._all.hexdigest()


def is_rule_file(name: str) -> bool:
    """Whether a file of this name in the rules directory is read."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def conflict_warnings(ruleset: RuleSet) -> Iterator[Problem]:
    """A warning for every rule that has no effect on one of its destinations, at the place of that rule."""
    for conflict in ruleset.conflicts:
        yield conflict_warning(conflict)


def conflict_warning(conflict: Conflict) -> Problem:
    source = conflict.loser.source
    file, line, column = (source.file, source.line, source.column) if source else ("", 0, 0)
    return Problem(file, line, column, "spec", str(conflict), Severity.WARNING)


def _files(directory: str) -> list[str]:
    """The rule files of `directory`, in order. Raises `RuleErrors`."""
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise RuleErrors([_directory_problem(directory, error)]) from None
    files = (os.path.join(directory, name) for name in sorted(filter(is_rule_file, names)))
    return [file for file in files if not os.path.isdir(file)]


def _directory_problem(directory: str, error: OSError) -> Problem:
    if isinstance(error, FileNotFoundError):
        message = f"the rules directory does not exist (create it: mkdir -p {directory})"
    elif isinstance(error, NotADirectoryError):
        message = "is not a directory (name the directory that holds the rule files)"
    elif isinstance(error, PermissionError):
        message = f"the rules directory cannot be read (allow it: chmod a+rx {directory})"
    else:
        message = f"the rules directory cannot be read: {error.strerror}"
    return Problem(directory, 0, 0, "", message)


def _read(file: str, limits: Limits) -> tuple[bytes, os.stat_result] | Problem:
    """The bytes of a file, one more than is allowed at most; never waits for a pipe or device."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                return Problem(file, 0, 0, "", "is not a regular file (move it out of the rules directory)")
            if status.st_size > limits.max_file_bytes:
                return _too_large(file, status.st_size, limits)
            return opened.read(limits.max_file_bytes + 1), status
    except OSError as error:
        return _file_problem(file, error)


def _stamp_of(file: str) -> _Stamp | None:
    try:
        return _stamp(os.stat(file))
    except OSError:
        return None


def _stamp(status: os.stat_result) -> _Stamp | None:
    if max(status.st_mtime_ns, status.st_ctime_ns) > time.time_ns() - _SETTLED:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _file_problem(file: str, error: OSError) -> Problem:
    if isinstance(error, PermissionError):
        message = f"the file cannot be read (allow it: chmod a+r {file})"
    elif isinstance(error, FileNotFoundError):
        message = "the file is gone, or a symbolic link that leads nowhere (delete the link)"
    else:
        message = f"the file cannot be read: {error.strerror}"
    return Problem(file, 0, 0, "", message)


def _too_large(file: str, size: int, limits: Limits) -> Problem:
    reading = f"the file has {size} bytes, more than the {limits.max_file_bytes} that are read"
    return Problem(file, 0, 0, "", f"{reading} (split it into several files)")
