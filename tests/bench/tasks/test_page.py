"""The words of a race, which never say more than their interval, and of the machine, which may tell nothing."""

import pytest

from bench.results.statistics import Interval
from bench.tasks.page import ends, goal_words, made_by, verdict_words, where


@pytest.mark.parametrize(
    ("ratio", "words", "interval"),
    [
        (Interval(2, 1.5, 3), "ours trained 2 times as fast as theirs", "1.5 to 3"),
        (Interval(9, 1.1, 80), "ours trained faster than theirs", "1.1 to 80"),
        (Interval(0.5, 0.4, 0.8), "ours took 2 times as long as theirs", "1.25 to 2.5"),
        (Interval(0.1, 0.01, 0.8), "ours took longer than theirs", "1.25 to 100"),
        (Interval(2, 0.5, 8), "ours and theirs cannot be told apart", "0.5 to 8"),
    ],
)
def test_how_many_times_is_said_where_the_interval_tells_it(ratio, words, interval):
    assert verdict_words("ours", "theirs", ratio) == words
    assert ends(ratio) == interval


def test_seeds_too_few_or_too_unlike_tell_no_ratio_to_the_goal():
    narrow, wide, one = Interval(0.5, 0.4, 0.8), Interval(3, 0.01, 900), Interval(3, float("nan"), float("nan"))
    assert goal_words("ours", "theirs", narrow, "3 seeds") == (
        " To the goal it took theirs 0.5 times the seconds of ours (0.4 to 0.8, 3 seeds)."
    )
    assert goal_words("ours", "theirs", wide, "2 seeds").endswith("to the goal, 2 seeds cannot tell.")
    assert goal_words("ours", "theirs", one, "1 seed") == ""


def test_a_machine_that_tells_nothing_is_unknown_in_every_report():
    nothing = {"cpu": None, "os": None, "python": None, "versions": {}, "warnings": ["It is busy."]}
    assert where(2, nothing) == "on 2 threads of an unknown CPU"
    made, machine, warning = made_by("train text", nothing)
    assert "Made by: train text" in made
    assert "unknown, unknown, Python unknown." in machine
    assert "It is busy." in warning
