"""Magnitude-preserving diffusion transformers: the science, as a plain PyTorch library."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpdit.run_folder import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`mpdit.load` and the modules (`mpdit.ema`, …), imported when first used: `mpdit --help` waits for no torch."""
    if name == "load":
        from mpdit.run_folder import load

        return load
    if not name.startswith("_") and find_spec(f"mpdit.{name}"):
        return import_module(f"mpdit.{name}")
    raise AttributeError(f"module 'mpdit' has no attribute {name!r}")
