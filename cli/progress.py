"""A sweep as it runs: one table, redrawn, on a terminal; a line now and then elsewhere."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.tables import duration, number, short
from sweeps.ledger import Event
from sweeps.overview import TrialState, fold, new_states, states_of
from sweeps.plan import Plan, trials_of

LINE_EVERY = 30.0  # seconds between lines where there is no terminal
BACKWARD = 3  # a training step costs about three forward passes


class SweepProgress:
    """Listens to a sweep's events and shows them. Use as a context manager around the sweep."""

    def __init__(self, plan: Plan, past: list[Event], console: Console) -> None:
        self.plan, self.console = plan, console
        self.states = new_states(plan)
        for line in past:
            fold(self.states, line)
        evaluations = [planned.cell.evaluation for planned in plan.cells]
        self.scoring = sum(evaluation.samples * evaluation.network_evaluations for evaluation in evaluations)
        self.work_before = self._work()
        self.started = self.last_line = time.monotonic()
        self.live = Live(console=console, get_renderable=self._table, refresh_per_second=2, transient=True)

    def __enter__(self) -> "SweepProgress":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def __call__(self, line: Event) -> None:
        """Take one event in."""
        if line["event"] == "suggested":
            self.states |= states_of(self.plan, trials_of(self.plan.spec, line["params"]))
        fold(self.states, line)
        if line["event"] == "sweep_started":
            self.started = time.monotonic()  # the time before is Ray's own start
        if self.console.is_terminal:
            return
        now = time.monotonic()
        if line["event"] == "trial_ended":
            self.console.print(self._ended(line), highlight=False, markup=False)
        elif line["event"] == "sweep_started" or now - self.last_line >= LINE_EVERY:
            self.last_line = now
            self.console.print(self._total(), highlight=False, markup=False)

    def _ended(self, line: Event) -> str:
        state = self.states.get(line["trial"])
        if state is None:
            return ""
        settings = " ".join(str(value) for value in state.trial.params.values())
        best = "" if state.best is None else f", best distance {state.best:.3f}"
        return f"{state.trial.id} {settings}: {state.status}{best} {line.get('reason', '')}".rstrip()

    def _work(self) -> float:
        """The share of the sweep that is done, in network evaluations."""
        done = total = 0.0
        for state in self.states.values():
            recipe = state.trial.recipe
            training = BACKWARD * recipe.steps * recipe.batch
            whole = training + self.scoring
            total += whole
            if state.status == "diverged":
                done += whole
            else:
                done += training * state.step / recipe.steps + self.scoring * state.scored / len(self.plan.cells)
        return done / total

    def _total(self) -> str:
        done = self._work()
        elapsed = time.monotonic() - self.started
        gained = done - self.work_before
        left = f", about {duration(elapsed * (1 - done) / gained)} left" if gained > 0.02 and done < 1 else ""
        trials = sum(state.status in ("completed", "diverged") for state in self.states.values())
        return f"{trials}/{len(self.states)} trials, {done:.0%} done, {duration(elapsed)}{left}"

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        axes = self.plan.spec.training_axes
        for name in ("trial", *[short(axis) for axis in axes], "status"):
            table.add_column(name)
        for name in ("step", "img/s", "loss", "cells", "best", "drift"):
            table.add_column(name, justify="right")
        for state in self.states.values():
            table.add_row(*self._cells(state, axes))
        bar = ProgressBar(total=1, completed=self._work(), width=40)
        return Group(table, Text(), bar, Text("  " + self._total()))

    def _cells(self, state: TrialState, axes: list[str]) -> list[str]:
        rate = state.metrics.get("images_per_second")
        return [
            state.trial.id,
            *[str(state.trial.params[axis]) for axis in axes],
            state.status,
            f"{state.step}/{state.trial.recipe.steps}",
            number(rate, 0),
            number(state.metrics.get("loss")),
            f"{state.scored}/{len(self.plan.cells)}",
            number(state.best),
            number(state.metrics.get("magnitude_drift"), 2),
        ]
