"""What a run takes of electricity, where the machine counts it: NVIDIA's driver for a card, Linux for a processor.

Both count a whole device. A run is charged with its share of what the device used meanwhile: of a card the part that
it was given, of a processor its threads among the cores. Idle watts are shared alike; a share that nobody held is
nobody's.
"""

import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mpdit.run_folder import RECIPE

POWERCAP = Path("/sys/class/powercap")
ENERGY = "energy.json"
LOOK_EVERY = 60.0  # seconds; at 400 W a processor's counter begins again after ten minutes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counter:
    """The joules that a device has used since some moment; at `wraps` joules it begins again. share: the run's part.

    `read` raises OSError where the device does not answer.
    """

    read: Callable[[], float]
    share: float
    wraps: float = math.inf


def counters(gpus: float, threads: int) -> list[Counter]:
    """What counts for a run that was given so much of a GPU, or none and so many threads; [] where nothing tells."""
    return _card(min(1.0, gpus)) if gpus else _processor(min(1.0, threads / (os.cpu_count() or threads)))


def _card(share: float) -> list[Counter]:
    import pynvml
    import torch

    def read() -> float:
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(card)) / 1e3
        except pynvml.NVMLError as problem:
            raise OSError(f"NVIDIA's driver: {problem}") from None

    try:
        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
        read()
    except (pynvml.NVMLError, OSError, RuntimeError, AssertionError) as problem:  # the last two: PyTorch sees no card
        log.info("the driver does not tell what the card uses: %s", problem)
        return []
    return [Counter(read, share)]


def _processor(share: float) -> list[Counter]:
    """One counter a socket, of Linux's power capping; most systems let only the administrator read it."""
    try:
        sockets = [z for z in sorted(POWERCAP.glob("intel-rapl:*")) if (z / "name").read_text().startswith("package")]
        found = [
            Counter(_microjoules(z / "energy_uj"), share, _microjoules(z / "max_energy_range_uj")()) for z in sockets
        ]
        for counter in found:
            counter.read()
    except (OSError, ValueError) as problem:
        log.info("the system does not tell what the processor uses: %s", problem)
        return []
    return found


def _microjoules(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text()) / 1e6


class Meter:
    """A run's joules over all its starts, kept in its folder; they are known where every start could count them."""

    def __init__(self, folder: Path, counters: Sequence[Counter]) -> None:
        self.path, self.recipe, self.counters = folder / ENERGY, folder / RECIPE, counters
        self.joules: float | None = None
        self.turn = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        """While open, what the devices use is counted."""
        self._begin()
        done = threading.Event()

        def watch() -> None:
            while not done.wait(LOOK_EVERY):
                self.told()

        watcher = threading.Thread(target=watch, daemon=True, name="energy")
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            self.told()

    def _begin(self) -> None:
        try:
            if not self.path.exists() and self.recipe.exists():
                return  # what it took before, nobody has counted
            before = json.loads(self.path.read_text())["joules"] if self.path.exists() else 0.0
            self.last = [counter.read() for counter in self.counters]
            self.joules = before if self.counters else None
        except (OSError, ValueError) as problem:
            log.warning("what the run takes of electricity is not told: %s", problem)
        if self.joules is None:
            self.path.unlink(missing_ok=True)

    def told(self) -> dict[str, float]:
        """{"energy_joules": …} up to now, which a kill does not lose; {} where they are not known."""
        with self.turn:
            if self.joules is None:
                return {}
            try:
                self._look(self.joules)
            except OSError as problem:
                log.warning("what the run takes of electricity is no longer told: %s", problem)
                self.joules = None
                self.path.unlink(missing_ok=True)
                return {}
            return {"energy_joules": round(self.joules, 3)}

    def _look(self, before: float) -> None:
        now = [counter.read() for counter in self.counters]
        pairs = zip(self.counters, now, self.last, strict=True)
        self.joules = before + sum(counter.share * ((new - old) % counter.wraps) for counter, new, old in pairs)
        self.last = now
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({"joules": self.joules}))
        partial.replace(self.path)
