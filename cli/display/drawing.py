"""Show the drawing of samples: a bar, images per second, time left; without a terminal, a line every half minute."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from cli.display.tables import duration

LINE_EVERY = 30.0  # seconds


@contextmanager
def drawing(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show the progress of `total` samples; yields a function to be called with the size of each batch."""
    console = Console(stderr=True)
    columns = TextColumn(what), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, rate="")
        started = last = time.monotonic()
        done = 0

        def drawn(count: int) -> None:
            nonlocal done, last
            done += count
            now = time.monotonic()
            rate = done / max(now - started, 1e-9)
            text = f"{rate:.0f} images/s, {duration((total - done) / rate)} left"
            bar.update(task, advance=count, rate=text)
            if not console.is_terminal and now - last >= LINE_EVERY:
                last = now
                console.print(f"{what}: {done:,} of {total:,}, {text}", highlight=False)

        yield drawn
