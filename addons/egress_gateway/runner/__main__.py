"""`python -m egress_gateway.runner`, which is what scripts/gateway runs."""

from __future__ import annotations

import sys

from egress_gateway import compiled

compiled.use()  # before anything is imported that it is about

from .main import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
