"""What a fit will cost: passes against those of the fit itself, seconds against a clock set by hand."""

import random
import warnings
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from skorch.callbacks import Callback, EpochScoring, Freezer
from torch import nn
from torch.utils.data import Dataset

from sklearn_acs import (
    PGD,
    BulletTrain,
    CollapseGuard,
    CoresetSchedule,
    CostDisplay,
    Dynamics,
    InBatchSelection,
    RandomSelector,
    RobustClassifier,
    ScoreSelector,
    StabilityTracker,
)
from sklearn_acs.training import rehearsal
from sklearn_acs.training.cost import PHASES, PhaseCost
from sklearn_acs.training.estimate import CostEstimate, Forecast
from sklearn_acs.training.schedule import TimedSchedule

N = 128
X, y = (load_digits().images / 16).astype(np.float32)[:N], load_digits().target[:N]
TWO, REMEMBERED = PGD(eps=0.1, steps=2), PGD(eps=0.1, steps=1, init="previous")


class Streamed(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        return torch.tensor(X[i]), int(y[i])


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch):
    """Seconds are of no matter here."""
    monkeypatch.setattr(rehearsal, "SECONDS", 0.002)


def classifier(**params):
    settings = {"module": "mlp", "module__hidden": (16,), "attack": TWO, "max_epochs": 4, "batch_size": 32}
    return RobustClassifier(**{**settings, "random_state": 0, **params})


def passes(cost):
    return {phase: (spent.forwards, spent.backwards) for phase, spent in cost.items()}


def both(clf, *data, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of these networks learn one class
        return clf.estimate_cost(*data, **more), clf.fit(*data, **more).cost_


# Passes


@pytest.mark.parametrize(
    "params",
    [
        {"selector": None, "batch_size": 127},
        {"selector": None, "batch_size": 50, "in_batch": InBatchSelection(share=0.37)},
        {"in_batch": InBatchSelection(share=0.3, when="after"), "selector": "random", "batch_size": 30},
        {"selector": "gradmatch", "objective": "trades", "coreset_frac": 0.3, "select_by": "sample"},
        {"selector": "gradmatch", "attack": REMEMBERED, "select_every": 1},
        {"selector": "gradmatch", "warmup_frac": 0.0, "attack": REMEMBERED},
        {"selector": "craig", "attack": PGD(steps=1, init="previous", max_age=1), "select_every": 2, "max_epochs": 8},
        {"selector": "gradmatch", "selection_gradients": "last", "select_every": 1},
        {"selector": "gradmatch", "selection_attack": PGD(steps=1), "select_by": "class"},
        {"selector": "glister", "objective": "mart"},
        {"selector": "score", "selector__scores": "margin", "objective": "trades", "select_by": "class"},
        {"selector": ScoreSelector(scores=np.arange(128.0)), "select_by": "class"},
        {"selector": "random", "attack": PGD(steps=1, restarts=2), "augment": "crop"},
        {"objective": "natural", "selector": None, "early_stopping": True},
        {"callbacks": [StabilityTracker(minimum=True)], "attack_ramp": 0.5, "averaging": "ema"},
        {"callbacks": [Freezer("0.*"), EpochScoring("accuracy", name="right")], "early_stopping": True},
    ],
)
def test_passes_are_those_of_the_fit(params):
    early = params.get("early_stopping") and params.get("objective") != "natural"
    clf = classifier(**params)
    estimate, cost = both(clf, X, y)
    assert estimate.n_epochs == clf.schedule_.n_epochs
    for phase in set(PHASES) - ({"checks"} if early else set()):  # where samples predicted wrongly are spared
        assert passes(estimate)[phase] == passes(cost)[phase]


@pytest.mark.parametrize("workers", [0, 1])
def test_passes_on_a_dataset_are_those_of_the_fit(workers):
    clf = classifier(selector="gradmatch", iterator_train__num_workers=workers)
    estimate, cost = both(clf, Streamed())
    assert passes(estimate) == passes(cost)


def test_weights_and_validation_samples_are_those_of_the_fit():
    clf = classifier(selector="glister")
    estimate, cost = both(clf, X, y, np.arange(N) % 4, X_val=X[:50], y_val=y[:50])
    assert passes(estimate) == passes(cost) and cost["selection"].forwards > 0


def test_a_table_is_one_too():
    table, species = load_iris(return_X_y=True)
    estimate, cost = both(classifier(selector="craig", attack=None), table.astype(int), species)
    assert passes(estimate) == passes(cost)


@pytest.mark.parametrize(
    "params",
    [
        {"callbacks": [Dynamics(n_samples=40)]},
        {"early_stopping": True},
        {"objective": "fast", "attack": "fgsm"},
        {"attack": BulletTrain(TWO)},
        {"in_batch": InBatchSelection(share="adaptive")},
    ],
)
def test_what_is_spared_is_counted_as_if_nothing_were(params):
    estimate, cost = both(classifier(**params, selector=None), X, y)
    assert estimate.total.forwards > cost.total.forwards > 0.4 * estimate.total.forwards


def test_a_check_of_every_sample_is_counted_for_all_of_them():
    """Dynamics looks at 128 samples, all right: one forward pass, PGD's twenty, and another one."""
    estimate = classifier(callbacks=[Dynamics(PGD(eps=0.1, steps=20))], selector=None).estimate_cost(X, y)
    assert passes(estimate)["checks"] == (4 * N * 22, 4 * N * 20)


# Nothing else changes


def everything(clf):
    generators = torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()
    return repr(sorted(vars(clf))), repr(clf), repr([vars(each) for each in clf.callbacks or []]), generators


def test_the_classifier_its_parts_and_the_global_generators_stay_as_they_are():
    own = np.random.RandomState(1)
    clf = classifier(
        **{
            "callbacks": [Dynamics(), CollapseGuard(), StabilityTracker()],
            "selector": RandomSelector(random_state=own),
        },
        **{"random_state": np.random.RandomState(2), "in_batch": InBatchSelection()},
    )
    values = clf.get_params(deep=False)
    before, drawn = everything(clf), [repr(each.get_state()) for each in (own, clf.random_state)]
    clf.estimate_cost(X, y)
    assert everything(clf) == before and not hasattr(clf, "classes_")
    assert [repr(each.get_state()) for each in (own, clf.random_state)] == drawn
    assert all(value is values[name] for name, value in clf.get_params(deep=False).items())


@pytest.mark.parametrize("params", [{"selector": "gradmatch", "early_stopping": True}, {"module": None}])
def test_a_fit_afterwards_gives_the_same_bits(params):
    if params == {"module": None}:  # draws in every step
        params = {"module": nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)), "module__hidden": None}
    clf = classifier(**{"random_state": np.random.RandomState(0), **params})
    vars(clf).pop("module__hidden", None) if "module__hidden" in params else None
    alone = clone(clf).fit(X, y).decision_function(X)
    clf.estimate_cost(X, y)
    np.testing.assert_array_equal(clf.fit(X, y).decision_function(X), alone)


def test_a_warm_start_is_estimated_and_goes_on_as_if_nobody_had_asked():
    clf = classifier(warm_start=True, averaging="ema", selector="gradmatch").fit(X, y)
    asked, weights = deepcopy(clf), deepcopy(clf.net_.module_.state_dict())
    estimate = asked.estimate_cost(X, y)
    for name, value in asked.net_.module_.state_dict().items():
        assert torch.equal(value, weights[name])
    assert asked.cost_.total == clf.cost_.total
    np.testing.assert_array_equal(asked.fit(X, y).decision_function(X), clf.fit(X, y).decision_function(X))
    assert passes(estimate) == passes(clf.cost_)


def test_callbacks_of_ones_own_are_not_called():
    class Writes(Callback):
        def on_train_begin(self, net, **kwargs):
            raise AssertionError("called")

    estimate = classifier(callbacks=[("mine", Writes())]).estimate_cost(X, y)
    assert estimate.total.forwards > 0


@pytest.mark.parametrize(
    ("params", "data"),
    [
        ({"coreset_frac": 2.0}, (X, y)),
        ({"attack": PGD(eps=-1.0)}, (X, y)),
        ({}, (X, y[:-1])),
        ({}, (X, np.zeros(N))),
        ({"callbacks__mine__option": 1}, (X, y)),
        ({"callbacks": [EpochScoring("accuracy", on_train=False)]}, (X, y)),
        ({"callbacks": [Dynamics(n_samples=0)]}, (X, y)),
        ({"callbacks": "dynamics"}, (X, y)),
        ({"optimizer__momentum": "much"}, (X, y)),
    ],
)
def test_what_a_fit_would_raise_before_any_work_is_raised(params, data):
    with pytest.raises((ValueError, TypeError)) as fitting:
        classifier(**params).fit(*data)
    with pytest.raises(type(fitting.value)) as estimating:
        classifier(**params).estimate_cost(*data)
    assert str(estimating.value) == str(fitting.value)


# Seconds and epochs


def measured(**seconds):
    """What a rehearsal would have found: an epoch on all of 100 samples takes 2 seconds, one on a coreset of 50 one."""
    return SimpleNamespace(
        **{"setup": 1.0, "starting": 0.0, "checks": PhaseCost(), "n": 100, "n_select": 50, **seconds},
        epoch_of=lambda size, recorded: (PhaseCost(size, size, size / 50), PhaseCost(), size // 10),
        selection=lambda reads, recorded: PhaseCost(100, 0, 0.5),
        solving=PhaseCost(seconds=0.25),
        keeps_for=lambda epochs: False,
    )


def forecast(schedule, max_seconds=np.inf, **seconds):
    made = Forecast(schedule, max_seconds, schedule.n_steps(10, 5))
    made.go_through(measured(**seconds))
    return made.estimate


def test_phases_add_up_over_the_schedule():
    estimate = forecast(CoresetSchedule(8, 0.5, select_every=2), starting=3.0, checks=PhaseCost(1, 0, 0.125))
    seconds = {phase: spent.seconds for phase, spent in estimate.items()}
    assert seconds == {"setup": 1, "full": 7, "selection": 1, "solver": 0.5, "coreset": 4, "checks": 0.75}
    assert (estimate["full"].forwards, estimate["coreset"].forwards, estimate["selection"].forwards) == (200, 200, 200)
    assert estimate.n_epochs == 6 and estimate["checks"].forwards == 6


def test_without_an_end_as_many_epochs_come_as_fit_into_the_time():
    estimate = forecast(TimedSchedule(CoresetSchedule(30, 1.0), 12.0, endless=True), 12.0)
    assert estimate.n_epochs == 5.5 and estimate.total.seconds == 12
    estimate = forecast(TimedSchedule(CoresetSchedule(30, 1.0), 12.0, endless=True), 12.0, checks=PhaseCost(0, 0, 0.5))
    assert estimate.n_epochs == pytest.approx(10.5 / 2.5, abs=0.3) and estimate.total.seconds <= 12.1


def test_the_most_epochs_are_no_more_though_there_is_time():
    estimate = forecast(TimedSchedule(CoresetSchedule(3, 1.0), 60.0), 60.0)
    assert estimate.n_epochs == 3 and estimate.total.seconds == 7


def test_a_timed_training_on_coresets_has_their_phases():
    schedule = TimedSchedule(CoresetSchedule(30, 0.5, select_every=3), 60.0, endless=True)
    estimate = forecast(schedule, 60.0)
    assert estimate["full"].seconds == pytest.approx(30, abs=2)  # half of the cost, as of 30 epochs
    assert estimate["selection"].seconds == 0.5 * np.ceil((estimate.n_epochs - estimate["full"].seconds / 2) / 3)
    assert estimate.total.seconds == pytest.approx(60)


def test_max_seconds_is_what_the_estimate_comes_to():
    estimate = classifier(max_seconds=3.0, max_epochs=None, selector="random").estimate_cost(X, y)
    assert estimate.total.seconds == pytest.approx(3.0, rel=0.05) and estimate.n_epochs > 4


# Memory


def test_copies_of_the_data_are_counted_and_what_is_given_is_not():
    held = {name: classifier(selector=None).estimate_cost(X.astype(name), y).held["data"] for name in ("f4", "f8")}
    assert held["f4"] < 0.2 * X.nbytes
    assert held["f8"] - held["f4"] == pytest.approx(X.nbytes, abs=64)
    listed = classifier(selector=None).estimate_cost(X.tolist(), y).held["data"]
    assert listed > held["f4"] + X.nbytes


def test_remembered_perturbations_are_counted_in_memory_or_on_disk():
    size = N * (64 + 4 + 8)
    estimate = classifier(selector=None, attack=REMEMBERED).estimate_cost(X, y)
    assert (estimate.held["perturbations"], estimate.on_disk) == (size, 0)
    estimate = classifier(selector=None, attack=REMEMBERED).estimate_cost(Streamed())
    assert (estimate.held["perturbations"], estimate.on_disk) == (0, size)


def test_weights_gradients_momentum_average_and_the_copy_to_go_back_to_are_counted():
    n_weights = 4 * (64 * 16 + 16 + 16 * 10 + 10)
    plain = classifier(selector=None, averaging=None).estimate_cost(X, y).held["weights"]
    averaged = classifier(selector=None, averaging="ema").estimate_cost(X, y).held["weights"]
    generators = 2 * torch.get_rng_state().nbytes
    assert plain == pytest.approx(4 * n_weights + generators, rel=0.01)  # weights, gradients, momentum, copy
    assert averaged - plain == pytest.approx(2 * n_weights, rel=0.01)


def test_a_step_needs_more_for_larger_batches_and_a_selection_for_its_gradients():
    small, large = (classifier(selector="craig", select_by="sample", batch_size=size) for size in (32, 64))
    small, large = small.estimate_cost(X, y), large.estimate_cost(X, y)
    assert large.memory["full"] > small.memory["full"] > small.memory["setup"] > 0
    assert small.memory["solver"] > sum(small.held.values()) + 4 * N * (10 + 17)
    assert small.memory["checks"] == 0


# The object


def test_the_estimate_prints_as_the_cost_does_with_memory_and_epochs():
    estimate = classifier(selector="gradmatch").estimate_cost(X, y)
    assert isinstance(estimate, CostEstimate)
    lines = str(estimate).splitlines()
    assert lines[0].split() == ["phase", "forwards", "backwards", "seconds", "megabytes"]
    assert [line.split()[0] for line in lines[1:8]] == [*PHASES, "total"]
    assert lines[-1].startswith("3 epochs; megabytes held: ")
    frame = estimate.to_frame()
    assert list(frame.columns) == ["forwards", "backwards", "seconds", "memory"]
    assert frame.loc["total", "memory"] == max(estimate.memory.values())
    assert CostDisplay(cost=estimate).phases_ == ["setup", "full", "selection", "solver", "coreset"]
