"""Whatever stands in a file, reading it ends in settings or in one message; so does the plan of what could be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mpdit.errors import InputError
from pipelines.recipe import Recipe
from pipelines.training.training_folder import read_recipe
from pipelines.yaml_file import Document, apply_settings, read_yaml, validate
from sweeps.planning.plan import make_plan
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import SHIPPED, checked_spec, read_spec
from tests.strategies import changed

INDICATORS = [*"{}[]:,-?|'#%@.~1", "&a ", "*a", "<<: ", "1e3", "0x", "1:30", "2026-02-31", "name", "axes", "seed"]
INDICATORS += [": ", "- ", "\n", "\n  ", "\t", "\0", "…", "---\n"]
INDICATORS += ["!!int ", "!!float ", "!!set ", "!!omap ", "!!binary ", "!!bool "]

SWEEPS = [yaml.safe_load(path.read_text()) for path in sorted(SHIPPED.glob("*.yaml"))]
SWEEPS = [sweep for sweep in SWEEPS if sweep.get("recipe", {}).get("data", {}).get("name", "digits") == "digits"]
SWEEPS += [
    SweepSpec(name="all", axes={"seed": [0, 1]}).model_dump(mode="json"),
    {
        "name": "searched",
        "recipe": {"model": {"width": 16}, "steps": 40, "optimizer": {"clip": 1.0}},
        "axes": {
            "model.modulation": ["scale", "gate"],
            "optimizer.lr": {"log_uniform": [0.001, 0.1], "when": {"model.modulation": ["gate"]}},
            "batch": {"int": [8, 64], "step": 8},
        },
        "search": {"algorithm": "tpe", "trials": 4, "first": [{"model.modulation": "gate", "optimizer.lr": 0.01}]},
        "scheduler": {"kind": "asha", "rungs": [0.5, 0.75]},
        "constraints": ["parameters <= 100000"],
        "budget": {"hours": 1, "trials": 10},
        "resources": {"gpus_per_trial": 0.5, "cpus_per_trial": 2, "workers_per_trial": 2},
    },
]
RECIPES = [Recipe().model_dump(), {"model": {"modulation": "rotation"}, "objective": {"name": "flow"}, "steps": 3}]
TEXTS = st.one_of(st.lists(st.sampled_from(INDICATORS), max_size=30).map("".join), st.text(max_size=40))


def is_read(read: Callable[[], Any]) -> bool:
    """Whether it can be read; what cannot is told."""
    try:
        read()
    except InputError as problem:
        assert str(problem).strip()
        return False
    return True


def file_of(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@settings(max_examples=300)
@given(text=st.one_of(TEXTS, st.binary(max_size=30)))
def test_any_text_is_settings_or_an_input_error(folder: Path, text: str | bytes) -> None:
    path = file_of(folder, text)
    for read in (read_yaml, read_spec, read_recipe):
        is_read(lambda read=read: read(path))  # type: ignore[misc]


@settings(max_examples=80)
@given(data=changed(SWEEPS))
def test_any_sweep_is_one_or_is_refused(data: Any) -> None:
    is_read(lambda: checked_spec(Document(data, "any"), []))


@settings(max_examples=80)
@given(data=changed(RECIPES))
def test_any_recipe_is_one_or_is_refused(data: Any) -> None:
    is_read(lambda: validate(Recipe, Document(data, "any")))


@settings(max_examples=100)
@given(setting=st.one_of(TEXTS, TEXTS.map("axes.seed={}".format), TEXTS.map("recipe.model={}".format)))
def test_any_set_option_is_a_setting_or_an_input_error(folder: Path, setting: str) -> None:
    document = read_yaml(file_of(folder, "name: x\nrecipe: {model: {width: 16}}\naxes: {seed: [0]}\n"))
    is_read(lambda: checked_spec(apply_settings(document, [setting]), []))


@pytest.mark.soak
@settings(max_examples=3000)
@given(data=changed(SWEEPS))
def test_many_sweeps_are_planned_or_refused(data: Any) -> None:
    """Adds to CI: three thousand sweep files, each a valid one with up to three changes, and their plans."""
    is_read(lambda: make_plan(checked_spec(Document(data, "any"), [])))


@pytest.mark.soak
@settings(max_examples=3000)
@given(data=changed(RECIPES))
def test_many_recipes_have_a_network_or_are_refused(data: Any) -> None:
    """Adds to CI: three thousand recipes, each a valid one with up to three changes, and their networks."""
    is_read(lambda: (recipe := validate(Recipe, Document(data, "any"))).architecture(recipe.dataset))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("axes: " + "[" * 500 + "]" * 500, "nested too deeply"),
        ("axes: " + "{a: " * 60 + "1" + "}" * 60, "more than 50 levels deep"),
        ("axes: &a [*a]", "more than 50 levels deep"),  # it holds itself
        ("a0: &a0 [1, 2]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)), "100,000 values"),
        ("name: 2026-02-31", "line 1: this is not YAML"),
        ("name: !!int abc", "invalid literal"),
        ("name: !!int", "line 1"),
        ("name: x\naxes: {ema.sigma_rel: [1.0e-313]}", "no EMA has the width 1e-313"),
        ("name: !!timestamp abc", "line 1"),
        ("recipe: {steps: " + "9" * 5000 + "}", "4300 digits"),
        ("name: x\n? [a]\n: b", "a key is not a word"),
        ("search: {seed: 4294967296}\nname: x\naxes: {seed: [0]}", "less than 4294967296"),
        ("recipe: {steps: 1000000000001}\nname: x\naxes: {seed: [0]}", "less than or equal to 1000000000"),
        ("recipe: {model: {width: 16000000000}}\nname: x\naxes: {seed: [0]}", "up to 65,536"),
        ("resources: {gpus_per_trial: 1000}\nname: x\naxes: {seed: [0]}", "'auto', or less than or equal to 64"),
        ("resources: {gpus_per_trial: 1.5}\nname: x\naxes: {seed: [0]}", "several are whole"),
        ("resources: {cpus_per_trial: 100000}\nname: x\naxes: {seed: [0]}", "less than or equal to 4096"),
        ("resources: {workers_per_trial: 3}\nname: x\naxes: {seed: [0]}", "line 1: a batch of 128 cannot be shared"),
        ("resources: {workers_per_trial: 4}\nname: x\naxes: {batch: [8, 6]}", "a batch of 6 cannot be shared"),
    ],
)
def test_what_has_been_a_fault_is_an_input_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError) as problem:
        read_spec(file_of(tmp_path, text))
    assert says in str(problem.value)
