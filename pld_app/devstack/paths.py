"""Where the development stack keeps its files: all under `.dev/`, or under PLD_DEV_DIR when that is set."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEV = Path(os.environ.get("PLD_DEV_DIR", ROOT / ".dev")).resolve()
DEMO = DEV / "demo"
TEST = DEV / "test"
LOGS = DEV / "logs"
STATE_FILE = DEV / "state.json"
