"""The decision, as pure functions over frozen facts.

Nothing in this room reads a clock, a file or a socket, logs, or knows mitmproxy: the standard library and `idna`
(UTS 46 tables) are all it imports. Everything that a client claims is parsed once at the edge (`hostname`), put into
one frozen `Request`, and answered by `decide` with a `Verdict` that carries its `Reason`.
"""
