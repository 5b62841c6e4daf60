"""Loads the rules of a folder, as the gateway does at its start."""

from __future__ import annotations

import json
import sys
import time

from egress_gateway.config.load import load_rules


def main() -> None:
    started = time.process_time()
    rules = len(load_rules(sys.argv[1]).ruleset.rules)
    print(json.dumps({"good": rules, "wrong": 0, "examples": [], "seconds": time.process_time() - started}))


if __name__ == "__main__":
    main()
