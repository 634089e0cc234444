"""Make images ready once: find them, decode them, crop and resize them, and write one file that training maps."""

import os
import re
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from mpdit.data.image_entry import Class, Entry, Problem, Unusable
from mpdit.data.image_sources.registry import open_images
from mpdit.data.prepared_images import FEWEST, MANIFEST, ImageSet, ImageWriter, decode, guarded, read_record
from mpdit.errors import disk_is_full, input_error
from mpdit.randomness import generator
from mpdit.scoring.extractors.registry import EXTRACTORS

AHEAD = 4  # images in work for each thread
SHOWN = 5  # files named in a message
Progress = Callable[[int, int | None], None]  # images done, images in all where that is known


def prepare(
    source: str, output: Path, resolution: int, skip_bad: bool = False, progress: Progress | None = None
) -> ImageSet:
    """The images of a source as a prepared set in the folder `output`, which appears whole or not at all.

    A file that cannot be used is refused by name; with skip_bad it is left out, counted and recorded. A set that is
    there already, of the same source and resolution, is left as it is.
    """
    if (output / MANIFEST).exists():
        there = read_record(output)
        if (there.source, there.resolution) == (source, resolution):
            return there
    check_output(output)
    with disk_errors_explained(output):
        return _prepared(source, output, resolution, skip_bad, progress)


def _prepared(source: str, output: Path, resolution: int, skip_bad: bool, progress: Progress | None) -> ImageSet:
    name = set_name(output)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    skipped: dict[str, str] = {}
    notes: Counter[str] = Counter()
    labels: list[Class] = []
    with open_images(source) as found, ImageWriter(partial, name, resolution) as writer, guarded():
        entries, total = _usable(found, skipped, skip_bad)
        for entry, image in _decoded(entries, resolution):
            if isinstance(image, Unusable):
                _bad([Problem(entry.name, str(image))], skipped, skip_bad)
                continue
            pixels, done = image
            writer.add(pixels)
            labels.append(entry.label)
            notes.update(done)
            if progress:
                progress(writer.count + len(skipped), total)
        if writer.count < FEWEST:
            few = f"{writer.count} image" + ("" if writer.count == 1 else "s")
            left_out = len(skipped) or None
            raise input_error(f"{source} holds {few} only", given=few, allowed=f"{FEWEST} or more", skipped=left_out)
        numbers, classes = number_classes(labels, source)
        record = writer.finish(numbers, classes, str(source), skipped, dict(notes))
    partial.rename(output)
    return record


@contextmanager
def disk_errors_explained(output: Path) -> Iterator[None]:
    """While open, a disk that is full or cannot be written raises an InputError that says so."""
    try:
        yield
    except OSError as problem:
        if disk_is_full(problem):
            raise input_error(
                f"no space is left for {output}", hint="make space, then run the same command again"
            ) from None
        raise input_error(
            f"{output} cannot be written", given=output, reason=problem, hint="choose another -o"
        ) from None


def set_name(output: Path) -> str:
    """A set is named for its folder. Raises InputError where that makes no part of a metric's name."""
    name = output.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name in EXTRACTORS:
        raise input_error(
            f"a data set cannot be named {name!r}",
            given=output,
            allowed="letters, digits and . _ - (64 at most, a letter or digit first), not "
            + ", ".join(EXTRACTORS.names()),
        )
    return name


def check_output(output: Path) -> None:
    """Raises InputError for a folder that holds something already."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise input_error(f"{output} is there already", given=output, hint="choose another -o, or remove it")
    if output.exists():
        output.rmdir()


def _bad(problems: list[Problem], skipped: dict[str, str], skip_bad: bool) -> None:
    if not skip_bad:
        first = problems[0]
        others = [f"{problem.name}: {problem.reason}" for problem in problems[1:SHOWN]]
        more = f"{len(problems) - SHOWN} more" if len(problems) > SHOWN else None
        facts = {f"and {number}": text for number, text in enumerate(others, start=2)}
        raise input_error(
            f"{first.name} {first.reason}",
            **facts,
            then=more,
            hint="hint or remove what is named, or leave it out with --skip-bad",
        )
    skipped |= {problem.name: problem.reason for problem in problems}


def _usable(
    found: list[Entry | Problem] | Iterator[Entry | Problem], skipped: dict[str, str], skip_bad: bool
) -> tuple[Iterator[Entry], int | None]:
    """The entries and their number: mixed, so that any part shows every class; a stream of shards as it comes."""
    if not isinstance(found, list):
        return _passed(found, skipped, skip_bad), None
    problems = [one for one in found if isinstance(one, Problem)]
    if problems:
        _bad(problems, skipped, skip_bad)
    entries = [one for one in found if isinstance(one, Entry)]
    order = torch.randperm(len(entries), generator=generator(0, 0, "order of a prepared set")).tolist()
    return iter([entries[place] for place in order]), len(found)


def _passed(found: Iterator[Entry | Problem], skipped: dict[str, str], skip_bad: bool) -> Iterator[Entry]:
    for one in found:
        if isinstance(one, Problem):
            _bad([one], skipped, skip_bad)
        else:
            yield one


Decoded = tuple[np.ndarray, list[str]] | Unusable


def _decoded(entries: Iterator[Entry], resolution: int) -> Iterator[tuple[Entry, Decoded]]:
    """Each entry with its pixels or what is wrong with it, in order, decoded on all cores."""

    def work(entry: Entry) -> Decoded:
        try:
            return decode(entry.read(), resolution)
        except Unusable as problem:
            return problem
        except OSError as error:
            return Unusable(f"cannot be read: {error}")

    threads = os.cpu_count() or 1
    waiting: deque[tuple[Entry, Future[Decoded]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for entry in entries:
                waiting.append((entry, pool.submit(work, entry)))
                if len(waiting) >= AHEAD * threads:
                    first, done = waiting.popleft()
                    yield first, done.result()
            for first, done in waiting:
                yield first, done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def number_classes(labels: list[Class], source: str) -> tuple[list[int], list[str]]:
    """Classes as numbers, and their names: folders in the order of their names, numbers as they are, none as one."""
    if all(label is None for label in labels):
        return [0] * len(labels), ["all"]
    if all(isinstance(label, int) for label in labels):
        numbers = [label for label in labels if isinstance(label, int)]
        return numbers, [str(number) for number in range(max(numbers) + 1)]
    if not all(isinstance(label, str) for label in labels):
        raise input_error(
            f"{source}: some images have a class and some have none", hint="give all of them one, or none"
        )
    names = sorted({str(label) for label in labels})
    number = {name: place for place, name in enumerate(names)}
    return [number[str(label)] for label in labels], names
