"""Magnitude-preserving diffusion transformers: the science, as a plain PyTorch library."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpdit.run_folder import load
    from mpdit.scoring.frechet import frechet_distance
    from mpdit.training.ema import posthoc_coefficients, power_function_beta

__all__ = ["frechet_distance", "load", "posthoc_coefficients", "power_function_beta"]

_HOMES = {
    "frechet_distance": "mpdit.scoring.frechet",
    "load": "mpdit.run_folder",
    "posthoc_coefficients": "mpdit.training.ema",
    "power_function_beta": "mpdit.training.ema",
}


def __getattr__(name: str) -> Any:
    """Import a public function when it is first used, so that `mpdit --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mpdit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
