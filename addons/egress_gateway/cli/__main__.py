"""`python -m egress_gateway.cli` is `egressctl`."""

import sys

from .main import main

sys.exit(main())
