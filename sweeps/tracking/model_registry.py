"""Register the winner of a finished sweep in MLflow: a version of the model SWEEP, with the alias `best`."""

import logging
import shutil
from typing import Any

from mpdit.errors import InputError
from sweeps.planning.plan import Plan
from sweeps.results.ranking import Row
from sweeps.results.winner import RankedSweep, export_winner
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import read

ALIAS, WINNER, BUNDLE = "best", "mpdit.winner", "bundle"

log = logging.getLogger(__name__)


def register_best(client: Any, storage: Storage, plan: Plan, rows: list[Row], run: str) -> None:
    """Log the winner's bundle to the sweep's run, register it and give it the alias, unless that has been done.

    A winner whose weights are not in the storage is not registered.

    Args:
        client: An MlflowClient.
        storage: Where the sweep is.
        plan: The sweep's plan.
        rows: Its ranking.
        run: The id of the sweep's run.
    """
    if not rows or rows[0].value is None:
        return
    winner = f"{rows[0].trial} {rows[0].params}"
    folder = storage.sweep(plan.spec.name) / BUNDLE
    name = plan.spec.name
    if _registered(client, name) == winner:
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        export_winner(storage, RankedSweep(plan, read(storage.ledger(name)), rows), folder)
    except (InputError, OSError) as problem:
        log.info("the winner is not registered: %s", problem)
        return
    client.log_artifacts(run, str(folder), BUNDLE)
    shutil.rmtree(folder)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=f"The winner of the sweep {name}, an mpdit bundle.")
    source = f"{client.get_run(run).info.artifact_uri}/{BUNDLE}"
    version = client.create_model_version(name, source, run, tags={WINNER: winner})
    client.set_registered_model_alias(name, ALIAS, version.version)


def _registered(client: Any, name: str) -> str | None:
    """The winner that has the alias at present."""
    models = client.search_registered_models(f"name = '{name}'")
    if not models or ALIAS not in models[0].aliases:
        return None
    return str(client.get_model_version_by_alias(name, ALIAS).tags.get(WINNER))
