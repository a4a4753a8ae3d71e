"""The meter against a loop whose passes are counted by hand, and a clock that is set by hand."""

from time import sleep

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import Callback
from torch import nn

from sklearn_acs import RobustClassifier
from sklearn_acs.attacks import PGD
from sklearn_acs.training import cost as cost_module
from sklearn_acs.training.cost import PHASES, STEP_PARTS, Cost, CostMeter, PhaseCost, StepClock


@pytest.fixture
def clock(monkeypatch):
    """A clock with one hand, in seconds."""
    hand = [100.0]
    monkeypatch.setattr(cost_module, "perf_counter", lambda: hand[0])
    return hand


def model():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def passes(phase_cost):
    return phase_cost.forwards, phase_cost.backwards


def test_forwards_and_backwards_of_a_hand_made_loop_are_counted_in_samples():
    net, meter = model(), CostMeter()
    with meter.watching(net):
        meter.enter("full")
        for size in (8, 8, 5):
            net(torch.rand(size, 3)).sum().backward()
        with torch.no_grad():
            net(torch.rand(10, 3))
        meter.enter("coreset")
        net(torch.rand(4, 3)).sum().backward()
    assert passes(meter.cost["full"]) == (31, 21)
    assert passes(meter.cost["coreset"]) == (4, 4)
    assert passes(meter.cost.total) == (35, 25)


def test_passes_of_an_attack_are_counted():
    net, meter = model(), CostMeter()
    with meter.watching(net):
        PGD(eps=0.1, steps=7).perturb(net, torch.rand(6, 3), torch.zeros(6, dtype=torch.long))
    assert passes(meter.cost.total) == (42, 42)


def test_forward_without_a_backward_is_no_backward():
    net, meter = model(), CostMeter()
    with meter.watching(net):
        net(torch.rand(6, 3))
    assert passes(meter.cost.total) == (6, 0)


def test_backward_counts_in_the_phase_in_which_it_happens():
    net, meter = model(), CostMeter("full")
    with meter.watching(net):
        loss = net(torch.rand(6, 3)).sum()
        meter.enter("coreset")
        loss.backward()
    assert passes(meter.cost["full"]) == (6, 0)
    assert passes(meter.cost["coreset"]) == (0, 6)


def test_nothing_is_counted_outside():
    net, meter = model(), CostMeter()
    net(torch.rand(6, 3)).sum().backward()
    with meter.watching(net):
        pass
    net(torch.rand(6, 3)).sum().backward()
    assert passes(meter.cost.total) == (0, 0)


def test_an_error_inside_ends_the_counting():
    net, meter = model(), CostMeter()
    with pytest.raises(KeyError), meter.watching(net):
        raise KeyError
    net(torch.rand(6, 3))
    assert passes(meter.cost.total) == (0, 0)


def test_seconds_belong_to_the_phase_that_runs(clock):
    meter = CostMeter()
    clock[0] += 2
    meter.enter("full")
    clock[0] += 30
    meter.enter("selection")
    clock[0] += 4
    meter.enter("full")
    clock[0] += 500
    meter.enter("coreset")
    assert {phase: c.seconds for phase, c in meter.cost.items()} == {
        "setup": 2,
        "full": 530,
        "selection": 4,
        "solver": 0,
        "coreset": 0,
        "checks": 0,
    }


def test_seconds_of_the_phases_add_up_to_the_whole(clock):
    meter = CostMeter()
    clock[0] += 1.25
    with meter.watching(model()):
        for phase in PHASES:
            meter.enter(phase)
            clock[0] += 0.5
    assert meter.cost.total.seconds == clock[0] - 100
    assert sum(c.seconds for c in meter.cost.values()) == 1.25 + 0.5 * len(PHASES)


def test_seconds_are_kept_when_an_error_ends_the_run(clock):
    meter = CostMeter("full")
    with pytest.raises(KeyError), meter.watching(model()):
        clock[0] += 3
        raise KeyError
    assert meter.cost["full"].seconds == 3


def test_costs_of_two_phases_add_up():
    assert PhaseCost(1, 2, 3.0) + PhaseCost(10, 20, 30.0) == PhaseCost(11, 22, 33.0)


def test_cost_is_a_mapping_of_the_phases():
    assert list(Cost()) == list(PHASES)
    assert len(Cost()) == len(PHASES)
    with pytest.raises(KeyError):
        Cost()["dancing"]


def test_cost_prints_a_row_for_each_phase_the_total_and_the_parts():
    cost = Cost()
    cost["full"].forwards = 1_234_567
    cost["coreset"].seconds = 2.5
    *lines, parts = str(cost).splitlines()
    assert [line.split()[0] for line in lines] == ["phase", *PHASES, "total"]
    assert lines[2].split() == ["full", "1,234,567", "0", "0.00"]
    assert lines[-1].split() == ["total", "1,234,567", "0", "2.50"]
    assert parts == "seconds of full and coreset: 0.00 data, 0.00 attack, 0.00 update, 0.00 callbacks"


def test_the_parts_of_steps_are_timed_one_after_the_other(clock):
    steps = StepClock(torch.device("cpu"))
    steps.mark("callbacks")
    for seconds, part in ((1, "data"), (5, "attack"), (2, "update"), (0.5, "callbacks"), (1.5, "data")):
        clock[0] += seconds
        steps.mark(part)
    assert steps.read() == {"data": 2.5, "attack": 5, "update": 2, "callbacks": 0.5}
    clock[0] += 100  # between epochs
    steps.mark("callbacks")
    clock[0] += 3
    steps.mark("attack")
    assert steps.read() == {"data": 0, "attack": 3, "update": 0, "callbacks": 0}
    assert StepClock(torch.device("cpu")).read() == dict.fromkeys(STEP_PARTS, 0)


def test_a_fit_tells_where_the_seconds_of_its_epochs_went():
    X, y = load_digits(n_class=3, return_X_y=True)
    clf = RobustClassifier(attack="pgd", attack__steps=5, max_epochs=6, callbacks=[Slow()], random_state=0).fit(X, y)
    parts, cost = clf.cost_.step_seconds, clf.cost_
    assert set(parts) == set(STEP_PARTS)
    assert all(seconds > 0 for seconds in parts.values())
    assert parts["attack"] > parts["update"]
    assert parts["callbacks"] > 0.02 * len(clf.history_)
    assert sum(parts.values()) == pytest.approx(cost["full"].seconds + cost["coreset"].seconds, rel=0.3)
    assert "seconds of full and coreset" in repr(cost)


class Slow(Callback):
    """Takes its time once an epoch."""

    def on_batch_end(self, net, **kwargs):
        if net.history[-1, "batches", -1, "train_batch_size"] and len(net.history[-1, "batches"]) == 1:
            sleep(0.02)


def test_the_frame_has_a_row_for_each_phase_and_the_total():
    cost = Cost()
    cost["full"].forwards, cost["checks"].backwards, cost["setup"].seconds = 7, 5, 0.25
    frame = cost.to_frame()
    assert list(frame.index) == [*PHASES, "total"] and frame.index.name == "phase"
    assert frame.loc["full"].tolist() == [7, 0, 0] and frame.loc["total"].tolist() == [7, 5, 0.25]
    assert frame.dtypes["forwards"] == np.int64
