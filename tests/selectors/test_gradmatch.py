"""GradMatch does what it says; test_omp.py tests its pursuit."""

import numpy as np
import pytest

from sklearn_acs.gradients import as_gradients
from sklearn_acs.selectors import GradMatch, RandomSelector, _classes, gradmatch
from sklearn_acs.selectors._omp import orthogonal_matching_pursuit


@pytest.fixture
def G():
    return np.random.default_rng(0).normal(size=(200, 30)) + 0.2


def test_hands_the_pursuit_its_parameters(G):
    parameters = {"ridge": 0.3, "tolerance": 1e-2, "atoms_per_step": 2}
    selector = GradMatch(n_select=20, ridge_center="zero", **parameters).fit(G)
    expected = orthogonal_matching_pursuit(as_gradients(G), 20, **parameters)
    np.testing.assert_array_equal(selector.indices_, expected.indices)
    np.testing.assert_array_equal(selector.weights_, expected.weights)


def test_uniform_center_is_the_weight_of_a_random_subset(G):
    selector = GradMatch(n_select=20, ridge=0.3).fit(G)
    expected = orthogonal_matching_pursuit(as_gradients(G), 20, ridge=0.3, center=len(G) / 20, tolerance=1e-6)
    np.testing.assert_array_equal(selector.weights_, expected.weights)


def test_a_strong_uniform_ridge_makes_all_weights_n_over_k(G):
    np.testing.assert_allclose(GradMatch(n_select=20, ridge=1e9).fit(G).weights_, len(G) / 20, rtol=1e-4)


def test_matches_far_better_than_chance(G):
    by_chance = RandomSelector(n_select=40, random_state=0).fit(G).approximation_error_
    assert GradMatch(n_select=40).fit(G).approximation_error_ < by_chance / 10


def test_larger_budgets_match_better(G):
    errors = [GradMatch(n_select=k, ridge=0.0).fit(G).approximation_error_ for k in (5, 10, 20)]
    assert errors[0] > errors[1] > errors[2]


def test_says_that_it_filled_the_budget(G):
    selector = GradMatch(n_select=60, ridge=0.0).fit(G)
    assert selector.n_matched_ <= 30 < len(selector.indices_) == 60
    assert "fill" in selector.stop_reason_


def test_several_atoms_a_step_cost_accuracy_but_not_distinctness(G):
    one, many = (GradMatch(n_select=20, atoms_per_step=m).fit(G) for m in (1, 5))
    assert len(set(many.indices_)) == 20
    assert one.approximation_error_ <= many.approximation_error_


@pytest.mark.parametrize("parameters", [{"ridge": -1.0}, {"tolerance": -0.1}, {"atoms_per_step": 0}], ids=str)
def test_a_bad_parameter_is_named(parameters, G):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"'{name}' parameter of GradMatch"):
        GradMatch(**parameters).fit(G)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("n_bytes", [1, 60_000, 10**9])
@pytest.mark.parametrize("n_select", [2, 40])
def test_classes_as_batches_give_what_they_give_one_by_one(G, ridge, n_bytes, n_select, monkeypatch):
    """The CPU runs what a GPU would; a budget of 2 leaves some classes without a row."""
    y = np.random.default_rng(1).integers(0, 4, size=len(G))
    one_by_one = GradMatch(n_select=n_select, ridge=ridge, per_class=True).fit(G, y)
    monkeypatch.setattr(gradmatch, "on_gpu", lambda gradients: True)
    monkeypatch.setattr(_classes, "_free_bytes", lambda device: n_bytes)
    batched = GradMatch(n_select=n_select, ridge=ridge, per_class=True).fit(G, y)
    np.testing.assert_array_equal(batched.indices_, one_by_one.indices_)
    np.testing.assert_allclose(batched.weights_, one_by_one.weights_, rtol=1e-6)
    assert batched.stop_reason_ == one_by_one.stop_reason_
