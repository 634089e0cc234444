"""How long `mpdit --help` takes, next to an empty Python: `python benchmarks/startup.py [--json]`."""

import json
import subprocess
import sys
import time
from statistics import median

BAR_SECONDS = 0.5
REPEATS = 7


def seconds(command: list[str]) -> float:
    """The wall time of one run of a command."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Alternate the two and print their medians."""
    commands = {"mpdit --help": [sys.executable, "-m", "cli.main", "--help"], "python": [sys.executable, "-c", ""]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(REPEATS):
        for name, command in commands.items():
            times[name].append(seconds(command))
    middle = {name: round(median(taken), 3) for name, taken in times.items()}
    ratio = round(BAR_SECONDS / middle["mpdit --help"], 2)
    result = {"name": "startup", "device": "cpu", "ratio": ratio, "bar": 1.0, "details": {"seconds": middle}}
    if "--json" in sys.argv:
        print(json.dumps(result))
    else:
        for name, value in middle.items():
            print(f"{name:<14}{value:.3f} s")


if __name__ == "__main__":
    main()
