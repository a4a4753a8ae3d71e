"""Selection inside training: the right gradients, the right subsets, and weights that act."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import Callback
from torch import nn
from torch.func import functional_call, grad, vmap

from sklearn_acs import CRAIG, PGD, GradMatch, RandomSelector, RobustClassifier, ScoreSelector
from sklearn_acs.data.batches import Batches
from sklearn_acs.gradients import LastLayerGradients, as_gradients, batch_factors
from sklearn_acs.training.passes import gradient_sums, last_layer_gradients, sample_scores
from sklearn_acs.training.selection import choose, coreset_size

X = (load_digits(n_class=3).images / 16).astype(np.float32)[:90]
y = load_digits(n_class=3).target[:90]


class Inspect(Callback):
    """Looks at the gradients that a selection would see at the end of training."""

    def on_epoch_end(self, net, **kwargs):
        training, adversary = net.training_, net.step_.adversary
        if training.epochs_done == training.schedule.n_epochs:
            self.batches = list(training.batches.everything())
            state = adversary.generator.get_state()
            self.inputs = [adversary.inputs(net.module_, batch) for batch in self.batches]
            adversary.generator.set_state(state)
            layer = training.selection.layer
            self.gradients = last_layer_gradients(net.module_, layer, training.batches, adversary)
            self.groups = np.random.RandomState(0).permutation(len(X)) % 7
            adversary.generator.set_state(state)
            self.sums = gradient_sums(net.module_, layer, training.batches, adversary, self.groups)


@pytest.mark.parametrize("objective", ["natural", "adversarial", "trades"])
def test_selection_gradients_equal_autograd_at_the_same_adversarial_examples(objective):
    inspect = Inspect()
    weight = np.linspace(0.5, 1.5, len(X))
    clf = RobustClassifier(
        objective=objective,
        attack=PGD(eps=0.1, steps=3),
        coreset_frac=0.5,
        averaging=None,
        max_epochs=4,
        batch_size=32,
        callbacks=[inspect],
        random_state=0,
    ).fit(X, y, sample_weight=weight)
    module, loss = clf.net_.module_.eval(), clf.net_.criterion_.loss
    name = [n for n, m in module.named_modules() if isinstance(m, nn.Linear)][-1]
    last = {key: value.detach() for key, value in module.named_parameters() if key.startswith(name + ".")}

    def loss_of_one(weights, label, factor, inputs):
        logits = {b: functional_call(module, weights, (x[None],)) for b, x in inputs.items()}
        return factor * loss(logits, label[None])[0]

    rows = []
    for batch, inputs in zip(inspect.batches, inspect.inputs, strict=True):
        g = vmap(grad(loss_of_one), in_dims=(None, 0, 0, 0))(last, batch.y, batch.weight, inputs)
        rows.append(torch.cat([g[name + ".weight"], g[name + ".bias"][..., None]], dim=2).flatten(1))
    rows = torch.cat(rows).detach().numpy()
    np.testing.assert_allclose(np.asarray(inspect.gradients), rows, atol=1e-5)
    sums = np.stack([rows[inspect.groups == group].sum(0) for group in range(7)])
    np.testing.assert_allclose(inspect.sums, sums, atol=1e-4)


def test_batches_are_chosen_alike_by_sums_and_by_the_gradients_of_samples():
    gradients = make_gradients(640)

    def sums(groups):
        return gradients.mean_by(groups) * torch.from_numpy(np.bincount(groups))[:, None]

    ours, other = (
        choose(GradMatch(), each, torch.zeros(640), "batch", 200, 10, np.random.RandomState(0))
        for each in (sums, gradients)
    )
    np.testing.assert_array_equal(ours.indices, other.indices)
    np.testing.assert_allclose(ours.weights, other.weights)
    assert ours.error == pytest.approx(other.error)


def make_gradients(n=60, d=5):
    return as_gradients(torch.from_numpy(np.random.default_rng(0).normal(size=(n, d)) + 0.3))


def test_by_sample_and_by_class_are_the_selector_itself():
    gradients, labels = make_gradients(), torch.arange(60) % 3
    for by, per_class in (("sample", False), ("class", True)):
        found = choose(GradMatch(), gradients, labels, by, 12, 10, np.random.RandomState(0))
        alone = GradMatch(n_select=12, per_class=per_class).fit(gradients, labels).coreset_
        np.testing.assert_array_equal(found.indices, alone.indices)
        np.testing.assert_array_equal(found.weights, alone.weights)


def test_by_batch_takes_whole_batches_with_one_weight_each_and_an_honest_error():
    gradients, labels = make_gradients(640), torch.zeros(640)
    found = choose(GradMatch(), gradients, labels, "batch", 200, 10, np.random.RandomState(0))
    groups = np.random.RandomState(0).permutation(640) % 64
    assert len(found.indices) == 200
    for group in np.unique(groups[found.indices]):
        assert len(np.unique(found.weights[groups[found.indices] == group])) == 1
    dense = np.asarray(gradients)
    gap = found.weights @ dense[found.indices] - dense.sum(0)
    assert found.error == pytest.approx(np.linalg.norm(gap) / np.linalg.norm(dense.sum(0)))


@pytest.mark.parametrize("selector", [GradMatch(), CRAIG(), RandomSelector()])
@pytest.mark.parametrize("by", ["sample", "class", "batch"])
def test_the_coreset_has_the_size_asked_for_and_no_row_twice(selector, by):
    found = choose(selector, make_gradients(), torch.arange(60) % 3, by, 30, 10, np.random.RandomState(0))
    assert len(found.indices) == len(np.unique(found.indices)) == 30
    assert coreset_size(60, 0.5, by, 10) == 30


def test_a_random_selector_draws_from_the_state_given_and_leaves_its_own_unset():
    selector, state = RandomSelector(), np.random.RandomState(0)
    first, second = (choose(selector, None, torch.zeros(60), "sample", 30, 10, state) for _ in "ab")
    assert set(first.indices) != set(second.indices)
    assert selector.random_state is None
    assert np.isnan(first.error)
    again = choose(selector, None, torch.zeros(60), "sample", 30, 10, np.random.RandomState(0))
    np.testing.assert_array_equal(again.indices, first.indices)


def test_batch_wise_weights_change_the_update(monkeypatch):
    """Regression: scaled within each mini-batch, weights that a whole batch shares cancel."""
    settings = {"select_by": "batch", "max_epochs": 4, "batch_size": 15, "attack__steps": 1, "random_state": 0}
    settings["selector__ridge"] = 1e-3
    weighted = RobustClassifier(**settings).fit(X, y)
    weights = weighted.coreset_.weights
    assert weights.std() > 0.1 * weights.mean()

    original = Batches.use_coreset
    monkeypatch.setattr(Batches, "use_coreset", lambda self, rows, weights: original(self, rows, np.ones_like(weights)))
    unweighted = RobustClassifier(**settings).fit(X, y)
    gap = np.abs(weighted.decision_function(X) - unweighted.decision_function(X)).max()
    assert gap > 1e-2


def test_the_coreset_covers_every_class_in_proportion_when_chosen_by_class():
    clf = RobustClassifier(coreset_frac=0.5, select_by="class", max_epochs=2, random_state=0).fit(X, y)
    chosen = np.bincount(y[clf.coreset_.indices])
    np.testing.assert_allclose(chosen, np.bincount(y) / 2, atol=1)


def test_a_small_data_set_is_not_all_or_nothing_by_batch():
    clf = RobustClassifier(coreset_frac=0.5, max_epochs=2, batch_size=128, random_state=0).fit(X, y)
    assert abs(len(clf.coreset_.indices) - len(X) / 2) <= 2


@pytest.mark.parametrize("own", [None, 3, np.random.RandomState(3)])
def test_every_selection_of_a_random_selector_is_fresh(own):
    drawn = []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            drawn.append(tuple(sorted(net.training_.batches.indices.tolist())))

    RobustClassifier(
        objective="natural",
        selector=RandomSelector(random_state=own),
        select_every=1,
        warmup_frac=0.0,
        max_epochs=4,
        callbacks=[Watch()],
        random_state=0,
    ).fit(X, y)
    assert len(set(drawn)) == 4


def test_coreset_indices_point_into_x_also_where_samples_of_weight_zero_are_left_out():
    weight = (y != 1).astype(float)
    clf = RobustClassifier(coreset_frac=0.5, max_epochs=2, random_state=0).fit(X, y, sample_weight=weight)
    assert set(y[clf.coreset_.indices]) == {0, 2}


def test_a_last_layer_without_bias_has_no_column_for_it():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False))
    factors = batch_factors(
        module, module[1], lambda z, y: nn.functional.cross_entropy(z["clean"], y, reduction="none"),
        {"clean": torch.from_numpy(X)}, torch.from_numpy(y),
    )  # fmt: skip
    gradient = LastLayerGradients(factors).sum().reshape(3, 64)
    loss = nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(y), reduction="sum")
    torch.testing.assert_close(gradient, torch.autograd.grad(loss, module[1].weight)[0], rtol=1e-4, atol=1e-5)


class InspectScores(Callback):
    """Looks at the scores that a selection would see after an epoch, and at the same adversarial examples."""

    def on_epoch_end(self, net, **kwargs):
        batches, adversary, self.scores = net.training_.batches, net.step_.adversary, {}
        state = adversary.generator.get_state()
        for name in ("loss", "margin"):
            adversary.generator.set_state(state)
            self.scores[name] = sample_scores(net.module_, name, batches, adversary)
        adversary.generator.set_state(state)
        self.seen = [(adversary.inputs(net.module_, batch), batch.y) for batch in batches.everything()]


@pytest.mark.parametrize("objective", ["natural", "adversarial", "trades"])
def test_scores_are_loss_and_margin_at_the_same_adversarial_examples(objective):
    inspect = InspectScores()
    clf = RobustClassifier(
        objective=objective, attack="pgd", averaging=None, max_epochs=1, batch_size=32, callbacks=[inspect]
    ).fit(X, y, sample_weight=np.linspace(0.5, 1.5, len(X)))
    module, losses, margins = clf.net_.module_.eval(), [], []
    for inputs, labels in inspect.seen:
        logits = {branch: module(x).detach() for branch, x in inputs.items()}
        losses += clf.net_.criterion_.loss(logits, labels).tolist()
        for z, label in zip(list(logits.values())[-1], labels, strict=True):
            p = np.exp(z.double().numpy()) / np.exp(z.double().numpy()).sum()
            margins.append(p[label] - np.delete(p, label).max())
    np.testing.assert_allclose(inspect.scores["loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(inspect.scores["margin"], margins, atol=1e-5)


def select_by_score(parameter, by="sample", n=60, gradients=None, k=15, order="highest", **given):
    selector = ScoreSelector(scores=parameter, order=order)
    return choose(selector, gradients, torch.arange(n) % 3, by, k, 10, np.random.RandomState(0), **given)


def test_scores_choose_the_same_as_a_parameter_and_from_the_model():
    scores = np.random.default_rng(0).normal(size=60)
    for by in ("sample", "class", "batch"):
        ours, given = select_by_score(scores, by), select_by_score("loss", by, scores=torch.tensor(scores))
        np.testing.assert_array_equal(ours.indices, given.indices)
        assert np.isnan(ours.error)
    np.testing.assert_array_equal(select_by_score(scores).indices, np.argsort(-scores)[:15])


@pytest.mark.parametrize("order", ["highest", "lowest"])
def test_a_batch_scores_what_its_samples_do_on_average(order):
    gradients, groups = make_gradients(645), np.random.RandomState(0).permutation(645) % 65
    own = np.random.default_rng(0).normal(size=645)
    for scores, values in ((own, own), ("gradient_norm", gradients.norms().numpy())):
        found = select_by_score(scores, "batch", 645, gradients, 200, order)
        means = np.array([values[groups == group].mean() for group in range(65)])
        best = np.argsort(-means if order == "highest" else means)[:20]
        np.testing.assert_array_equal(found.indices, np.flatnonzero(np.isin(groups, best)))


@pytest.mark.parametrize(
    "scores, forwards, backwards",
    [("loss", 4, 3), ("margin", 4, 3), ("gradient_norm", 4, 3), (np.linspace(0, 1, 90), 0, 0)],
    ids=["loss", "margin", "gradient_norm", "array"],
)
@pytest.mark.parametrize("by", ["sample", "batch"])
def test_a_selection_by_scores_costs_one_attack_and_one_forward_or_nothing(scores, forwards, backwards, by):
    clf = RobustClassifier(
        selector="score", selector__scores=scores, select_by=by, max_epochs=2, attack=PGD(eps=0.1, steps=3)
    ).fit(X, y)
    cost = clf.cost_["selection"]
    assert (cost.forwards, cost.backwards) == (forwards * len(X), backwards * len(X))
    assert np.isnan(clf.coreset_.error) == (not isinstance(scores, str) or scores != "gradient_norm")


def test_the_highest_losses_and_the_lowest_margins_are_much_the_same_samples():
    settings = {"selector": "score", "select_by": "sample", "coreset_frac": 0.2, "warmup_frac": 0.9, "max_epochs": 10}
    settings |= {"attack": PGD(eps=0.1, steps=2), "random_state": 0}
    chosen = RobustClassifier(selector__scores="loss", **settings).fit(X, y).coreset_.indices
    easy = RobustClassifier(selector__scores="loss", selector__order="lowest", **settings).fit(X, y)
    assert not set(chosen) & set(easy.coreset_.indices)
    by_margin = RobustClassifier(selector__scores="margin", selector__order="lowest", **settings).fit(X, y)
    assert len(set(chosen) & set(by_margin.coreset_.indices)) > len(chosen) / 2


def test_an_array_of_scores_is_cut_to_the_samples_of_positive_weight():
    scores = np.random.default_rng(0).permutation(len(X))
    weight = (y != 1).astype(float)
    clf = RobustClassifier(
        selector=ScoreSelector(scores=scores), select_by="sample", coreset_frac=0.3, max_epochs=2, attack__steps=1
    ).fit(X, y, sample_weight=weight)
    left = np.flatnonzero(weight)
    np.testing.assert_array_equal(clf.coreset_.indices, left[np.argsort(-scores[left])][: len(clf.coreset_.indices)])
    np.testing.assert_array_equal(clf.selector.scores, scores)  # the user's own is left as it is


def test_an_array_of_scores_that_is_not_aligned_with_x_is_refused_before_any_work():
    with pytest.raises(ValueError, match=r"scores must have one value for each of the 90 samples, got shape \(89,\)"):
        RobustClassifier(selector="score", selector__scores=np.ones(89), module=pytest.fail).fit(X, y)
    RobustClassifier(selector="score", selector__scores=np.ones(89), attack__steps=1).partial_fit(X, y)


def test_losses_that_are_not_finite_are_a_divergence():
    class BreaksInEvaluation(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 3)

        def forward(self, x):
            return self.linear(x.flatten(1)) * (1 if self.training else np.nan)

    with pytest.raises(FloatingPointError, match="before epoch 2: gradients or losses are not finite"):
        RobustClassifier(
            BreaksInEvaluation(), objective="natural", selector="score", selector__scores="loss", max_epochs=4
        ).fit(X, y)
