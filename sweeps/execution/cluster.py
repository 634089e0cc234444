"""The Ray that trials run on, which starts and ends with the sweep; and how many trials it runs at a time."""

import fcntl
import logging
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mpdit.errors import InputError, MpditError, input_error
from pipelines.provenance import cores
from sweeps.spec.model import SweepSpec

OBJECT_STORE_BYTES = 100_000_000  # reports are small; Ray would take a third of the memory
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # what a driver leaves: NVIDIA's, that in WSL, AMD's
UNREAD = ("start_api_server", "start_log_monitor", "start_monitor")  # dashboard, worker logs, autoscaler
VITAL = ("raylet", "gcs_server")  # without one of these, Ray ends the driver hard within a minute


SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own snapshots are never restored from
    "RAY_prestart_worker_first_driver": "0",  # one for each core, which Tune's own environment makes useless
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # seconds until a driver ends whose Ray has lost its head
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of compilers would outlive a killed worker
}
FLOORS = ("mpdit", "pipelines", "sweeps")
ANSWERS_WITHIN = 5.0  # seconds


class RayLost(MpditError):
    """A process of Ray has died that the sweep cannot continue without."""


Nodes = list[dict[str, float]]  # the resources of each machine


@dataclass(frozen=True)
class Cluster:
    """A Ray to run trials on."""

    nodes: Nodes
    scratch: str  # a folder or s3://… where Tune may write what nobody reads: on every node the same place
    vital: dict[str, psutil.Process]  # by name, where this process has started them

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks, for a restore that is never made."""
        return {}

    def check(self) -> None:
        """Raises RayLost when a vital process has died."""
        for name, process in self.vital.items():
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                raise RayLost(f"Ray's {name} on this machine has died")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder for Ray's sockets, whose paths may have 107 bytes; those of dead drivers are removed.

    It is locked while this process lives, and gets its name only then: a process number says nothing in another
    container that sees the same temporary folder.
    """
    for old in dead_folders():
        shutil.rmtree(old, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=".mpdit-ray-", dir=_temporary()))
    held = os.open(new, os.O_RDONLY)
    folder = new.with_name(f"mpdit-ray-{os.getpid()}-{new.name.rsplit('-', 1)[1]}")
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        new.rename(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def dead_folders() -> list[Path]:
    """The folders of drivers that were killed."""
    found = [(old, re.fullmatch(r"mpdit-ray-(\d+)(-\w{8})?", old.name)) for old in _temporary().glob("mpdit-ray-*")]
    return [old for old, ours in found if ours and old.is_dir() and not _is_alive(old, ours[1], has_lock=bool(ours[2]))]


def _temporary() -> Path:
    base = Path(tempfile.gettempdir())
    return base if len(str(base)) <= 16 else Path("/tmp")


def _is_alive(folder: Path, process: str, has_lock: bool) -> bool:
    """Whether a driver uses the folder, or whether that cannot be told. has_lock: not so before release 0.2."""
    if not has_lock:
        return psutil.pid_exists(int(process))
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return True  # of another user, or gone meanwhile
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _quiet_ray() -> None:
    """Set Ray up without telemetry, without its own loggers, and without a change of the working directory."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's fault is the sweep's to tell, in a line


@contextmanager
def local_ray() -> Iterator[Cluster]:
    """Start a Ray on this machine, and end it when this closes."""
    with temporary_folder() as folder:
        yield from _started_ray(folder)


def _started_ray(folder: Path) -> Iterator[Cluster]:
    _quiet_ray()
    import ray

    on_termination = signal.getsignal(signal.SIGTERM)
    before = {child.pid for child in psutil.Process().children()}
    try:
        with _without_unread_services():
            ray.init(
                "local",  # whatever RAY_ADDRESS says
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
        yield Cluster(_living_nodes(), str(folder), {child.name(): child for child in ours if child.name() in VITAL})
    finally:
        ray.shutdown()
        _reap(ours)


@contextmanager
def _without_unread_services() -> Iterator[None]:
    """Keep Ray, while this is open, from starting the processes that serve nobody here.

    `ray.init` has no setting for that and waits for each of them: without, it takes half the time. A Ray that calls
    them otherwise starts them.
    """
    from ray._private.node import Node

    methods = {name: vars(Node)[name] for name in UNREAD if name in vars(Node)}
    for name in methods:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(Node, name, method)


@contextmanager
def joined_ray(address: str, scratch: str, clear: Callable[[], None]) -> Iterator[Cluster]:
    """Join the running cluster of which this machine is a node; our code is sent to its nodes.

    scratch: a place that every node sees, for this sweep alone. clear: removes it. Raises InputError where no cluster
    answers.
    """
    _check_address(address)
    _quiet_ray()
    import ray

    code = Path(__file__).resolve().parents[2]
    environment = {"py_modules": [str(code / floor) for floor in FLOORS], "env_vars": SETTINGS}
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as problem:
        raise _no_cluster(address, str(problem).splitlines()[0]) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_termination)
    clear()
    try:
        yield Cluster(_living_nodes(), scratch, {})
    finally:
        ray.shutdown()
        with suppress(InputError):  # a bucket that is lost: nobody reads what is left there
            clear()


def _check_address(address: str) -> None:
    """Check that the address answers: Ray itself would try for half a minute. Raises InputError."""
    if address.startswith("ray://"):
        raise input_error(
            "a sweep's driver runs on a node of the cluster",
            given=address,
            hint="run mpdit there with --address auto, or ray job submit -- mpdit sweep … --address auto",
        )
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise input_error("this is no address of a Ray cluster", given=address, allowed="HOST:PORT, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWERS_WITHIN).close()
    except (OSError, OverflowError) as problem:
        raise _no_cluster(address, str(problem)) from None


def _no_cluster(address: str, reason: str) -> InputError:
    return input_error(
        "no Ray cluster answers there", given=address, reason=reason, hint="ray start --head, and its HOST:PORT"
    )


def this_machine() -> Nodes:
    """The resources of this machine."""
    gpus = 0
    if any(Path(device).exists() for device in GPU_DRIVERS):  # else there is no need to wait for torch to find none
        import torch

        gpus = torch.cuda.device_count()
    return [{"CPU": float(cores()), "GPU": float(gpus)}]


def _living_nodes() -> Nodes:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _reap(processes: list[psutil.Process]) -> None:
    """End what is left of Ray: it does not end all of its processes when one of them was killed."""
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def gpus_per_trial(spec: SweepSpec, nodes: Nodes) -> float:
    """The GPUs that one worker of a trial gets: `auto` is one if there is one."""
    asked = spec.resources.gpus_per_trial
    return min(1.0, max(node.get("GPU", 0.0) for node in nodes)) if asked == "auto" else asked


def slots_here(spec: SweepSpec) -> tuple[int, str | None]:
    """How many trials this machine can run at a time; where it can run none, 1, for another machine, and why."""
    try:
        return slots(spec, this_machine()), None
    except InputError as lack:
        return 1, str(lack)


def slots(spec: SweepSpec, nodes: Nodes) -> int:
    """How many trials can run at a time. Raises InputError where not even one can.

    A worker runs on one node; the workers of a trial may run on several.
    """
    cpus, gpus, workers = spec.resources.cpus_per_trial, gpus_per_trial(spec, nodes), spec.resources.workers_per_trial
    fitting = [_workers_on(node, cpus, gpus) for node in nodes]
    if sum(fitting) >= workers:
        return sum(fitting) // workers
    there = ", ".join(f"{node.get('CPU', 0):g} CPU cores and {node.get('GPU', 0):g} GPUs" for node in nodes)
    raise input_error(
        "no trial could start: it asks for more than there is",
        given=f"workers_per_trial: {workers}, each with cpus_per_trial: {cpus} and gpus_per_trial: {gpus:g}",
        there_are=there,
        allowed=f"workers_per_trial: {sum(fitting)}" if sum(fitting) else None,
        hint="ask for less in resources:, or for a larger machine or --address",
    )


def _workers_on(node: dict[str, float], cpus: int, gpus: float) -> int:
    by_cores = node.get("CPU", 0.0) // cpus
    if not gpus:
        return int(by_cores)
    there = node.get("GPU", 0.0)
    by_cards = there // gpus if gpus >= 1 else int(there) * (1 // gpus)  # a share never spans two cards
    return int(min(by_cores, by_cards))
