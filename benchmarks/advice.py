"""Is `settled` right, and what does it cost? `python benchmarks/advice.py [--json] [--repetitions N]`.

Made-up sweeps whose truth is known: a best learning rate anywhere from 0.01 to 0.6, three modulations that differ by a
share of the distance, seeds that spread as the ranking expects (or by --spread) and the noise of samples. Each begins
with three modulations and three rates, one seed, and follows the advice as `mpdit sweep --until settled` does (`edge`,
`seeds`). It is compared with a grid of nine rates over the same range and three seeds. Counted are trainings; regret is
the true distance of the chosen point over that of the best point there is. A sweep may end unsettled, and says so:
`settled` is the share that did not, and `wrongly` the share that said settled of a point that is more than 10 % worse.

--recorded: the same on trainings that were really made (benchmarks/search_record.py): three modulations, eight rates,
four seeds. Each repetition begins at three other neighbouring rates and takes the seeds in another order; it can go no
further than what was recorded. The truth is there the mean over all four seeds.
"""

import argparse
import itertools
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import mean, median
from typing import Any, Protocol

from search_record import LENGTHS, SEEDS, key, recorded  # beside this file

from sweeps.advice.advise import advise
from sweeps.advice.next_steps import first_to_follow
from sweeps.advice.registry import WORSE, Advice, Situation
from sweeps.planning.plan import Plan, Trial, make_plan
from sweeps.results.ranking import rank
from sweeps.results.seed_spread import PRIOR
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import read_spec
from sweeps.storage.events import CellScored, Event, TrialEnded
from sweeps.storage.trial_status import TrialStatus

MODULATIONS = ["scale+shift+gate", "scale+rotation+gate", "rotation+gate"]
START, WIDE = [0.05, 0.1, 0.2], [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
FOLDS, SAMPLING = 10, 0.02  # of the distance, of the samples
MOST_ROUNDS = 25


class Task(Protocol):
    """A sweep whose truth is known."""

    start: list[float]  # the rates that it begins with

    def plan(self, rates: list[float], seeds: list[int]) -> Plan:
        """The sweep over modulations, these rates and these seeds."""

    def knows(self, plan: Plan) -> bool:
        """Whether it can tell what the trials of a plan report."""

    def trained(self, plan: Plan, trial: Trial) -> list[Event]:
        """What a trial reports."""

    def distance(self, params: dict[str, Any]) -> float:
        """The expected distance of a point."""

    @property
    def best(self) -> float:
        """The distance of the best point that there is."""


@dataclass(frozen=True)
class Truth:
    """A made-up task: where its best rate lies, how steep it is around it, and how much worse each modulation is.

    spread: of ln of a training's distance, over seeds.
    """

    rate: float
    steepness: float
    worse: dict[str, float]
    number: int
    spread: float
    start = START

    def plan(self, rates: list[float], seeds: list[int]) -> Plan:
        """The sweep over modulations, these rates and these seeds."""
        axes = {"model.modulation": MODULATIONS, "optimizer.lr": rates, "seed": seeds}
        return make_plan(SweepSpec.model_validate({"name": "made", "axes": axes, "confirm": {"best": 0}}))

    def knows(self, plan: Plan) -> bool:
        """Whether it can tell what the trials of a plan report: always."""
        return True

    def distance(self, params: dict[str, Any]) -> float:
        """The expected distance of a point: a parabola in the logarithm of the rate."""
        octaves = math.log2(params["optimizer.lr"] / self.rate)
        return (1 + self.worse[params["model.modulation"]]) * (1 + self.steepness * octaves**2)

    @property
    def best(self) -> float:
        """The distance of the best point that there is."""
        return 1 + min(self.worse.values())

    def trained(self, plan: Plan, trial: Trial) -> list[Event]:
        """What a trial reports: the same in each sweep that it is in."""
        params = {**trial.params, "model.modulation": trial.recipe.model.modulation}
        source = random.Random(f"{self.number} {trial.id}")
        seed = math.exp(source.gauss(0, self.spread))
        expected = self.distance(params | {"optimizer.lr": trial.recipe.optimizer.lr}) * seed
        events: list[Event] = []
        for planned in plan.cells:
            folds = [source.gauss(0, SAMPLING * expected * math.sqrt(FOLDS)) for _ in range(FOLDS)]
            value = expected + mean(folds)
            left_out = [expected + (sum(folds) - fold) / (FOLDS - 1) for fold in folds]
            cell = planned.cell
            events.append(
                CellScored(trial.id, 600, cell.params, cell.key, "fd_digits_2k", value, SAMPLING * expected, left_out)
            )
        return [*events, TrialEnded(trial.id, TrialStatus.COMPLETED)]


@dataclass(frozen=True)
class Recorded:
    """Trainings that were really made.

    lines: what was recorded, by the training. start: the first rates. seeds: the recorded seed of each seed.
    """

    lines: dict[str, dict[str, Any]]
    start: list[float]
    seeds: tuple[int, ...]

    def plan(self, rates: list[float], seeds: list[int]) -> Plan:
        """The recorded sweep at these rates and seeds."""
        spec = recorded_spec()
        axes = spec.axes | {"optimizer.lr": rates, "seed": seeds}
        fields = spec.model_dump() | {"axes": axes, "confirm": {"best": 0}}
        return make_plan(SweepSpec.model_validate(fields))

    def knows(self, plan: Plan) -> bool:
        """Whether all trials of a plan were recorded, at its EMA widths."""
        widths = {planned.cell.sigma_rel for planned in plan.cells}
        return widths == set(recorded_spec().axes["ema.sigma_rel"]) and all(map(self._has, plan.trials))

    def _has(self, trial: Trial) -> bool:
        return trial.recipe.seed < len(self.seeds) and self._key(trial) in self.lines

    def _key(self, trial: Trial) -> str:
        recipe = trial.recipe
        return self._name(recipe.model.modulation, recipe.optimizer.lr, recipe.optimizer.beta2, recipe.seed)

    def _name(self, modulation: str, rate: float, beta2: float, seed: int) -> str:
        params = {"model.modulation": modulation, "optimizer.lr": rate, "optimizer.beta2": beta2}
        return key(params | {"seed": self.seeds[seed]})

    def trained(self, plan: Plan, trial: Trial) -> list[Event]:
        """What a trial reported."""
        line, steps = self.lines[self._key(trial)], LENGTHS[-1]
        if line["diverged_at"]:
            return [TrialEnded(trial.id, TrialStatus.DIVERGED)]
        found = zip(plan.cells, line["lengths"][str(steps)], strict=True)
        cells: list[Event] = [
            CellScored(trial.id, steps, planned.cell.params, planned.cell.key, "fd_digits_500", **scores)
            for planned, scores in found
        ]
        return [*cells, TrialEnded(trial.id, TrialStatus.COMPLETED)]

    def distance(self, params: dict[str, Any]) -> float:
        """The mean over the seeds of the best cell."""
        (beta2,) = recorded_spec().axes["optimizer.beta2"]
        names = [
            self._name(params["model.modulation"], params["optimizer.lr"], beta2, seed)
            for seed in range(len(self.seeds))
        ]
        ends = [self.lines[name]["lengths"].get(str(LENGTHS[-1]), []) for name in names]
        return mean(min((cell["value"] for cell in cells), default=math.inf) for cells in ends)

    @property
    def best(self) -> float:
        """The distance of the best point that was recorded."""
        axes = recorded_spec().axes
        points = itertools.product(axes["model.modulation"], axes["optimizer.lr"])
        return min(self.distance({"model.modulation": one, "optimizer.lr": rate}) for one, rate in points)


@cache
def recorded_spec() -> SweepSpec:
    """The sweep whose trainings were recorded."""
    return read_spec(SEEDS)


def starts_on_recorded(repetitions: int) -> list[Recorded]:
    """As many starts on what was recorded, each with other rates or another order of the seeds."""
    lines = recorded()
    missing = [trial for trial in make_plan(recorded_spec()).trials if key(trial.params) not in lines]
    if missing:
        raise SystemExit(f"{len(missing)} trainings are not recorded yet: python benchmarks/search_record.py")
    rates = recorded_spec().axes["optimizer.lr"]
    starts = [rates[at : at + 3] for at in range(len(rates) - 2)]
    every = [Recorded(lines, start, seeds) for seeds in itertools.permutations(range(4)) for start in starts]
    return every[:repetitions]


def truth(number: int, spread: float = PRIOR.share) -> Truth:
    """The task of that number."""
    source = random.Random(number)
    worse = dict(zip(MODULATIONS, (source.uniform(0, 0.4) for _ in MODULATIONS), strict=True))
    rate = math.exp(source.uniform(math.log(0.01), math.log(0.6)))
    return Truth(rate, source.uniform(0.1, 0.4), worse, number, spread)


def events_of(plan: Plan, task: Task) -> list[Event]:
    """The ledger of the finished sweep."""
    return [event for trial in plan.trials for event in task.trained(plan, trial)]


def regret(plan: Plan, task: Task) -> float:
    """How much worse the chosen point is than the best there is, as a share of that."""
    first = rank(plan, events_of(plan, task))[0]
    chosen = next(trial for trial in plan.trials if trial.id == first.trial)
    params = {"model.modulation": chosen.recipe.model.modulation, "optimizer.lr": chosen.recipe.optimizer.lr}
    return task.distance(params) / task.best - 1


def followed(task: Task) -> dict[str, Any]:
    """Follow the advice to its end; returns the trainings, the regret, how it ended, and what was followed."""
    plan, trained, kinds, advised = task.plan(task.start, [0]), set[str](), list[str](), list[Advice]()
    for _ in range(MOST_ROUNDS):
        trained |= {trial.id for trial in plan.trials}
        events = events_of(plan, task)
        situation = Situation(plan, rank(plan, events), events, "made.yaml")
        advised = advise(situation)
        ways = (first_to_follow([one], situation) for one in advised)
        following = next((way for way in ways if way and task.knows(way[1])), None)
        if following is None:
            break
        advice, plan = following
        kinds.append(advice.kind)
    is_settled = [one.kind for one in advised] == ["settled"]
    return {"trainings": len(trained), "regret": regret(plan, task), "settled": is_settled, "followed": kinds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--recorded", action="store_true", help="On trainings that were really made.")
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--spread", type=float, default=PRIOR.share, help="of ln of a training's distance, over seeds")
    arguments = parser.parse_args()
    tasks: Sequence[Task]
    if arguments.recorded:
        tasks, wide_rates = starts_on_recorded(arguments.repetitions), recorded_spec().axes["optimizer.lr"]
    else:
        tasks, wide_rates = [truth(number, arguments.spread) for number in range(arguments.repetitions)], WIDE
    ours = [followed(task) for task in tasks]
    wide = [regret(task.plan(wide_rates, [0, 1, 2]), task) for task in tasks]
    narrow = [regret(task.plan(task.start, [0, 1, 2]), task) for task in tasks]
    wrong = mean(one["settled"] and one["regret"] > WORSE for one in ours)
    details = {
        "until settled": _summary([one["regret"] for one in ours], [one["trainings"] for one in ours])
        | {"most trainings": max(one["trainings"] for one in ours)}
        | {"settled": mean(one["settled"] for one in ours), "wrongly": wrong},
        f"grid of {len(wide_rates)} rates, three seeds": _summary(wide, [len(wide_rates) * 9] * len(tasks)),
        "grid of the first three rates, three seeds": _summary(narrow, [len(START) * 9] * len(tasks)),
    }
    if arguments.json:
        print(json.dumps({"details": details}))
        return
    for name, line in details.items():
        print(f"{name:44s} " + "  ".join(f"{key} {value:.3g}" for key, value in line.items()))


def _summary(regrets: list[float], trainings: list[int]) -> dict[str, float]:
    return {
        "trainings": mean(trainings),
        "regret": mean(regrets),
        "median": median(regrets),
        f"over {WORSE:.0%}": mean(one > WORSE for one in regrets),
    }


if __name__ == "__main__":
    main()
