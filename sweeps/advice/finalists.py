"""The finalists of a sweep: its best points, to be trained with more seeds in a sweep of their own."""

from collections.abc import Sequence
from typing import Any

from mpdit.errors import input_error
from sweeps.advice.registry import Situation, as_settings
from sweeps.results.ranking import Row
from sweeps.spec.space import SEED

SUFFIX = "-confirm"


def is_of_finalists(situation: Situation) -> bool:
    """Whether the sweep is of the best points of another one, which were chosen from fewer seeds."""
    return situation.name.endswith(SUFFIX)


def more_seeds(seeds: Sequence[int], count: int) -> list[int]:
    """The seeds, and the smallest others that make them `count`."""
    others = [seed for seed in range(count + max(seeds) + 1) if seed not in seeds]
    return [*seeds, *others][: max(count, len(seeds))]


def points(situation: Situation) -> list[Row]:
    """The best row of each point that was scored in full (a point: all training axes but the seed), best first."""
    firsts: dict[tuple[str, ...], Row] = {}
    for row in situation.scored:
        firsts.setdefault(tuple(row.trials), row)
    return list(firsts.values())


def confirming_settings(situation: Situation, top: int, seeds: Sequence[int]) -> tuple[str, ...]:
    """What the sweep of the first `top` points with these seeds changes in the sweep file, as `--set` takes it.

    Where that is every point, the sweep itself gets the seeds. Else it is a sweep of its own, NAME-confirm, with the
    points as a list and the post-hoc values that they are best at; what is trained already is taken over.

    Raises:
        InputError: there are fewer points.
    """
    spec, found = situation.plan.spec, points(situation)
    if top > len(found):
        raise input_error(
            f"{situation.name} has {len(found)} scored points to confirm",
            given=f"--top {top}",
            allowed=f"1 to {len(found)}",
        )
    chosen = found[:top]
    changes: dict[str, Any] = {f"axes.{SEED}": list(seeds), "confirm.seeds": 0}
    if top < len(found) or situation.plan.open:
        searched = list(spec.space.domains)
        first = [spec.space.active({axis: row.params[axis] for axis in searched}) for row in chosen]
        changes["name"] = situation.name.removesuffix(SUFFIX) + SUFFIX
        changes["search"] = {"algorithm": "random", "trials": top, "first": first}
        if spec.scheduler.promotes:
            changes["scheduler"] = {"kind": "none"}
        for axis in spec.post_hoc_axes:
            changes[f"axes.{axis}"] = list(dict.fromkeys(row.params[axis] for row in chosen))
    return as_settings(changes)
