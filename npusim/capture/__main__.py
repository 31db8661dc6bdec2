"""``python -m npusim.capture CASE FILE``: the child that Nsight Compute profiles."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from npusim.capture.case import Case
from npusim.capture.counters import run_step
from npusim.errors import NpusimError

try:
    run_step(Case(**json.loads(sys.argv[1])), Path(sys.argv[2]))
except NpusimError as error:
    sys.exit(f"error: {error}")
