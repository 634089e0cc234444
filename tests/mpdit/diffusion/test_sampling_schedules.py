"""The levels of a sampler's steps: the objective's own to the bit, EDM's of other numbers, and listed ones."""

import json
from typing import Any

import pytest
import torch

from mpdit.diffusion.denoiser import Denoiser
from mpdit.diffusion.objectives.registry import OBJECTIVES
from mpdit.diffusion.samplers.registry import SAMPLERS
from mpdit.diffusion.sampling import sample
from mpdit.diffusion.sampling_options import SamplingOptions
from mpdit.diffusion.sampling_schedules.default import Default
from mpdit.diffusion.sampling_schedules.edm import EdmLevels
from mpdit.diffusion.sampling_schedules.listed import Listed
from mpdit.errors import InputError
from mpdit.randomness import normal
from mpdit.schedules import edm_schedule
from pipelines.scoring.cell import Cell, Evaluation, evaluation_of
from pipelines.yaml_file import Document, validate


def no_levels(steps: int) -> list[float]:
    raise AssertionError("the objective is not asked")


@pytest.mark.parametrize("objective", OBJECTIVES.names())
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_the_default_is_the_objective_s_own_to_the_bit(objective: str, steps: int) -> None:
    own = OBJECTIVES[objective]().noise_schedule(steps)
    assert torch.equal(torch.tensor(Default().levels(steps, lambda n: own.tolist())), own)


@pytest.mark.parametrize("steps", [1, 2, 3, 12, 250])
def test_edm_s_own_numbers_give_edm_s_levels(steps: int) -> None:
    assert EdmLevels().levels(steps, no_levels) == edm_schedule(steps).tolist()


def test_rho_of_one_is_even_and_a_large_one_is_even_in_the_logarithm() -> None:
    even = EdmLevels(rho=1.0, sigma_min=1.0, sigma_max=5.0).levels(5, no_levels)
    assert even == pytest.approx([5, 4, 3, 2, 1, 0])
    in_log = EdmLevels(rho=1e5, sigma_min=0.01, sigma_max=100.0).levels(5, no_levels)
    assert in_log == pytest.approx([100, 10, 1, 0.1, 0.01, 0], rel=1e-3)


def test_listed_levels_draw_what_a_schedule_with_these_levels_draws(small_denoiser: Denoiser) -> None:
    x, labels = normal((2, 1, 8, 8), 0, 0, "x"), torch.arange(2)
    heun = Evaluation(sampler="heun").sampler
    listed = Listed(tuple(edm_schedule(4)[:-1].tolist()))
    found, wanted = (
        sample(small_denoiser, x, labels, options, lambda _: x)
        for options in (SamplingOptions(heun, 99, schedule=listed), SamplingOptions(heun, 4))
    )
    assert torch.equal(found, wanted)


def test_a_schedule_is_a_post_hoc_axis_and_off_it_changes_no_key() -> None:
    plain = Cell(0.1, Evaluation())
    assert Cell(0.1, Evaluation.model_validate({"schedule": "default"})).key == plain.key
    keys = {plain.key}
    fields: list[dict[str, Any]] = [{"name": "edm"}, {"name": "edm", "rho": 5.0}, {"sigmas": [9.0, 1.0, 0.1]}]
    for schedule in fields:
        cell = Cell(0.1, Evaluation.model_validate({"schedule": schedule}))
        assert evaluation_of(json.loads(json.dumps(cell.params))) == cell.evaluation
        keys.add(cell.key)
    assert len(keys) == 4
    listed = Evaluation.model_validate({"schedule": fields[-1], "steps": 50, "sampler": "heun"})
    assert listed.network_evaluations == 5  # of three levels, whatever `steps` says
    assert listed.as_drawn == Evaluation.model_validate({**listed.model_dump(), "steps": 3})


@pytest.mark.parametrize(
    "schedule",
    [
        {"sigmas": []},
        {"sigmas": [1.0, 2.0]},
        {"sigmas": [2.0, 2.0]},
        {"sigmas": [2.0, 0.0]},
        {"sigmas": [float("inf"), 1.0]},
        {"sigmas": 2.0},
        {"name": "edm", "rho": 0.0},
        {"name": "edm", "sigma_min": 9.0, "sigma_max": 1.0},
        {"name": "karras"},
        "list",
    ],
)
def test_levels_that_do_not_descend_and_what_is_no_schedule_are_refused(schedule: object) -> None:
    with pytest.raises(InputError, match=r"sweep\.yaml: schedule"):
        validate(Evaluation, Document({"schedule": schedule}, "sweep.yaml"))


@pytest.mark.parametrize("sampler", SAMPLERS.names())
def test_every_sampler_takes_one_level_and_two(sampler: str, small_denoiser: Denoiser) -> None:
    x, labels = normal((1, 1, 8, 8), 0, 0, "x"), torch.arange(1)
    chosen = Evaluation(sampler=sampler).sampler
    for levels in ((3.0,), (3.0, 0.5)):
        drawn = sample(small_denoiser, x, labels, SamplingOptions(chosen, 1, schedule=Listed(levels)), lambda _: x)
        assert drawn.isfinite().all()
