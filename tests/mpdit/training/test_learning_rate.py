import itertools
import math

import pytest

from mpdit.errors import InputError
from mpdit.training.learning_rate import LearningRate
from mpdit.training.lr_schedules.registry import LR_SCHEDULES, LrSchedule


def test_the_learning_rate_warms_up_stays_and_falls_as_the_inverse_root() -> None:
    rate = [LearningRate(0.02, "inverse_sqrt", 0.1, 0.4).at(step, 1000) for step in range(1, 1001)]
    assert rate[49] == pytest.approx(0.01)
    assert rate[99] == rate[399] == pytest.approx(0.02)
    assert rate[899] == pytest.approx(0.02 / math.sqrt(900 / 400))
    assert LearningRate(0.02, "inverse_sqrt", 0, 0.4).at(1, 1) == pytest.approx(0.02)


def test_a_cosine_falls_to_nothing_and_a_constant_stays() -> None:
    cosine = [LearningRate(0.02, "cosine", 0.1, 0.4).at(step, 1000) for step in range(1, 1001)]
    assert cosine[399] == pytest.approx(0.02)
    assert cosine[699] == pytest.approx(0.01, rel=0.01)
    assert 0 < cosine[999] < 1e-6
    assert all(a >= b for a, b in itertools.pairwise(cosine[100:]))
    assert LearningRate(0.02, "constant", 0.1, 0.4).at(1000, 1000) == 0.02


def test_a_schedule_of_a_plug_in_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    halved = LrSchedule("theirs.halved", "half of it", lambda _step, _start, _steps: 0.5)
    monkeypatch.setitem(LR_SCHEDULES._kinds, halved.name, halved)
    assert LearningRate(0.02, "theirs.halved", 0.1, 0.4).at(900, 1000) == pytest.approx(0.01)


def test_an_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no schedule 'cosin'\n(.*\n)*.*nearest: +cosine"):
        LearningRate(0.02, "cosin", 0.1, 0.4).at(900, 1000)
