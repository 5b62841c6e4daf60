"""The store of what expires. No clock: time is an argument."""

from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.dns.cache import TtlCache


def test_a_value_is_given_out_until_it_expires_and_not_at_that_moment() -> None:
    cache: TtlCache[str] = TtlCache(10)
    cache.put("a", "value", expires_at=100.0, now=40.0)
    assert cache.get("a", 99.999) == "value"
    assert cache.get("a", 100.0) is None
    assert len(cache) == 0, "an expired value that was asked for leaves"


def test_a_value_that_has_expired_already_replaces_the_old_one_by_nothing() -> None:
    cache: TtlCache[str] = TtlCache(10)
    cache.put("a", "old", expires_at=100.0, now=0.0)
    cache.put("a", "new", expires_at=5.0, now=5.0)
    assert cache.get("a", 5.0) is None


def test_what_was_not_asked_for_the_longest_time_makes_room() -> None:
    cache: TtlCache[str] = TtlCache(2)
    cache.put("a", "a", expires_at=100.0, now=0.0)
    cache.put("b", "b", expires_at=100.0, now=0.0)
    cache.get("a", 1.0)
    cache.put("c", "c", expires_at=100.0, now=2.0)
    assert [cache.get(key, 3.0) for key in "abc"] == ["a", None, "c"]


def test_replacing_a_value_in_a_full_cache_pushes_nothing_out() -> None:
    cache: TtlCache[str] = TtlCache(2)
    for key in "aba":
        cache.put(key, key, expires_at=100.0, now=0.0)
    assert [cache.get(key, 1.0) for key in "ab"] == ["a", "b"]


def test_a_value_that_has_expired_already_pushes_nothing_out() -> None:
    cache: TtlCache[str] = TtlCache(1)
    cache.put("a", "a", expires_at=100.0, now=0.0)
    cache.put("b", "b", expires_at=1.0, now=1.0)
    assert cache.get("a", 2.0) == "a"


_puts = st.tuples(st.sampled_from("abcdef"), st.integers(0, 20), st.integers(0, 20))


@given(st.lists(_puts, max_size=60), st.integers(1, 4))
def test_against_a_naive_cache_never_larger_and_never_stale(puts: list[tuple[str, int, int]], size: int) -> None:
    cache: TtlCache[int] = TtlCache(size)
    newest: dict[str, tuple[int, int]] = {}
    for number, (key, now, ttl) in enumerate(puts):
        cache.put(key, number, expires_at=now + ttl, now=now)
        newest[key] = (number, now + ttl)
        assert len(cache) <= size
        for asked, (value, expires_at) in newest.items():
            found = cache.get(asked, now)
            assert found is None or (found == value and now < expires_at)
