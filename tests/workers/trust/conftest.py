"""The models whose checks docs/trust.md tabulates are those of the study."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "studies"))
