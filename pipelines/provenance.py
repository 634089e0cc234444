"""Where a result comes from: code, versions, machine."""

import os
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

CODE = Path(__file__).resolve().parent.parent
LAYERS = ("mpdit", "pipelines", "sweeps", "cli")


def source_files() -> list[Path]:
    """Our own Python files, in one order."""
    return [path for layer in LAYERS for path in sorted((CODE / layer).rglob("*.py"))]


PACKAGES = ("mpdit", "torch", "numpy", "accelerate", "safetensors", "ray", "mlflow", "optuna", "scikit-learn")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(CODE), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def git_state() -> dict[str, Any]:
    """The commit of the project's code and what differs from it; None where it is not a git checkout."""
    return {"commit": _git("rev-parse", "HEAD"), "diff": _git("diff", "HEAD") or None}


def versions() -> dict[str, str]:
    """The installed versions that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        version = installed(name)
        if version is not None:
            found[name] = version
    return found


def installed(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The CPU's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def device_name(device: str) -> str:
    """The name of the device that a run was computed on."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return processor()


def machine(device: str) -> dict[str, Any]:
    """Host and device."""
    return {"host": socket.gethostname(), "cores": os.cpu_count(), "device": device, "device_name": device_name(device)}


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
