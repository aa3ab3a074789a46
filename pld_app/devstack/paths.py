"""Where the development stack keeps its files; all of it lies under `.dev/` and is safe to delete."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEV = ROOT / ".dev"
DEMO = DEV / "demo"
TEST = DEV / "test"
LOGS = DEV / "logs"
STATE_FILE = DEV / "state.json"
