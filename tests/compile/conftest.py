"""compile/ is no part of the package: it is found from the project's top folder, as scripts/compile finds it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
