"""The small classifiers that come with mpdit, one for each card in mpdit/weights."""

from functools import partial

from mpdit.scoring import small_classifier
from mpdit.scoring.extractor import Extractor
from mpdit.scoring.extractors.registry import EXTRACTORS, ExtractorKind


def _load(name: str, device: str) -> Extractor:
    return small_classifier.load_classifier(name, small_classifier.WEIGHTS, device)


for name in small_classifier.shipped_classifiers():
    EXTRACTORS.register(ExtractorKind(name, f"a small classifier of {name}, shipped", partial(_load, name)))
