"""`scripts/gateway-check`: proves, from an inside client's view, that nothing goes round the gateway.

The rules of this room:

- It runs on a machine of a client, which has none of our environment: the standard library of Python 3.9 and
  nothing else, no other room of this package either.
- It knows the gateway only as a client does: by its packets. It reads no rules and asks no gateway for its state.
- Whoever sends a packet outside can be answered by a host that does not listen, and an answer that does not come
  proves little. So each row says who answered, and where it can, this is told by distance: a packet whose time to
  live ends at the gateway can be answered by nobody behind it, and one that may go a single hop further makes the
  router behind the gateway answer if the gateway lets it pass (`place.py`, `judge.py`).
- What could not be tried is said, and is no success. What nobody foresaw is `broken`.
"""
