from pathlib import Path

import pytest

from mpdit.errors import InputError
from pipelines.recipe import Recipe
from pipelines.yaml_file import anchored, apply_settings, parse_value, read_yaml, validate, write_yaml


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as problem:
        validate(Recipe, read_yaml(written(folder, text)))
    return str(problem.value)


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3", "1E-03", "10e-4"])
def test_a_number_is_a_number_however_it_is_written(text: str, tmp_path: Path) -> None:
    recipe = validate(Recipe, read_yaml(written(tmp_path, f"optimizer:\n  lr: {text}\n")))
    assert recipe.optimizer.lr == 0.001
    assert parse_value(text) == 0.001


def test_an_unknown_key_is_named_with_its_line_and_the_nearest(tmp_path: Path) -> None:
    text = message(tmp_path, "steps: 10\noptimizer:\n  lrr: 0.1\n")
    assert "recipe.yaml, line 3: optimizer has no field 'lrr'" in text
    assert "given:" in text
    assert "lrr: 0.1" in text
    assert "nearest:" in text
    assert " lr" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optimizer: {lr: -0.1}", ["line 1", "optimizer.lr", "-0.1", "greater than 0"]),
        ("steps: many", ["line 1", "steps", "'many'", "whole number"]),
        ("steps: true", ["steps", "whole number"]),
        ("steps: 2.5", ["steps", "whole number"]),
        ("optimizer: {lr: .nan}", ["optimizer.lr", "finite"]),
        ("model:\n  modulation: scale+rotatoin", ["line 2", "rotatoin", "rotation"]),
        ("model: {size: nanno}", ["line 1", "nanno", "nano"]),
        ("data: {name: digit}", ["digit", "digits"]),
        ("ema: {sigma_rel: 0.4}", ["0.4", "0.288"]),
        ("runtime: {device: tpu}", ["runtime.device", "tpu", "cuda"]),
        ("model: [1]", ["line 1", "model"]),
        ("steps: 1\nsteps: 2", ["line 2", "'steps' is written twice", "line 1"]),
    ],
)
def test_what_cannot_be_used_is_named_with_what_is_allowed(text: str, says: list[str], tmp_path: Path) -> None:
    found = message(tmp_path, text)
    assert all(part in found for part in says), found


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\ta: 1", "a: &x [*y]"])
def test_broken_yaml_is_named_with_its_line(text: str, tmp_path: Path) -> None:
    assert "this is not YAML" in message(tmp_path, text)


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "hello"])
def test_a_file_without_settings_is_refused(text: str, tmp_path: Path) -> None:
    assert "holds no settings" in message(tmp_path, text)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_yaml(tmp_path / "none.yaml")


def test_settings_are_laid_over_the_file(tmp_path: Path) -> None:
    document = read_yaml(written(tmp_path, "steps: 10\noptimizer: {lr: 0.5}\n"))
    changed = apply_settings(document, ["optimizer.lr=1e-2", "model.patch=4", "axes.optimizer.lr=[1, 2]"])
    assert changed.data == {
        "steps": 10,
        "optimizer": {"lr": 0.01},
        "model": {"patch": 4},
        "axes": {"optimizer.lr": [1, 2]},
    }
    assert document.data["optimizer"] == {"lr": 0.5}


@pytest.mark.parametrize("setting", ["steps", "=1", "steps.more=1", "steps=[1"])
def test_a_setting_that_says_nothing_is_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        apply_settings(read_yaml(written(tmp_path, "steps: 10\n")), [setting])


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    recipe = Recipe()
    write_yaml(tmp_path / "out.yaml", recipe.model_dump())
    assert validate(Recipe, read_yaml(tmp_path / "out.yaml")) == recipe


def test_paths_are_relative_to_what_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f.yaml").write_text("data: {path: here, paths: [one, /two]}\n")
    monkeypatch.chdir(tmp_path)
    document = read_yaml(Path("sub/f.yaml"))
    assert anchored(document, ("data", "path")).data["data"]["path"] == str(tmp_path / "sub" / "here")
    assert anchored(document, ("data", "paths")).data["data"]["paths"] == [str(tmp_path / "sub" / "one"), "/two"]
    told = apply_settings(document, ["data.path=there"])
    assert anchored(told, ("data", "path")).data["data"]["path"] == str(tmp_path / "there")
    assert anchored(document, ("data", "nothing")).data == document.data
