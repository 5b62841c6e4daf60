"""The story once more, with clients that are not configured at all: `scripts/demo --transparent`, which needs root.

acts        the six acts
stage       everything they need
networks    the client's network, the gateway, and the internet
shop        Bookinfo (`demo/bookinfo`) in the client's network
browser     pictures of its page
ways_round  how a client tries to get past the gateway
capture     what evil.example's interface saw of it
"""
