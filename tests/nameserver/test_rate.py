"""How often something is said."""

from egress_gateway.nameserver.rate import Seldom


def test_something_is_said_once_a_second_a_word() -> None:
    seldom = Seldom()
    assert [seldom.may_say("x", 1.0), seldom.may_say("x", 1.9), seldom.may_say("y", 1.9)] == [True, False, True]
    assert [seldom.may_say("x", 2.0), seldom.may_say("y", 2.0)] == [True, False]
