"""Samples are held out for GLISTER, which sees their gradients, and are never trained on."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from skorch.callbacks import Callback
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import TensorDataset

from sklearn_acs import PGD, Glister, RobustClassifier
from sklearn_acs.data.holdout import hold_out
from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.training.selection import choose

X = (load_digits(n_class=3).images / 16).astype(np.float32)[:90]
y = load_digits(n_class=3).target[:90]


def fit(X=X, y=y, sample_weight=None, **params):
    settings = {"selector": "glister", "max_epochs": 4, "attack": PGD(eps=0.1, steps=2), "batch_size": 32}
    settings |= {"averaging": None, "random_state": 0}
    return RobustClassifier(**{**settings, **params}).fit(X, y, sample_weight)


def rows_of(samples):
    """Find the rows of X that have the samples' pixels."""
    places = {x.tobytes(): i for i, x in enumerate(X)}
    return {places[np.ascontiguousarray(x).tobytes()] for x in np.asarray(samples)}


def samples_of(data):
    return rows_of([data[i][0][0] for i in range(len(data))])


class Watch(Callback):
    """Records the samples trained on, those held out, and those that a selection may choose."""

    def on_epoch_begin(self, net, **kwargs):
        held_out, data = net.training_.held_out, net.training_.batches.data
        self.trained = getattr(self, "trained", set())
        self.held = samples_of(held_out.data) if held_out else set()
        self.offered = samples_of(data)

    def on_batch_begin(self, net, batch, **kwargs):
        self.trained |= rows_of(batch[0][:, 0])


# The split


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any),
    thousandths=st.integers(1, 999),
    seed=st.integers(0, 9),
)
def test_every_class_keeps_one_sample_and_gives_in_proportion_to_the_others(sizes, thousandths, seed):
    share = thousandths / 1000
    labels = np.random.RandomState(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    n_held, spare = ceil(Fraction(thousandths, 1000) * len(labels)), np.maximum(np.array(sizes) - 1, 0)
    if n_held > spare.sum():
        with pytest.raises(ValueError, match=f"validation_fraction={share} holds out {n_held} of {len(labels)}"):
            hold_out(labels, share, np.random.RandomState(seed))
        return
    kept, held = hold_out(labels, share, np.random.RandomState(seed))
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    assert len(held) == n_held
    given_away = np.bincount(labels[held], minlength=len(sizes))
    assert (np.abs(given_away - n_held * spare / spare.sum()) < 1).all()
    assert (given_away <= spare).all()


def test_all_samples_are_equally_likely_to_be_held_out():
    labels = np.arange(12) % 3
    held = [hold_out(labels, 0.5, np.random.RandomState(seed))[1] for seed in range(400)]
    np.testing.assert_allclose(np.bincount(np.concatenate(held)) / 400, 0.5, atol=0.12)


# In training


@pytest.mark.parametrize("select_by", ["sample", "class", "batch"])
@pytest.mark.parametrize("objective", ["natural", "adversarial", "trades"])
def test_held_out_samples_are_neither_trained_on_nor_selected(select_by, objective):
    watch, weight = Watch(), np.arange(len(X)) % 10 + 0.0
    weighted = np.flatnonzero(weight)
    clf = fit(sample_weight=weight, callbacks=[watch], select_by=select_by, objective=objective, select_every=1)
    assert len(watch.held) == 9  # a tenth of 81
    assert watch.held | watch.offered == set(weighted)
    assert watch.trained == watch.offered
    assert not watch.held & watch.offered
    assert set(clf.coreset_.indices) <= watch.offered
    assert len(clf.coreset_.indices) == 36


@pytest.mark.parametrize("params", [{"selector": "gradmatch"}, {"selector": None}, {"coreset_frac": 1.0}])
def test_nothing_is_held_out_where_no_selection_needs_it(params):
    watch = Watch()
    clf = fit(callbacks=[watch], **params)
    assert watch.held == set()
    assert watch.trained == set(range(len(X)))
    other = fit(validation_fraction=0.5, **params)
    np.testing.assert_array_equal(other.decision_function(X), clf.decision_function(X))
    clf = RobustClassifier(selector="glister", callbacks=[watch]).partial_fit(X, y)
    assert watch.held == set()


class Inspect(Callback):
    """Computes the held-out samples' gradients as a selection at the end of training would."""

    def on_epoch_end(self, net, **kwargs):
        training, adversary = net.training_, net.training_.selection.validating
        if training.epochs_done == training.schedule.n_epochs:
            held_out, state = training.held_out, adversary.generator.get_state()
            self.batches = list(held_out.everything())
            self.inputs = [adversary.inputs(net.module_, batch) for batch in self.batches]
            adversary.generator.set_state(state)
            self.gradients = training.selection.validation_gradients(net.module_)


@pytest.mark.parametrize("objective", ["natural", "adversarial", "trades"])
def test_validation_gradients_are_of_cross_entropy_at_the_adversarial_examples(objective):
    inspect = Inspect()
    clf = fit(
        objective=objective, callbacks=[inspect], sample_weight=np.linspace(0.5, 1.5, len(X)), validation_fraction=0.4
    )
    module = clf.net_.module_.eval()
    name = [n for n, m in module.named_modules() if isinstance(m, nn.Linear)][-1]
    last = {key: value.detach() for key, value in module.named_parameters() if key.startswith(name + ".")}

    def loss_of_one(weights, label, x):
        return nn.functional.cross_entropy(functional_call(module, weights, (x[None],)), label[None])

    rows = []
    for batch, inputs in zip(inspect.batches, inspect.inputs, strict=True):
        x = inputs["clean" if objective == "natural" else "adversarial"]
        assert torch.equal(x, batch.x) == (objective == "natural")
        g = vmap(grad(loss_of_one), in_dims=(None, 0, 0))(last, batch.y, x)
        rows.append(torch.cat([g[name + ".weight"], g[name + ".bias"][..., None]], dim=2).flatten(1))
    assert len(rows) == 2
    np.testing.assert_allclose(np.asarray(inspect.gradients), torch.cat(rows).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("select_by", ["sample", "class", "batch"])
def test_the_selector_gets_them_and_its_layer_moves(select_by):
    """GLISTER's layer would not move with the gradients of TRADES in place of the held-out samples'."""
    reason = fit(select_by=select_by, objective="trades").coreset_.stop_reason
    assert reason.removeprefix("of batches: ") == "all of the budget is used"


def test_the_attack_on_held_out_samples_is_counted():
    clf = fit(max_epochs=8, select_every=2, objective="natural", attack=None)
    assert clf.cost_["selection"].forwards == clf.schedule_.n_selections * len(X)
    clf = fit(max_epochs=8, select_every=2)
    assert clf.cost_["selection"].forwards == clf.schedule_.n_selections * len(X) * 3
    assert clf.cost_["selection"].backwards == clf.schedule_.n_selections * len(X) * 2


def test_the_same_random_state_holds_out_and_chooses_the_same():
    first, second, other = (fit(random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.decision_function(X), second.decision_function(X))
    np.testing.assert_array_equal(first.coreset_.indices, second.coreset_.indices)
    assert set(first.coreset_.indices) != set(other.coreset_.indices)


def test_a_dataset_and_the_arrays_in_it_train_the_same_model():
    weight = (y != 1).astype(float)
    streamed = fit(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), None, weight, validation_fraction=0.2)
    held = fit(sample_weight=weight, validation_fraction=0.2)
    np.testing.assert_allclose(streamed.decision_function(X), held.decision_function(X), atol=1e-5)
    np.testing.assert_array_equal(streamed.coreset_.indices, held.coreset_.indices)
    assert set(y[streamed.coreset_.indices]) == {0, 2}


def test_batches_are_steps_of_the_length_of_a_samples():
    """Sums of the gradients of b samples would make the virtual step b times as long."""
    seen = []

    class Spy(Glister):
        def fit(self, G, y=None, validation=None):
            seen.append(G)
            return super().fit(G, y, validation)

    one = torch.ones(640, 1), torch.ones(640, 5)
    choose(Spy(), LastLayerGradients([one]), torch.zeros(640), "batch", 320, 10, np.random.RandomState(0))
    torch.testing.assert_close(seen[0], torch.ones(64, 5))


@pytest.mark.parametrize(
    "params, words",
    [
        ({"validation_fraction": 0.0}, "'validation_fraction' parameter"),
        ({"validation_fraction": 1.0}, "'validation_fraction' parameter"),
        ({"X": X[:3], "y": y[:3]}, r"validation_fraction=0\.1 holds out 1 of 3 samples.*leaves 0"),
        ({"validation_fraction": 0.99}, r"validation_fraction=0\.99 holds out 90 of 90 samples.*leaves 87"),
    ],
)
def test_a_share_that_cannot_be_held_out_is_named_before_any_work(params, words, monkeypatch):
    monkeypatch.setattr(PGD, "_attack", None)
    with pytest.raises(ValueError, match=words):
        fit(**params)
