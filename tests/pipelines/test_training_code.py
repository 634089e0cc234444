"""The version of the code that computes a training: what changes it, what does not, and where it is kept."""

import ast
import logging
from pathlib import Path

import pytest

from pipelines import identity, training_code
from pipelines.provenance import CODE
from pipelines.recipe import Recipe
from pipelines.training.trainer import train
from pipelines.training.training_folder import note_code, read_code
from pipelines.training_code import STARTS, content_hash, modules_used
from pipelines.training_code import training_code as code_of
from tests.conftest import SMALL

ROTATION = {"model": {"modulation": "rotation+gate"}}


def hashed(text: str) -> str:
    return content_hash(ast.parse(text))


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A copy of the sources in which files can be changed."""
    import shutil

    for layer in ("mpdit", "pipelines"):
        shutil.copytree(CODE / layer, tmp_path / layer, ignore=shutil.ignore_patterns("__pycache__", "weights"))

    def change(file: str, old: str, new: str) -> None:
        text = (tmp_path / file).read_text()
        assert old in text
        (tmp_path / file).write_text(text.replace(old, new))
        forget()

    def forget() -> None:
        training_code._source.cache_clear()
        training_code._version.cache_clear()

    monkeypatch.setattr(training_code, "CODE", tmp_path)
    forget()
    yield change
    forget()


def test_comments_docstrings_and_layout_do_not_count() -> None:
    plain = "def f(x):\n    return x + 1\n"
    assert hashed(plain) == hashed(
        '"""Doc."""\n\n# why\ndef f(x):\n    """Doc."""\n    return (x +\n            1)  # more\n'
    )
    assert hashed("class A:\n    x: int\n") == hashed('class A:\n    """Doc."""\n\n    x: int\n')
    for other in ("def f(x):\n    return x + 2\n", "def g(x):\n    return x + 1\n", "def f(x):\n    'x'\n"):
        assert hashed(plain) != hashed(other)
    assert hashed("x = 'text'\n") != hashed("x = 'other'\n")  # no docstring


def test_a_change_of_rotate_is_another_code_for_those_that_rotate(changed) -> None:
    rotating, other = Recipe.model_validate(ROTATION), Recipe()
    before = code_of(rotating), code_of(other)
    changed("mpdit/model/modulation/rotation.py", '"""Rotation', '"""A rotation')
    assert (code_of(rotating), code_of(other)) == before
    changed("mpdit/model/modulation/rotation.py", "import torch\n", "import torch\n\n    extra = 1\n")
    assert code_of(rotating) != before[0]
    assert code_of(other) == before[1]


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("mpdit/model/transformer.py", True),
        ("mpdit/training/step.py", True),
        ("pipelines/training/trainer.py", True),
        ("mpdit/data/digits.py", True),
        ("mpdit/data/shapes.py", False),
        ("mpdit/diffusion/objectives/ddpm.py", False),
        ("mpdit/scoring/frechet.py", False),
        ("pipelines/recipe.py", False),
    ],
)
def test_what_computes_a_training_counts_and_nothing_else(changed, file: str, counts: bool) -> None:
    before = code_of(Recipe())
    changed(file, "\n\n\n", "\n\n\nEXTRA = 1\n\n\n")
    assert (code_of(Recipe()) != before) is counts


def test_settings_that_bring_no_code_change_no_code() -> None:
    assert code_of(Recipe()) == code_of(Recipe.model_validate({"seed": 4, "optimizer": {"lr": 0.3}, "steps": 9}))
    assert code_of(Recipe()) != code_of(Recipe.model_validate(ROTATION))
    assert {"mpdit.model.transformer", "mpdit.training.step", "mpdit.data.holdout"} <= set(modules_used(STARTS))


def test_a_plug_in_s_version_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = []
    for version in ("1.0", "1.1"):
        monkeypatch.setattr(training_code, "plugins", lambda _recipe, version=version: {"mpdit-example": version})
        codes.append(code_of(Recipe()))
    assert len({*codes, identity.trial_id(Recipe())}) == 3


def test_a_training_keeps_its_code_and_says_where_other_code_continued_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe.model_validate({**SMALL, "steps": 1})
    assert read_code(tmp_path) is None
    train(recipe, tmp_path, lambda line: None, threads=1)
    today = code_of(recipe)
    assert read_code(tmp_path) == today
    note_code(tmp_path, recipe)
    assert read_code(tmp_path) == today
    monkeypatch.setattr("pipelines.training.training_folder.training_code", lambda _recipe: "0123456789")
    with caplog.at_level(logging.WARNING):
        note_code(tmp_path, recipe)
    assert read_code(tmp_path) == f"{today}+0123456789"
    assert f"other code ({today}) began this training" in caplog.text
    (tmp_path / "code.json").write_text("{")
    assert read_code(tmp_path) is None
