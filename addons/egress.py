"""The egress gateway as a mitmproxy script: `mitmdump -s addons/egress.py` (or mitmweb, or mitmproxy).

This file only composes: mitmproxy runs it in a namespace that is an addon itself and loads it again whenever it
changes, so nothing of worth may live here.
"""

from egress_gateway.compose import make_script_addons

addons = make_script_addons()
