import dataclasses
from typing import Any

import pytest

from mpdit.errors import InputError
from pipelines.identity import trial_id
from pipelines.recipe import Recipe, resolve_runtime
from pipelines.yaml_file import Document, validate


def changed(**fields: Any) -> Recipe:
    return Recipe.model_validate(fields)


def test_the_default_recipe_keeps_its_id() -> None:
    assert trial_id(Recipe()) == "52162c1b56"


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"steps": 601},
        {"batch": 64},
        {"optimizer": {"lr": 0.021}},
        {"model": {"modulation": "scale"}},
        {"objective": {"p_mean": -1.0}},
        {"objective": {"name": "flow"}},
        {"model": {"design": "D"}},
        {"model": {"variant": "map-dit"}},
        {"model": {"mp_silu": False}},
        {"optimizer": {"schedule": "cosine"}},
        {"optimizer": {"clip": 1.0}},
        {"optimizer": {"parametrization": "mup"}},
        {"model": {"width": 128}},
        {"runtime": {"precision": "bf16"}},
    ],
)
def test_another_training_has_another_id(fields: dict[str, Any]) -> None:
    assert trial_id(changed(**fields)) != trial_id(Recipe())


@pytest.mark.parametrize(
    "fields",
    [
        {"ema": {"sigma_rel": 0.05}},
        {"runtime": {"device": "cpu", "threads": 3}},
        {"optimizer": {"lr": 1e-1}},
        {"model": {"modulation": "gate+shift+scale"}},
        {"objective": {"p_std": 1}},
        {"model": {"mp_silu": True}},
        {"runtime": {"micro_batch": 7}},
        {"optimizer": {"base_width": 128}},  # sp has none
        {"model": {"width": 64}},  # nano's own
    ],
)
def test_the_same_training_written_otherwise_has_the_same_id(fields: dict[str, Any]) -> None:
    assert trial_id(changed(**fields)) == trial_id(Recipe())


def test_another_data_set_has_another_id(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(Recipe().facts, fingerprint="sha256:other")
    monkeypatch.setattr("pipelines.recipe.dataset_facts", lambda _kind: other)
    assert trial_id(Recipe()) != "52162c1b56"


def test_what_is_left_to_the_machine_is_settled() -> None:
    runtime = resolve_runtime(changed(runtime={"device": "cpu"}), threads=3).runtime
    assert runtime.model_dump() == {
        "device": "cpu",
        "threads": 3,
        "precision": "fp32",
        "compile": False,
        "micro_batch": "auto",
    }


def test_what_is_asked_for_stays() -> None:
    asked = {"device": "cpu", "threads": 2, "precision": "bf16", "compile": True, "micro_batch": 32}
    assert resolve_runtime(changed(runtime=asked)).runtime.model_dump() == asked


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # the edge of the machine
    with pytest.raises(InputError, match="this machine shows none"):
        resolve_runtime(changed(runtime={"device": "cuda"}))


def test_a_rung_reached_by_its_switch_is_the_same_training() -> None:
    by_switch = changed(model={"design": "A", "cosine_attention": True})
    assert trial_id(by_switch) == trial_id(changed(model={"design": "B"}))


def test_the_public_code_s_variant_clips_as_it_does_unless_told_otherwise() -> None:
    assert changed(model={"variant": "map-dit"}).clip == 0.1
    assert changed(model={"variant": "map-dit"}, optimizer={"clip": 1.0}).clip == 1.0
    assert Recipe().clip is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": {"design": "G"}}, "A, B, C, D, E, F"),
        ({"model": {"variant": "map_dit"}}, "map-dit"),
        ({"model": {"design": "A", "forced_normalization": True}}, "weight_normalization: true"),
        ({"objective": {"name": "ddpm", "p_mean": -1.0}}, "objective 'ddpm' has no p_mean"),
        ({"objective": {"name": "vlow"}}, "flow"),
        ({"optimizer": {"schedule": "cosin"}}, "cosine"),
        ({"optimizer": {"parametrization": "mu"}}, "mup"),
        ({"optimizer": {"parametrization": "mup", "base_width": 72}}, "multiples of 16, or a size's own width"),
        ({"model": {"size": "S", "width": 96}}, "multiples of 64"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        validate(Recipe, Document(fields, "recipe.yaml"))


def test_another_base_width_is_another_training_and_a_size_s_own_suits_every_size() -> None:
    ids = {trial_id(changed(optimizer={"parametrization": "mup", "base_width": base})) for base in (64, 128)}
    assert len(ids) == 2
    for size in ("nano", "XS", "S", "B", "L", "XL"):
        assert changed(model={"size": size}, optimizer={"parametrization": "mup"}).optimizer.base_width == 64


def test_a_model_of_another_width_keeps_its_heads_channels() -> None:
    assert changed(model={"width": 128}).model.shape == (4, 128, 8)
    assert changed(model={"size": "XL"}).model.shape == (28, 1152, 16)
