"""Make images ready once: find them, decode them, crop and resize them, and write one file that training maps."""

import hashlib
import itertools
import json
import os
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mpdit.data.image_entry import Class, Entry, Listing, Problem, Unusable
from mpdit.data.image_sources.registry import open_images
from mpdit.data.prepared_images import FEWEST, IMAGES, MANIFEST, ImageSet, ImageWriter, decode, guarded, read_record
from mpdit.errors import InputError, disk_is_full, input_error
from mpdit.randomness import generator
from mpdit.scoring.extractors.registry import EXTRACTORS

AHEAD = 4  # images in work for each thread
MOST_NAMED = 50  # files in a message
STATE, BAD_FILES = "preparation.json", "bad-files.txt"  # of an unfinished set
KEEP_EVERY = 30.0  # seconds, the most that a killed preparation loses
Progress = Callable[[int, int | None], None]  # images done, images in all where that is known


@dataclass
class Preparation:
    """How far the preparation of a set has come: kept beside its images, so that the same call goes on.

    Attributes:
        source: what is prepared.
        resolution: of the set.
        rgb: whether grey images get three channels.
        passed: how many images of the source have been looked at, in their order.
        names: a hash of their names and classes.
        count: how many of them are in the set.
        channels: of those.
        bad: the files that cannot be used, each with the reason.
        notes: what was changed, each with the number of images.
    """

    source: str
    resolution: int
    rgb: bool
    passed: int = 0
    names: str = ""
    count: int = 0
    channels: int = 1
    bad: dict[str, str] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Keep it in the folder of the unfinished set."""
        partial = folder / (STATE + ".partial")
        partial.write_text(json.dumps(vars(self), ensure_ascii=False), encoding="utf-8")
        partial.replace(folder / STATE)


def prepare(  # noqa: PLR0913  (public: its options are named)
    source: str,
    output: Path,
    resolution: int,
    skip_bad: bool = False,
    progress: Progress | None = None,
    *,
    rgb: bool = False,
) -> ImageSet:
    """The images of a source as a prepared set in the folder `output`, which appears whole or not at all.

    Where all images are grey they have one channel, with rgb three. Every file that cannot be used is named, and the
    set refused; with skip_bad they are left out, counted and recorded. A set that is there already, of the same source
    and resolution, is left as it is. Stopped in any way, the same call goes on.
    """
    if (output / MANIFEST).exists():
        there = read_record(output)
        if (there.source, there.resolution) == (source, resolution) and not (rgb and there.channels < 3):
            return there
    check_output(output)
    with disk_errors_explained(output):
        return _prepared(Preparation(source, resolution, rgb), output, skip_bad, progress)


def _prepared(asked: Preparation, output: Path, skip_bad: bool, progress: Progress | None) -> ImageSet:
    name = set_name(output)
    partial = output.with_name(output.name + ".partial")
    work = asked
    if (partial / STATE).exists():
        with open_images(asked.source) as found, guarded():
            work = _begun(asked, partial, found) or asked
    if work is asked:
        shutil.rmtree(partial, ignore_errors=True)
    with (
        open_images(asked.source) as found,
        ImageWriter(partial, name, asked.resolution, rgb=asked.rgb, kept=(work.count, work.channels)) as writer,
        guarded(),
    ):
        numbers, classes, skipped = _written(work, writer, found, progress)
        if skipped and not skip_bad:
            raise _all_bad(skipped, partial)
        if writer.count < FEWEST:
            few = f"{writer.count} image" + ("" if writer.count == 1 else "s")
            left_out = len(skipped) or None
            raise input_error(
                f"{asked.source} holds {few} only", given=few, allowed=f"{FEWEST} or more", skipped=left_out
            )
        record = writer.finish(numbers, classes, str(asked.source), skipped, work.notes)
    for left in (STATE, BAD_FILES):
        (partial / left).unlink(missing_ok=True)
    partial.rename(output)
    return record


def _mark(entry: Entry) -> bytes:
    """What the hash of the names takes in of an image."""
    return f"{entry.name}\0{entry.label}\0".encode()


def _begun(asked: Preparation, partial: Path, found: Listing) -> Preparation | None:
    """What an earlier call has left of the same work; None where the source or a bad file is not what it was."""
    try:
        state = Preparation(**json.loads((partial / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if (state.source, state.resolution, state.rgb) != (asked.source, asked.resolution, asked.rgb):
        return None
    images = partial / IMAGES
    if not images.exists() or images.stat().st_size < state.count * state.channels * state.resolution**2:
        return None  # the disk lost what had been written
    names = hashlib.sha256()
    for entry in itertools.islice(_usable(found, {})[0], state.passed):
        names.update(_mark(entry))
        if entry.name in state.bad and not isinstance(_decode(entry, asked.resolution), Unusable):
            return None  # it was mended: its place is between the others
    return state if names.hexdigest() == state.names else None


def _written(
    work: Preparation, writer: ImageWriter, found: Listing, progress: Progress | None
) -> tuple[list[int], list[str], dict[str, str]]:
    """Write what is not written yet; returns each image's class, the classes, and what was left out."""
    skipped: dict[str, str] = {}
    labels: list[Class] = []
    notes: Counter[str] = Counter(work.notes)
    names = hashlib.sha256()
    entries, total = _usable(found, skipped)
    before = list(itertools.islice(entries, work.passed))
    for entry in before:
        names.update(_mark(entry))
    labels += [entry.label for entry in before if entry.name not in work.bad]
    last_kept = time.monotonic()
    try:
        for entry, image in _decoded(entries, work.resolution):
            if isinstance(image, Unusable):
                work.bad[entry.name] = str(image)
            else:
                pixels, done = image
                writer.add(pixels)
                labels.append(entry.label)
                notes.update(done)
            names.update(_mark(entry))
            work.passed, work.names, work.notes = work.passed + 1, names.hexdigest(), dict(notes)
            work.count, work.channels = writer.count, writer.channels
            if progress:
                progress(work.passed + len(skipped), total)
            if time.monotonic() - last_kept > KEEP_EVERY:
                writer.file.flush()
                work.write(writer.folder)
                last_kept = time.monotonic()
    finally:
        writer.file.flush()
        work.write(writer.folder)
    skipped |= work.bad
    if skipped and not labels:
        return [], [], skipped
    return *number_classes(labels, work.source), skipped


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


def _all_bad(skipped: dict[str, str], partial: Path) -> InputError:
    """The message that names every file that cannot be used; beyond MOST_NAMED, they are in a file."""
    lines = [f"{name} {reason}" for name, reason in skipped.items()]
    headline = lines[0] if len(lines) == 1 else f"{len(lines):,} files cannot be used"
    shown = [f"  {line}" for line in lines[:MOST_NAMED]] if len(lines) > 1 else []
    if len(lines) > MOST_NAMED:
        (partial / BAD_FILES).write_text("\n".join(lines) + "\n", encoding="utf-8")
        shown.append(f"  … all {len(lines):,} are in {partial / BAD_FILES}")
    hint = "  hint:  mend or remove what is named, or leave it out with --skip-bad, which goes on from here"
    return InputError("\n".join([headline, *shown, hint]))


def _usable(found: Listing, skipped: dict[str, str]) -> tuple[Iterator[Entry], int | None]:
    """The entries and their number: mixed, so that any part shows every class; a stream of shards as it comes.

    What cannot be used is added to `skipped`, with the reason.
    """
    if not isinstance(found, list):
        return _passed(found, skipped), None
    skipped |= {one.name: one.reason for one in found if isinstance(one, Problem)}
    entries = [one for one in found if isinstance(one, Entry)]
    order = torch.randperm(len(entries), generator=generator(0, 0, "order of a prepared set")).tolist()
    return iter([entries[place] for place in order]), len(found)


def _passed(found: Iterator[Entry | Problem], skipped: dict[str, str]) -> Iterator[Entry]:
    for one in found:
        if isinstance(one, Problem):
            skipped[one.name] = one.reason
        else:
            yield one


Decoded = tuple[np.ndarray, list[str]] | Unusable


def _decode(entry: Entry, resolution: int) -> Decoded:
    try:
        return decode(entry.read(), resolution)
    except Unusable as problem:
        return problem
    except OSError as error:
        return Unusable(f"cannot be read: {error}")


def _decoded(entries: Iterator[Entry], resolution: int) -> Iterator[tuple[Entry, Decoded]]:
    """Each entry with its pixels or what is wrong with it, in order, decoded on all cores."""
    threads = os.cpu_count() or 1
    waiting: deque[tuple[Entry, Future[Decoded]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for entry in entries:
                waiting.append((entry, pool.submit(_decode, entry, resolution)))
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
