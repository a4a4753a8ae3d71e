"""The schedule against the published settings, and properties that hold for every setting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_acs.training.schedule import CORESET, FULL, CoresetSchedule

schedules = st.builds(
    CoresetSchedule,
    max_epochs=st.integers(1, 300),
    coreset_frac=st.one_of(st.floats(0.01, 1), st.just(1.0)),
    select_every=st.integers(1, 50),
    warmup_frac=st.floats(0, 0.99),
)


# Published settings: epochs, fraction, their speed-up (warm-up 0.5, a selection every 20 epochs)


@pytest.mark.parametrize(
    ("max_epochs", "coreset_frac", "selections", "published"),
    [
        pytest.param(100, 0.5, 3, 1.89, id="TRADES"),
        pytest.param(120, 0.5, 3, 1.92, id="linf"),
        pytest.param(120, 0.2, 3, 4.41, id="l2, the middle of 4.36 to 4.46"),
        pytest.param(120, 0.3, 3, 3.05, id="l2 of the README, the middle of 2.99 to 3.10"),
    ],
)
def test_expected_speedup_is_the_published_one(max_epochs, coreset_frac, selections, published):
    schedule = CoresetSchedule(max_epochs, coreset_frac, select_every=20, warmup_frac=0.5)
    assert schedule.n_selections == selections
    assert schedule.expected_speedup() == pytest.approx(published, rel=0.02)


def test_cost_of_the_published_linf_setting_by_hand():
    # 30 epochs on everything, 60 on half of it, selections at epochs 30, 50 and 70.
    schedule = CoresetSchedule(120, 0.5, select_every=20, warmup_frac=0.5)
    assert [epoch for epoch in range(200) if schedule.selects(epoch)] == [30, 50, 70]
    assert schedule.cost() == 30 + 60 * 0.5 + 3
    assert schedule.cost(selection_cost=0.5) == 30 + 60 * 0.5 + 1.5


def test_uneven_warmup_selects_at_the_first_coreset_epoch():
    # Published code trained on a random subset until the next multiple of select_every.
    schedule = CoresetSchedule(100, 0.5, select_every=20, warmup_frac=0.5)
    assert [epoch for epoch in range(200) if schedule.selects(epoch)] == [25, 45, 65]


def test_without_warmup_the_first_epoch_selects():
    schedule = CoresetSchedule(10, 0.3, select_every=4, warmup_frac=0)
    assert (schedule.full_epochs, schedule.coreset_epochs) == (0, 10)
    assert [schedule.selects(epoch) for epoch in range(6)] == [True, False, False, False, True, False]


def test_everything_as_the_coreset_is_ordinary_training():
    schedule = CoresetSchedule(30, 1.0)
    assert (schedule.n_epochs, schedule.n_selections, schedule.expected_speedup()) == (30, 0, 1.0)
    assert {schedule.phase(epoch) for epoch in range(30)} == {FULL}


# Properties


@given(schedules)
def test_every_epoch_is_a_full_or_a_coreset_epoch(schedule):
    phases = [schedule.phase(epoch) for epoch in range(schedule.n_epochs)]
    assert phases == [FULL] * schedule.full_epochs + [CORESET] * schedule.coreset_epochs


@given(schedules)
def test_there_is_at_least_one_epoch_and_no_more_than_max_epochs(schedule):
    assert 1 <= schedule.n_epochs <= schedule.max_epochs


@given(schedules)
def test_first_coreset_epoch_selects_and_so_does_every_select_every_th_after_it(schedule):
    selecting = [epoch for epoch in range(2 * schedule.n_epochs + 50) if schedule.selects(epoch)]
    assert selecting == list(range(schedule.full_epochs, schedule.n_epochs, schedule.select_every))


@given(schedules)
def test_number_of_selections_is_counted_rightly(schedule):
    assert schedule.n_selections == sum(schedule.selects(epoch) for epoch in range(schedule.n_epochs))


@given(schedules, st.floats(0, 2))
def test_cost_is_that_of_the_epochs_one_by_one(schedule, selection_cost):
    total = 0.0
    for epoch in range(schedule.n_epochs):
        total += 1 if schedule.phase(epoch) == FULL else schedule.coreset_frac
        total += selection_cost * schedule.selects(epoch)
    assert schedule.cost(selection_cost) == pytest.approx(total)


@given(schedules, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_larger_coresets_never_cost_less(schedule, one, other):
    small, large = (
        CoresetSchedule(schedule.max_epochs, frac, schedule.select_every, schedule.warmup_frac)
        for frac in sorted([one, other])
    )
    assert small.cost() <= large.cost()


@given(schedules, st.integers(1, 50), st.integers(1, 50))
def test_rarer_selections_never_cost_more(schedule, one, other):
    often, rarely = (
        CoresetSchedule(schedule.max_epochs, schedule.coreset_frac, every, schedule.warmup_frac)
        for every in sorted([one, other])
    )
    assert rarely.cost() <= often.cost()


@given(schedules)
def test_free_selections_never_make_it_slower_than_ordinary_training(schedule):
    assert schedule.expected_speedup(selection_cost=0) >= 1


@given(schedules)
def test_speedup_is_ordinary_cost_over_this_cost(schedule):
    assert schedule.expected_speedup() * schedule.cost() == pytest.approx(schedule.max_epochs)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_epochs", 0), ("coreset_frac", 0.0), ("coreset_frac", 1.5), ("select_every", -3), ("warmup_frac", 1.0)],
)
def test_a_number_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be .*; got {value}"):
        CoresetSchedule(**{"max_epochs": 10, "coreset_frac": 0.5, name: value})


@pytest.mark.parametrize("value", ["10", None, True, [3], float("nan")])
@pytest.mark.parametrize("name", ["max_epochs", "coreset_frac", "select_every", "warmup_frac"])
def test_what_is_no_number_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be an? (int|number) "):
        CoresetSchedule(**{"max_epochs": 10, "coreset_frac": 0.5, name: value})
