"""Objects that no collection of garbage looks at: they are kept, they are many, and looking at them stops everybody."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Collection, Iterable

# Of the C API; called without giving the interpreter away.
_untrack = ctypes.pythonapi.PyObject_GC_UnTrack
_untrack.argtypes = [ctypes.py_object]
_untrack.restype = None


def leave_out(objects: Iterable[object], kinds: Collection[type], between: Callable[[], None] = lambda: None) -> None:
    """Has no collection of garbage look at `objects` any more, nor at what they are made of as far as it is of `kinds`.

    Nothing of these kinds may be part of a cycle, which would then stay for ever; as ever, it is gone when nobody holds
    it any more. `between` is called after each of the objects.
    """
    for one in objects:
        found = [one]
        while found:
            part = found.pop()
            if type(part) in kinds and gc.is_tracked(part):
                _untrack(part)
                found += gc.get_referents(part)
        between()
