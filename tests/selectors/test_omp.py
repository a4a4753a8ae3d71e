"""The pursuit against NNLS, scikit-learn's OMP and the edge cases that broke the published solver."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp_gram

from sklearn_acs.gradients import LastLayerGradients, as_gradients
from sklearn_acs.selectors._omp import (
    BUDGET,
    TOLERANCE,
    UNCORRELATED,
    GrowingCholesky,
    orthogonal_matching_pursuit,
)

seeds = st.integers(0, 2**16)


def random_matrix(seed, n=24, d=10, offset=0.3):
    return np.random.default_rng(seed).normal(size=(n, d)) + offset


def pursue(matrix, k, **options):
    return orthogonal_matching_pursuit(as_gradients(matrix), k, **options)


def matched(result):
    return result.indices[: result.n_matched], result.weights[: result.n_matched]


def residual_norm(matrix, result):
    support, weights = matched(result)
    return np.linalg.norm(matrix.sum(0) - weights @ matrix[support])


@pytest.mark.parametrize("ridge", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("center", [0.0, 2.0])
@pytest.mark.parametrize("atoms_per_step", [1, 4])
@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_weights_are_those_of_nnls_on_the_same_support(seed, ridge, center, atoms_per_step):
    matrix = random_matrix(seed)
    support, weights = matched(pursue(matrix, 8, ridge=ridge, center=center, atoms_per_step=atoms_per_step))
    penalty = np.sqrt(ridge * np.mean(np.sum(matrix**2, axis=1)))
    system = np.vstack([matrix[support].T, penalty * np.eye(len(support))])
    expected, _ = nnls(system, np.append(matrix.sum(0), np.full(len(support), penalty * center)))
    np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_support_is_that_of_scikit_learns_omp_where_no_weight_would_be_negative(seed):
    matrix = random_matrix(seed, n=30, d=60)
    coefficients = orthogonal_mp_gram(matrix @ matrix.T, matrix @ matrix.sum(0), n_nonzero_coefs=8)
    assert (coefficients >= 0).all()  # else the two solve different problems
    support, weights = matched(pursue(matrix, 8))
    assert set(support) == set(np.flatnonzero(coefficients))
    np.testing.assert_allclose(weights, coefficients[support])


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_residual_never_grows_with_k(seed):
    matrix = random_matrix(seed, n=16, d=8)
    norms = [residual_norm(matrix, pursue(matrix, k)) for k in range(1, 17)]
    assert (np.diff(norms) <= 1e-9 * norms[0]).all()


@pytest.mark.parametrize("ridge", [0.0, 0.1])
@settings(deadline=None, max_examples=20)
@given(seed=seeds, k=st.integers(1, 24), atoms_per_step=st.integers(1, 5))
def test_k_distinct_rows_with_weights_that_are_not_negative(seed, ridge, k, atoms_per_step):
    result = pursue(random_matrix(seed, d=6, offset=0), k, ridge=ridge, atoms_per_step=atoms_per_step)
    assert len(set(result.indices)) == len(result.indices) == len(result.weights) == k
    assert (matched(result)[1] > 0).all() and (result.weights >= 0).all()


@pytest.mark.parametrize("ridge", [0.0, 0.1, 1.0])
@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_with_the_whole_budget_nothing_better_exists(seed, ridge):
    """Rows dropped on the way may come back, as they must to reach the optimum that NNLS finds."""
    matrix = random_matrix(seed, n=20, d=24, offset=0.1)
    penalty = np.sqrt(ridge * np.mean(np.sum(matrix**2, axis=1)))
    _, best = nnls(np.vstack([matrix.T, penalty * np.eye(20)]), np.append(matrix.sum(0), np.zeros(20)))
    result = pursue(matrix, 20, ridge=ridge)
    objective = np.hypot(residual_norm(matrix, result), penalty * np.linalg.norm(matched(result)[1]))
    assert objective == pytest.approx(best, rel=1e-6, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_permuted_rows_permute_the_answer(seed):
    matrix = random_matrix(seed)
    order = np.random.default_rng(seed).permutation(len(matrix))
    plain, permuted = pursue(matrix, 8, ridge=0.01), pursue(matrix[order], 8, ridge=0.01)
    np.testing.assert_array_equal(order[permuted.indices], plain.indices)
    np.testing.assert_allclose(permuted.weights, plain.weights)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scale_of_the_gradients_changes_neither_picks_nor_weights(scale):
    matrix = random_matrix(0)
    plain, scaled = (pursue(factor * matrix, 9, ridge=0.05, tolerance=1e-3) for factor in (1, scale))
    np.testing.assert_array_equal(scaled.indices, plain.indices)
    np.testing.assert_allclose(scaled.weights, plain.weights)


def test_factors_and_the_written_out_matrix_give_the_same():
    rng = torch.Generator().manual_seed(0)
    factors = LastLayerGradients(
        [tuple(torch.randn(40, m, generator=rng, dtype=torch.float64) for m in (3, 5)) for _ in range(2)]
    )
    from_factors = orthogonal_matching_pursuit(factors, 12, ridge=0.01)
    from_matrix = pursue(np.asarray(factors), 12, ridge=0.01)
    np.testing.assert_array_equal(from_factors.indices, from_matrix.indices)
    np.testing.assert_allclose(from_factors.weights, from_matrix.weights)


def test_orthogonal_rows_are_all_matched_with_weight_one():
    result = pursue(np.eye(6), 6)
    np.testing.assert_array_equal(result.indices, np.arange(6))  # ties: the lowest index first
    np.testing.assert_allclose(result.weights, 1)


def test_one_row():
    result = pursue(np.array([[3.0, 4.0]]), 1)
    assert (result.indices, result.weights) == ([0], [1])


def test_duplicated_rows_are_matched_once_and_stand_for_all():
    matrix = np.repeat(np.eye(2), 3, axis=0)
    result = pursue(matrix, 4, tolerance=1e-6)
    assert result.n_matched == 2
    np.testing.assert_array_equal(result.indices, [0, 3, 1, 2])
    np.testing.assert_allclose(result.weights, 3)


def test_zero_rows_are_never_matched():
    matrix = random_matrix(1)
    matrix[::2] = 0
    support, _ = matched(pursue(matrix, len(matrix), ridge=0.1))
    assert (support % 2 == 1).all()


def test_all_zero_matrix_matches_nothing_and_fills_from_the_front_with_weight_one():
    result = pursue(np.zeros((5, 3)), 3)
    assert result.n_matched == 0
    np.testing.assert_array_equal(result.indices, [0, 1, 2])
    np.testing.assert_array_equal(result.weights, 1)


def test_constant_columns_need_a_single_atom():
    result = pursue(np.ones((7, 4)), 3, tolerance=1e-6)
    assert result.n_matched == 1
    np.testing.assert_allclose(result.weights[0], 7)


def test_stops_at_the_budget():
    assert pursue(random_matrix(2), 3).stop_reason == BUDGET


def test_stops_at_the_tolerance():
    matrix = random_matrix(2)
    result = pursue(matrix, 24, ridge=1e-3, tolerance=0.1)
    assert result.stop_reason == TOLERANCE
    assert residual_norm(matrix, result) <= 0.1 * np.linalg.norm(matrix.sum(0))
    before = pursue(matrix, result.n_matched - 1, ridge=1e-3)
    assert residual_norm(matrix, before) > 0.1 * np.linalg.norm(matrix.sum(0))


def test_stops_when_nothing_correlates():
    """The sum is (1, 0.1): the second row points away from what the first leaves."""
    result = pursue(np.array([[1.0, 0.2], [0.0, -0.1], [0.0, 0.0]]), 3, ridge=10.0)
    assert result.stop_reason == UNCORRELATED
    assert result.n_matched == 1


def test_dependent_row_is_not_admitted_to_the_factor():
    """A pursuit rarely gets there: such a row's correlation is zero, and rounding alone would admit it."""
    factor = GrowingCholesky(3)
    assert factor.append(np.empty(0), 4.0)
    assert not factor.append(np.array([2.0]), 1.0)
    assert factor.size == 1


@pytest.mark.parametrize("ridge, n_matched", [(0.0, 10), (0.01, 40)])
def test_without_ridge_the_rank_limits_the_matching_and_with_it_the_budget_does(ridge, n_matched):
    matrix = random_matrix(3, n=200, d=10)
    result = pursue(matrix, 40, ridge=ridge, tolerance=1e-9)
    assert result.n_matched <= n_matched
    assert (result.n_matched > 10) == (ridge > 0)


def test_fill_is_the_best_of_the_rest_with_the_mean_weight():
    matrix = random_matrix(4, n=60, d=5)
    result = pursue(matrix, 20, tolerance=1e-9)
    support, weights = matched(result)
    residual = matrix.sum(0) - weights @ matrix[support]
    rest = np.setdiff1d(np.arange(60), support)
    filler = result.indices[result.n_matched :]
    assert result.n_matched <= 5 and len(filler) == 20 - result.n_matched
    np.testing.assert_allclose(result.weights[result.n_matched :], weights.mean())
    left_out = np.setdiff1d(rest, filler)
    assert (matrix[filler] @ residual).min() >= (matrix[left_out] @ residual).max() - 1e-9


def test_weights_belong_to_their_indices_when_the_best_row_is_taken_already():
    """The published solver then appends the row without its index (algorithms.md 2.10, 8)."""
    matrix = np.vstack([np.full((3, 4), 2.0), random_matrix(5, n=6, d=4)])
    result = pursue(matrix, 9, ridge=1e-8)
    assert residual_norm(matrix, result) < 1e-4 * np.linalg.norm(matrix.sum(0))


@settings(deadline=None, max_examples=25)
@given(seed=seeds, removed=st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_factor_solves_as_if_built_anew_after_rows_left_it(seed, removed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(9, 6))
    matrix = rows @ rows.T + 0.1 * np.eye(9)
    factor, kept = GrowingCholesky(9), []

    def append(i):
        assert factor.append(matrix[kept, i], matrix[i, i])
        kept.append(i)

    for i in range(5):
        append(i)
    for i, position in enumerate(removed[:4]):
        factor.delete(position % len(kept))
        del kept[position % len(kept)]
        append(5 + i)
    rhs = rng.normal(size=len(kept))
    np.testing.assert_allclose(
        factor.solve(rhs), np.linalg.solve(matrix[np.ix_(kept, kept)], rhs), rtol=1e-8, atol=1e-10
    )
