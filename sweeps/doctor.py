"""Could a sweep run here? One finding a line, with the mend."""

import importlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpdit.errors import BadInput
from pipelines.provenance import device_name, versions
from sweeps.storage import Storage

PYTHON = (3, 11)
LITTLE_DISK_GB, LITTLE_MEMORY_GB = 2.0, 2.0


@dataclass(frozen=True)
class Finding:
    """grade: ok, warn or fail; what was found; how to mend it, when there is something to mend."""

    grade: str
    what: str
    mend: str | None = None


def examine(storage: Storage) -> list[Finding]:
    """Every check, in the order in which a sweep would need it."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _device,
        lambda: _storage(storage),
        lambda: _disk(storage.root),
        _memory,
        _data_and_features,
        _ray,
        lambda: _tracking(storage),
        _compiler,
    ]
    return [check() for check in checks]


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


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("ok", f"{torch.cuda.device_count()} × {device_name('cuda')}")
    return Finding("ok", f"no GPU; the CPU is {device_name('cpu')}")


def _storage(storage: Storage) -> Finding:
    try:
        storage.check()
        existing = next(path for path in (storage.root, *storage.root.parents) if path.exists())
        probe = existing / ".mpdit-doctor"
        probe.touch()
        probe.unlink()
    except (BadInput, OSError) as error:
        return Finding("fail", f"storage {storage.root}: {error}", "choose another with --storage or MPDIT_STORAGE")
    return Finding("ok", f"storage {storage.root} is writable")


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
    from mpdit.datasets import load_dataset
    from mpdit.fidelity import extractor_card, load_extractor

    try:
        digits, extractor = load_dataset("digits"), load_extractor("digits")
    except (BadInput, OSError) as error:
        return Finding("fail", f"digits: {error}", "reinstall mpdit and scikit-learn")
    accuracy = extractor_card("digits")["held_out_accuracy"]
    return Finding(
        "ok", f"{len(digits):,} digits; features {extractor.weights[:19]}…, held-out accuracy {accuracy:.1%}"
    )


def _ray() -> Finding:
    from sweeps.runner import local_ray

    try:
        with local_ray() as resources:
            found = resources()
    except Exception as error:
        return Finding("fail", f"Ray does not start: {error}", "read the message; /tmp must be writable")
    return Finding("ok", f"Ray starts and sees {found.get('CPU', 0):.0f} CPUs and {found.get('GPU', 0):.0f} GPUs")


def _tracking(storage: Storage) -> Finding:
    from sweeps.tracking import check_database

    try:
        check_database(storage)
    except Exception as error:
        return Finding("fail", f"tracking: {error}", "move mlflow.db away; the next sweep rebuilds it from the ledgers")
    return Finding(
        "ok", "MLflow's database " + ("opens" if storage.database.exists() else "will be made by the first sweep")
    )


def _compiler() -> Finding:
    if any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return Finding("ok", "a C++ compiler for torch.compile")
    return Finding("warn", "no C++ compiler: long runs train without torch.compile", "install g++ or clang")
