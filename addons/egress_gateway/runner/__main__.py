"""`python -m egress_gateway.runner`, which is what scripts/gateway runs."""

from __future__ import annotations

import sys

from .main import main

sys.exit(main(sys.argv[1:]))
