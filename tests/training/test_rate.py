"""Learning-rate schedules at their landmarks, and optimisers with the options they are known by."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sklearn_acs.training.course import Course
from sklearn_acs.training.optimizers import OPTIMIZERS
from sklearn_acs.training.rate import LR_SCHEDULES, Rate

EPS = 1e-9
PLANNED = [name for name, schedule in LR_SCHEDULES.items() if schedule is not None]


def rates(schedule, n_steps, count=None, lr=1.0):
    """The rates of the first steps, and what sets them."""
    rate = Rate(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr), schedule, Course(n_steps))
    return go_on(rate, n_steps if count is None else count), rate


def go_on(rate, count):
    found = []
    for _ in range(count):
        found.append(rate.optimizer.param_groups[0]["lr"])
        rate.course.advance()
        rate.set()
    return found


def test_constant_leaves_the_rate_alone():
    assert LR_SCHEDULES["constant"] is None


@pytest.mark.parametrize(
    ("name", "landmarks"),
    [
        ("cosine", {0: 1, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1: 0}),
        ("one-cycle", {0: 0, 0.15: 0.5, 0.3: 1, 0.65: 0.5, 1: 0}),
        (
            "multistep",
            {0: 1, 2 / 3 - EPS: 1, 2 / 3 + EPS: 0.1, 5 / 6 - EPS: 0.1, 5 / 6 + EPS: 0.01, 1: 0.01},
        ),
    ],
)
def test_schedule_passes_its_landmarks(name, landmarks):
    for progress, factor in landmarks.items():
        assert LR_SCHEDULES[name](progress) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("name", PLANNED)
@given(progress=st.floats(0, 1))
def test_factor_is_never_negative_and_never_above_the_peak(name, progress):
    assert 0 <= LR_SCHEDULES[name](progress) <= 1


@pytest.mark.parametrize("name", ["cosine", "multistep"])
@given(one=st.floats(0, 1), other=st.floats(0, 1))
def test_schedules_without_a_warmup_never_rise(name, one, other):
    early, late = sorted([one, other])
    assert LR_SCHEDULES[name](late) <= LR_SCHEDULES[name](early)


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.parametrize("n_steps", [1, 2, 7, 1_000])
def test_every_step_of_a_fit_has_a_positive_factor(name, n_steps):
    assert min(rates(LR_SCHEDULES[name], n_steps)[0]) > 0


def test_a_step_has_the_factor_at_its_middle():
    assert rates(lambda progress: progress, 10)[0] == pytest.approx([0.05 + 0.1 * step for step in range(10)])


@pytest.mark.parametrize("name", PLANNED)
def test_steps_beyond_the_last_have_the_factor_of_the_end(name):
    assert rates(LR_SCHEDULES[name], 10, 26)[0][-1] == LR_SCHEDULES[name](1.0)


def test_steps_that_turn_out_fewer_end_the_schedule_earlier():
    before, rate = rates(lambda progress: progress, 10, 4)
    rate.course.expect(2)
    rate.course.advance()
    rate.set()
    assert before == pytest.approx([0.05, 0.15, 0.25, 0.35])
    assert rate.optimizer.param_groups[0]["lr"] == pytest.approx(5.5 / 6)


def test_every_group_has_its_own_highest_rate():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.4, 0.1)]
    rate = Rate(torch.optim.SGD(groups), lambda progress: 0.5, Course(4))
    assert [group["lr"] for group in rate.optimizer.param_groups] == [0.2, 0.05]


def test_the_rate_goes_on_from_a_state():
    found, _ = rates(LR_SCHEDULES["one-cycle"], 8, lr=0.4)
    _, rate = rates(LR_SCHEDULES["one-cycle"], 8, 3, lr=0.4)
    _, other = rates(LR_SCHEDULES["one-cycle"], 5, 0, lr=0.4)
    other.course.load_state_dict(rate.course.state_dict())
    other.set()
    assert go_on(other, 5) == found[3:]


def test_sgd_has_momentum_and_weight_decay():
    kind, lr, options = OPTIMIZERS["sgd"]
    assert kind is torch.optim.SGD
    assert (lr, options) == (0.1, {"momentum": 0.9, "weight_decay": 5e-4})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_names_build_optimisers_with_their_options(name):
    kind, _, options = OPTIMIZERS[name]
    kind([torch.nn.Parameter(torch.zeros(1))], lr=0.1, **options)
