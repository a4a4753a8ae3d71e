"""GLISTER agrees with autograd, which differentiates the validation loss anew at each layer it moves to."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from torch.nn.functional import cross_entropy

from sklearn_acs.gradients import LastLayerGradients, as_gradients
from sklearn_acs.selectors import Glister, _classes, glister
from sklearn_acs.selectors.glister import FIXED, TAYLOR

N, M, C, D, K = 40, 15, 3, 4, 10
generator = torch.Generator().manual_seed(0)
W = torch.randn(C, D + 1, generator=generator, dtype=torch.float64)


def draw(n):
    """Draw inputs of the last layer, with their one, and labels."""
    h = torch.randn(n, D, generator=generator, dtype=torch.float64)
    return torch.cat([h, torch.ones(n, 1)], dim=1), torch.randint(C, (n,), generator=generator)


TRAIN, VALIDATION = draw(N), draw(M)


def validation_gradient(layer):
    """Differentiate the mean validation loss by the weights of the layer."""
    layer = layer.clone().requires_grad_()
    return torch.autograd.grad(cross_entropy(VALIDATION[0] @ layer.T, VALIDATION[1]), layer)[0]


def factors(h1, labels):
    return LastLayerGradients([((h1 @ W.T).softmax(1) - torch.eye(C)[labels], h1)])


def make_gradients(form):
    """Make training gradients at W, of cross-entropy or of a loss with two branches."""
    one = factors(*TRAIN)
    g, h1 = one.branches[0]
    return {
        "factors": one,
        "two branches": LastLayerGradients([(g, h1), (g.roll(1, 1), h1.flip(0))]),
        "tensor": one.dense(),
        "array": one.dense().numpy(),
    }[form]


G, V = make_gradients("factors"), factors(*VALIDATION)


def by_hand(gradients, sizes, rate):
    """Run the paper's greedy algorithm on written-out gradients."""
    dense = torch.as_tensor(np.asarray(gradients)).reshape(N, C, D + 1)
    picks = []
    for size in sizes:
        gains = (dense * validation_gradient(W - rate * dense[picks].sum(0))).sum((1, 2))
        gains[picks] = -torch.inf
        picks += gains.argsort(descending=True)[:size].tolist()
    return picks


@pytest.mark.parametrize("form", ["factors", "two branches", "tensor", "array"])
@pytest.mark.parametrize("step, eta, rate", [("mean", 3.0, 3.0 / K), ("sum", 0.5, 0.5), ("mean", 0.0, 0.0)])
def test_picks_are_those_of_the_loss_computed_anew_by_autograd(form, step, eta, rate):
    gradients = make_gradients(form)
    naive = Glister(n_select=K, method="naive", eta=eta, step=step).fit(gradients, validation=V)
    assert list(naive.indices_) == by_hand(gradients, [1] * K, rate)
    rounds = Glister(n_select=K, method="r-greedy", rounds=3, eta=eta, step=step).fit(gradients, validation=V)
    assert list(rounds.indices_) == by_hand(gradients, [3, 3, 4], rate)
    assert naive.stop_reason_ == rounds.stop_reason_ == TAYLOR


def test_the_step_changes_the_picks():
    """DeepCore's GLISTER never moves the layer (algorithms.md 2.7)."""
    assert set(by_hand(G, [1] * K, 3.0 / K)) != set(by_hand(G, [K], 0.0))


def test_one_draw_of_all_candidates_is_naive_and_few_are_nearly_as_good():
    def loss_after(selector):
        step = 3.0 * G.take(selector.fit(G, validation=V).indices_).sum().reshape(C, D + 1) / K
        return float(cross_entropy(VALIDATION[0] @ (W - step).T, VALIDATION[1]))

    naive, everything = Glister(n_select=K, method="naive", eta=3.0), Glister(n_select=K, eta=3.0, subsample_eps=1e-9)
    few = Glister(n_select=K, eta=3.0, subsample_eps=0.1, random_state=0)
    before, best = float(cross_entropy(VALIDATION[0] @ W.T, VALIDATION[1])), loss_after(naive)
    assert loss_after(everything) == best
    assert before - loss_after(few) > 0.8 * (before - best) > 0
    assert list(few.indices_) != list(naive.indices_)


def test_candidates_are_drawn_by_the_random_state():
    def draw(random_state):
        return Glister(n_select=K, random_state=random_state).fit(G, validation=V).indices_.tolist()

    assert draw(0) == draw(0) != draw(1)
    state = np.random.RandomState(0)
    assert draw(state) != draw(state)


# A gradient that stays fixed


@pytest.mark.parametrize("method", ["naive", "stochastic", "r-greedy"])
@pytest.mark.parametrize("form", ["factors", "two branches", "tensor"])
def test_of_a_matrix_the_largest_products_with_its_mean_are_chosen(method, form):
    gradients = make_gradients(form)
    expected = (np.asarray(gradients) @ np.asarray(V).mean(0)).argsort()[::-1][:K]
    for validation in (np.asarray(V), V.dense(), as_gradients(V.dense()), np.asarray(V).mean(0)[None].tolist()):
        selector = Glister(n_select=K, method=method).fit(gradients, validation=validation)
        np.testing.assert_array_equal(selector.indices_, expected)
        assert selector.stop_reason_ == FIXED


def test_without_validation_the_gradients_stand_for_it_themselves():
    for form, reason in (("factors", TAYLOR), ("two branches", FIXED), ("tensor", FIXED), ("array", FIXED)):
        gradients = make_gradients(form)
        selector = Glister(n_select=K, method="naive").fit(gradients)
        assert selector.stop_reason_ == reason
        validation = gradients if reason == TAYLOR else np.asarray(gradients)
        again = Glister(n_select=K, method="naive").fit(gradients, validation=validation)
        np.testing.assert_array_equal(selector.indices_, again.indices_)


# Budgets, classes, ties


@settings(deadline=None, max_examples=60)
@given(
    k=st.integers(1, N),
    rounds=st.integers(1, 2 * N),
    method=st.sampled_from(["naive", "stochastic", "r-greedy"]),
    eta=st.sampled_from([0.0, 1.0, 1e30, 1e308]),
    subsample_eps=st.sampled_from([1e-300, 0.01, 1 - 1e-16]),
)
def test_every_budget_is_used_up_exactly(k, rounds, method, eta, subsample_eps):
    """The published code never ends for k < rounds and overshoots k elsewhere (algorithms.md 2.7)."""
    selector = Glister(n_select=k, method=method, rounds=rounds, eta=eta, subsample_eps=subsample_eps, random_state=0)
    for gradients in (G, make_gradients("tensor")):
        indices = selector.fit(gradients, validation=V).indices_
        assert len(indices) == len(set(indices.tolist())) == k


def test_every_class_is_chosen_for_all_validation_samples_and_takes_its_share_of_the_step():
    y = TRAIN[1].numpy()
    whole = Glister(n_select=K, method="naive", eta=2.0, per_class=True).fit(G, y, validation=V)
    for label in range(C):
        rows = np.flatnonzero(y == label)
        mine = whole.indices_[y[whole.indices_] == label]
        alone = Glister(n_select=len(mine), method="naive", eta=2.0 / K, step="sum").fit(G.take(rows), validation=V)
        np.testing.assert_array_equal(mine, rows[alone.indices_])
        np.testing.assert_allclose(whole.weights_[y[whole.indices_] == label], len(rows) / len(mine))


@pytest.mark.parametrize("method", ["naive", "r-greedy"])
def test_the_order_of_the_rows_does_not_matter(method):
    order = np.random.default_rng(0).permutation(N)
    reference = Glister(n_select=K, method=method, rounds=4).fit(G, validation=V).indices_
    permuted = Glister(n_select=K, method=method, rounds=4).fit(G.take(order), validation=V).indices_
    np.testing.assert_array_equal(order[permuted], reference)


@pytest.mark.parametrize("form", ["factors", "tensor"])
@pytest.mark.parametrize("method", ["naive", "r-greedy", "stochastic"])
@pytest.mark.parametrize("validation", [V, V.dense()], ids=["factors", "matrix"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_equal_rows_the_first_ones_are_chosen(form, method, validation, dtype):
    """Matrix products round equal rows in different places differently."""
    copies = np.arange(7 * N) % N
    gradients = make_gradients(form)
    gradients = (gradients.take(copies) if form == "factors" else gradients[copies]).to(dtype)
    selector = Glister(n_select=3 * K, method=method, subsample_eps=1e-30, rounds=4).fit(
        gradients, validation=validation
    )
    for row in set(copies[selector.indices_]):
        chosen = np.sort(selector.indices_[copies[selector.indices_] == row])
        np.testing.assert_array_equal(chosen, row + N * np.arange(len(chosen)))


@pytest.mark.parametrize("form", ["factors", "two branches", "tensor"])
@pytest.mark.parametrize("method", ["naive", "stochastic", "r-greedy"])
@pytest.mark.parametrize("n_bytes", [1, 30_000, 10**9])
@pytest.mark.parametrize("n_select", [2, 17, N])
def test_classes_as_batches_give_what_they_give_one_by_one(form, method, n_bytes, n_select, monkeypatch):
    """The CPU runs what a GPU would; a budget of 2 leaves a class without a row."""
    gradients, y = make_gradients(form), TRAIN[1].numpy()
    selector = Glister(n_select=n_select, method=method, eta=3.0, rounds=4, random_state=0)
    for per_class in (False, True):
        one_by_one = clone(selector).set_params(per_class=per_class).fit(gradients, y, validation=V)
        with monkeypatch.context() as patch:
            patch.setattr(glister, "on_gpu", lambda gradients: True)
            patch.setattr(_classes, "_free_bytes", lambda device: n_bytes)
            batched = clone(selector).set_params(per_class=per_class).fit(gradients, y, validation=V)
        np.testing.assert_array_equal(batched.indices_, one_by_one.indices_)
        np.testing.assert_array_equal(batched.weights_, one_by_one.weights_)
        assert batched.stop_reason_ == one_by_one.stop_reason_


def test_weights_are_those_of_a_plain_mean():
    assert set(Glister(n_select=8).fit(G, validation=V).weights_.tolist()) == {5.0}


# What cannot be used


def bad_validation():
    (g, h1), nan = V.branches[0], torch.nan
    return {
        "two branches": (LastLayerGradients([(g, h1)] * 2), "2 branches"),
        "too heavy": (LastLayerGradients([(2 * g, h1)]), r"softmax - onehot.*row \d+ is \["),
        "another sign": (LastLayerGradients([(-g, h1)]), "softmax - onehot"),
        "sum": (LastLayerGradients([(g + 0.1, h1)]), "softmax - onehot"),
        "label smoothing": (LastLayerGradients([(g - 0.1 / C + 0.1 * torch.eye(C)[VALIDATION[1]], h1)]), "softmax"),
        "width": (V.dense()[:, 1:], r"same layer as G.*\(40, 15\).*\(15, 14\)"),
        "classes": (LastLayerGradients([(torch.ones(M, D + 1), torch.ones(M, C))]), "same layer"),
        "no sample": (V.take(torch.arange(0)), r"at least one sample, got shape \(0, 15\)"),
        "nan": (LastLayerGradients([(nan * g, h1)]), "finite"),
        "a vector": (V.dense()[0], r"shape \(n, d\)"),
    }


@pytest.mark.parametrize("case", bad_validation())
def test_validation_of_another_form_is_refused_with_what_is_wrong(case):
    validation, words = bad_validation()[case]
    with pytest.raises(ValueError, match=words):
        Glister().fit(G, validation=validation)


@pytest.mark.parametrize(
    "name, value",
    [("method", "lazy"), ("eta", -1.0), ("step", "median"), ("rounds", 0), ("subsample_eps", 0.0)],
)
def test_parameters_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter of Glister"):
        Glister(**{name: value}).fit(G)
