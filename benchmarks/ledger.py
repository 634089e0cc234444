"""What a report costs the driver: `python benchmarks/ledger.py [--json]`.

One report is a ledger line of a trial's ~40 metrics, flushed to disk, and its hand-over to the thread that writes
MLflow; next to it, the bare write and flush of the same bytes.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from sweeps.storage.events import Progress
from sweeps.storage.ledger import Ledger

BAR_SECONDS = 0.010
REPORTS = 300


def main() -> None:
    """Alternate the two and print their medians."""
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl")
        with (Path(folder) / "bare").open("a") as file:
            for step in range(REPORTS):
                line = Progress("trial", step, {f"metric/{i}": i / 7 for i in range(40)})
                started = time.perf_counter()
                ledger.append(line)
                ours.append(time.perf_counter() - started)
                started = time.perf_counter()
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
                bare.append(time.perf_counter() - started)
    seconds = {"a report": round(median(ours), 6), "the bare write": round(median(bare), 6)}
    ratio = round(BAR_SECONDS / seconds["a report"], 2)
    result = {"name": "ledger", "device": "cpu", "ratio": ratio, "bar": 1.0, "details": {"seconds": seconds}}
    if "--json" in sys.argv:
        print(json.dumps(result))
    else:
        for name, value in seconds.items():
            print(f"{name:<16}{value * 1000:.2f} ms")


if __name__ == "__main__":
    main()
