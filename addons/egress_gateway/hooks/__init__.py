"""Where mitmproxy meets the gateway: addons, one concern a file.

gateway     life cycle: options in, rules loaded and watched, everything started and stopped
options     the `egress_*` options, and their plain values
veto        options of mitmproxy that would open a hole are refused
data_path   relay or inspect, and why
guard       the last word on every connection, at the end of mitmproxy's chain
guest       a client that the runner has accepted
modes       the modes of mitmproxy that are served
blocked     options `block_global` and `block_private`, for sockets that are ours
dns_sockets mode dns listens for UDP on one of these
inspect     the inspect data path: mitmproxy's own layers, with gates of ours around them
quiet       what mitmproxy need not say on the relay path
descriptors as many open connections as the system allows
fail_closed an exception in a hook becomes its refusing form
script      what `mitmdump -s addons/egress.py` loads, and what happens when that script goes away
"""
