"""What a worker does for one trial, called directly: rounds of staged scoring on a real run."""

from pathlib import Path

from pipelines.evaluation import SCORES
from sweeps.ledger import Event
from sweeps.plan import Plan
from sweeps.ranking import rank
from sweeps.screening import missing_cells
from sweeps.trial import run_trial
from tests.sweeps.conftest import plan_of

SMALL = {
    "recipe": {"steps": 8, "batch": 16, "runtime": {"device": "cpu"}},
    "evaluation": {"samples": 500, "steps": 1, "sampler": "ddim"},
}


def scored_in_rounds(plan: Plan, folder: Path) -> list[list[Event]]:
    """The events of each round; Ray's part, which only carries them, is left out."""
    events: list[list[Event]] = []
    trial = plan.trials[0]
    while missing := missing_cells(plan, [line for one in events for line in one]):
        events.append([])
        cells = missing[trial.id]
        keep = any(cell.evaluation.samples < plan.spec.evaluation.samples for cell in cells)
        run_trial(trial.id, trial.recipe, folder, cells, 1, events[-1].append, keep)
    return events


def test_rounds_end_with_the_winner_and_the_value_of_scoring_in_full(tmp_path: Path) -> None:
    axes = {"ema.sigma_rel": [0, 0.05, 0.1]}
    staged, full = plan_of(axes, **SMALL, screening={"samples": 250}), plan_of(axes, **SMALL)
    first, second = scored_in_rounds(staged, tmp_path)
    assert [line["drawn"] for line in first if line["event"] == "cell"] == [250, 250, 250]
    assert [line["drawn"] for line in second if line["event"] == "cell"] == [250]  # on top of the first round's
    assert [line["outcome"] for line in first + second if line["event"] == "trial_ended"] == ["completed"] * 2
    assert first[-1]["scoring_work"] == 3 * second[-1]["scoring_work"]
    assert len(list((tmp_path / SCORES).iterdir())) == 2  # the features of the cells that were screened only
    (whole,) = scored_in_rounds(full, tmp_path)
    best, wanted = rank(staged, first + second)[0], rank(full, whole)[0]
    assert (best.params, best.value, best.stderr) == (wanted.params, wanted.value, wanted.stderr)


def test_a_cell_without_finite_samples_is_marked_and_the_rest_is_scored(tmp_path: Path) -> None:
    import torch

    from mpdit.run_folder import read_weights, write_weights

    plan = plan_of({"ema.sigma_rel": [0, 0.1]}, **{**SMALL, "evaluation": {"samples": 50, "steps": 1}})
    trial, events = plan.trials[0], list[Event]()
    run_trial(trial.id, trial.recipe, tmp_path, [], 1, events.append)
    denoiser, step = read_weights(tmp_path / "ema" / "raw.safetensors")
    torch.nn.init.constant_(denoiser.network.final.gain, torch.inf)
    write_weights(tmp_path / "ema" / "raw.safetensors", dict(denoiser.named_parameters()), denoiser, step)
    run_trial(trial.id, trial.recipe, tmp_path, [planned.cell for planned in plan.cells], 1, events.append)
    cells = {line["params"]["ema.sigma_rel"]: line["value"] for line in events if line["event"] == "cell"}
    assert cells[0] is None
    assert cells[0.1] > 0
    assert [row.status for row in rank(plan, events)] == ["completed", "diverged"]
