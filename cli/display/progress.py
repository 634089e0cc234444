"""Show a sweep while it runs: a table that is redrawn on a terminal; elsewhere a line every half minute."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from cli.display.tables import duration, trials_table
from sweeps.planning.plan import Plan, trials_of
from sweeps.results.trial_states import fold, new_states, states_of
from sweeps.storage.events import Event, Suggested, SweepStarted, TrialEnded
from sweeps.storage.trial_status import TrialStatus

LINE_EVERY = 30.0  # seconds between lines where there is no terminal
WATCH_EVERY = 2.0  # seconds between looks at another process's ledger
ROWS_AROUND = 8  # lines of the terminal that are not trials
BACKWARD = 3  # a training step costs about three forward passes


Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time, as the ledger writes it."""
    return datetime.now(UTC)


class SweepProgress:
    """Shows a sweep from its events. Use it as a context manager around the sweep."""

    def __init__(self, plan: Plan, past: list[Event], console: Console, now: Clock = utc_now) -> None:
        self.plan, self.console, self.now = plan, console, now
        self.states = new_states(plan)
        evaluations = [planned.cell.evaluation for planned in plan.cells]
        self.scoring = sum(evaluation.samples * evaluation.network_evaluations for evaluation in evaluations)
        self.work_before, self.started = 0.0, now()
        for event in past:
            self.take(event)
        self.last_line = now()
        self.live = Live(console=console, get_renderable=self.shown, refresh_per_second=2, transient=True)

    def __enter__(self) -> "SweepProgress":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def __call__(self, event: Event) -> None:
        """Take one event in, and print a line where there is no terminal."""
        self.take(event)
        if self.console.is_terminal:
            return
        if isinstance(event, TrialEnded):
            self.console.print(self._ended(event), highlight=False, soft_wrap=True)
        elif isinstance(event, SweepStarted) or (self.now() - self.last_line).total_seconds() >= LINE_EVERY:
            self.last_line = self.now()
            self.console.print(self.total, highlight=False, soft_wrap=True)

    def take(self, event: Event) -> None:
        """Take one event in. The estimate of the time left begins again with each start of the driver."""
        if isinstance(event, Suggested):
            self.states |= states_of(self.plan, trials_of(self.plan.spec, event.params, event.trials))
        fold(self.states, event)
        if isinstance(event, SweepStarted):  # the time before is Ray's own start
            self.started, self.work_before = event.moment, self._work()

    def _ended(self, event: TrialEnded) -> str:
        state = self.states.get(event.trial)
        if state is None:
            return ""
        settings = " ".join(str(value) for value in state.trial.params.values())
        what = "distance" if state.objective.name == "frechet" else state.objective.label
        best = "" if state.best is None else f", best {what} {state.best:.3f}"
        return f"{state.trial.id} {settings}: {state.status}{best} {event.reason or ''}".rstrip()

    def _work(self) -> float:
        """The finished fraction of the sweep, in network evaluations."""
        done = total = 0.0
        for state in self.states.values():
            recipe = state.trial.recipe
            training = BACKWARD * recipe.steps * recipe.batch
            whole = training + self.scoring
            total += whole
            if state.status is TrialStatus.DIVERGED:
                done += whole
            else:
                # the reports of a training that another sweep has done are in that sweep's ledger
                trained = 1.0 if state.status is TrialStatus.COMPLETED else state.step / recipe.steps
                done += training * trained + self.scoring * state.scored / len(self.plan.cells)
        return done / total

    @property
    def total(self) -> str:
        """The progress of the whole sweep and the time that is left, as text."""
        done = self._work()
        elapsed = (self.now() - self.started).total_seconds()
        gained = done - self.work_before
        left = f", about {duration(elapsed * (1 - done) / gained)} left" if gained > 0.02 and done < 1 else ""
        trials = sum(state.status.is_final for state in self.states.values())
        return f"{trials}/{len(self.states)} trials, {done:.0%} done, {duration(elapsed)}{left}"

    def shown(self) -> Group:
        """The table, as many trials as fit the terminal, and the total."""
        rows = [state.as_dict() for state in self.states.values()]
        most = max(3, self.console.height - ROWS_AROUND)
        table = Text(trials_table(rows, self.plan.spec.training_axes, most), no_wrap=True, overflow="ellipsis")
        return Group(table, Text(), ProgressBar(total=1, completed=self._work(), width=40), Text(self.total))


def watch(plan: Plan, read_events: Callable[[], list[Event]], is_running: Callable[[], bool], console: Console) -> None:
    """Show a sweep that another process runs until it ends; without a terminal, a line whenever the total changes."""
    last_total = ""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            running = is_running()  # before the events: what is written until the end is still shown
            events = read_events()
            ended = events[-1].moment if events and not running else None
            progress = SweepProgress(plan, events, console, utc_now if ended is None else partial(_at, ended))
            if console.is_terminal:
                live.update(progress.shown(), refresh=True)
            elif (total := progress.total) != last_total:
                last_total = total
                console.print(total, highlight=False, soft_wrap=True)
            if not running:
                return
            time.sleep(WATCH_EVERY)


def _at(moment: datetime) -> datetime:
    return moment
