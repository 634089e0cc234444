"""Score a run's cells in several processes of this machine: what a run of few threads leaves idle of the processor.

Each process scores whole cells, as one alone would, so the results are the same to the bit. A helper is told what to do
in one line of JSON, and answers with a line for each batch drawn and each cell scored.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpdit.errors import InputError
from pipelines.provenance import cores
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import Report, evaluate
from pipelines.scoring.reference import extractor_for, reference
from pipelines.scoring.samples import Progress

INPUT_ERROR = 2  # a helper's exit code


def room(recipe: Recipe, cells: Sequence[Cell]) -> int:
    """How many processes score these cells best: as many as the processor has room for; one on a GPU."""
    if recipe.runtime.device != "cpu":
        return 1
    return max(1, min(len(cells), cores() // int(recipe.runtime.threads)))


def evaluate_side_by_side(
    run: Path, recipe: Recipe, cells: Sequence[Cell], report: Report, progress: Progress, compiled: bool
) -> None:
    """`evaluate` with `keep`, in as many processes as there is room for; results are reported as they come.

    Interrupted, every process keeps what it has drawn. Raises InputError, and RuntimeError where a helper has failed.
    """
    count = room(recipe, cells)
    for name in {cell.evaluation.extractor for cell in cells} if count > 1 else ():
        reference(recipe.dataset, extractor_for(recipe.dataset, name))  # once, and not in every process
    task = {"run": str(run.resolve()), "recipe": recipe.model_dump(mode="json"), "compiled": compiled}
    with helped([task | {"cells": _plain(cells[first::count])} for first in range(1, count)], report, progress):
        evaluate(run, recipe, cells[::count], report, progress=progress, keep=True, compiled=compiled)


def _plain(cells: Sequence[Cell]) -> list[Any]:
    return [(cell.sigma_rel, cell.evaluation.model_dump(mode="json")) for cell in cells]


@contextmanager
def helped(tasks: Sequence[dict[str, Any]], report: Report, progress: Progress) -> Iterator[None]:
    """Helpers at work on the tasks while this is open; they have ended when it is left."""
    code = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))
    helpers = [
        subprocess.Popen(
            [sys.executable, "-m", "pipelines.scoring.parallel", json.dumps(task)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C is for the first process, which then ends the others
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
        raise RuntimeError(f"a process that scored cells has ended with {max(codes, key=abs)}; its own words are above")


def _listen(helper: "subprocess.Popen[str]", report: Report, progress: Progress, problems: list[str]) -> None:
    assert helper.stdout is not None
    with helper.stdout as lines:
        for told in map(json.loads, lines):
            if "drawn" in told:
                progress(told["drawn"])
            elif "cell" in told:
                report(told["cell"])
            else:
                problems.append(told["problem"])


def _tell(**fact: Any) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


def _help(task: dict[str, Any]) -> None:
    cells = [Cell(sigma_rel, Evaluation(**settings)) for sigma_rel, settings in task["cells"]]
    evaluate(
        Path(task["run"]),
        Recipe(**task["recipe"]),
        cells,
        lambda result: _tell(cell=result),
        progress=lambda count: _tell(drawn=count),
        keep=True,
        compiled=task["compiled"],
    )


def main() -> None:
    """What a helper does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is drawn is kept
    try:
        _help(json.loads(sys.argv[1]))
    except InputError as problem:
        _tell(problem=str(problem))
        sys.exit(INPUT_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
