import errno
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mpdit.data.registry import load_dataset
from mpdit.errors import InputError
from mpdit.run_folder import load, read_weights, write_weights
from mpdit.scoring.extractors.registry import load_extractor
from pipelines.known_facts import cache_folder
from pipelines.recipe import Recipe
from pipelines.scoring import feature_cache
from pipelines.scoring import reference as references
from pipelines.scoring.cell import SAMPLE_BATCH, Cell, Evaluation
from pipelines.scoring.evaluation import SCORES, ScoringOptions, evaluate, forget, measure, prepare
from pipelines.scoring.feature_cache import FeatureCache
from pipelines.scoring.reference import extractor_for, real_features, reference
from pipelines.scoring.sample_generator import SampleGenerator, SampleGrid, draw_noise, sample_labels
from pipelines.training.trainer import train
from pipelines.yaml_file import Document, validate

FEW = Evaluation(samples=60, steps=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe.model_validate({"steps": 10, "batch": 8, "runtime": {"device": "cpu", "threads": 1}})
    return folder, train(recipe, folder, lambda _line: None)


def scored(run: tuple[Path, Recipe], cells: list[Cell], step: int | None = None) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    evaluate(*run, cells, results.append, ScoringOptions(step=step))
    return results


def test_cells_are_scored_alike_together_and_alone(run: tuple[Path, Recipe]) -> None:
    cells = [Cell(width, FEW) for width in (0.0, 0.05, 0.1, 0.2)]
    together = scored(run, cells)
    for cell, found in zip(cells, together, strict=True):
        alone = scored(run, [cell])[0]
        assert (found["value"], found["stderr"], found["magnitude_drift"]) == (
            alone["value"],
            alone["stderr"],
            alone["magnitude_drift"],
        )
    assert len({found["value"] for found in together}) == len(cells)


def test_a_result_says_what_it_was_measured_with(run: tuple[Path, Recipe]) -> None:
    found = scored(run, [Cell(0.1, FEW)])[0]
    assert found["metric"] == "fd_digits_60"
    assert found["params"] == {
        "ema.sigma_rel": 0.1,
        "evaluation.samples": 60,
        "evaluation.sampler": "dpm++2m",
        "evaluation.steps": 4,
        "evaluation.guidance": 1.0,
        "evaluation.guidance_rule": "cfg",
        "evaluation.seed": 0,
        "evaluation.precision": "fp32",
        "evaluation.extractor": "auto",
        "evaluation.classes": "as_data",
        "evaluation.metrics": [],
    }
    provenance = found["provenance"]
    assert provenance["extractor_weights"] == load_extractor("digits").weights
    assert provenance["data"] == load_dataset("digits").fingerprint
    assert provenance["reference_count"] == 1797
    assert provenance["nfe"] == 4
    assert found["stderr"] > 0
    assert len(found["left_out"]) == 10
    assert "60 samples for 64 features" in found["warnings"][0]
    assert (run[0] / "samples" / found["picture"]).exists()


def test_noise_does_not_depend_on_how_samples_are_batched() -> None:
    shape = torch.Size((1, 8, 8))
    whole = draw_noise(0, 10, shape, 0)
    assert torch.equal(torch.cat([draw_noise(0, 3, shape, 0), draw_noise(3, 7, shape, 0)]), whole)
    assert not torch.equal(draw_noise(0, 10, shape, 1), whole)


def test_classes_are_asked_for_as_the_evaluation_says() -> None:
    digits = load_dataset("digits")
    share = digits.labels.bincount() / len(digits)
    for count in (10, 250, 750, 2000):
        as_data, balanced = (
            sample_labels(digits, Evaluation(classes=mode), 0, count).bincount(minlength=10)
            for mode in ("as_data", "balanced")
        )
        assert (as_data - count * share).abs().max() < 1.5
        assert (balanced - count / 10).abs().max() < 1
    in_turn = Evaluation(classes="in_turn")
    assert torch.equal(sample_labels(digits, in_turn, 3, 20), torch.arange(3, 23) % 10)


def test_labels_do_not_depend_on_how_samples_are_batched() -> None:
    digits, few = load_dataset("digits"), Evaluation()
    whole = sample_labels(digits, few, 0, 5000)  # beyond the first sequence that is kept
    assert torch.equal(torch.cat([sample_labels(digits, few, first, 250) for first in range(0, 5000, 250)]), whole)
    assert not torch.equal(sample_labels(digits, Evaluation(seed=1), 0, 20), whole[:20])


def test_an_unknown_way_of_choosing_classes_is_refused() -> None:
    with pytest.raises(InputError, match="as_data"):
        validate(Evaluation, Document({"classes": "by_hand"}, "evaluation.yaml"))


def test_real_images_score_zero_against_themselves() -> None:
    digits = load_dataset("digits")
    against = reference(digits, extractor_for(digits, "auto"))
    features = real_features(digits, against.extractor, limit=10_000)
    assert measure(features, against, digits)["value"] == pytest.approx(0, abs=1e-6)


def test_the_reference_knows_the_mean_of_each_class() -> None:
    digits = load_dataset("digits")
    against = reference(digits, extractor_for(digits, "auto"))
    features = real_features(digits, against.extractor, limit=10_000)
    for number, mean in enumerate(against.class_means):
        torch.testing.assert_close(mean, features[digits.labels == number].double().mean(0))


def test_the_floor_falls_as_samples_grow() -> None:
    digits = load_dataset("digits")
    against = reference(digits, extractor_for(digits, "auto"))
    assert against.floor(100) > against.floor(10_000) > 0


def test_reference_statistics_are_kept_and_neither_stale_nor_damaged_ones_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path))
    digits, extractor = load_dataset("digits"), load_extractor("digits")

    def computed_anew() -> Any:
        reference.cache_clear()
        return reference(digits, extractor)

    first = computed_anew()
    path = next((cache_folder() / "references").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(references, "_compute", None)  # what is kept is not computed again
        kept = computed_anew()
    assert kept.statistics.fingerprint == first.statistics.fingerprint
    assert torch.equal(kept.class_means, first.class_means)

    sound = path.read_bytes()
    path.write_bytes(sound[:-8] + b"\x01" * 8)  # damaged
    assert computed_anew().statistics.fingerprint == first.statistics.fingerprint
    changed = replace(digits, fingerprint="sha256:other")  # other data under the same name
    assert len(list(path.parent.iterdir())) == 1
    reference(changed, extractor)
    assert len(list(path.parent.iterdir())) == 2
    for file in path.parent.iterdir():  # one set's file under the other's name
        if file != path:
            path.write_bytes(file.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(references, "_compute", None)
        with pytest.raises(TypeError):
            computed_anew()
    reference.cache_clear()


def test_processes_that_begin_together_measure_against_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of other threads end in other digits: what another process has kept meanwhile is taken."""
    monkeypatch.setenv("MPDIT_CACHE", str(tmp_path))
    digits, extractor = load_dataset("digits"), load_extractor("digits")
    reference.cache_clear()
    theirs = reference(digits, extractor)
    (path,) = (cache_folder() / "references").iterdir()
    kept, compute = path.read_bytes(), references._compute
    path.unlink()

    def while_another_finishes(*given: Any) -> Any:
        sums, slope, means = compute(*given)
        path.write_bytes(kept)
        return sums, 2 * slope, means

    monkeypatch.setattr(references, "_compute", while_another_finishes)
    reference.cache_clear()
    assert reference(digits, extractor).slope == theirs.slope
    assert path.read_bytes() == kept
    reference.cache_clear()


def test_scoring_goes_on_where_it_was_stopped(run: tuple[Path, Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell(width, Evaluation(samples=2 * SAMPLE_BATCH + 40, steps=1)) for width in (0.05, 0.1)]
    undisturbed = scored(run, cells)
    drawn: list[int] = []

    def stop_in_the_second_cell(count: int) -> None:
        drawn.append(count)
        if len(drawn) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        options = ScoringOptions(progress=stop_in_the_second_cell, keep=True)
        evaluate(*run, cells, lambda _result: None, options)
    again: list[int] = []
    results: list[dict[str, Any]] = []
    evaluate(*run, cells, results.append, ScoringOptions(progress=again.append, keep=True))
    assert again == [540, 500, 40]  # what was kept, at once; then what was missing
    assert [found["left_out"] for found in results] == [found["left_out"] for found in undisturbed]
    forget(run[0])
    assert not (run[0] / SCORES).exists()


def test_more_samples_are_drawn_on_top_of_those_that_are_kept(run: tuple[Path, Recipe]) -> None:
    few, many = (Cell(0.1, Evaluation(samples=count, steps=1)) for count in (SAMPLE_BATCH, 2 * SAMPLE_BATCH))
    whole = scored(run, [many])[0]
    drawn: list[int] = []
    results: list[dict[str, Any]] = []
    evaluate(*run, [few], results.append, ScoringOptions(keep=True))
    evaluate(*run, [many], results.append, ScoringOptions(progress=drawn.append))
    assert drawn == [SAMPLE_BATCH, SAMPLE_BATCH]
    assert results[1]["left_out"] == whole["left_out"]
    assert not (run[0] / SCORES).exists()


def test_a_grid_goes_on_where_it_was_stopped(run: tuple[Path, Recipe], tmp_path: Path) -> None:
    generator, grid = SampleGenerator(load(run[0], 0.1)[0]), SampleGrid(Evaluation(steps=1), classes=[3, 1], rows=150)
    whole = grid.draw(generator, FeatureCache(tmp_path / "none", {}))
    assert whole.shape == (300, 1, 8, 8)

    def stop(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grid.draw(generator, FeatureCache(tmp_path, {"a": 1}), stop)
    drawn: list[int] = []
    cache = FeatureCache(tmp_path, {"a": 1})
    assert torch.equal(grid.draw(generator, cache, drawn.append), whole)
    assert drawn == [SAMPLE_BATCH, 50]
    assert FeatureCache(tmp_path, {"a": 2}).count == 0  # of another grid
    cache.remove()
    assert not tmp_path.exists()


def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    run: tuple[Path, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_tensors: object, path: Path, metadata: object) -> None:  # the machine's edge: a disk without space
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_cache, "save_file", full)
    with pytest.raises(InputError, match="no space is left"):
        evaluate(*run, [Cell(0.1, FEW)], lambda _result: None, ScoringOptions(keep=True))
    assert list((run[0] / SCORES).iterdir()) == []


def test_further_metrics_are_torch_fidelitys(run: tuple[Path, Recipe]) -> None:
    every = Evaluation(samples=60, steps=1, metrics=["inception_score", "kid", "precision_recall"])
    found = scored(run, [Cell(0.1, every)])[0]["more"]
    assert set(found) == {"kid", "kid_std", "precision", "recall", "inception_score"}
    digits = load_dataset("digits")
    against = reference(digits, extractor_for(digits, "auto"))
    real = real_features(digits, against.extractor, limit=10_000)
    perfect = measure(real, against, digits, every)["more"]
    assert abs(perfect["kid"]) < found["kid"] / 10  # unbiased: below 0 for a set against itself
    assert perfect["precision"] == perfect["recall"] == 1
    assert 5 < perfect["inception_score"] <= 10  # ten classes
    assert found["inception_score"] < perfect["inception_score"]


def test_what_an_evaluation_cannot_have_is_refused_before_training(small_recipe: Recipe) -> None:
    prepare(small_recipe, [Evaluation()])
    with pytest.raises(InputError, match=r"no feature extractor 'digit'[\s\S]*nearest:\s+digits"):
        prepare(small_recipe, [Evaluation(extractor="digit")])
    with pytest.raises(ValidationError, match="no metric 'fid'"):
        Evaluation(metrics=["fid"])


def test_bf16_is_near_fp32(run: tuple[Path, Recipe]) -> None:
    full, half = (scored(run, [Cell(0.1, Evaluation(samples=60, steps=2, precision=p))])[0] for p in ("fp32", "bf16"))
    assert half["value"] == pytest.approx(full["value"], rel=0.02)
    assert half["value"] != full["value"]


def test_an_earlier_step_can_be_scored(run: tuple[Path, Recipe]) -> None:
    early, late = scored(run, [Cell(0.1, FEW)], step=2)[0], scored(run, [Cell(0.1, FEW)])[0]
    assert early["value"] != late["value"]


def test_samples_that_are_not_finite_leave_the_cell_without_a_value(run: tuple[Path, Recipe], tmp_path: Path) -> None:
    folder, recipe = run
    (tmp_path / "ema").mkdir()
    denoiser, step = read_weights(folder / "ema/raw.safetensors")
    torch.nn.init.constant_(denoiser.network.final.gain, math.inf)
    write_weights(tmp_path / "ema/raw.safetensors", dict(denoiser.named_parameters()), denoiser, step)
    found = scored((tmp_path, recipe), [Cell(0.0, FEW)])[0]
    assert found["value"] is None
    assert found["stderr"] is None


def test_a_cells_key_follows_its_settings() -> None:
    assert Cell(0.1, FEW).key == Cell(0.1, Evaluation(samples=60, steps=4)).key
    assert len({Cell(0.1, FEW).key, Cell(0.2, FEW).key, Cell(0.1, Evaluation(samples=61, steps=4)).key}) == 3
