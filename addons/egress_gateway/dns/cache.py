"""A bounded store of values that expire. Pure: time is an argument, in the caller's monotonic seconds.

- A value is given out before its `expires_at`, never at it or after: a time to live of 0 is never given
  out.
- When it is full, what was not asked for the longest time makes room. Nothing is swept: an expired value
  leaves when it is asked for, or by the same rule as the others.
"""

from collections import OrderedDict


class TtlCache[V]:
    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[str, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, now: float) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires_at, value = entry
        if now >= expires_at:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: str, value: V, *, expires_at: float, now: float) -> None:
        """Keep `value`, unless it has expired already; either way an older value of the key is gone."""
        self._entries.pop(key, None)
        if now >= expires_at:
            return
        if len(self._entries) >= self._size:
            self._entries.popitem(last=False)
        self._entries[key] = (expires_at, value)

    def clear(self) -> None:
        self._entries.clear()
