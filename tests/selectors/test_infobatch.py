"""InfoBatch: which samples it drops, with what weights, and that its estimate is unbiased."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import Callback

from sklearn_acs import RobustClassifier
from sklearn_acs.objectives import OBJECTIVES
from sklearn_acs.selectors import InfoBatch, RandomSelector, ScoreSelector
from sklearn_acs.training.schedule import CoresetSchedule
from sklearn_acs.training.selection import SELECT_BY

LOSSES = np.array([0.1, 0.2, 0.1, 0.3, 5.0, 6.0])
G = np.random.RandomState(0).normal(size=(6, 3))


def test_high_losses_are_kept_with_weight_1_and_small_ones_count_for_those_dropped():
    for seed in range(20):
        selector = InfoBatch(prune=0.75, random_state=seed).fit(G, losses=LOSSES)
        assert {4, 5} <= set(selector.indices_)
        np.testing.assert_array_equal(selector.weights_, np.where(selector.indices_ < 4, 4.0, 1.0))


def test_the_weighted_sum_is_unbiased():
    sums = [InfoBatch(random_state=seed).fit(G, losses=LOSSES).select(G, return_weights=True) for seed in range(4_000)]
    mean = np.mean([weights @ rows for rows, weights in sums], axis=0)
    np.testing.assert_allclose(mean, G.sum(0), atol=0.1)


def test_without_losses_all_are_kept():
    selector = InfoBatch(random_state=0).fit(G)
    np.testing.assert_array_equal(selector.indices_, np.arange(6))
    assert selector.approximation_error_ == 0


def test_losses_that_are_not_known_have_no_part_in_the_mean_and_are_kept():
    losses = np.array([np.nan, 1.0, 1.0, 4.0, np.nan, 1.0])
    for seed in range(20):
        selector = InfoBatch(prune=0.9, random_state=seed).fit(G, losses=torch.from_numpy(losses))
        assert {0, 3, 4} <= set(selector.indices_)
        np.testing.assert_allclose(selector.weights_[np.isin(selector.indices_, [0, 3, 4])], 1.0)


def test_per_class_compares_with_the_mean_of_the_class():
    y = np.array([0, 0, 0, 0, 1, 1])
    found = [set(InfoBatch(per_class=True, random_state=seed).fit(G, y, losses=LOSSES).indices_) for seed in range(40)]
    assert all({1, 3, 5} <= kept for kept in found)  # above the means 0.175 and 5.5
    assert not all(4 in kept for kept in found)


def test_there_is_no_n_select():
    assert "n_select" not in InfoBatch().get_params()
    with pytest.raises(TypeError, match="n_select"):
        InfoBatch(n_select=3)


@pytest.mark.parametrize("losses", [np.ones(5), np.full(6, np.inf), np.ones((6, 1))])
def test_losses_of_another_shape_or_infinite_are_refused(losses):
    with pytest.raises(ValueError, match="losses"):
        InfoBatch().fit(G, losses=losses)


# In training

X, Y = load_digits(return_X_y=True)
X, Y = (X.reshape(-1, 8, 8) / 16).astype("f4")[:400], Y[:400]


def fit(**options):
    options = {"module": "mlp", "max_epochs": 16, "attack__steps": 1, "random_state": 0, **options}
    return RobustClassifier(**options).fit(X, Y)


def test_a_classifier_drops_anew_in_every_epoch_and_ends_on_all_samples():
    clf = fit(selector="infobatch", warmup_frac=0.0)
    sizes = clf.history_[:, "coreset_size"]
    assert sizes[0] == 400  # no loss is known
    assert all(200 < size < 400 for size in sizes[1:14])
    assert len(set(sizes[1:14])) > 3
    assert sizes[14:] == [400, 400]  # 12.5 %
    assert clf.history_[:, "phase"] == ["coreset"] * 14 + ["full"] * 2
    assert clf.cost_["selection"].forwards == 0
    assert clf.score(X, Y) > 0.8


@pytest.mark.parametrize("select_by", SELECT_BY)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_goes_with_every_objective(objective, select_by):
    options = {"attack__steps": 1} if objective in ("adversarial", "trades", "mart") else {}
    clf = RobustClassifier(
        "mlp", objective=objective, selector="infobatch", select_by=select_by, max_epochs=6, random_state=0, **options
    ).fit(X, Y)
    losses = clf.history_[:, "train_loss"]
    assert losses[-1] < losses[0]
    assert clf.coreset_.weights.sum() == pytest.approx(400, rel=0.2)
    assert (clf.cost_["selection"].forwards, clf.cost_["selection"].backwards) == (0, 0)


def test_prune_is_a_parameter_and_coreset_frac_beside_it_an_error():
    few, many = (
        fit(selector="infobatch", selector__prune=prune, max_epochs=6).history_[:, "coreset_size"]
        for prune in (0.9, 0.1)
    )
    assert min(few) < min(many)
    with pytest.raises(ValueError, match="coreset_frac"):
        fit(selector="infobatch", coreset_frac=0.5)


def test_the_expected_speedup_takes_the_expected_size():
    schedule = fit(selector="infobatch", max_epochs=8, warmup_frac=0.0).schedule_
    assert schedule.coreset_frac == InfoBatch().expected_frac == 0.7
    assert schedule.expected_speedup(0.0) == pytest.approx(8 / (7 * 0.7 + 1))


def test_random_means_another_subset_in_every_epoch_whatever_select_every_says():
    seen = []

    class Note(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(net.training_.selection.last.indices)

    options = {"coreset_frac": 0.3, "warmup_frac": 0.0, "select_by": "sample", "select_every": 20, "max_epochs": 10}
    fit(selector="random", callbacks=[Note()], **options)
    assert [len(rows) for rows in seen] == [120] * 10
    assert all(len(set(rows)) == 120 for rows in seen)
    assert len(set(np.concatenate(seen[:3]))) == 360
    assert len(set(np.concatenate(seen[:4]))) == 400
    assert set(np.bincount(np.concatenate(seen))) == {3}


def test_random_draws_what_was_not_seen_first():
    seen = np.array([1, 0, 1, 0, 1, 1], dtype=bool)
    for seed in range(10):
        assert set(RandomSelector(n_select=2, random_state=seed).fit(G, seen=seen).indices_) == {1, 3}
        assert {1, 3} < set(RandomSelector(n_select=3, random_state=seed).fit(G, seen=seen).indices_)


def test_scores_given_as_numbers_choose_in_every_epoch_and_those_that_need_a_pass_at_every_tenth():
    by_numbers = fit(selector=ScoreSelector(scores=np.arange(400.0)), select_by="sample", warmup_frac=0.0)
    assert by_numbers.schedule_.n_selections == 16
    by_loss = fit(selector=ScoreSelector(scores="loss"), select_by="sample", warmup_frac=0.0, select_every=8)
    assert by_loss.schedule_.n_selections == 2


def test_final_epochs_are_on_all_data():
    clf = fit(selector="gradmatch", max_epochs=8, final_full=0.25, warmup_frac=0.0, select_every=3)
    assert clf.history_[:, "phase"] == ["coreset"] * 6 + ["full"] * 2
    assert clf.history_[-1, "coreset_size"] == 400
    assert clf.history_[-1, "approximation_error"] is None
    assert clf.history_[-1, "lr"] < clf.history_[-2, "lr"] / 2  # the rate's schedule ends with the last step


def test_a_schedule_counts_what_comes_last():
    schedule = CoresetSchedule(max_epochs=40, coreset_frac=0.5, select_every=5, warmup_frac=0.5, final_full=0.125)
    assert (schedule.warmup_epochs, schedule.coreset_epochs, schedule.final_epochs) == (10, 15, 5)
    assert (schedule.full_epochs, schedule.n_epochs, schedule.n_selections) == (15, 30, 3)
    assert schedule.cost(0.0) == 22.5
    with pytest.raises(ValueError, match="final_full"):
        CoresetSchedule(10, 0.5, warmup_frac=0.5, final_full=0.5)
