"""MLflow: a view of the ledger that can be rebuilt from it at any time. The only module that knows MLflow.

Experiment = sweep; parent run = the sweep, child = a trial, grandchild = a cell. A run is found again by its
tags, so replaying events never doubles one. What writes them, and when: sweeps/tracking/tracking_thread.py.
"""

import json
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpdit.errors import input_error
from mpdit.run_folder import PICTURES
from pipelines.provenance import git_state, versions
from sweeps.planning.plan import Plan, trials_of
from sweeps.report.ema_width_plots import WIDTH, write_figures
from sweeps.report.figures import label
from sweeps.results.ranking import rank
from sweeps.storage.events import (
    CellScored,
    Event,
    Progress,
    RungScored,
    SamplesDrawn,
    Suggested,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialStarted,
)
from sweeps.storage.layout import NETWORK_FILE_SYSTEMS, Storage, file_system, locked
from sweeps.storage.ledger import read
from sweeps.storage.trial_status import TrialStatus
from sweeps.tracking.model_registry import register_best
from sweeps.tracking.summary import summary

if TYPE_CHECKING:
    from mlflow import MlflowClient

SWEEP, TRIAL, CELL, MIRRORED = "mpdit.sweep", "mpdit.trial", "mpdit.cell", "mpdit.mirrored_lines"
KIND = "mpdit.kind"  # sweep, trial or cell: what to filter MLflow's table by
PARENT, NOTE, COMMIT = "mlflow.parentRunId", "mlflow.note.content", "mlflow.source.git.commit"
CELLS = f"tags.`{KIND}` = 'cell'"
SHARED_VIEW, VIEW = "mlflow.sharedViewState.", "cells"  # where MLflow's pages keep what `Share view` makes
GROWTH = "samples as they grow"  # the row of the image viewer whose slider of steps plays a training
DESCRIBE_EVERY = 20  # seconds between two descriptions of a sweep that runs
DATABASE_PATIENCE = 120  # seconds that another sweep of the storage gets to make the database
TAG_LIMIT = 5000  # characters; MLflow's own limit differs from store to store

log = logging.getLogger(__name__)


def quiet() -> None:
    """No telemetry and no chatter from MLflow, unless the user has asked for it."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a request sent twice could double a run
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # seconds; less than the sweep waits at its end
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db").setLevel(logging.CRITICAL)  # a traceback of what it raises too: a full disk


def tracking_uri(storage: Storage, uri: str | None) -> str:
    """The absolute URI: the storage's own database unless another is given. Raises InputError for a relative one."""
    if uri is None:
        return f"sqlite:///{storage.database}"
    scheme = uri.split("://", 1)[0] if "://" in uri else ""
    if scheme not in ("http", "https", "sqlite", "postgresql", "mysql", "databricks"):
        raise input_error(
            "this tracking URI cannot be used", given=uri, allowed="http(s)://host:port or sqlite:////absolute/path"
        )
    if scheme == "sqlite" and not uri.startswith("sqlite:////"):
        raise input_error(
            "a relative database would be another one in every process", given=uri, hint="sqlite:////ABSOLUTE"
        )
    return uri


def check_place(storage: Storage, uri: str | None) -> None:
    """Check that a sweep may be shown at a URI before it starts.

    Raises InputError where the URI holds a password, which the storage would keep; and where the database would be
    SQLite on a network file system, whose locks it breaks.
    """
    place = tracking_uri(storage, uri)
    if without_password(place) != place:
        server = "MLFLOW_TRACKING_USERNAME with MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment"
        raise input_error(
            "tracking.uri holds a password, which everybody who can read the storage would see",
            given=without_password(place),
            hint=server if place.startswith("http") else "PGPASSWORD or ~/.pgpass, or `mlflow server` in front of it",
        )
    if not place.startswith("sqlite:"):
        return
    path = Path(place.removeprefix("sqlite:///"))
    kind = file_system(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise input_error(
            "SQLite does not work on a network file system: its locks fail there, and the database breaks",
            given=f"{path} on {kind}",
            hint="tracking: {uri: http://HOST:5000} with `mlflow server` running there, or a database on a local disk",
        )


def create_database(storage: Storage) -> None:
    """MLflow's tables in the storage's own SQLite file, which appears whole or not at all.

    MLflow never again accepts a file whose first start was killed half-way, nor, in one process, another file of the
    same name. Of two sweeps that start at once, one makes it. Raises Busy where the other takes very long.
    """
    if storage.database.exists():
        return
    quiet()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    name = storage.database.name
    with locked(storage.database.with_name(f".{name}.lock"), "MLflow's database", patience=DATABASE_PATIENCE):
        if storage.database.exists():
            return
        for left in storage.root.glob(f".{name}.*partial*"):  # of a kill, or of a full disk
            left.unlink()
        partial = storage.database.with_name(f".{name}.{uuid.uuid4().hex}.partial")
        store = SqlAlchemyStore(f"sqlite:///{partial}", storage.artifacts.as_uri())
        store.engine.dispose()
        partial.replace(storage.database)


def check_database(storage: Storage) -> None:
    """Open the storage's database as a sweep would; raises what a sweep would."""
    if storage.database.exists():
        quiet()
        from mlflow import MlflowClient

        MlflowClient(tracking_uri=tracking_uri(storage, None)).search_experiments(max_results=1)


def cells_page(storage: Storage, sweep: str) -> str | None:
    """The path, on MLflow's pages, of a sweep's table of cells, best first; None where MLflow does not show it."""
    quiet()
    from mlflow import MlflowClient

    found = MlflowClient(tracking_uri=tracking_uri(storage, None)).get_experiment_by_name(sweep)
    return f"/#/experiments/{found.experiment_id}/runs?viewStateShareKey={VIEW}" if found else None


def milliseconds(time: str) -> int:
    """A ledger's time as MLflow's: the same event always has the same one, so writing it twice changes nothing."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def mlflow_status(outcome: TrialStatus) -> str:
    """The status that MLflow shows of a run that ended so."""
    if outcome.has_no_value:
        return "FAILED"
    return "KILLED" if outcome.is_open else "FINISHED"


class MLflowWriter:
    """Writes the runs of one sweep to one tracking store, and shows each kind of event in them."""

    def __init__(self, client: "MlflowClient", experiment: str, sweep: str, plan: Plan, storage: Storage) -> None:
        self.remote = str(client.tracking_uri).startswith("http")
        self.client, self.sweep, self.plan, self.storage = client, sweep, plan, storage
        self.trials = {trial.id: trial for trial in plan.trials}
        self.experiment = self._experiment(experiment)
        self._offer_view()
        self.runs: dict[tuple[str | None, str | None], str] = {}
        self.bare: set[tuple[str | None, str | None]] = set()  # created, but their parameters were not written
        self.described = -math.inf  # when the sweep's description was last written
        self._find_runs()
        git = git_state()
        self.code_tags = {f"version.{name}": version for name, version in versions().items()}
        self.code_tags |= {COMMIT: git["commit"] or "", "mpdit.git.diff": (git["diff"] or "")[:TAG_LIMIT]}

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        artifacts = None if self.remote else (self.storage.artifacts / name).as_uri()  # a server keeps its own
        return str(self.client.create_experiment(name, artifact_location=artifacts))

    def _offer_view(self) -> None:
        """A view of the cells, best first, the columns that matter alone; see `cells_page`."""
        columns = [f"metrics.`{name}`" for name in ("frechet", "stderr", "magnitude_drift")]
        columns += [f"params.`{axis}`" for axis in self.plan.spec.axes]
        state = {"searchFilter": CELLS, "orderByKey": "metrics.`frechet`", "orderByAsc": True}
        view = json.dumps(state | {"selectedColumns": columns, "runsHiddenMode": "FIRST_10_RUNS"})
        if self.client.get_experiment(self.experiment).tags.get(SHARED_VIEW + VIEW) != view:
            self.client.set_experiment_tag(self.experiment, SHARED_VIEW + VIEW, view)

    def _find_runs(self) -> None:
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], f"tags.`{SWEEP}` = '{self.sweep}'", max_results=1000, page_token=token
            )
            for run in page:
                tags = run.data.tags
                self.runs[tags.get(TRIAL), tags.get(CELL)] = run.info.run_id
                if not run.data.params:
                    self.bare.add((tags.get(TRIAL), tags.get(CELL)))
            if not (token := page.token):
                return

    def _run(self, trial: str | None, cell: str | None, name: str, time: str, params: dict[str, Any]) -> str:
        """The run of a sweep (None, None), trial (id, None) or cell, created when it is not there yet."""
        if (trial, cell) not in self.runs:
            self.runs[trial, cell] = self._created(trial, cell, name, time, params)
            self.bare.add((trial, cell))
        if (trial, cell) in self.bare and params:  # also those of a run whose creation was cut off here
            self._params(self.runs[trial, cell], params)
            self.bare.remove((trial, cell))
        return self.runs[trial, cell]

    def _created(self, trial: str | None, cell: str | None, name: str, time: str, params: dict[str, Any]) -> str:
        tags = {SWEEP: self.sweep, KIND: "trial" if trial else "sweep", **self.code_tags}
        if trial:
            tags |= {TRIAL: trial, PARENT: self.runs[(trial, None) if cell else (None, None)]}
            recipe = self.trials[trial].recipe
            tags |= {"mpdit.seed": str(recipe.seed), "mpdit.data": recipe.dataset.fingerprint}
        if cell:  # one with fewer samples is not to be compared with the cells
            in_full = params["evaluation.samples"] == self.plan.spec.evaluation.samples
            tags |= {CELL: cell, KIND: "cell" if in_full else "screened"}
        run = self.client.create_run(self.experiment, start_time=milliseconds(time), tags=tags, run_name=name)
        return str(run.info.run_id)

    def _params(self, run: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        self.client.log_batch(run, params=[Param(name, str(value)) for name, value in params.items()])

    def _metrics(self, run: str, event: Event, step: int, metrics: Mapping[str, float | None]) -> None:
        from mlflow.entities import Metric

        known = {name: float(value) for name, value in metrics.items() if value is not None}
        at = milliseconds(event.time)
        self.client.log_batch(run, metrics=[Metric(name, value, at, step) for name, value in known.items()])

    def _end(self, run: str, status: str, event: Event) -> None:
        self.client.set_terminated(run, status, end_time=milliseconds(event.time))

    def show(self, event: Event) -> None:
        """Show one event."""
        if event.trial is not None and event.trial not in self.trials:
            return
        match event:
            case SweepStarted():
                run = self._parent(event)
                self.client.update_run(run, status="RUNNING")
                self._describe(run)
            case Suggested():
                self.trials |= {trial.id: trial for trial in trials_of(self.plan.spec, event.params, event.trials)}
            case TrialStarted():
                self.client.update_run(self._child(event), status="RUNNING")
            case Progress():
                self._metrics(self._child(event), event, event.step, event.metrics)
            case RungScored():
                values = [width.value for width in event.widths if width.value is not None]
                self._metrics(self._child(event), event, event.step, {"rung/frechet": min(values, default=None)})
            case SamplesDrawn():
                picture = self.storage.trial(event.trial) / PICTURES / event.picture
                if picture.exists():
                    self._show_image(self._child(event), picture, GROWTH, event)
            case CellScored():
                self._show_cell(event)
            case TrialEnded():
                self._show_trial_end(event)
            case SweepEnded():
                self._show_sweep_end(event)

    def _parent(self, event: Event) -> str:
        return self._run(None, None, self.plan.spec.name, event.time, {})

    def _child(self, event: Event) -> str:
        self._parent(event)
        trial = self.trials[event.trial or ""]
        name = label(trial.params, self.plan.spec.training_axes)
        return self._run(trial.id, None, name, event.time, trial.params)  # all of them would hide the run's pictures

    def _show_cell(self, event: CellScored) -> None:
        from mlflow.entities import RunTag

        self._child(event)
        trial, asked = self.trials[event.trial], self.plan.spec.evaluation
        recipe = flat(trial.recipe.model_dump())
        name = label({**trial.params, **event.params}, list(self.plan.spec.axes))
        name += f", σ_rel {event.params[WIDTH]}" if WIDTH not in self.plan.spec.axes else ""
        name += ", on fresh noise" if event.params.get("evaluation.seed", asked.seed) != asked.seed else ""
        run = self._run(trial.id, event.cell, name, event.time, {**recipe, **event.params})
        metrics = {
            **({"frechet": event.value} if event.samples == asked.samples else {}),
            event.metric: event.value,
            "stderr": event.stderr,
            "magnitude_drift": event.magnitude_drift,
            "noise_floor": event.noise_floor,
            **event.measured,
        }
        self._metrics(run, event, event.step, metrics)
        self.client.log_batch(run, tags=[RunTag(f"provenance.{k}", str(v)) for k, v in event.provenance.items()])
        picture = self.storage.trial(trial.id) / PICTURES / (event.picture or "none")
        if picture.exists():
            self.client.log_artifact(run, str(picture), PICTURES)
            key = f"samples sigma_rel {event.params[WIDTH]} {event.cell}"
            self._show_image(self.runs[trial.id, None], picture, key, event)
        self._end(run, "FAILED" if event.value is None else "FINISHED", event)

    def _show_image(self, run: str, picture: Path, key: str, event: SamplesDrawn | CellScored) -> None:
        """A grid in the trial's image viewer, a row for each key; MLflow itself would double it at a replay."""
        from PIL import Image

        shown = [Path(file.path).name for file in self.client.list_artifacts(run, "images")]
        if not any(name.startswith(f"{key}+step+{event.step}+") for name in shown):
            with Image.open(picture) as image:
                at = milliseconds(event.time)
                self.client.log_image(run, image.convert("RGB"), key=key, step=event.step, timestamp=at)

    def _describe(self, run: str) -> None:
        """The description of the sweep's run: what is known by now."""
        events = read(self.storage.ledger(self.plan.spec.name))
        self.client.set_tag(run, NOTE, summary(self.plan, rank(self.plan, events), events, self.storage)[:TAG_LIMIT])
        self.described = time.monotonic()

    def _show_trial_end(self, event: TrialEnded) -> None:
        from mlflow.entities import RunTag

        run = self._child(event)
        facts: dict[str, Any] = {"mpdit.outcome": event.outcome, "mpdit.reason": (event.reason or "")[:TAG_LIMIT]}
        facts |= flat({"runtime": event.runtime, "machine": event.machine})
        self.client.log_batch(run, tags=[RunTag(name, str(value)) for name, value in facts.items()])
        recipe = self.storage.trial(event.trial) / "recipe.yaml"
        if recipe.exists():
            self.client.log_artifact(run, str(recipe))
        self._metrics(run, event, self.trials[event.trial].recipe.steps, {"energy_joules": event.energy_joules})
        self._end(run, mlflow_status(event.outcome), event)
        if time.monotonic() - self.described > DESCRIBE_EVERY:
            self._describe(self._parent(event))

    def _show_sweep_end(self, event: SweepEnded) -> None:
        rows = rank(self.plan, read(self.storage.ledger(self.plan.spec.name)))
        for picture in write_figures(self.plan, rows, self.storage.sweep(self.plan.spec.name) / "figures"):
            self.client.log_artifact(self._parent(event), str(picture), "figures")
        self._describe(self._parent(event))
        if event.outcome is TrialStatus.COMPLETED:
            register_best(self.client, self.storage, self.plan, rows, self._parent(event))
        self._end(self._parent(event), mlflow_status(event.outcome), event)

    def shown_count(self, ledger: Sequence[Event]) -> int:
        """How many events of the ledger this store is known to show; none where it has shown another ledger's.

        As after a driver whose last events never came to the bucket, and another has gone on without them.
        """
        parent = self.runs.get((None, None))
        noted = self.client.get_run(parent).data.tags.get(MIRRORED, "") if parent else ""
        count, _, last = noted.partition(" ")
        if not last or not 0 < int(count) <= len(ledger) or ledger[int(count) - 1].time != last:
            return 0
        return int(count)

    def mark_shown(self, events: Sequence[Event]) -> None:
        """Note which events of the ledger are shown, by their number and the last one's time."""
        if (None, None) in self.runs and events:
            self.client.set_tag(self.runs[None, None], MIRRORED, f"{len(events)} {events[-1].time}")

    def close(self) -> None:
        """Nothing is open between two calls."""


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted path."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def open_writer(storage: Storage, plan: Plan, sweep: str, uri: str) -> MLflowWriter:
    """The sweep's runs in the store at this URI."""
    quiet()
    if storage.bucket is None and uri == tracking_uri(storage, None):
        create_database(storage)
    from mlflow import MlflowClient

    experiment = plan.spec.tracking.experiment or plan.spec.name
    return MLflowWriter(MlflowClient(tracking_uri=uri), experiment, sweep, plan, storage)


def without_password(uri: str) -> str:
    """A URI as it may be shown and kept."""
    scheme, separator, rest = uri.partition("://")
    is_server = scheme in ("http", "https")  # where a name without a password may be a token
    rest = re.sub("^[^/@]*@", "", rest) if is_server else re.sub("^([^:/@]*):[^@]*@", r"\1@", rest)
    return scheme + separator + re.sub(r"[?&][^=&]*(passw|token|secret)[^=&]*=[^&]*", "", rest, flags=re.IGNORECASE)
