"""Advice to draw more samples, where the error over samples hides which cell is better."""

from sweeps.advice.registry import ADVICE, Advice, AdviceKind, Situation, as_settings

TIMES = 4  # as many samples: half the error


def _samples(situation: Situation) -> list[Advice]:
    """One advice where cells of the best training are tied with it, and a wrong choice among them would cost much."""
    best = situation.best
    tied = [row for row in situation.scored[1:] if row.tied_with_best and row.trials == best.trials]
    if not situation.worth(situation.loss(tied)):
        return []
    samples = situation.plan.spec.evaluation.samples * TIMES
    settings = as_settings({"name": f"{situation.name}-{samples}", "evaluation.samples": samples})
    if situation.changed(settings) is None:
        return []
    text = (
        f"{len(tied)} other cells of the best training cannot be told from it at {samples // TIMES:,} samples; "
        f"{samples:,} halve the error (no new training)"
    )
    return [Advice("samples", None, text, situation.sweep_command(settings), settings)]


ADVICE.register(AdviceKind("samples", "cells of one training are tied: draw more samples", order=4, of=_samples))
