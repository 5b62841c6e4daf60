"""The gateway's own connections: classify, decide, dial the judged address, move bytes."""
