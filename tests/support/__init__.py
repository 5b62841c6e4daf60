"""The test harness: real sockets, real processes and a real (private) network, no mocks."""
