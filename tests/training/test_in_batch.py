"""In-batch selection: who is kept, what is attacked and trained on, the adaptive share, and what it costs."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EpochScoring
from torch.nn import functional as F

from sklearn_acs import PGD, BulletTrain, InBatchSelection, RobustClassifier, StabilityTracker

X = (load_digits(n_class=4).images / 16).astype(np.float32)[:96]
y = load_digits(n_class=4).target[:96]
STEPS = 3


class Record(Callback):
    """Remembers the batches and what of them was trained on."""

    def __init__(self):
        self.steps = []

    def on_batch_begin(self, net, batch=None, **kwargs):
        self.whole = batch

    def on_batch_end(self, net, batch=None, trained=None, inputs=None, loss=None, **kwargs):
        assert torch.equal(batch[0], trained.x)
        assert torch.equal(batch[1], trained.y)
        self.steps.append((self.whole, trained, inputs, loss))


def fit(in_batch, **params):
    record = Record()
    settings = {"selector": None, "max_epochs": 2, "attack": PGD(eps=0.1, steps=STEPS), "batch_size": 32}
    clf = RobustClassifier(in_batch=in_batch, **{**settings, "random_state": 0, "callbacks": [record], **params})
    return clf.fit(X, y), record


def still(in_batch, **params):
    """A training in which the model stands still."""
    module = fit(None, objective="natural", max_epochs=3)[0].net_.module_
    clf, record = fit(in_batch, module=module, lr=1e-12, **params)
    return clf.net_.module_.eval(), record


@pytest.mark.parametrize("objective", ["natural", "adversarial", "trades", "mart"])
def test_before_keeps_the_largest_clean_losses_and_attacks_only_them(objective):
    module, record = still(InBatchSelection(share=0.25), objective=objective)
    for (x, labels), trained, inputs, _ in record.steps:
        losses = F.cross_entropy(module(x), labels, reduction="none")
        hardest = losses.argsort(descending=True)[:8].sort().values
        assert torch.equal(trained.x, x[hardest])
        assert torch.equal(trained.y, labels[hardest])
        assert all(len(forwarded) == 8 for forwarded in inputs.values())


def test_after_adds_the_clean_samples_and_keeps_the_largest_losses_of_both():
    module, record = still(InBatchSelection(share=0.25, when="after"))
    assert len(record.steps) == 6
    for (x, labels), trained, inputs, loss in record.steps:
        losses = F.cross_entropy(module(inputs["adversarial"]), trained.y, reduction="none")
        clean = F.cross_entropy(module(x), labels, reduction="none")
        assert len(losses) == 16  # a quarter of 32 clean and 32 adversarial ones
        kept_clean = (trained.x == inputs["adversarial"]).flatten(1).all(1)
        left_out = np.setdiff1d(np.arange(32), [row_in(x, sample) for sample in trained.x[kept_clean]])
        assert losses.min() >= clean[left_out].max() - 1e-5
        assert loss.isfinite()


def row_in(x, sample):
    return int((x == sample).flatten(1).all(1).nonzero()[0])


def test_after_keeps_whole_samples_of_an_objective_with_two_branches():
    _, record = still(InBatchSelection(share=0.25, when="after"), objective="trades")
    for _, trained, inputs, _ in record.steps:
        assert set(inputs) == {"clean", "adversarial"}
        assert torch.equal(inputs["clean"], trained.x)
        assert len(trained.y) == 8


def test_the_loss_is_the_weighted_mean_over_what_is_kept():
    record = Record()
    module = fit(None, objective="natural")[0].net_.module_
    clf = RobustClassifier(module, objective="natural", selector=None, in_batch=InBatchSelection(share=0.25), lr=1e-12)
    clf.set_params(max_epochs=1, batch_size=32, random_state=0, callbacks=[record])
    weight_of_class = np.array([0.2, 1.0, 2.0, 3.0])
    clf.fit(X, y, sample_weight=weight_of_class[y])
    factor = torch.tensor(weight_of_class / weight_of_class[y].mean())
    for _, trained, inputs, loss in record.steps:
        losses = F.cross_entropy(clf.net_.module_.train()(inputs["clean"]), trained.y, reduction="none")
        torch.testing.assert_close(loss, (factor[trained.y] * losses).mean().float(), rtol=1e-3, atol=1e-4)


def test_everything_kept_is_ordinary_training():
    plain, _ = fit(None)
    kept, _ = fit(InBatchSelection(share=1.0))
    for mine, theirs in zip(plain.net_.module_.parameters(), kept.net_.module_.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("when", "objective", "clean", "adversarial"),
    [
        ("before", "adversarial", 0, 24),
        ("before", "trades", 24, 24),
        ("before", "natural", 24, 0),
        ("after", "trades", 24, 24),
        ("after", "natural", 24, 0),
    ],
)
def test_history_counts_what_was_taken(when, objective, clean, adversarial):
    clf, _ = fit(InBatchSelection(share=0.25, when=when), objective=objective)
    assert clf.history_[:, "clean_taken"] == [clean] * 2
    assert clf.history_[:, "adversarial_taken"] == [adversarial] * 2
    assert clf.history_[:, "in_batch_share"] == [0.25] * 2


def test_after_takes_more_adversarial_examples_than_clean_samples():
    clf, _ = fit(InBatchSelection(share=0.25, when="after"), max_epochs=4)
    last = clf.history_[-1]
    assert last["clean_taken"] + last["adversarial_taken"] == 48
    assert last["adversarial_taken"] > last["clean_taken"]


def test_cost_is_what_arithmetic_says():
    n, kept = len(X), len(X) // 4
    before = fit(InBatchSelection(share=0.25), max_epochs=1)[0].cost_["full"]
    assert before.forwards == n + kept * (STEPS + 1)
    assert before.backwards == kept * (STEPS + 1)
    after = fit(InBatchSelection(share=0.25, when="after"), max_epochs=1)[0].cost_["full"]
    assert after.forwards == n * STEPS + 2 * n + 2 * kept
    assert after.backwards == n * STEPS + 2 * kept


def test_adaptive_share_is_the_product_of_the_error_rates_down_to_a_floor():
    class Watch(Callback):
        errors = ()

        def on_epoch_end(self, net, **kwargs):
            wrong, judged = torch.stack(net.training_.in_batch._judged).sum(0).tolist()
            self.errors = (*self.errors, wrong / judged)

    watch = Watch()
    clf, _ = fit(InBatchSelection("adaptive", min_share=0.2), max_epochs=8, callbacks=[watch], lr=0.02)
    shares = [1.0]
    for error in watch.errors[:-1]:
        shares.append(max(0.2, shares[-1] * error))
    assert clf.history_[:, "in_batch_share"] == pytest.approx(shares)
    assert shares[1] < 1
    assert shares[-1] == 0.2


def test_a_batch_keeps_two_samples_for_batchnorm():
    _, record = fit(InBatchSelection(share=0.01), module="convnet")
    assert {len(trained.y) for _, trained, _, _ in record.steps} == {2}


def test_goes_with_a_coreset_and_a_tracker():
    tracker = StabilityTracker()
    clf, _ = fit(InBatchSelection(share=0.5), selector="craig", max_epochs=6, callbacks=[tracker])
    assert tracker.times_seen_.sum() == sum(clf.history_[:, "adversarial_taken"])
    assert clf.history_[-1, "adversarial_taken"] < 0.6 * clf.history_[-1, "coreset_size"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_skorchs_training_scores_are_those_of_what_was_trained_on(when):
    score = EpochScoring("accuracy", on_train=True, name="right")
    clf, _ = fit(InBatchSelection(share=0.5, when=when), callbacks=[score])
    assert all(0 <= right <= 1 for right in clf.history_[:, "right"])


def test_bullet_train_learns_from_whole_batches_also_where_the_hardest_are_chosen_after():
    seen = []

    class Watched(BulletTrain):
        def observe(self, adv_logits, y):
            seen.append(len(y))
            super().observe(adv_logits, y)

    fit(InBatchSelection(share=0.25, when="after"), attack=Watched(PGD(eps=0.1, steps=STEPS)))
    assert seen == [32] * 6


def test_the_adaptive_share_goes_on_in_partial_fit():
    clf, shares = RobustClassifier(in_batch=InBatchSelection("adaptive"), attack=PGD(steps=1), random_state=0), []
    for _ in range(4):
        clf.partial_fit(X, y)
        shares.append(clf.history_[-1, "in_batch_share"])
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1


def test_it_is_no_callback_for_the_list():
    with pytest.raises(ValueError, match="in_batch"):
        fit(None, callbacks=[InBatchSelection()])


def test_same_seed_same_bits_and_the_parameter_is_left_alone():
    given = InBatchSelection("adaptive")
    first, second = (fit(given)[0] for _ in range(2))
    for mine, theirs in zip(first.net_.module_.parameters(), second.net_.module_.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not hasattr(given, "share_")


def test_goes_into_a_grid():
    clf = RobustClassifier(in_batch=InBatchSelection(), selector=None, max_epochs=1, attack=PGD(steps=1))
    search = GridSearchCV(clf, {"in_batch__share": [0.5, 1.0], "in_batch__when": ["before", "after"]}, cv=2).fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert clone(InBatchSelection(0.3)).share == 0.3


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (InBatchSelection(share=0), "share"),
        (InBatchSelection(share="adapt"), "share"),
        (InBatchSelection(when="during"), "when"),
        (InBatchSelection(min_share=1.5), "min_share"),
        (0.5, "in_batch"),
    ],
    ids=repr,
)
def test_bad_parameter_is_named(bad, name):
    with pytest.raises(ValueError, match=name):
        fit(bad)
