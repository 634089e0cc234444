"""Guidance by an earlier snapshot or another EMA width of the same run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mpdit.diffusion.denoiser import Denoiser
from mpdit.errors import InputError
from mpdit.run_folder import EMA, load, set_weights
from mpdit.training.ema import reconstruct, stored_steps
from pipelines.api import evaluate as evaluate_run
from pipelines.export import export
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation, evaluation_of
from pipelines.scoring.evaluation import ScoringOptions, evaluate
from pipelines.scoring.networks.asked import GuideWeights, check_networks, guide_weights
from pipelines.scoring.networks.guides import Guides
from pipelines.scoring.rungs import score_rung
from pipelines.scoring.sample_generator import SampleGenerator, fingerprint
from pipelines.training.trainer import train
from pipelines.yaml_file import Document, validate

STEPS, EARLY = 8, 0.25
LARGE_LR = 0.5  # so that few steps change the weights


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    folder = tmp_path_factory.mktemp("run")
    fields = {"steps": STEPS, "batch": 8, "optimizer": {"lr": LARGE_LR}, "runtime": {"device": "cpu", "threads": 1}}
    return folder, train(Recipe.model_validate(fields), folder, lambda _line: None)


def few(**settings: Any) -> Evaluation:
    return Evaluation.model_validate({"samples": 12, "steps": 2, **settings})


def scored(run: tuple[Path, Recipe], *evaluations: Evaluation, width: float = 0.1) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    evaluate(*run, [Cell(width, evaluation) for evaluation in evaluations], results.append)
    return results


def of_width(run: tuple[Path, Recipe], width: float, step: int) -> Denoiser:
    denoiser = load(run[0], width)[0]
    set_weights(denoiser, reconstruct(run[0] / EMA, [width], step)[0])
    return denoiser


def test_off_changes_no_key_and_no_parameter() -> None:
    plain = Cell(0.1, Evaluation(guidance=2.0))
    for off in ({}, {"step": 1.0}, {"step": 1}, {"sigma_rel": None}):
        cell = Cell(0.1, Evaluation.model_validate({"guidance": 2.0, "guide": off}))
        assert (cell.key, cell.params) == (plain.key, plain.params)
        assert not cell.evaluation.has_guide
    assert not any("guide." in path for path in plain.params)


def test_a_guide_is_read_back_from_a_cell_s_parameters_and_has_a_key_of_its_own() -> None:
    keys = {Cell(0.1, Evaluation(guidance=2.0)).key}
    guides: list[dict[str, Any]] = [{"step": 0.0625}, {"sigma_rel": 0.13}, {"step": 0.0625, "sigma_rel": 0.13}]
    guides += [{"step": 0.0625, "labels": "empty"}, {"labels": "kept"}, {"step": 37}]
    for guide in guides:
        cell = Cell(0.1, Evaluation.model_validate({"guidance": 2.0, "guide": guide}))
        assert evaluation_of(json.loads(json.dumps(cell.params))) == cell.evaluation
        keys.add(cell.key)
    assert len(keys) == len(guides) + 1


def test_the_label_is_empty_only_where_the_network_guides_itself() -> None:
    labels = {"step": 0.5}, {"sigma_rel": 0.05}, {}, {"labels": "kept"}, {"step": 0.5, "labels": "empty"}
    found = [Evaluation.model_validate({"guide": guide}).sampling.guidance.empty_label for guide in labels]
    assert found == [False, False, True, False, True]


@pytest.mark.parametrize("step", [0, -0.5, 1.5, 37.2, 4.0])
def test_a_step_that_is_neither_a_share_nor_a_step_is_refused(step: float) -> None:
    with pytest.raises(InputError, match="a share of its run, or a step of it"):
        validate(Evaluation, Document({"guide": {"step": step}}, "sweep.yaml"))


@pytest.mark.parametrize("guide", [{"step": "early"}, {"width": 0.1}, {"labels": "none"}, {"sigma_rel": 0.3}, 0.0625])
def test_anything_else_is_refused_with_its_place(guide: object) -> None:
    with pytest.raises(InputError, match=r"sweep\.yaml: guide"):
        validate(Evaluation, Document({"guide": guide}, "sweep.yaml"))


def guided_cell(width: float = 0.1, **guide: Any) -> Cell:
    return Cell(width, Evaluation.model_validate({"guidance": 2.0, "guide": guide}))


def test_a_step_snaps_to_a_kept_one() -> None:
    kept = [10, 20, 40, 80, 160]
    assert guide_weights(guided_cell(step=0.25), kept) == GuideWeights(40, 0.1)
    assert guide_weights(guided_cell(step=0.3, sigma_rel=0.05), kept) == GuideWeights(40, 0.05)
    assert guide_weights(guided_cell(step=79), kept) == GuideWeights(80, 0.1)
    assert guide_weights(guided_cell(width=0.03, step=0.25), kept) == GuideWeights(40, 0.1)
    assert guide_weights(guided_cell(width=0.03, labels="empty", step=1), kept) is None
    assert guide_weights(guided_cell(sigma_rel=0.0), kept) == GuideWeights(160, 0.0)
    assert guide_weights(guided_cell(labels="kept"), kept) is None
    assert guide_weights(Cell(0.1, Evaluation.model_validate({"guide": {"step": 0.25}})), kept) is None  # no guidance


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (guided_cell(step=161), "comes after the end"),
        (guided_cell(step=0.25, sigma_rel=0.0), "raw weights are kept of a run's last step only"),
        (guided_cell(step=0.01, sigma_rel=0.28), "evaluation.guide at step 10: the snapshots of 10 steps cannot give"),
    ],
)
def test_a_guide_that_the_snapshots_cannot_give_is_refused(cell: Cell, message: str) -> None:
    with pytest.raises(InputError, match=message):
        guide_weights(cell, [10, 20, 40, 80, 160])


def test_a_cell_is_drawn_with_the_guide_that_its_provenance_names(run: tuple[Path, Recipe]) -> None:
    plain, guided = scored(run, few(guidance=2.0), few(guidance=2.0, guide={"step": EARLY, "sigma_rel": 0.05}))
    assert "guide" not in plain["provenance"]
    named = guided["provenance"]["guide"]
    assert named["step"] in stored_steps(run[0] / EMA, STEPS)
    assert abs(named["step"] - EARLY * STEPS) <= 1
    assert named["sigma_rel"] == 0.05
    assert named["weights"] == fingerprint(of_width(run, 0.05, named["step"]))
    assert guided["provenance"]["nfe"] == plain["provenance"]["nfe"] == 4
    assert guided["value"] != plain["value"]


def test_cells_of_many_guides_are_scored_alike_together_and_alone(run: tuple[Path, Recipe]) -> None:
    guides: list[dict[str, Any]] = [{}, {"step": EARLY}, {"step": EARLY, "sigma_rel": 0.05}, {"sigma_rel": 0.05}]
    evaluations = [few(guidance=2.0, guide=guide) for guide in [*guides, {"step": EARLY, "labels": "empty"}]]
    together = [found["value"] for found in scored(run, *evaluations)]
    for at in (2, 4):
        assert together[at] == scored(run, evaluations[at])[0]["value"]
    assert len(set(together)) == len(together)


def test_without_guidance_a_guide_means_nothing(run: tuple[Path, Recipe]) -> None:
    """Not one sample is drawn again for it, though it is another cell."""
    plain, guided = few(), few(guide={"step": EARLY}, guidance_rule="apg", guidance_interval=[0.1, 1.0])
    results: list[dict[str, Any]] = []
    evaluate(*run, [Cell(0.1, plain), Cell(0.1, guided)], results.append, ScoringOptions(keep=True))
    assert [found["drawn"] for found in results] == [12, 0]
    assert results[0]["value"] == results[1]["value"]
    assert results[0]["cell"] != results[1]["cell"]


def test_a_guide_of_the_whole_run_and_the_same_width_leaves_the_network_s_own_prediction(
    run: tuple[Path, Recipe],
) -> None:
    plain, guided = scored(run, few(), few(guidance=3.0, guide={"sigma_rel": 0.1}))
    assert guided["value"] == pytest.approx(plain["value"], rel=1e-3)


def test_kept_features_are_not_those_of_another_guide(run: tuple[Path, Recipe]) -> None:
    results: list[dict[str, Any]] = []
    cells = [Cell(0.1, few(guidance=2.0, guide={"step": EARLY, "sigma_rel": width})) for width in (0.05, 0.1)]
    evaluate(*run, cells, results.append, ScoringOptions(keep=True))
    evaluate(*run, cells, results.append, ScoringOptions())
    assert [found["drawn"] for found in results] == [12, 12, 0, 0]
    assert [found["value"] for found in results[:2]] == [found["value"] for found in results[2:]]


@pytest.mark.slow
def test_a_compiled_guide_draws_what_the_plain_one_draws(run: tuple[Path, Recipe]) -> None:
    cell = Cell(0.1, few(guidance=2.0, guide={"step": EARLY}))
    guide, denoiser = Guides(run[0], [cell]).of(cell), load(run[0], 0.1)[0]
    assert guide is not None
    drawn = []
    for compiled in (False, True):
        generator = SampleGenerator(denoiser, compiled=compiled)
        for other in (denoiser, guide.denoiser):  # the second takes the first one's place in compiled code
            generator.load_guide(other)
        drawn.append(generator.draw(cell.evaluation, 0, torch.arange(10)).float())
    assert (drawn[0] - drawn[1]).abs().max() <= 1  # of 255


def test_an_evaluation_whose_guide_was_forgotten_draws_nothing(small_denoiser: Denoiser) -> None:
    with pytest.raises(ValueError, match="not this evaluation's"):
        SampleGenerator(small_denoiser).draw(few(guidance=2.0, guide={"step": 0.5}), 0, torch.arange(2))


def test_at_a_rung_a_guided_evaluation_is_scored_without_guidance(run: tuple[Path, Recipe]) -> None:
    step = stored_steps(run[0] / EMA, STEPS)[-2]
    plain, guided = (
        score_rung(run[0], run[1], step, [0.1], asked)[0]["value"]
        for asked in (few(), few(guidance=2.0, guide={"step": EARLY}))
    )
    assert guided == pytest.approx(plain, rel=1e-3)


def test_the_settings_of_an_evaluation_are_given_by_path(run: tuple[Path, Recipe]) -> None:
    settings = ["guidance=2", "steps=3", "guide.step=0.25", "guide.sigma_rel=0.05", "guidance_interval=[0.1, 50]"]
    found = evaluate_run(run[0], [0.1], samples=12, settings=settings)[0]
    assert found["provenance"]["guide"]["sigma_rel"] == 0.05
    assert found["params"]["evaluation.guidance_interval"] == [0.1, 50.0]
    with pytest.raises(InputError, match=r"guide has no field 'stpe'\n(.*\n)*.*nearest: +step"):
        evaluate_run(run[0], samples=20, settings=["guide.stpe=0.25"])


def test_a_bundle_has_no_snapshots_for_a_guide(run: tuple[Path, Recipe], tmp_path: Path) -> None:
    asked = few(guidance=2.0, guide={"step": EARLY}, sampler={"name": "heun", "churn": 2.0})
    result = scored(run, asked)[0]
    bundle = export(run[0], result, tmp_path / "bundle", {"sweep": "s", "trial": "t"})
    with pytest.raises(InputError, match="a bundle, which holds one network and no snapshots"):
        evaluate_run(bundle)
    own = evaluate_run(bundle, settings=["guidance=1"])[0]
    assert own["value"] == pytest.approx(scored(run, few(sampler=asked.sampler))[0]["value"])
    card = (bundle / "README.md").read_text()
    assert "at σ_rel = 0.1 and step 2, which are not in this bundle" in card
    assert "sampler `heun, churn 2.0` with 2 steps (NFE 6)" in card


def test_cfg_zero_is_for_flows_alone() -> None:
    asked = Evaluation(guidance_rule="cfg_zero")
    check_networks(Recipe.model_validate({"objective": {"name": "flow"}}), asked)
    with pytest.raises(InputError, match="defined for the objective flow only"):
        check_networks(Recipe(), asked)


def test_the_interval_of_heun_has_another_key_since_it_is_decided_by_the_step() -> None:
    def interval_key(sampler: str) -> str:
        return Cell(0.1, Evaluation(guidance=1.5, guidance_interval=(0.3, 5.0), sampler=sampler)).key

    assert interval_key("dpm++2m") == "1c09e3aba2"
    assert interval_key("heun") not in ("", interval_key("ddim"))
