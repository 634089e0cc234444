"""The Ray that trials run on: started for one sweep, quiet, gone with it; and how many trials it takes at a time."""

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mpdit.errors import refusal
from sweeps.spec import SweepSpec

OBJECT_STORE_BYTES = 100_000_000  # reports are small; Ray would take a third of the memory
VITAL = ("raylet", "gcs_server")  # without one of these, Ray ends the driver hard within a minute


class RayLost(Exception):
    """A part of Ray that the sweep cannot go on without has died."""


@dataclass(frozen=True)
class Cluster:
    """A Ray to run trials on."""

    resources: Callable[[], dict[str, float]]
    vital: dict[str, psutil.Process]  # by name, where this process has started them

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks, for a restore that is never made."""
        return {}

    def check(self) -> None:
        """Raises RayLost when a vital process has died."""
        for name, process in self.vital.items():
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                raise RayLost(f"Ray's {name} on this machine has died")


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def temporary_folder() -> Path:
    """A folder for Ray's sockets, whose paths may have 107 bytes; those of dead drivers are removed."""
    for old in dead_folders():
        shutil.rmtree(old, ignore_errors=True)
    return _temporary() / f"mpdit-ray-{os.getpid()}"


def dead_folders() -> list[Path]:
    """The folders of drivers that were killed."""
    return [old for old in _temporary().glob("mpdit-ray-*") if not _alive(int(old.name.rsplit("-", 1)[1]))]


def _temporary() -> Path:
    base = Path(tempfile.gettempdir())
    return base if len(str(base)) <= 20 else Path("/tmp")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _quiet_ray() -> None:
    """Ray without telemetry, loggers of its own, or a changed working directory."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own snapshots are never restored from
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # seconds until a driver ends whose Ray has lost its head
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of compilers would outlive a killed worker
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)


@contextmanager
def local_ray() -> Iterator[Cluster]:
    """A Ray of our own while this is open."""
    _quiet_ray()
    import ray

    folder = temporary_folder()
    on_termination = signal.getsignal(signal.SIGTERM)
    before = {child.pid for child in psutil.Process().children()}
    try:
        ray.init(
            num_cpus=cores(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
        )
    except SystemExit:  # SIGTERM while Ray had the signal: to us it is an interruption like any other
        raise KeyboardInterrupt from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_termination)  # ray.init takes it, and ends the driver by abort
    ours = [child for child in psutil.Process().children() if child.pid not in before]
    try:
        yield Cluster(ray.cluster_resources, {child.name(): child for child in ours if child.name() in VITAL})
    finally:
        ray.shutdown()
        _reap(ours)
        shutil.rmtree(folder, ignore_errors=True)


def _reap(processes: list[psutil.Process]) -> None:
    """End what is left of Ray: it does not end all of its processes when one of them was killed."""
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def gpus_per_trial(spec: SweepSpec, available: float) -> float:
    """The GPUs that one trial gets: `auto` is one if there is one."""
    asked = spec.resources.gpus_per_trial
    return min(1.0, available) if asked == "auto" else asked


def slots(spec: SweepSpec, resources: dict[str, float]) -> int:
    """How many trials run at a time. Raises BadInput where not even one could."""
    gpus = resources.get("GPU", 0.0)
    each = gpus_per_trial(spec, gpus)
    if each > gpus:
        raise refusal(
            "no trial could start: it asks for more GPUs than there are",
            given=f"gpus_per_trial: {each:g}",
            allowed=f"0 to {gpus:g}, or auto",
        )
    by_cores = resources["CPU"] // spec.resources.cpus_per_trial
    return int(min(by_cores, gpus // each)) if each else int(by_cores)
