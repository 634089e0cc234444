"""A notice when a sweep ends, a trial fails, or a new best is found: by a command, by a webhook, or both."""

import json
import logging
import os
import queue
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipelines.scoring.metrics.registry import METRICS
from sweeps.planning.cell_metrics import CellRecord
from sweeps.planning.plan import Plan
from sweeps.spec.model import Notify
from sweeps.storage.events import CellScored, Event, SweepEnded, TrialEnded

PATIENCE = 20  # seconds that a command or a webhook gets; the sweep waits for neither

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """One message to a person. kind: end, fail or best."""

    kind: str
    sweep: str
    text: str


class Teller:
    """Follows a sweep's events and says which of them are worth a notice; at most one for each."""

    def __init__(self, plan: Plan, past: Iterable[Event] = ()) -> None:
        self.plan, self.objective = plan, METRICS[plan.spec.metrics[0]]
        self.settings = {trial.id: " ".join(map(str, trial.params.values())) for trial in plan.trials}
        self.best: CellScored | None = None
        self.told: CellScored | None = None  # the best that was told last
        for event in past:
            self._take(event)
        self.told = self.best

    def notice(self, event: Event) -> Notice | None:
        """The notice for an event. A new best is announced when its trial has ended, not cell by cell."""
        self._take(event)
        name = self.plan.spec.name
        if isinstance(event, SweepEnded):
            return Notice("end", name, f"sweep {name}: {event.outcome}{self._best_so_far()}")
        if not isinstance(event, TrialEnded):
            return None
        if event.outcome.is_fault:
            what = f"{event.trial} {self.settings.get(event.trial, '')}".rstrip()
            return Notice("fail", name, f"sweep {name}: trial {what} {event.outcome}: {event.reason or ''}")
        if self.best is not None and self.best is not self.told and self.best.trial == event.trial:
            self.told = self.best
            return Notice("best", name, f"sweep {name}: a new best{self._best_so_far()}")
        return None

    def _take(self, event: Event) -> None:
        asked = self.plan.spec.evaluation
        if not isinstance(event, CellScored) or event.samples != asked.samples:
            return
        if event.params.get("evaluation.seed", asked.seed) != asked.seed:  # a cell that is confirmed is no new one
            return
        value = self._value(event)
        if value is None:
            return
        best = self._value(self.best) if self.best else None
        if best is None or self.objective.cost(value) < self.objective.cost(best):
            self.best = event

    def _value(self, event: CellScored) -> float | None:
        trial = next((trial for trial in self.plan.trials if trial.id == event.trial), None)
        return self.objective.of(CellRecord(trial, event, None)) if trial else event.value

    def _best_so_far(self) -> str:
        if self.best is None:
            return ""
        settings = self.settings.get(self.best.trial, "")
        width = self.best.params["ema.sigma_rel"]
        name = self.best.metric if self.objective.name == "frechet" else self.objective.label
        return f"; {name} {self._value(self.best):.3f}: {self.best.trial} {settings} σ_rel {width}"


class Notifier:
    """Sends the notices that a sweep asks for, on a thread of its own. Use around the sweep, as a listener.

    What goes wrong is a warning: a sweep never fails or waits because of a notice. settings: whom to notify, from the
    user's own file, never from a stored spec: whoever can write the storage could set a command there.
    """

    def __init__(self, plan: Plan, past: Iterable[Event], settings: Notify) -> None:
        self.settings, self.teller = settings, Teller(plan, past)
        self._notices: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="notify", daemon=True)

    def __enter__(self) -> "Notifier":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._notices.put(None)
        self._thread.join(2 * PATIENCE)

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        notice = self.teller.notice(event)
        if notice and notice.kind in self.settings.when:
            self._notices.put(notice)

    def _send_all(self) -> None:
        while (notice := self._notices.get()) is not None:
            send(self.settings, notice)


def call_each(*listeners: Callable[[Event], None]) -> Callable[[Event], None]:
    """Return one listener that calls several in turn."""

    def call(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return call


def send(settings: Notify, notice: Notice) -> None:
    """Run the command and call the webhook, where they are set; a failure is logged."""
    facts = {"kind": notice.kind, "sweep": notice.sweep, "text": notice.text}
    try:
        if settings.command:
            words = {f"MPDIT_{name.upper()}": value for name, value in facts.items()}
            subprocess.run(
                settings.command, shell=True, check=True, timeout=PATIENCE, env=os.environ | words, capture_output=True
            )
        if settings.webhook:
            body = json.dumps({**facts, "content": notice.text}).encode()  # Discord reads content, the others text
            address = os.path.expandvars(settings.webhook)
            request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=PATIENCE).close()
    except (OSError, ValueError, subprocess.SubprocessError) as problem:
        log.warning("the notice %r was not sent: %s", notice.text, problem)
