"""Which name servers are silent: one unheard question, and one word that ends it."""

from egress_gateway.dns.health import Health

ONE, TWO = ("192.0.2.1", 53), ("192.0.2.2", 53)


def test_nobody_is_silent_at_first() -> None:
    assert Health().answering((ONE, TWO)) == (ONE, TWO)


def test_a_server_that_was_not_heard_since_it_was_asked_is_silent() -> None:
    health = Health()
    assert health.unheard(ONE, 10.0, 11.0)
    assert health.is_silent(ONE)
    assert health.answering((ONE, TWO)) == (TWO,)
    assert not health.unheard(ONE, 12.0, 13.0), "it is told once"


def test_one_slow_question_is_no_silence_while_others_are_answered() -> None:
    health = Health()
    health.heard(ONE, 10.5)
    assert not health.unheard(ONE, 10.0, 12.0)
    assert not health.is_silent(ONE)
    assert health.unheard(ONE, 10.6, 12.0), "but what was heard before the question does not count"


def test_one_word_ends_it() -> None:
    health = Health()
    health.unheard(ONE, 10.0, 11.0)
    assert health.heard(ONE, 20.0), "it had been silent"
    assert not health.heard(ONE, 21.0)
    assert health.answering((ONE,)) == (ONE,)


def test_what_was_heard_when_the_question_was_put_counts() -> None:
    health = Health()
    health.heard(ONE, 10.0)
    assert health.heard_since(ONE, 10.0)
    assert not health.heard_since(ONE, 10.1)
    assert not health.heard_since(TWO, 0.0)


def test_servers_that_are_not_asked_any_more_are_forgotten() -> None:
    health = Health()
    health.unheard(ONE, 10.0, 11.0)
    health.heard(TWO, 10.0)
    health.keep((TWO,))
    assert not health.is_silent(ONE)
    assert health.heard_since(TWO, 10.0)
