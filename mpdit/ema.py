"""Power-function EMA of weights, and any other width of it reconstructed after training.

Source: arXiv 2312.02696, §3.1–3.2, Eq. 121–127 and Algorithm 3. A width is named by σ_rel, the standard
deviation of the averaging profile relative to the training's length. σ_rel 0 means the raw weights.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mpdit.errors import refusal

TRACKED_WIDTHS = (0.05, 0.10)
WIDEST = 1 / 12**0.5  # σ_rel of γ = 0, the uniform average
SNAPSHOTS = 48


def width_exponent(width: float) -> float:
    """σ_rel → γ, the exponent of the profile p_t(τ) ∝ τ^γ. Eq. 126–127 of arXiv 2312.02696.

    γ is the largest root of γ³ + 7γ² + (16 − σ_rel⁻²)γ + (12 − σ_rel⁻²). Raises BadInput outside (0, 0.2886).
    """
    if not 0 < width < WIDEST:
        raise refusal(f"no EMA has the width {width}", given=width, allowed="0 (raw weights) to 0.288")
    s = float(width) ** -2
    return float(np.roots([1, 7, 16 - s, 12 - s]).real.max())


def power_function_beta(width: float, step: int, batch: int = 1) -> float:
    """The old average's weight when `batch` more of `step` training steps are taken in. Eq. 121 of arXiv 2312.02696.

    (1 − batch/step)^(γ+1): 0 at the first step, so that the average starts as the weights themselves.
    """
    return float((1 - batch / step) ** (width_exponent(width) + 1))


def update_averages(averages: Sequence[Sequence[Tensor]], weights: Sequence[Tensor], step: int) -> None:
    """Take the weights after `step` into each tracked average, in place."""
    for width, average in zip(TRACKED_WIDTHS, averages, strict=True):
        torch._foreach_lerp_(list(average), list(weights), 1 - power_function_beta(width, step))


def _profile_products(steps_a: np.ndarray, gamma_a: np.ndarray, steps_b: np.ndarray, gamma_b: np.ndarray) -> np.ndarray:
    """∫ p_a(τ) p_b(τ) dτ of every pair: (a,), (a,), (b,), (b,) → (a, b). Eq. 151 of arXiv 2312.02696."""
    t_a, g_a, t_b, g_b = steps_a[:, None], gamma_a[:, None], steps_b[None], gamma_b[None]
    ratio = (t_a / t_b) ** np.where(t_a < t_b, g_b, -g_a)
    return np.asarray((g_a + 1) * (g_b + 1) * ratio / ((g_a + g_b + 1) * np.maximum(t_a, t_b)))


def posthoc_coefficients(
    steps: Sequence[int], widths: Sequence[float], target_step: int, target_width: float
) -> np.ndarray:
    """How much of each snapshot makes up an average of another width. Algorithm 3 of arXiv 2312.02696.

    steps, widths: one entry a snapshot. Returns float64 (snapshots,), summing to 1: the least-squares fit of the
    target's profile by the snapshots' profiles.
    """
    t = np.asarray(steps, np.float64)
    gamma = np.array([width_exponent(width) for width in widths])
    target_t, target_gamma = np.array([float(target_step)]), np.array([width_exponent(target_width)])
    gram = _profile_products(t, gamma, t, gamma)
    target = _profile_products(t, gamma, target_t, target_gamma)[:, 0]
    size = np.sqrt(np.diag(gram))  # solve for unit-norm profiles: the same answer, better conditioned
    solution = np.linalg.lstsq(gram / np.outer(size, size), target / size, rcond=1e-13)[0] / size
    return np.asarray(solution / solution.sum())


def snapshot_steps(steps: int) -> list[int]:
    """When a training of `steps` steps keeps snapshots: a function of `steps` alone, denser early.

    Early profiles are short, so they need close neighbours: the i-th of n is taken at steps·(i/n)^1.5.
    """
    spread = np.linspace(0, 1, SNAPSHOTS + 1)[1:] ** 1.5
    return sorted({max(1, round(steps * float(x))) for x in spread})


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the snapshot of one step lies."""
    return folder / f"step-{step:08d}.safetensors"


def write_snapshot(folder: Path, step: int, averages: Sequence[dict[str, Tensor]]) -> None:
    """Keep the tracked averages of one step, fp32, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{width}/{name}": tensor.float().cpu().contiguous()
        for width, average in zip(TRACKED_WIDTHS, averages, strict=True)
        for name, tensor in average.items()
    }
    path = snapshot_path(folder, step)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(path)


def reconstruct(folder: Path, widths: Sequence[float], target_step: int) -> list[dict[str, Tensor]]:
    """The averages of the given widths at `target_step`, each as {name: fp32 tensor}; every snapshot is read once.

    Raises BadInput when a width cannot be had or the snapshots do not reach the step.
    """
    found = {int(path.stem.split("-")[1]): path for path in folder.glob("step-*.safetensors")}
    steps = sorted(step for step in found if step <= target_step)
    if not steps or steps[-1] != target_step:
        raise refusal(f"no EMA snapshot of step {target_step} in {folder}", given=target_step, allowed=sorted(found))
    pairs = [(step, width) for step in steps for width in TRACKED_WIDTHS]
    table = [posthoc_coefficients([s for s, _ in pairs], [w for _, w in pairs], target_step, width) for width in widths]
    sums: list[dict[str, Tensor]] = [{} for _ in widths]
    for at, step in enumerate(steps):
        with safe_open(found[step], framework="pt") as snapshot:
            for key in snapshot.keys():  # noqa: SIM118  (a safetensors file is not a mapping)
                width, name = key.split("/", 1)
                index = at * len(TRACKED_WIDTHS) + TRACKED_WIDTHS.index(float(width))
                tensor = snapshot.get_tensor(key).double()
                for total, coefficients in zip(sums, table, strict=True):
                    part = tensor * float(coefficients[index])
                    total[name] = total[name] + part if name in total else part
    return [{name: tensor.float() for name, tensor in total.items()} for total in sums]
