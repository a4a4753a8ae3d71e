"""How far a training has come, by its steps and by its seconds."""

from math import inf
from time import sleep

import pytest

from sklearn_acs.training.course import Course


def test_progress_by_steps_is_that_of_their_middle():
    course = Course(4)
    found = []
    for _ in range(4):
        found.append(course.progress)
        course.advance()
    assert found == [0.125, 0.375, 0.625, 0.875]
    assert course.progress == 1.0


def test_progress_by_seconds_is_their_share():
    course = Course(inf, max_seconds=0.05)
    assert course.progress < 0.5
    sleep(0.06)
    assert course.progress == 1.0
    assert course.seconds_left < 0


def test_what_is_kept_for_the_end_ends_steps_earlier():
    course = Course(inf, max_seconds=10.0, reserve=9.999)
    assert course.progress > Course(inf, max_seconds=10.0).progress
    assert course.seconds_left < 0.001


def test_what_ends_first_says_how_far_it_is():
    course = Course(1_000_000, max_seconds=1e-9)
    assert course.progress == 1.0
    course = Course(2, max_seconds=1e9)
    assert course.progress == pytest.approx(0.25)
    assert course.seconds_left > 1e8


def test_time_between_a_state_and_going_on_from_it_does_not_count():
    course = Course(10, max_seconds=100.0)
    state = course.state_dict()
    sleep(0.03)
    other = Course(99, max_seconds=100.0)
    other.load_state_dict(state)
    assert other.seconds < 0.03
    assert (other.step, other.n_steps) == (0, 10)
