"""The command line, `mpdit`. Every command imports what it needs when it runs, so that --help is quick."""

import signal
import sys

import typer

from cli import advising, data, reporting, results, runs, services, sweeping, upkeep
from cli.ending import exit_code_of, flushed

app = typer.Typer(
    help="Which conditioning, which EMA width, which learning rate? Sweeps over magnitude-preserving "
    "diffusion transformers.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
for command in (
    sweeping.sweep,
    sweeping.plan,
    results.status,
    results.rank,
    advising.best,
    advising.suggest,
    advising.confirm,
    upkeep.stop,
    upkeep.retry,
    upkeep.sync,
    upkeep.clean,
    runs.train,
    runs.evaluate,
    runs.sample,
    reporting.report,
    reporting.new,
    reporting.schema,
    services.watch,
    services.ui,
    services.doctor,
):
    app.command()(command)
app.add_typer(data.data, name="data")


def _interrupt(*_: object) -> None:
    """Treat SIGTERM as Ctrl-C, also where a shell has started us with Ctrl-C ignored (`… &`)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)  # Ray Tune may handle it, to stop its trials


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 something failed, 2 bad input, 70 a fault of ours, 130 interrupted, 141 nobody reads on.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    code: int | str | None = 0
    try:
        app()
    except BaseException as problem:
        code = exit_code_of(problem)
    sys.exit(flushed(code))


if __name__ == "__main__":
    main()
