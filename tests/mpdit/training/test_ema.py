from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mpdit.errors import InputError
from mpdit.training import ema
from mpdit.training.cadence import is_snapshot, kept_snapshots

WIDTHS = (0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2, 0.25)


def walk(steps: int) -> Tensor:
    """Weights that wander as trained ones do: (steps, 64), row t the weights after step t + 1."""
    random = torch.Generator().manual_seed(0)
    start = 10 * torch.randn(1, 64, generator=random, dtype=torch.float64)
    drift = torch.randn(steps, 64, generator=random, dtype=torch.float64).cumsum(0) * 0.05
    return start + drift + 0.5 * torch.randn(steps, 64, generator=random, dtype=torch.float64)


def tracked(weights: Tensor, width: float) -> Tensor:
    average = torch.zeros_like(weights[0])
    for step, now in enumerate(weights, start=1):
        beta = ema.power_function_beta(width, step)
        average = beta * average + (1 - beta) * now
    return average


def keep_snapshots(folder: Path, weights: Tensor) -> int:
    steps = len(weights)
    averages = [[torch.zeros(64)] for _ in ema.TRACKED_SIGMA_RELS]
    for step, now in enumerate(weights.float(), start=1):
        ema.update_emas(averages, [now], step)
        if step == steps or is_snapshot(step):
            ema.write_snapshot(folder, step, [{"w": average[0]} for average in averages])
    ema.thin_snapshots(folder, steps)
    return steps


@pytest.mark.parametrize("width", WIDTHS)
def test_the_exponent_gives_back_its_width(width: float) -> None:
    gamma = ema.sigma_rel_to_gamma(width)
    assert ((gamma + 1) ** 0.5) / ((gamma + 2) * (gamma + 3) ** 0.5) == pytest.approx(width)


@pytest.mark.parametrize("width", [-0.1, 0.0, 0.2887, 0.5, float("nan")])
def test_a_width_that_no_profile_has_is_refused(width: float) -> None:
    with pytest.raises(InputError, match="no EMA has the width"):
        ema.sigma_rel_to_gamma(width)


@pytest.mark.parametrize("width", ema.TRACKED_SIGMA_RELS)
def test_the_ema_of_a_ramp_has_its_closed_form(width: float) -> None:
    steps = 20_000
    gamma = ema.sigma_rel_to_gamma(width)
    average = float(tracked(torch.arange(1, steps + 1, dtype=torch.float64)[:, None], width))
    assert average == pytest.approx(steps * (gamma + 1) / (gamma + 2), rel=1e-4)


def test_the_first_average_is_the_first_weights() -> None:
    assert ema.power_function_beta(0.1, 1) == 0


def test_averages_taken_in_batches_follow_the_same_profile() -> None:
    one_by_one = np.prod([ema.power_function_beta(0.1, step) for step in range(901, 1001)])
    assert ema.power_function_beta(0.1, 1000, batch=100) == pytest.approx(float(one_by_one), rel=1e-9)


@pytest.mark.parametrize("width", WIDTHS)
def test_reconstruction_agrees_with_an_average_tracked_directly(width: float, tmp_path: Path) -> None:
    weights = walk(2000)
    steps = keep_snapshots(tmp_path, weights)
    rebuilt = ema.reconstruct(tmp_path, [width], steps)[0]["w"].double()
    direct = tracked(weights, width)
    assert float((rebuilt - direct).norm() / direct.norm()) < 1e-3


def test_several_widths_at_once_are_the_same_as_one_by_one(tmp_path: Path) -> None:
    steps = keep_snapshots(tmp_path, walk(200))
    together = ema.reconstruct(tmp_path, WIDTHS, steps)
    for width, found in zip(WIDTHS, together, strict=True):
        assert torch.equal(found["w"], ema.reconstruct(tmp_path, [width], steps)[0]["w"])


def test_nine_widths_read_each_snapshot_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = keep_snapshots(tmp_path, walk(200))
    opened: list[Path] = []
    really = ema.safe_open

    def counted(path: Path, **options: str) -> object:
        opened.append(path)
        return really(path, **options)

    monkeypatch.setattr(ema, "safe_open", counted)
    ema.reconstruct(tmp_path, WIDTHS, steps)
    assert sorted(opened) == sorted(tmp_path.glob("step-*"))


def test_a_past_step_can_be_reconstructed(tmp_path: Path) -> None:
    weights = walk(2000)
    keep_snapshots(tmp_path, weights)
    past = kept_snapshots(2000)[-8]
    rebuilt = ema.reconstruct(tmp_path, [0.08], past)[0]["w"].double()
    direct = tracked(weights[:past], 0.08)
    assert float((rebuilt - direct).norm() / direct.norm()) < 1e-3


def test_how_a_training_came_to_a_step_changes_no_average(tmp_path: Path) -> None:
    """Snapshots of an earlier end (of step 333), and what later thinning has not yet removed, are not used."""
    keep_snapshots(tmp_path / "straight", walk(400))
    keep_snapshots(tmp_path / "longer", walk(400))
    keep_snapshots(tmp_path / "earlier", walk(400)[:333])
    for path in (tmp_path / "earlier").iterdir():
        path.replace(tmp_path / "longer" / path.name)
    straight, longer = (ema.reconstruct(tmp_path / name, WIDTHS, 400) for name in ("straight", "longer"))
    assert all(torch.equal(a["w"], b["w"]) for a, b in zip(straight, longer, strict=True))


def test_thinning_keeps_what_every_later_step_needs(tmp_path: Path) -> None:
    thinned, whole = tmp_path / "thinned", tmp_path / "whole"
    for step in range(1, 701):
        if is_snapshot(step) or step == 700:
            for folder in (thinned, whole):
                ema.write_snapshot(folder, step, [{"w": torch.zeros(1)} for _ in ema.TRACKED_SIGMA_RELS])
            ema.thin_snapshots(thinned, step)
    assert ema.stored_steps(thinned, 700) == ema.stored_steps(whole, 700) == kept_snapshots(700)
    assert len(list(thinned.iterdir())) == len(kept_snapshots(700))


@pytest.mark.parametrize("largest", [1e-30, 1.0, 1e30])
def test_a_matrix_is_kept_to_a_small_part_of_the_largest_weight_of_each_row(largest: float, tmp_path: Path) -> None:
    matrix = torch.randn(7, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * largest
    matrix[3] = 0
    ema.write_snapshot(tmp_path, 1, [{"w": matrix, "gain": torch.tensor(0.1)} for _ in ema.TRACKED_SIGMA_RELS])
    kept = ema.tracked_ema(tmp_path, 0.05, 1)
    rows = matrix.flatten(1).abs().amax(1)
    assert ((kept["w"] - matrix).flatten(1).abs().amax(1) <= rows / 65_000).all()
    assert torch.equal(kept["gain"], torch.tensor(0.1))
    assert (kept["w"][3] == 0).all()


def test_weights_that_are_not_finite_stay_so(tmp_path: Path) -> None:
    matrix = torch.tensor([[1.0, float("nan")], [float("inf"), 1.0], [1.0, 2.0]])
    ema.write_snapshot(tmp_path, 1, [{"w": matrix} for _ in ema.TRACKED_SIGMA_RELS])
    kept = ema.tracked_ema(tmp_path, 0.1, 1)["w"]
    assert not kept[:2].isfinite().any()
    assert kept[2].isfinite().all()


def test_the_fp32_snapshots_of_an_earlier_release_are_read(tmp_path: Path) -> None:
    weights = {"0.05/w": torch.randn(2, 3), "0.1/w": torch.randn(2, 3)}
    save_file(weights, ema.snapshot_path(tmp_path, 7), metadata={"step": "7"})
    assert torch.equal(ema.tracked_ema(tmp_path, 0.1, 7)["w"], weights["0.1/w"])


@pytest.mark.parametrize("width", WIDTHS)
def test_coefficients_sum_to_one(width: float) -> None:
    steps = np.repeat(kept_snapshots(5000), 2).tolist()
    coefficients = ema.posthoc_coefficients(steps, list(ema.TRACKED_SIGMA_RELS) * (len(steps) // 2), 5000, width)
    assert coefficients.dtype == np.float64
    assert coefficients.shape == (len(steps),)
    assert coefficients.sum() == pytest.approx(1, abs=1e-9)


def test_a_tracked_width_is_its_own_last_snapshot() -> None:
    coefficients = ema.posthoc_coefficients([500, 500, 1000, 1000], [0.05, 0.1, 0.05, 0.1], 1000, 0.1)
    np.testing.assert_allclose(coefficients, [0, 0, 0, 1], atol=1e-9)


def test_a_step_without_a_snapshot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no EMA snapshots"):
        ema.reconstruct(tmp_path, [0.1], 7)
    keep_snapshots(tmp_path, walk(10))
    with pytest.raises(InputError, match="no EMA snapshot of step 11"):
        ema.reconstruct(tmp_path, [0.1], 11)


@pytest.mark.parametrize("width", [0.005, 0.2885])
def test_a_width_that_the_snapshots_cannot_give_is_refused_with_those_that_they_can(
    width: float, tmp_path: Path
) -> None:
    steps = keep_snapshots(tmp_path, walk(300))
    with pytest.raises(InputError, match=r"0 \(raw weights\), 0.007 to 0.278"):
        ema.reconstruct(tmp_path, [width], steps)


@pytest.mark.parametrize("width", [0.02, 0.03, 0.2, 0.25])
def test_the_told_error_bounds_the_error_relative_to_the_weights_motion(width: float, tmp_path: Path) -> None:
    weights = walk(2000)
    keep_snapshots(tmp_path, weights)
    rebuilt, direct = ema.reconstruct(tmp_path, [width], 2000)[0]["w"].double(), tracked(weights, width)
    motion = (weights - direct).norm(dim=1).max()  # how far the weights were from their average
    assert float((rebuilt - direct).norm() / motion) <= ema.reconstruction_error(tmp_path, width, 2000)


def test_the_told_error_of_a_tracked_width_is_rounding_alone(tmp_path: Path) -> None:
    keep_snapshots(tmp_path, walk(200))
    assert ema.reconstruction_error(tmp_path, 0.05, 200) < 2e-5


def test_a_truncated_snapshot_is_refused_by_name(tmp_path: Path) -> None:
    steps = keep_snapshots(tmp_path, walk(200))
    path = ema.snapshot_path(tmp_path, kept_snapshots(steps)[20])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=rf"{path.name} is damaged"):
        ema.reconstruct(tmp_path, [0.1], steps)
    path.unlink()  # as the message says
    assert ema.reconstruct(tmp_path, [0.1], steps)[0]["w"].isfinite().all()


def test_a_snapshot_of_another_run_is_refused_by_name(tmp_path: Path) -> None:
    steps = keep_snapshots(tmp_path, walk(200))
    kept = kept_snapshots(steps)
    ema.write_snapshot(tmp_path, kept[20], [{"v": torch.zeros(64)} for _ in ema.TRACKED_SIGMA_RELS])
    with pytest.raises(InputError, match="is a snapshot of another run"):
        ema.reconstruct(tmp_path, [0.1], steps)
    ema.snapshot_path(tmp_path, kept[21]).replace(ema.snapshot_path(tmp_path, kept[20]))  # under a false name
    with pytest.raises(InputError, match="is a snapshot of another run"):
        ema.reconstruct(tmp_path, [0.1], steps)


def test_the_snapshots_storage_is_known_beforehand(tmp_path: Path) -> None:
    for step in kept_snapshots(500):
        ema.write_snapshot(tmp_path, step, [{"w": torch.randn(64, 64)} for _ in ema.TRACKED_SIGMA_RELS])
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    scales_and_header = (2 * 64 * 4 + 400) * len(kept_snapshots(500))
    least = ema.snapshot_bytes(500, parameters=64 * 64)
    assert least <= written <= least + scales_and_header
