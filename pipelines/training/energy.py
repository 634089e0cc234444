"""How much energy a run uses, where the machine measures it: NVIDIA's driver for a GPU, Linux for a processor.

Both measure a device as a whole. A run is charged with a fraction of what the device uses while the run goes on: of a
GPU the part that was assigned to the run, of a processor the run's threads divided by the cores. Idle power is divided
in the same way; the fraction that no run holds is charged to none.
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
READ_EVERY = 60.0  # seconds; at 400 W a processor's counter starts again from 0 after ten minutes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counter:
    """A device's energy counter.

    read: returns the joules used since some moment; raises OSError where the device does not answer. fraction: the part
    of them that is charged to the run. wraps: the joules at which the counter starts again from 0.
    """

    read: Callable[[], float]
    fraction: float
    wraps: float = math.inf


def counters(gpus: float, threads: int) -> list[Counter]:
    """The energy counters of a run; [] where the machine has none. gpus: GPUs of the run, 0 for a run on the CPU."""
    if gpus:
        return _gpu_counters(min(1.0, gpus))
    return _processor_counters(min(1.0, threads / (os.cpu_count() or threads)))


def _gpu_counters(fraction: float) -> list[Counter]:
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
    except (pynvml.NVMLError, OSError, RuntimeError, AssertionError) as problem:  # the last two: PyTorch sees no GPU
        log.info("the driver does not measure the GPU's energy: %s", problem)
        return []
    return [Counter(read, fraction)]


def _processor_counters(fraction: float) -> list[Counter]:
    """One counter for each socket, from Linux's power capping; most systems let only the administrator read it."""
    try:
        sockets = [z for z in sorted(POWERCAP.glob("intel-rapl:*")) if (z / "name").read_text().startswith("package")]
        counters = [
            Counter(_microjoules(z / "energy_uj"), fraction, _microjoules(z / "max_energy_range_uj")()) for z in sockets
        ]
        for counter in counters:
            counter.read()
    except (OSError, ValueError) as problem:
        log.info("the system does not measure the processor's energy: %s", problem)
        return []
    return counters


def _microjoules(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text()) / 1e6


class Meter:
    """Measures a run's energy over all its starts and keeps it in the run's folder.

    The energy is known only where every start could measure it.
    """

    def __init__(self, folder: Path, counters: Sequence[Counter]) -> None:
        self.path, self.recipe, self.counters = folder / ENERGY, folder / RECIPE, counters
        self.joules: float | None = None
        self.lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        """While open, the energy is measured."""
        self._begin()
        done = threading.Event()

        def watch() -> None:
            while not done.wait(READ_EVERY):
                self.metrics()

        watcher = threading.Thread(target=watch, daemon=True, name="energy")
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            self.metrics()

    def _begin(self) -> None:
        try:
            if not self.path.exists() and self.recipe.exists():
                return  # what earlier starts used was not measured
            before = json.loads(self.path.read_text())["joules"] if self.path.exists() else 0.0
            self.last = [counter.read() for counter in self.counters]
            self.joules = before if self.counters else None
        except (OSError, ValueError) as problem:
            log.warning("the run's energy is not measured: %s", problem)
        if self.joules is None:
            self.path.unlink(missing_ok=True)

    def metrics(self) -> dict[str, float]:
        """Return {"energy_joules": …} up to now and keep it on disk; {} where it is not known."""
        with self.lock:
            if self.joules is None:
                return {}
            try:
                self._update(self.joules)
            except OSError as problem:
                log.warning("the run's energy is no longer measured: %s", problem)
                self.joules = None
                self.path.unlink(missing_ok=True)
                return {}
            return {"energy_joules": round(self.joules, 3)}

    def _update(self, before: float) -> None:
        readings = [counter.read() for counter in self.counters]
        pairs = zip(self.counters, readings, self.last, strict=True)
        self.joules = before + sum(counter.fraction * ((new - old) % counter.wraps) for counter, new, old in pairs)
        self.last = readings
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({"joules": self.joules}))
        partial.replace(self.path)
