"""Numbers that change with the step."""

import pytest

from utils.schedule import Schedule


def test_a_number_is_constant():
    schedule = Schedule.parse("2.5")
    assert [schedule.at(step) for step in (0, 1, 10**9)] == [2.5] * 3


def test_linear_between_points_and_constant_outside():
    schedule = Schedule.parse("10:1,20:3,40:0")
    found = [schedule.at(step) for step in (0, 10, 15, 20, 30, 40, 99)]
    assert found == [1, 1, 2, 3, 1.5, 0, 0]
    assert (schedule.least, schedule.greatest) == (0, 3)


@pytest.mark.parametrize("text", ["0.1", "1e-05", "0:1,500:0.25", "3:0,4:1"])
def test_text_and_back(text):
    assert str(Schedule.parse(text)) == text


@pytest.mark.parametrize("text", ["", "a", "1:2:3", "5:1,5:2", "9:1,3:1", "-1:0", "nan", "0:inf"])
def test_what_is_none_is_refused(text):
    with pytest.raises(ValueError):
        Schedule.parse(text)
