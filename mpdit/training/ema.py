"""Power-function EMAs of the weights, and their reconstruction at any σ_rel after training.

Source: arXiv 2312.02696, §3.1–3.2, Eq. 121–127 and Algorithm 3. An EMA is named by its σ_rel, the standard deviation
of the averaging profile relative to the training's length. σ_rel 0 means the raw weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from mpdit.errors import input_error
from mpdit.lazy_modules import lazy_module
from mpdit.model.old_names import NAMES, current_name
from mpdit.training.cadence import kept_snapshots

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor
else:
    np = lazy_module("numpy")
    torch = lazy_module("torch")

TRACKED_SIGMA_RELS = (0.05, 0.10)  # as in EDM2
SIGMA_REL_MAX = 1 / 12**0.5  # σ_rel of γ = 0, the uniform average
SIGMA_REL_MIN = 1e-6  # below, γ leaves what a float can hold, long after the width differs from the raw weights
MISFIT_LIMIT = 0.1  # of a reconstructed profile; beyond it is an input error
FEW_STEPS = 40  # a training that is shorter has no neighbours for narrow widths
LEVELS = 2**15 - 1  # a matrix's row is kept as whole numbers from -LEVELS to LEVELS, and its scale
SCALE = "#scale"  # what its name ends with


def check_sigma_rel(sigma_rel: float) -> None:
    """Raise InputError for a σ_rel that no EMA has: outside 1e-6 … 0.2886."""
    if not SIGMA_REL_MIN <= sigma_rel < SIGMA_REL_MAX:
        raise input_error(f"no EMA has the width {sigma_rel}", given=sigma_rel, allowed="0 (raw weights) to 0.288")


def sigma_rel_to_gamma(sigma_rel: float) -> float:
    """Return γ, the exponent of the profile p_t(τ) ∝ τ^γ, of an EMA. Eq. 126–127 of arXiv 2312.02696.

    γ is the largest root of γ³ + 7γ² + (16 − σ_rel⁻²)γ + (12 − σ_rel⁻²).

    Raises:
        InputError: outside 1e-6 … 0.2886.
    """
    check_sigma_rel(sigma_rel)
    s = float(sigma_rel) ** -2
    return float(np.roots([1, 7, 16 - s, 12 - s]).real.max())


def power_function_beta(width: float, step: int, batch: int = 1) -> float:
    """Return the weight of the old EMA when the last `batch` of `step` steps are added. Eq. 121 of arXiv 2312.02696.

    (1 − batch/step)^(γ+1): 0 at the first step, so that the EMA starts as the weights themselves. width: its σ_rel.
    """
    return float((1 - batch / step) ** (sigma_rel_to_gamma(width) + 1))


def update_emas(emas: Sequence[Sequence[Tensor]], weights: Sequence[Tensor], step: int) -> None:
    """Add the weights after `step` to each tracked EMA, in place."""
    for sigma_rel, ema in zip(TRACKED_SIGMA_RELS, emas, strict=True):
        torch._foreach_lerp_(list(ema), list(weights), 1 - power_function_beta(sigma_rel, step))


def _profile_products(steps_a: np.ndarray, gamma_a: np.ndarray, steps_b: np.ndarray, gamma_b: np.ndarray) -> np.ndarray:
    """Return ∫ p_a(τ) p_b(τ) dτ of every pair: (a,), (a,), (b,), (b,) → (a, b). Eq. 151 of arXiv 2312.02696."""
    t_a, g_a, t_b, g_b = steps_a[:, None], gamma_a[:, None], steps_b[None], gamma_b[None]
    ratio = (t_a / t_b) ** np.where(t_a < t_b, g_b, -g_a)
    return np.asarray((g_a + 1) * (g_b + 1) * ratio / ((g_a + g_b + 1) * np.maximum(t_a, t_b)))


@dataclass(frozen=True)
class Fit:
    """How an EMA of another σ_rel is made of snapshots, and how large its error may be.

    Attributes:
        coefficients: (snapshots,) float64, summing to 1.
        misfit: the distance of the fitted profile from the wanted one, relative to the norm of the latter: the
            fraction of the weights' motion that is averaged wrongly.
        rounding: what the snapshots' rounding to 16 bits becomes, relative to the largest weight of a row.
    """

    coefficients: np.ndarray
    misfit: float
    rounding: float


def fit_profile(steps: Sequence[int], sigma_rels: Sequence[float], target_step: int, target_sigma_rel: float) -> Fit:
    """Fit a profile by the snapshots' profiles, by least squares in float64. Algorithm 3 of arXiv 2312.02696.

    steps, sigma_rels: one entry a snapshot.
    """
    t = np.asarray(steps, np.float64)
    gamma = np.array([sigma_rel_to_gamma(sigma_rel) for sigma_rel in sigma_rels])
    target_t, target_gamma = np.array([float(target_step)]), np.array([sigma_rel_to_gamma(target_sigma_rel)])
    gram = _profile_products(t, gamma, t, gamma)
    target = _profile_products(t, gamma, target_t, target_gamma)[:, 0]
    size = np.sqrt(np.diag(gram))  # solve for unit-norm profiles: the same solution, better conditioned
    solution = np.linalg.lstsq(gram / np.outer(size, size), target / size, rcond=1e-13)[0] / size
    coefficients = solution / solution.sum()
    norm = _profile_products(target_t, target_gamma, target_t, target_gamma)[0, 0]
    squared = (norm - 2 * coefficients @ target + coefficients @ gram @ coefficients) / norm
    rounding = float(np.abs(coefficients).sum()) / (2 * LEVELS)
    return Fit(coefficients, float(max(squared, 0.0)) ** 0.5, rounding)


def posthoc_coefficients(
    steps: Sequence[int], widths: Sequence[float], target_step: int, target_width: float
) -> np.ndarray:
    """Return the coefficient of each snapshot in an EMA of another σ_rel: (snapshots,) float64, summing to 1.

    widths: the σ_rel of each snapshot; target_width: that of the EMA.
    """
    return fit_profile(steps, widths, target_step, target_width).coefficients


def _last_good(fit: Callable[[float], Fit], good: float, bad: float) -> float:
    """Return the σ_rel nearest to `bad`, to 0.001, whose misfit is within the limit; a tracked one always is."""
    if fit(bad).misfit <= MISFIT_LIMIT:
        return bad
    while abs(good - bad) > 0.0002:
        middle = (good + bad) / 2
        good, bad = (middle, bad) if fit(middle).misfit <= MISFIT_LIMIT else (good, middle)
    return good


def fit_snapshots(snapshots: Sequence[int], target_step: int, sigma_rel: float) -> tuple[list[tuple[int, float]], Fit]:
    """Fit an EMA by the snapshots of these steps.

    Returns:
        The (step, tracked σ_rel) of each EMA that is used, and the fit.

    Raises:
        InputError: the misfit is beyond the limit.
    """
    pairs = [(step, tracked) for step in snapshots if step <= target_step for tracked in TRACKED_SIGMA_RELS]

    def fit(wanted: float) -> Fit:
        return fit_profile([step for step, _ in pairs], [tracked for _, tracked in pairs], target_step, wanted)

    best = fit(sigma_rel)
    if best.misfit > MISFIT_LIMIT:
        low, high = _last_good(fit, TRACKED_SIGMA_RELS[0], 0.001), _last_good(fit, TRACKED_SIGMA_RELS[-1], 0.288)
        raise input_error(
            f"the snapshots of {target_step} steps cannot give the EMA width {sigma_rel}",
            given=f"{sigma_rel}: {best.misfit:.0%} of its profile would be wrong",
            allowed=f"0 (raw weights), {math.ceil(1000 * low) / 1000} to {math.floor(1000 * high) / 1000}",
            hint="train for more steps" if target_step < FEW_STEPS else None,
        )
    return pairs, best


def snapshot_path(folder: Path, step: int) -> Path:
    """Return the file of one step's snapshot."""
    return folder / f"step-{step:08d}.safetensors"


def write_snapshot(folder: Path, step: int, emas: Sequence[dict[str, Tensor]]) -> None:
    """Write the tracked EMAs of one step; the file is complete or not there.

    A matrix is kept in 16 bits, each row with its own scale, so that no weight is off by more than 1/65,534 of the
    largest of its row; what is no matrix stays fp32.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for sigma_rel, ema in zip(TRACKED_SIGMA_RELS, emas, strict=True):
        for name, tensor in ema.items():
            tensors |= _packed(f"{sigma_rel}/{name}", tensor.float().cpu().contiguous())
    path = snapshot_path(folder, step)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"step": str(step), "names": NAMES})
    partial.replace(path)


def _packed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """What is written of a tensor: (rows, …) fp32 → int16 of the same shape, and (rows,) fp32."""
    if tensor.ndim < 2:
        return {name: tensor}
    rows = tensor.flatten(1)
    scale = rows.abs().amax(1).div_(LEVELS).clamp_(min=torch.finfo(torch.float32).tiny)
    return {name: (rows / scale[:, None]).round_().to(torch.int16).view_as(tensor), name + SCALE: scale}


def thin_snapshots(folder: Path, now: int) -> None:
    """Remove the snapshots up to the step `now` that no EMA of it or of a later step needs."""
    kept = set(kept_snapshots(now))
    for step in _steps_in(folder):
        if step < now and step not in kept:
            snapshot_path(folder, step).unlink(missing_ok=True)


def tracked_ema(folder: Path, sigma_rel: float, step: int) -> dict[str, Tensor]:
    """Read a tracked EMA from its snapshot: {name: fp32 tensor}. Raises InputError where that is damaged."""
    tensors = _read_snapshot(folder, step, {})
    return {name: tensor.float() for (tracked, name), tensor in tensors if tracked == sigma_rel}


def snapshot_bytes(steps: int, parameters: int) -> int:
    """Return what the snapshots of a training take on disk, without the scales of the rows."""
    return 2 * parameters * len(TRACKED_SIGMA_RELS) * len(kept_snapshots(steps))


def reconstruct(folder: Path, sigma_rels: Sequence[float], target_step: int) -> list[dict[str, Tensor]]:
    """Reconstruct the EMAs of the given σ_rel at `target_step`; every snapshot is read once.

    Returns:
        {name: fp32 tensor} for each σ_rel.

    Raises:
        InputError: a σ_rel cannot be reconstructed, the snapshots do not reach the step, or one of them is damaged
            or belongs to another run.
    """
    steps = stored_steps(folder, target_step)
    fits = [fit_snapshots(steps, target_step, sigma_rel) for sigma_rel in sigma_rels]
    sums: dict[str, Tensor] = {}  # (sigma_rels, values), so that a tensor is read and added for all of them at once
    shapes: dict[str, torch.Size] = {}
    for step in reversed(steps):  # the last one first: its tensors are those of this run
        coefficients = {
            tracked: torch.tensor(
                [float(fit.coefficients[pairs.index((step, tracked))]) for pairs, fit in fits], dtype=torch.float64
            )
            for tracked in TRACKED_SIGMA_RELS
        }
        for (tracked, name), tensor in _read_snapshot(folder, step, shapes):
            total = sums.setdefault(name, tensor.new_zeros(len(fits), tensor.numel()))
            total.addr_(coefficients[tracked], tensor.flatten())
    sizes = {name.partition("/")[2]: shape for name, shape in shapes.items()}
    return [
        {name: total[index].reshape(sizes[name]).float() for name, total in sums.items()} for index in range(len(fits))
    ]


def reconstruction_error(folder: Path, sigma_rel: float, target_step: int) -> float:
    """Bound the error of a reconstructed EMA, relative to the weights' motion over its span."""
    fit = fit_snapshots(stored_steps(folder, target_step), target_step, sigma_rel)[1]
    return fit.misfit + fit.rounding


def stored_steps(folder: Path, target_step: int) -> list[int]:
    """Return the steps whose snapshots give the EMAs of `target_step`, which must have one.

    They are those that every training keeps; where one of them is missing, or the snapshots are of an earlier release,
    all up to the step. So how a training came to the step changes no EMA. Raises InputError without a snapshot of it.
    """
    steps = _steps_in(folder)
    if not steps:
        hint = "train the run to its end; a bundle has one width only"
        raise input_error(f"there are no EMA snapshots in {folder}", given=f"step {target_step}", hint=hint)
    if target_step not in steps:
        raise input_error(f"no EMA snapshot of step {target_step} in {folder}", given=target_step, allowed=steps)
    kept = kept_snapshots(target_step)
    return kept if set(kept) <= set(steps) else [step for step in steps if step <= target_step]


def _steps_in(folder: Path) -> list[int]:
    """The steps that have a snapshot here."""
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob("step-*.safetensors"))


def _read_snapshot(
    folder: Path, step: int, shapes: dict[str, torch.Size]
) -> Iterator[tuple[tuple[float, str], Tensor]]:
    """Yield ((tracked σ_rel, name), float64 tensor) of one snapshot.

    shapes: of the run's tensors by name; filled here where empty, else the snapshot must have the same.
    """
    path = snapshot_path(folder, step)
    hint = "delete it: the widths are then made of the other snapshots"
    try:
        with safe_open(path, framework="pt") as snapshot:
            header = snapshot.metadata() or {}
            keys = dict.fromkeys(snapshot.keys())
            stored = {current_name(key, header.get("names")): key for key in keys if not key.endswith(SCALE)}
            found = {name: torch.Size(snapshot.get_slice(key).get_shape()) for name, key in stored.items()}
            expected = shapes or found
            shapes.update(expected)
            if header.get("step", str(step)) != str(step) or found != expected:
                given = f"step {header.get('step')}, {len(found)} tensors"
                allowed = f"step {step}, the {len(expected)} tensors of the last snapshot"
                raise input_error(f"{path} is a snapshot of another run", given=given, allowed=allowed, hint=hint)
            for name, key in stored.items():
                sigma_rel, _, parameter = name.partition("/")
                tensor = snapshot.get_tensor(key).double()
                if key + SCALE in keys:
                    tensor *= snapshot.get_tensor(key + SCALE).double().view(-1, *[1] * (tensor.ndim - 1))
                yield (float(sigma_rel), parameter), tensor
    except SafetensorError as problem:
        raise input_error(f"{path} is damaged", reason=problem, hint=hint) from None
