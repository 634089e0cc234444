"""Power-function EMA of weights, and any other width of it reconstructed after training.

Source: arXiv 2312.02696, §3.1–3.2, Eq. 121–127 and Algorithm 3. A width is named by σ_rel, the standard
deviation of the averaging profile relative to the training's length. σ_rel 0 means the raw weights.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mpdit.errors import input_error
from mpdit.model.old_names import NAMES, current_name

TRACKED_WIDTHS = (0.05, 0.10)
WIDEST = 1 / 12**0.5  # σ_rel of γ = 0, the uniform average
SNAPSHOTS = 48
MISFIT_LIMIT = 0.1  # of a reconstructed profile; what is beyond is refused


def width_exponent(width: float) -> float:
    """σ_rel → γ, the exponent of the profile p_t(τ) ∝ τ^γ. Eq. 126–127 of arXiv 2312.02696.

    γ is the largest root of γ³ + 7γ² + (16 − σ_rel⁻²)γ + (12 − σ_rel⁻²). Raises InputError outside (0, 0.2886).
    """
    if not 0 < width < WIDEST:
        raise input_error(f"no EMA has the width {width}", given=width, allowed="0 (raw weights) to 0.288")
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


@dataclass(frozen=True)
class Fit:
    """How an average of another width is made of snapshots, and how far it may be off.

    coefficients: float64 (snapshots,), summing to 1. misfit: the distance of the fitted profile from the wanted one,
    relative to the latter's norm: the share of the weights' motion that is averaged wrongly. rounding: what the
    snapshots' fp32 rounding becomes, relative to the weights.
    """

    coefficients: np.ndarray
    misfit: float
    rounding: float


def fit_profile(steps: Sequence[int], widths: Sequence[float], target_step: int, target_width: float) -> Fit:
    """The least-squares fit of a profile by the snapshots' profiles. Algorithm 3 of arXiv 2312.02696, in float64.

    steps, widths: one entry a snapshot.
    """
    t = np.asarray(steps, np.float64)
    gamma = np.array([width_exponent(width) for width in widths])
    target_t, target_gamma = np.array([float(target_step)]), np.array([width_exponent(target_width)])
    gram = _profile_products(t, gamma, t, gamma)
    target = _profile_products(t, gamma, target_t, target_gamma)[:, 0]
    size = np.sqrt(np.diag(gram))  # solve for unit-norm profiles: the same answer, better conditioned
    solution = np.linalg.lstsq(gram / np.outer(size, size), target / size, rcond=1e-13)[0] / size
    coefficients = solution / solution.sum()
    norm = _profile_products(target_t, target_gamma, target_t, target_gamma)[0, 0]
    squared = (norm - 2 * coefficients @ target + coefficients @ gram @ coefficients) / norm
    rounding = float(np.abs(coefficients).sum()) * 2**-24
    return Fit(coefficients, float(max(squared, 0.0)) ** 0.5, rounding)


def posthoc_coefficients(
    steps: Sequence[int], widths: Sequence[float], target_step: int, target_width: float
) -> np.ndarray:
    """How much of each snapshot makes up an average of another width: float64 (snapshots,), summing to 1."""
    return fit_profile(steps, widths, target_step, target_width).coefficients


def _last_good(fit: Callable[[float], Fit], good: float, bad: float) -> float:
    """The width nearest to `bad`, to 0.001, whose misfit is within the limit; a tracked width's always is."""
    if fit(bad).misfit <= MISFIT_LIMIT:
        return bad
    while abs(good - bad) > 0.0002:
        middle = (good + bad) / 2
        good, bad = (middle, bad) if fit(middle).misfit <= MISFIT_LIMIT else (good, middle)
    return good


def fit_width(snapshots: Sequence[int], target_step: int, width: float) -> tuple[list[tuple[int, float]], Fit]:
    """The (step, tracked width) of each average that is used, and the fit. Raises InputError where it is too poor."""
    pairs = [(step, tracked) for step in snapshots if step <= target_step for tracked in TRACKED_WIDTHS]

    def fit(wanted: float) -> Fit:
        return fit_profile([step for step, _ in pairs], [tracked for _, tracked in pairs], target_step, wanted)

    found = fit(width)
    if found.misfit > MISFIT_LIMIT:
        low, high = _last_good(fit, TRACKED_WIDTHS[0], 0.001), _last_good(fit, TRACKED_WIDTHS[-1], 0.288)
        raise input_error(
            f"the snapshots of {target_step} steps cannot give the EMA width {width}",
            given=f"{width}: {found.misfit:.0%} of its profile would be wrong",
            allowed=f"0 (raw weights), {math.ceil(1000 * low) / 1000} to {math.floor(1000 * high) / 1000}",
            hint="train for more steps" if len(snapshots) < SNAPSHOTS else None,
        )
    return pairs, found


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
    save_file(tensors, partial, metadata={"step": str(step), "names": NAMES})
    partial.replace(path)


def tracked_average(folder: Path, width: float, step: int) -> dict[str, Tensor]:
    """A tracked average as its snapshot keeps it: {name: fp32 tensor}. Raises InputError when that is damaged."""
    found = _read_snapshot(folder, step, {})
    return {name: tensor.float() for (tracked, name), tensor in found if tracked == width}


def snapshot_bytes(steps: int, parameters: int) -> int:
    """What the snapshots of a training take on disk."""
    return 4 * parameters * len(TRACKED_WIDTHS) * len(snapshot_steps(steps))


def reconstruct(folder: Path, widths: Sequence[float], target_step: int) -> list[dict[str, Tensor]]:
    """The averages of the given widths at `target_step`, each as {name: fp32 tensor}; every snapshot is read once.

    Raises InputError when a width cannot be had, when the snapshots do not reach the step, or when one of them is
    damaged or belongs to another run.
    """
    steps = kept_steps(folder, target_step)
    fits = [fit_width(steps, target_step, width) for width in widths]
    sums: dict[str, Tensor] = {}  # (widths, values), so that a tensor is read and added for all of them at once
    shapes: dict[str, torch.Size] = {}
    for step in reversed(steps):  # the last one first: it says what belongs to this run
        shares = {
            tracked: torch.tensor(
                [float(fit.coefficients[pairs.index((step, tracked))]) for pairs, fit in fits], dtype=torch.float64
            )
            for tracked in TRACKED_WIDTHS
        }
        for (tracked, name), tensor in _read_snapshot(folder, step, shapes):
            total = sums.setdefault(name, tensor.new_zeros(len(fits), tensor.numel()))
            total.addr_(shares[tracked], tensor.flatten())
    sizes = {name.partition("/")[2]: shape for name, shape in shapes.items()}
    return [{name: total[at].reshape(sizes[name]).float() for name, total in sums.items()} for at in range(len(fits))]


def reconstruction_error(folder: Path, width: float, target_step: int) -> float:
    """How far a reconstructed average may be off, relative to the weights' motion over its span."""
    fit = fit_width(kept_steps(folder, target_step), target_step, width)[1]
    return fit.misfit + fit.rounding


def kept_steps(folder: Path, target_step: int) -> list[int]:
    """The steps up to `target_step` of which there are snapshots. Raises InputError when it is not among them."""
    found = sorted(int(path.stem.split("-")[1]) for path in folder.glob("step-*.safetensors"))
    if not found:
        hint = "train the run to its end; a bundle has one width only"
        raise input_error(f"there are no EMA snapshots in {folder}", given=f"step {target_step}", hint=hint)
    if target_step not in found:
        raise input_error(f"no EMA snapshot of step {target_step} in {folder}", given=target_step, allowed=found)
    return [step for step in found if step <= target_step]


def _read_snapshot(
    folder: Path, step: int, shapes: dict[str, torch.Size]
) -> Iterator[tuple[tuple[float, str], Tensor]]:
    """((tracked width, name), float64 tensor) of one snapshot; `shapes`, filled by the first, binds the others."""
    path = snapshot_path(folder, step)
    hint = "delete it: the widths are then made of the other snapshots"
    try:
        with safe_open(path, framework="pt") as snapshot:
            header = snapshot.metadata() or {}
            stored = {current_name(key, header.get("names")): key for key in snapshot.keys()}  # noqa: SIM118
            found = {name: torch.Size(snapshot.get_slice(key).get_shape()) for name, key in stored.items()}
            expected = shapes or found
            shapes.update(expected)
            if header.get("step", str(step)) != str(step) or found != expected:
                given = f"step {header.get('step')}, {len(found)} tensors"
                allowed = f"step {step}, the {len(expected)} tensors of the last snapshot"
                raise input_error(f"{path} is a snapshot of another run", given=given, allowed=allowed, hint=hint)
            for name, key in stored.items():
                sigma_rel, _, parameter = name.partition("/")
                yield (float(sigma_rel), parameter), snapshot.get_tensor(key).double()
    except SafetensorError as problem:
        raise input_error(f"{path} is damaged", reason=problem, hint=hint) from None
