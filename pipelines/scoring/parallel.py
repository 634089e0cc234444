"""Score a run's cells in several processes of this machine, which uses the cores that a run of few threads leaves idle.

Each process scores complete cells, as a single one would, so the results are the same to the bit. A helper receives its
task as JSON in its arguments, and prints one line of JSON for each batch drawn and each cell scored.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpdit.errors import InputError
from pipelines.provenance import cores
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import Report, ScoringOptions, evaluate
from pipelines.scoring.reference import extractor_for, reference
from pipelines.scoring.sample_generator import Progress

INPUT_ERROR = 2  # a helper's exit code


def process_count(recipe: Recipe, cells: Sequence[Cell]) -> int:
    """How many processes score these cells fastest: as many as the processor has cores for; one on a GPU."""
    if recipe.runtime.device != "cpu":
        return 1
    return max(1, min(len(cells), cores() // int(recipe.runtime.threads)))


def evaluate_in_parallel(
    run: Path, recipe: Recipe, cells: Sequence[Cell], report: Report, options: ScoringOptions
) -> None:
    """Score cells as `evaluate` does, in as many processes as the processor has cores for.

    Results are reported in the order in which they are finished. Features stay until `forget`; interrupted, every
    process keeps those it has. Of the options, `step` and `ranks` do not apply here. Raises InputError, and
    RuntimeError where a helper has failed.
    """
    count = process_count(recipe, cells)
    for name in {cell.evaluation.extractor for cell in cells} if count > 1 else ():
        reference(recipe.dataset, extractor_for(recipe.dataset, name))  # once, and not in every process
    task = {"run": str(run.resolve()), "recipe": recipe.model_dump(mode="json"), "compiled": options.compiled}
    tasks = [task | {"cells": _plain(cells[first::count])} for first in range(1, count)]
    with helper_processes(tasks, report, options.progress or (lambda _count: None)):
        evaluate(run, recipe, cells[::count], report, replace(options, keep=True))


def _plain(cells: Sequence[Cell]) -> list[Any]:
    return [(cell.sigma_rel, cell.evaluation.model_dump(mode="json")) for cell in cells]


@contextmanager
def helper_processes(tasks: Sequence[dict[str, Any]], report: Report, progress: Progress) -> Iterator[None]:
    """Score each task in a process of its own while this is open; at the end wait for all of them."""
    code = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))
    helpers = [
        subprocess.Popen(
            [sys.executable, "-m", "pipelines.scoring.parallel", json.dumps(task)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C reaches the first process, which then ends the others
        )
        for task in tasks
    ]
    problems: list[str] = []
    readers = [
        threading.Thread(target=_listen, args=(helper, report, progress, problems), daemon=True) for helper in helpers
    ]
    for reader in readers:
        reader.start()
    try:
        yield
        codes = [helper.wait() for helper in helpers]
    except BaseException:
        for helper in helpers:
            helper.terminate()
        raise
    finally:
        for helper, reader in zip(helpers, readers, strict=True):
            helper.wait()
            reader.join()
    if INPUT_ERROR in codes:
        raise InputError(problems[0])
    if any(codes):
        raise RuntimeError(f"a process that scored cells ended with {max(codes, key=abs)}; its own message is above")


def _listen(helper: "subprocess.Popen[str]", report: Report, progress: Progress, problems: list[str]) -> None:
    assert helper.stdout is not None
    with helper.stdout as lines:
        for message in map(json.loads, lines):
            if "drawn" in message:
                progress(message["drawn"])
            elif "cell" in message:
                report(message["cell"])
            else:
                problems.append(message["problem"])


def _send(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _score(task: dict[str, Any]) -> None:
    cells = [Cell(sigma_rel, Evaluation(**settings)) for sigma_rel, settings in task["cells"]]
    evaluate(
        Path(task["run"]),
        Recipe(**task["recipe"]),
        cells,
        lambda result: _send(cell=result),
        ScoringOptions(progress=lambda count: _send(drawn=count), keep=True, compiled=task["compiled"]),
    )


def main() -> None:
    """Score the task in the arguments."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the features drawn so far are kept
    try:
        _score(json.loads(sys.argv[1]))
    except InputError as problem:
        _send(problem=str(problem))
        sys.exit(INPUT_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
