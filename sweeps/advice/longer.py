"""The best point of a sweep trained on: to more steps, from where it stands."""

import re

from mpdit.errors import input_error
from pipelines.recipe import Recipe
from sweeps.advice.registry import Situation, as_settings
from sweeps.results.ranking import Row
from sweeps.spec.space import STEPS


def longer_steps(text: str, steps: int) -> int:
    """The number of steps that a person asks for: as a number, or as so many times the present one (4x).

    Raises InputError for what is neither, or is no more than there is.
    """
    allowed = f"a number of steps above {steps:,}, or so many times as many, as 4x"
    times = re.fullmatch(r"(\d+(?:\.\d+)?)x|(\d+)", text.strip())
    if times is None:
        raise input_error("how far to continue is not clear", given=f"--continue {text}", allowed=allowed)
    wanted = round(float(times[1]) * steps) if times[1] else int(times[2])
    if wanted <= steps:
        raise input_error(f"the best was trained for {steps:,} steps", given=f"--continue {text}", allowed=allowed)
    return wanted


def longer_settings(situation: Situation, row: Row, steps: int) -> tuple[str, ...]:
    """What the sweep that trains a row's point to so many steps changes in the sweep file, as `--set` takes it.

    It is a sweep of its own, NAME-STEPS, with the point's seeds and all values of the post-hoc axes.
    """
    spec = situation.plan.spec
    point = spec.space.active({axis: row.params[axis] for axis in spec.space.domains})
    length = {STEPS: steps} if STEPS in spec.axes else {}
    changes = {
        "name": f"{situation.name}-{steps}",
        "search": {"algorithm": "random", "trials": 1, "first": [point | length]},
        "scheduler": {"kind": "none"},
        **({f"axes.{STEPS}": [steps]} if length else {f"recipe.{STEPS}": steps}),
    }
    return as_settings(changes)


def check_can_go_on(recipe: Recipe, steps: int, expected: str) -> None:
    """Raise InputError for a training that a longer one does not begin as. expected: what a new one takes."""
    if recipe.can_go_on:
        return
    o, now = recipe.optimizer, recipe.steps
    in_steps = {name: round(share * now) for name in ("warmup", "decay_from") if 0 < (share := getattr(o, name)) <= 1}
    given = ", ".join([f"schedule: {o.schedule}", *(f"{name}: {getattr(o, name):g}" for name in in_steps)])
    raise input_error(
        f"this training cannot go on: its learning rate was laid out for {now:,} steps",
        given=given,
        allowed="inverse_sqrt or constant, with numbers of steps: "
        + ", ".join(f"optimizer.{name}: {max(2, value)}" for name, value in in_steps.items()),
        hint=f"a new training of {steps:,} steps: --set recipe.steps={steps} --set name=NAME{expected}",
    )
