"""The Fréchet distance of each class: between the samples that were asked for as one and its images in the data.

Beside the mean over classes stand, under names with a slash, the distance of each class and how surely it is known.
"""

from collections.abc import Mapping
from statistics import mean

from mpdit.scoring.frechet import distance_of_features
from pipelines.scoring.metrics.registry import METRICS, Features, Metric

NAME = "frechet_by_class"
FEWEST, DIMENSIONS, LEFT_OUT = f"{NAME}/fewest", f"{NAME}/dimensions", f"{NAME}/left_out"


def frechet_by_class(features: Features) -> dict[str, float]:
    """Measure each class of which there are at least two samples and two images.

    Returns:
        The mean over classes by the metric's name; `frechet_by_class/3`, the distance of class 3; the samples or images
        that the smallest class was measured with; the dimensions of the features; the number of classes that were left
        out. Nothing where there is no class to measure.
    """
    if features.fake_labels is None or features.real_labels is None:
        return {}
    of_class: dict[int, float] = {}
    fewest, classes = [], sorted({*features.fake_labels.tolist(), *features.real_labels.tolist()})
    for number in classes:
        fake, real = features.fake[features.fake_labels == number], features.real[features.real_labels == number]
        if (size := min(len(fake), len(real))) > 1:
            of_class[number] = distance_of_features(fake, real)
            fewest.append(size)
    if not of_class:
        return {}
    return {
        NAME: mean(of_class.values()),
        FEWEST: min(fewest),
        DIMENSIONS: features.fake.shape[1],
        LEFT_OUT: len(classes) - len(of_class),
        **{f"{NAME}/{number}": value for number, value in of_class.items()},
    }


def class_distances(more: Mapping[str, float | None]) -> dict[int, float]:
    """Return the distance of each class that a cell's `more` holds."""
    pairs = [(name.removeprefix(f"{NAME}/"), value) for name, value in more.items() if name.startswith(f"{NAME}/")]
    return {int(number): value for number, value in pairs if number.isdigit() and value is not None}


FRECHET_BY_CLASS = METRICS.register(
    Metric(
        name=NAME,
        doc="mean over classes of the Fréchet distance between a class's samples and its images",
        label="Fréchet distance by class",
        measure=frechet_by_class,
        needs_labels=True,
    )
)
