"""Learning-rate schedules at their landmarks, and optimisers with the options they are known by."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LambdaLR

from sklearn_acs.training.rate import LR_SCHEDULES, OPTIMIZERS, LrFactor

EPS = 1e-9


@pytest.mark.parametrize(
    ("name", "landmarks"),
    [
        ("constant", {0: 1, 0.5: 1, 1: 1}),
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


@pytest.mark.parametrize("name", LR_SCHEDULES)
@given(progress=st.floats(0, 1))
def test_factor_is_never_negative_and_never_above_the_peak(name, progress):
    assert 0 <= LR_SCHEDULES[name](progress) <= 1


@pytest.mark.parametrize("name", ["constant", "cosine", "multistep"])
@given(one=st.floats(0, 1), other=st.floats(0, 1))
def test_schedules_without_a_warmup_never_rise(name, one, other):
    early, late = sorted([one, other])
    assert LR_SCHEDULES[name](late) <= LR_SCHEDULES[name](early)


@pytest.mark.parametrize("name", LR_SCHEDULES)
@pytest.mark.parametrize("n_steps", [1, 2, 7, 1_000])
def test_every_step_of_a_fit_has_a_positive_factor(name, n_steps):
    factor = LrFactor(LR_SCHEDULES[name], n_steps)
    assert min(factor(step) for step in range(n_steps)) > 0


def test_a_step_has_the_factor_at_its_middle():
    factor = LrFactor(lambda progress: progress, 10)
    assert [factor(step) for step in range(10)] == pytest.approx([0.05 + 0.1 * step for step in range(10)])


@pytest.mark.parametrize("name", LR_SCHEDULES)
def test_steps_beyond_the_last_have_the_factor_of_the_end(name):
    assert LrFactor(LR_SCHEDULES[name], 10)(25) == LR_SCHEDULES[name](1.0)


def test_steps_that_turn_out_fewer_end_the_schedule_earlier():
    factor = LrFactor(lambda progress: progress, 10)
    before = [factor(step) for step in range(5)]
    factor.expect(2)
    assert [factor(step) for step in (4, 5)] == pytest.approx([4.5 / 6, 5.5 / 6])
    assert before == pytest.approx([0.05, 0.15, 0.25, 0.35, 0.45])


def test_factor_is_what_torch_multiplies_the_rate_by():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = LambdaLR(optimizer, LrFactor(LR_SCHEDULES["one-cycle"], 4))
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    middles = [0.125 / 0.3, (1 - 0.375) / 0.7, (1 - 0.625) / 0.7, (1 - 0.875) / 0.7]
    assert rates == pytest.approx([0.4 * middle for middle in middles])


def test_sgd_has_momentum_and_weight_decay():
    kind, lr, options = OPTIMIZERS["sgd"]
    assert kind is torch.optim.SGD
    assert (lr, options) == (0.1, {"momentum": 0.9, "weight_decay": 5e-4})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_names_build_optimisers_with_their_options(name):
    kind, _, options = OPTIMIZERS[name]
    kind([torch.nn.Parameter(torch.zeros(1))], lr=0.1, **options)
