"""Parts of a sweep file that do not fit together: each refused before anything starts, with its line and its hint."""

from pathlib import Path

import pytest

from mpdit.errors import InputError
from pipelines.yaml_file import Document, write_yaml
from sweeps.planning.plan import make_plan
from sweeps.spec.reading import checked_spec, read_spec

LR = "axes: {optimizer.lr: [0.01, 0.02]}"
RANGE = "axes: {optimizer.lr: {log_uniform: [0.001, 0.1]}}"
WORDS = "axes: {model.modulation: [scale, gate], optimizer.lr: [0.01, 0.02]}"
WHEN = "axes: {model.modulation: [scale, gate], optimizer.lr: {values: [0.01, 0.02], when: {model.modulation: gate}}}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (RANGE, ["line 2", "a grid cannot take a range", "algorithm: random"]),
        (f"{RANGE}\nsearch: {{algorithm: tpe}}", ["line 3", "how many points"]),
        (f"{LR}\nsearch: {{algorithm: grid, trials: 8}}", ["line 3", "every combination"]),
        (f"{LR}\nsearch: {{algorithm: bohb, trials: 8}}", ["line 3", "no search algorithm 'bohb'", "tpe"]),
        ("axes: {optimizer.lr: {loguniform: [0.001, 0.1]}}", ["line 2", "nearest", "log_uniform"]),
        ("axes: {steps: {uniform: [100, 200]}}\nsearch: {algorithm: tpe, trials: 4}", ["line 2", "whole number"]),
        ("axes: {optimizer.lr: {uniform: [-1, 1]}}\nsearch: {algorithm: tpe, trials: 4}", ["line 2", "greater than 0"]),
        (
            "axes: {ema.sigma_rel: {uniform: [0.05, 0.1]}, steps: [8]}\nsearch: {algorithm: tpe, trials: 4}",
            ["line 2", "is not searched", "a list of values"],
        ),
        ("axes: {seed: {int: [0, 4]}}\nsearch: {algorithm: tpe, trials: 4}", ["line 2", "seed is a repetition"]),
        ("axes: {seed: [0, 1]}\nsearch: {algorithm: tpe, trials: 4}", ["line 3", "nothing to search"]),
        (f"{WORDS}\nsearch: {{algorithm: cmaes, trials: 4}}", ["line 3", "numbers only", "model.modulation"]),
        (f"{LR}\nsearch: {{algorithm: cmaes, trials: 4}}", ["line 3", "two axes"]),
        (f"{WHEN}\nsearch: {{algorithm: gp, trials: 4}}", ["line 3", "condition", "optimizer.lr"]),
        (WHEN.replace("modulation: gate", "modulation: rotation"), ["line 2", "never has", "rotation"]),
        (WHEN.replace("{model.modulation: gate}", "{model.patch: 2}"), ["line 2", "no axis before it"]),
        (f"{LR}\nsearch: {{algorithm: tpe, trials: 4, first: [{{optimizer.lr: 0.03}}]}}", ["line 3", "does not hold"]),
        (f"{LR}\nsearch: {{algorithm: tpe, trials: 4, first: [{{optimizer.lrr: 0.01}}]}}", ["line 3", "optimizer.lr"]),
        (f"{LR}\nscheduler: {{kind: asha, rungs: []}}", ["line 3", "no rungs"]),
        (f"{LR}\nscheduler: {{kind: asha, rungs: [0.5, 0.2]}}", ["line 3", "in order"]),
        (f"{LR}\nscheduler: {{kind: asha, grace_perod: 3}}", ["line 3", "no field 'grace_perod'"]),
        (f"{LR}\nobjective: {{metric: fid}}", ["line 3", "no metric 'fid'", "frechet"]),
        (f"{LR}\nobjective: [{{metric: frechet}}, {{metric: frechet}}]", ["line 3", "twice"]),
        (f"{LR}\nobjective: {{metric: parameters}}\nscheduler: {{kind: median}}", ["line 4", "by parameters"]),
        (
            f"{LR}\nobjective: [{{metric: frechet}}, {{metric: step_time}}]\nscheduler: {{kind: median}}",
            ["line 4", "one objective"],
        ),
        (f"{LR}\nconstraints: [magnitude_drft <= 0.2]", ["line 3", "nearest", "magnitude_drift"]),
        (f"{LR}\nconstraints: [magnitude_drift < 0.2]", ["line 3", "METRIC <= NUMBER"]),
        (f"{LR}\nbudget: {{gpu_hours: 2}}\nresources: {{gpus_per_trial: 0}}", ["line 3", "contradict"]),
        ("axes: {seed: [0, 1, 2]}\nbudget: {trials: 2}", ["line 3", "all its seeds"]),
        (f"{LR}\nbudget: {{trials: 3}}\nsearch: {{algorithm: tpe, trials: 8}}", ["line 3", "contradict each other"]),
    ],
)
def test_a_contradiction_is_named_with_its_line(text: str, says: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\n{text}\n")
    with pytest.raises(InputError) as problem:
        read_spec(path)
    assert all(part in str(problem.value) for part in says), str(problem.value)


def test_a_resolved_search_reads_back_as_itself(tmp_path: Path) -> None:
    text = (
        "name: mine\n"
        "axes:\n"
        "  model.modulation: [scale, shift+gate]\n"
        "  optimizer.lr: {log_uniform: [0.001, 0.1]}\n"
        "  optimizer.beta2: {uniform: [0.9, 0.99], step: 0.03, when: {model.modulation: gate+shift}}\n"
        "  ema.sigma_rel: [0.05, 0.1]\n"
        "search: {algorithm: tpe, trials: 8, first: [{optimizer.lr: 0.05, model.modulation: scale}]}\n"
        "scheduler: {kind: paired, rungs: [0.5]}\n"
        "objective: {metric: magnitude_drift}\n"
        "constraints: [parameters<=4e5]\n"
        "budget: {hours: 1.5, trials: 9}\n"
    ).replace("kind: paired", "kind: asha")
    (tmp_path / "mine.yaml").write_text(text)
    spec = read_spec(tmp_path / "mine.yaml")
    assert spec.constraints == ["parameters <= 400000"]
    write_yaml(tmp_path / "resolved.yaml", spec.model_dump())
    assert read_spec(tmp_path / "resolved.yaml") == spec
    assert "null" not in (tmp_path / "resolved.yaml").read_text().split("search")[0].split("axes")[1]
    plan = make_plan(spec)
    assert [trial.params for trial in plan.trials] == [
        {"model.modulation": "scale", "optimizer.lr": 0.05, "optimizer.beta2": 0.99}
    ]
    assert plan.open == 7


def test_seeds_are_for_points_that_are_confirmed() -> None:
    with pytest.raises(InputError, match="no best points to train with more seeds"):
        checked_spec(Document({"name": "x", "axes": {"seed": [0]}, "confirm": {"best": 0, "seeds": 2}}, "x.yaml"), [])
