from pathlib import Path

import pytest

from mpdit.errors import InputError
from sweeps.spec.paths import axis_paths
from sweeps.spec.reading import SHIPPED, read_spec, sweep_file

SWEEP = """\
name: mine
recipe:
  model: {size: nano}
axes:
  model.modulation: [scale, gate+shift]
  optimizer.lr: [1e-2, 0.02]
  ema.sigma_rel: [0.05, 0.1]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as problem:
        read_spec(written(folder, text))
    return str(problem.value)


def test_axes_are_brought_into_canonical_form(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, SWEEP))
    assert spec.axes["model.modulation"] == ["scale", "shift+gate"]
    assert spec.axes["optimizer.lr"] == [0.01, 0.02]
    assert spec.training_axes == ["model.modulation", "optimizer.lr"]
    assert spec.post_hoc_axes == ["ema.sigma_rel"]


def test_a_resolved_spec_reads_back_as_itself(tmp_path: Path) -> None:
    from pipelines.yaml_file import write_yaml

    spec = read_spec(written(tmp_path, SWEEP))
    write_yaml(tmp_path / "resolved.yaml", spec.model_dump())
    assert read_spec(tmp_path / "resolved.yaml") == spec


def test_an_axis_of_intervals_reads_back_as_itself(tmp_path: Path) -> None:
    from pipelines.yaml_file import write_yaml

    text = (
        SWEEP + "  evaluation.guidance_interval: [null, [1, 5], [0.3, 5.0]]\n  evaluation.guide.step: [1, 0.0625, 40]\n"
    )
    spec = read_spec(written(tmp_path, text))
    assert spec.axes["evaluation.guidance_interval"] == [None, (1.0, 5.0), (0.3, 5.0)]
    assert spec.axes["evaluation.guide.step"] == [1.0, 0.0625, 40]
    write_yaml(tmp_path / "resolved.yaml", spec.model_dump())
    assert read_spec(tmp_path / "resolved.yaml") == spec
    assert "the lower one first" in refused(tmp_path, text.replace("[1, 5]", "[5, 1]"))
    assert "has a value twice" in refused(tmp_path, text.replace("[1, 5]", "[0.3, 5]"))
    assert "a share of its run, or a step of it" in refused(tmp_path, text.replace("40", "1.5"))


def test_a_sweep_that_an_earlier_release_wrote_has_today_s_names_of_designs(tmp_path: Path) -> None:
    """It wrote every switch of its time; its E is F. A file of one's own means what it says."""
    from pipelines.yaml_file import write_yaml

    text = SWEEP.replace("  optimizer.lr:", "  model.design: [A, E]\n  optimizer.lr:")
    first = "[{model.design: E, model.modulation: scale, optimizer.lr: 0.02}]"
    text += f"search: {{algorithm: random, trials: 2, first: {first}}}\n"
    spec = read_spec(written(tmp_path, text))
    assert spec.axes["model.design"] == ["A", "E"]
    assert spec.search.first[0]["model.design"] == "E"
    dumped = spec.model_dump()
    assert dumped["recipe"]["model"].pop("renormalized", 0) is None
    dumped["recipe"]["model"]["design"] = "E"
    write_yaml(tmp_path / "old.yaml", dumped)
    old = read_spec(tmp_path / "old.yaml")
    assert old.axes["model.design"] == ["A", "F"]
    assert old.search.first[0]["model.design"] == "F"
    assert old.recipe.model.design == "F"
    changed = read_spec(tmp_path / "old.yaml", ["recipe.model.design=E", "axes.model.design=[A,E]", "search.first=[]"])
    assert changed.recipe.model.design == "E"
    assert changed.axes["model.design"] == ["A", "E"]
    write_yaml(tmp_path / "again.yaml", old.model_dump())
    assert read_spec(tmp_path / "again.yaml") == old


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sweep_is_valid_and_found_by_name(path: Path) -> None:
    assert read_spec(sweep_file(path.stem)).name == path.stem


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "optimizer.lr: [1e-2",
            "optimizer.lrr: [1e-2",
            ["line 6", "axes has no field 'optimizer.lrr'", "optimizer.lr"],
        ),
        ("axes:", "axis:", ["line 4", "the file has no field 'axis'", "axes"]),
        ("[scale, gate+shift]", "[scale, gate+shfit]", ["line 5", "model.modulation", "'shfit'", "shift"]),
        ("[scale, gate+shift]", "[]", ["line 5", "the axis model.modulation is empty", "at least one value"]),
        ("[1e-2, 0.02]", "[0.01, -0.02]", ["line 6", "optimizer.lr cannot be -0.02", "greater than 0"]),
        ("[1e-2, 0.02]", "[1e-2, 0.010]", ["line 6", "optimizer.lr has a value twice"]),
        ("[1e-2, 0.02]", "0.02", ["line 6", "axes.optimizer.lr", "list"]),
        ("[1e-2, 0.02]", "[1e-2, fast]", ["line 6", "optimizer.lr cannot be 'fast'", "number"]),
        ("[0.05, 0.1]", "[0.05, 0.5]", ["line 7", "0.5", "0.288"]),
        ("size: nano", "sizes: nano", ["line 3", "recipe.model has no field 'sizes'", "size"]),
        ("name: mine", "name: ../mine", ["line 1", "name", "../mine"]),
        ("name: mine", "title: mine", ["name", "title"]),
        ("axes:", "search: {algorithm: tpee}\naxes:", ["line 4", "search.algorithm", "tpee", "tpe"]),
        ("axes:", "resources: {cpus_per_trial: 0}\naxes:", ["resources.cpus_per_trial", "greater than or equal to 1"]),
        ("axes:", "budget: {hours: 0}\naxes:", ["budget.hours", "greater than 0"]),
        ("ema.sigma_rel", "runtime.threads", ["axes has no field 'runtime.threads'"]),
        ("ema.sigma_rel", "evaluation.samples", ["axes has no field 'evaluation.samples'"]),
    ],
)
def test_a_mistake_is_named_with_its_line_and_its_mend(old: str, new: str, says: list[str], tmp_path: Path) -> None:
    assert old in SWEEP
    found = refused(tmp_path, SWEEP.replace(old, new))
    assert "mine.yaml" in found
    assert all(part in found for part in says), found


def test_a_sweep_without_axes_is_refused(tmp_path: Path) -> None:
    assert "has no axes" in refused(tmp_path, "name: mine\n")


def test_an_unknown_sweep_file_is_refused_with_the_shipped_ones() -> None:
    with pytest.raises(InputError, match="conditioning"):
        sweep_file("conditionning")


def test_what_may_be_swept() -> None:
    paths = axis_paths()
    assert {"model.modulation", "optimizer.lr", "seed", "ema.sigma_rel", "evaluation.guidance", "steps"} <= set(paths)
    assert not [path for path in paths if path.startswith("runtime")]
