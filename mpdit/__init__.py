"""Magnitude-preserving diffusion transformers: the science, as a plain PyTorch library."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpdit.run_folder import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # late, so that `mpdit --help` does not wait for torch
        from mpdit.run_folder import load

        return load
    raise AttributeError(f"module 'mpdit' has no attribute {name!r}")
