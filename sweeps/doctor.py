"""Could a sweep run here? One finding a line, with a hint."""

import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpdit.errors import InputError
from pipelines.provenance import CODE, device_name, installed, source_files, versions
from pipelines.recipe import Recipe, resolve_runtime
from sweeps.storage.layout import Storage

if TYPE_CHECKING:
    import torch

PYTHON = (3, 11)
LITTLE_DISK_GB, LITTLE_MEMORY_GB, LITTLE_GPU_MEMORY_GB = 2.0, 2.0, 2.0
CLOCK_APART = 60.0  # seconds
BF16_PAYS_FROM = 1.2  # times the rate of fp32


@dataclass(frozen=True)
class Finding:
    """One result. grade: ok, warn or fail; what: what was found; hint: what to do about it, if anything."""

    grade: str
    what: str
    hint: str | None = None

    @property
    def text(self) -> str:
        """As it is shown: one line, and a second one for the hint."""
        return f"{self.grade:<4}  {self.what}" + (f"\n      → {self.hint}" if self.hint else "")


def examine(storage: Storage) -> Iterator[Finding]:
    """Every check, in the order in which a sweep would need it, each as soon as it is known."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _pins,
        _clock,
        _device,
        _precision,
        lambda: _storage(storage),
        lambda: _disk(storage.root),
        _memory,
        _data_and_features,
        _inception,
        _ray,
        lambda: _tracking(storage),
        _compiler,
    ]
    return (check() for check in checks)


def _python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info >= PYTHON:
        return Finding("ok", f"Python {found}")
    return Finding("fail", f"Python {found}", "install Python 3.11 or newer, then `make clean-venv sweep`")


def _packages() -> Finding:
    missing = []
    for name in ("torch", "accelerate", "ray.tune", "optuna", "mlflow", "torch_fidelity", "sklearn", "safetensors"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing.append(f"{name} ({error})")
    if missing:
        return Finding("fail", "cannot import " + "; ".join(missing), "pip install -c constraints.txt -e .")
    return Finding("ok", "packages: " + ", ".join(f"{name} {version}" for name, version in versions().items()))


def _pins() -> Finding:
    """The versions that this was tested with lie beside the code, where it is a checkout."""
    try:
        lines = (CODE / "constraints.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return Finding("ok", "no list of tested versions is at hand: this is not a checkout")
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    other = []
    for name, wanted in pinned.items():
        found = installed(name)
        if found is not None and found != wanted:
            other.append(f"{name} {found}, tested with {wanted}")
    if other:
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        hint = "pip install -c constraints.txt -e ."
        return Finding("warn", f"{len(other)} other versions than tested: " + "; ".join(other[:5]) + more, hint)
    return Finding("ok", "the versions are those that were tested")


def _clock() -> Finding:
    """A ledger orders events by time: the clock must not be behind what it has written, nor the disk's clock differ."""
    newest = max(path.stat().st_mtime for path in source_files())
    now = time.time()
    with tempfile.NamedTemporaryFile() as probe:
        apart = abs(Path(probe.name).stat().st_mtime - time.time())
    if now < newest - CLOCK_APART or apart > CLOCK_APART:
        what = f"the clock says {time.strftime('%Y-%m-%d %H:%M', time.gmtime(now))} UTC, which is behind the files here"
        return Finding("warn", what, "set the clock: runs are ordered by it")
    return Finding("ok", f"the clock says {time.strftime('%Y-%m-%d %H:%M', time.gmtime(now))} UTC")


def _device() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("ok", f"no GPU; the CPU is {device_name('cpu')} with {os.cpu_count()} cores")
    free, total = torch.cuda.mem_get_info()
    what = f"{torch.cuda.device_count()} × {device_name('cuda')}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
    if free < LITTLE_GPU_MEMORY_GB * 1e9:
        return Finding("warn", what, "see with nvidia-smi who uses it")
    return Finding("ok", what)


def _precision() -> Finding:
    """Whether bf16 matrix products beat fp32 ones here, and whether `precision: auto` takes the faster."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates = {name: multiplications(device, kind) for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    pays = rates["bf16"] > BF16_PAYS_FROM * rates["fp32"]
    chosen = resolve_runtime(Recipe()).runtime.precision
    what = f"bf16 {'pays' if pays else 'does not pay'}: {rates['bf16']:,.0f} GFLOP/s, fp32 {rates['fp32']:,.0f}"
    if pays and chosen == "fp32":
        return Finding(
            "warn", what + "; precision auto takes fp32", "--set recipe.runtime.precision=bf16 is faster here"
        )
    if not pays and chosen == "bf16":
        return Finding("warn", what + "; precision auto takes bf16", "--set recipe.runtime.precision=fp32 is as fast")
    return Finding("ok", what + f"; precision auto takes {chosen}")


def multiplications(device: str, dtype: "torch.dtype", seconds: float = 1.0) -> float:
    """GFLOP/s of square matrix products, measured for about so long."""
    import torch

    side = 4096 if device == "cuda" else 1024
    a = torch.ones(side, side, device=device, dtype=dtype)
    started, done = 0.0, -1  # the first product warms up
    while done < 1 or time.perf_counter() - started < seconds:
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        done += 1
        if done == 0:
            started = time.perf_counter()
    return 2 * side**3 * done / (time.perf_counter() - started) / 1e9


def _storage(storage: Storage) -> Finding:
    try:
        storage.check()
        existing = next(path for path in (storage.root, *storage.root.parents) if path.exists())
        probe = existing / ".mpdit-doctor"
        probe.touch()
        probe.unlink()
    except (InputError, OSError) as error:
        return Finding("fail", f"storage {storage.name}: {error}", "choose another with --storage or MPDIT_STORAGE")
    return Finding("ok", f"storage {storage.name} is " + ("there" if storage.bucket else "writable"))


def _disk(root: Path) -> Finding:
    existing = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    grade = "ok" if free > LITTLE_DISK_GB else "warn"
    return Finding(
        grade, f"{free:.0f} GB of disk free", None if grade == "ok" else "see `mpdit plan` for what is needed"
    )


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available / 1e9
    grade = "ok" if free > LITTLE_MEMORY_GB else "warn"
    return Finding(
        grade, f"{free:.0f} GB of memory free", None if grade == "ok" else "close something, or --max-concurrent 1"
    )


def _data_and_features() -> Finding:
    from mpdit.data.registry import load_dataset
    from mpdit.scoring.extractors.registry import load_extractor
    from mpdit.scoring.small_classifier import extractor_card, shipped_classifiers

    try:
        names = shipped_classifiers()
        counts = [f"{len(load_dataset(name)):,} {name}" for name in names]
        accuracies = [
            (load_extractor(name), extractor_card(name)["held_out_accuracy"])[1] for name in shipped_classifiers()
        ]
    except (InputError, OSError) as error:
        return Finding("fail", f"data: {str(error).splitlines()[0]}", "reinstall mpdit and scikit-learn")
    told = [f"{count} (features name {right:.1%} right)" for count, right in zip(counts, accuracies, strict=True)]
    return Finding("ok", "data: " + ", ".join(told))


def _inception() -> Finding:
    """FID needs weights that do not come with mpdit; without them every other distance is there."""
    from mpdit.scoring.extractors.inception import PUBLISHED as wanted
    from mpdit.scoring.published_weights import weights_file
    from mpdit.scoring.small_classifier import sha256

    path = weights_file(wanted)
    if not path.is_file():
        hint = f"get {wanted.url} and name it in {wanted.variable}; needed for fid_10k alone"
        return Finding("warn", f"no Inception weights at {path}", hint)
    found = sha256(path)
    if found != wanted.sha256:
        return Finding("warn", f"{path} holds other Inception weights (sha256 {found[:12]}…)", f"get {wanted.url}")
    return Finding("ok", f"Inception weights, as published: {path}")


def _ray() -> Finding:
    from sweeps.execution.cluster import local_ray

    try:
        with local_ray() as cluster:
            found = {name: sum(node.get(name, 0) for node in cluster.nodes) for name in ("CPU", "GPU")}
    except Exception as error:
        return Finding("fail", f"Ray does not start: {error}", "read the message; /tmp must be writable")
    return Finding("ok", f"Ray starts and sees {found['CPU']:.0f} CPUs and {found['GPU']:.0f} GPUs")


def _tracking(storage: Storage) -> Finding:
    from sweeps.tracking.mlflow_view import check_database

    if storage.bucket:
        return Finding("ok", "MLflow's database is that of the server which tracking.uri names")
    try:
        check_database(storage)
        if storage.database.exists() and not os.access(storage.database, os.W_OK):
            raise PermissionError(f"{storage.database} is not writable")
    except Exception as error:
        return Finding("fail", f"tracking: {error}", "move mlflow.db away; the next sweep rebuilds it from the ledgers")
    return Finding(
        "ok",
        "MLflow's database "
        + ("opens, and is writable" if storage.database.exists() else "will be made by the first sweep"),
    )


def _compiler() -> Finding:
    if any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return Finding("ok", "a C++ compiler for torch.compile")
    return Finding("warn", "no C++ compiler: long runs train without torch.compile", "install g++ or clang")
