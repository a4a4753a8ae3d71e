"""The pursuit agrees with NNLS and scikit-learn's OMP, and survives what broke the published solver."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp_gram

from sklearn_acs.gradients import LastLayerGradients, as_gradients
from sklearn_acs.selectors import _gram
from sklearn_acs.selectors._omp import (
    BUDGET,
    TOLERANCE,
    UNCORRELATED,
    fill_up,
    orthogonal_matching_pursuit,
)
from sklearn_acs.selectors._omp_batch import batched_matching_pursuit

seeds = st.integers(0, 2**16)


def random_matrix(seed, n=24, d=10, offset=0.3):
    return np.random.default_rng(seed).normal(size=(n, d)) + offset


def pursue(matrix, k, **options):
    return orthogonal_matching_pursuit(as_gradients(matrix), k, **options)


def matched(result):
    return result.indices, result.weights


def filled(matrix, k, result):
    return fill_up(as_gradients(matrix), k, result.indices)


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
def test_distinct_rows_with_weights_that_are_not_negative(seed, ridge, k, atoms_per_step):
    result = pursue(random_matrix(seed, d=6, offset=0), k, ridge=ridge, atoms_per_step=atoms_per_step)
    assert len(set(result.indices)) == len(result.indices) == len(result.weights) <= k
    assert (result.weights > 0).all()


@pytest.mark.parametrize("ridge", [0.0, 0.1, 1.0])
@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_with_the_whole_budget_nothing_better_exists(seed, ridge):
    """Dropped rows may come back, as they must to reach the optimum that NNLS finds."""
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
    result = pursue(np.repeat(np.eye(2), 3, axis=0), 4, tolerance=1e-6)
    np.testing.assert_array_equal(result.indices, [0, 3])
    np.testing.assert_allclose(result.weights, 3)


def test_zero_rows_are_never_matched():
    matrix = random_matrix(1)
    matrix[::2] = 0
    support, _ = matched(pursue(matrix, len(matrix), ridge=0.1))
    assert (support % 2 == 1).all()


def test_all_zero_matrix_matches_nothing():
    result = pursue(np.zeros((5, 3)), 3)
    assert len(result.indices) == 0
    assert result.stop_reason == TOLERANCE


def test_constant_columns_need_a_single_atom():
    result = pursue(np.ones((7, 4)), 3, tolerance=1e-6)
    np.testing.assert_array_equal(result.indices, [0])
    np.testing.assert_allclose(result.weights, 7)


def test_stops_at_the_budget():
    assert pursue(random_matrix(2), 3).stop_reason == BUDGET


def test_stops_at_the_tolerance():
    matrix = random_matrix(2)
    result = pursue(matrix, 24, ridge=1e-3, tolerance=0.1)
    assert result.stop_reason == TOLERANCE
    assert residual_norm(matrix, result) <= 0.1 * np.linalg.norm(matrix.sum(0))
    before = pursue(matrix, len(result.indices) - 1, ridge=1e-3)
    assert residual_norm(matrix, before) > 0.1 * np.linalg.norm(matrix.sum(0))


def test_stops_when_nothing_correlates():
    """The sum is (1, 0.1): the second row points away from what the first leaves."""
    result = pursue(np.array([[1.0, 0.2], [0.0, -0.1], [0.0, 0.0]]), 3, ridge=10.0)
    assert result.stop_reason == UNCORRELATED
    np.testing.assert_array_equal(result.indices, [0])


@pytest.mark.parametrize("ridge, n_matched", [(0.0, 10), (0.01, 40)])
def test_without_ridge_the_rank_limits_the_matching_and_with_it_the_budget_does(ridge, n_matched):
    matrix = random_matrix(3, n=200, d=10)
    result = pursue(matrix, 40, ridge=ridge, tolerance=1e-9)
    assert len(result.indices) <= n_matched
    assert (len(result.indices) > 10) == (ridge > 0)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, k=st.integers(1, 30))
def test_fill_uses_the_whole_budget_keeps_what_was_matched_and_the_error_low(seed, k):
    matrix = random_matrix(seed, n=30, d=5)
    result = pursue(matrix, k, tolerance=1e-9)
    indices, weights = filled(matrix, k, result)
    assert len(set(indices)) == len(indices) == k
    assert (weights > 0).all()
    kept = np.isin(result.indices, indices)
    np.testing.assert_array_equal(indices[: kept.sum()], result.indices[kept])
    by_chance = np.linalg.norm(matrix.sum(0) - 30 / k * matrix[:k].sum(0))
    allowed = max(by_chance, residual_norm(matrix, result)) + 1e-9  # rounding, where both are 0
    assert np.linalg.norm(matrix.sum(0) - weights @ matrix[indices]) <= allowed


def test_fill_of_the_whole_set_solves_the_ridge_problem():
    matrix = random_matrix(6, n=12, d=5, offset=1.0)
    indices, weights = filled(matrix, 12, pursue(matrix, 12))
    penalty = 0.1 * np.mean(np.sum(matrix**2, axis=1)) * np.eye(12)
    expected = np.linalg.solve(matrix @ matrix.T + penalty, matrix @ matrix.sum(0) + penalty.sum(0))
    assert (expected > 0).all()  # else NNLS would differ
    np.testing.assert_allclose(weights, expected[indices])


def test_fill_of_zeros_is_uniform_from_the_front():
    indices, weights = filled(np.zeros((6, 3)), 4, pursue(np.zeros((6, 3)), 4))
    np.testing.assert_array_equal(indices, [0, 1, 2, 3])
    np.testing.assert_allclose(weights, 1.5)


def test_fill_reaches_the_budget_also_where_rows_oppose_each_other():
    matrix = np.array([[1.0, 0.0], [-0.9, 0.0], [0.0, 0.1]])
    indices, weights = filled(matrix, 3, pursue(matrix, 3))
    assert set(indices) == {0, 1, 2}
    assert (weights > 0).all()


def test_weights_belong_to_their_indices_when_the_best_row_is_taken_already():
    """The published solver then appends the row without its index (algorithms.md 2.10, 8)."""
    matrix = np.vstack([np.full((3, 4), 2.0), random_matrix(5, n=6, d=4)])
    result = pursue(matrix, 9, ridge=1e-8)
    assert residual_norm(matrix, result) < 1e-4 * np.linalg.norm(matrix.sum(0))


ways = pytest.mark.parametrize("way", ["whole in float64", "whole", "by row"])


@pytest.fixture
def gram_kept(monkeypatch):
    """Make GramRows keep matrices of any size in one of its ways."""

    def choose(way):
        monkeypatch.setattr(_gram, "_DOUBLE_BYTES", 2**26 if way == "whole in float64" else 0)
        monkeypatch.setattr(_gram, "_WHOLE_BYTES", 0 if way == "by row" else 2**27)

    return choose


@ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_way_to_keep_the_gram_matrix_gives_the_same(way, dtype, gram_kept, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    factors = LastLayerGradients([tuple(torch.randn(90, m, generator=generator) for m in (4, 9)) for _ in range(2)])
    options = {"ridge": 0.05, "center": 2.0}
    expected = orthogonal_matching_pursuit(factors.to(torch.float64), 45, **options)
    gram_kept(way)
    monkeypatch.setattr(_gram, "_BLOCK", 32)
    monkeypatch.setattr(_gram, "_CHUNK", 5)
    result = orthogonal_matching_pursuit(factors.to(dtype), 45, **options)
    np.testing.assert_array_equal(result.indices, expected.indices)
    np.testing.assert_allclose(result.weights, expected.weights, rtol=1e-6)


@ways
@pytest.mark.parametrize("atoms_per_step", [1, 3])
@pytest.mark.parametrize("ridge, center", [(0.0, 0.0), (0.1, 2.0)])
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=seeds)
def test_a_batch_gives_what_each_problem_gives_alone(seed, way, atoms_per_step, ridge, center, gram_kept):
    gram_kept(way)
    problems = [as_gradients(random_matrix(seed + i, n=n, d=12, offset=0.1)) for i, n in enumerate((30, 18, 25, 1))]
    budgets, options = [20, 3, 25, 1], {"ridge": ridge, "atoms_per_step": atoms_per_step, "tolerance": 1e-5}
    if ridge == 0 and atoms_per_step > 1:
        budgets = [8, 3, 9, 1]  # a step that runs into the rank may take another of its rows
    batch = batched_matching_pursuit(problems, budgets, centers=[center] * 4, **options)
    for problem, k, result in zip(problems, budgets, batch, strict=True):
        alone = orthogonal_matching_pursuit(problem, k, center=center, **options)
        np.testing.assert_array_equal(result.indices, alone.indices)
        np.testing.assert_allclose(result.weights, alone.weights, rtol=1e-6)
        assert result.stop_reason == alone.stop_reason


@pytest.mark.parametrize("gap", [1e-4, 1e-6, 1e-7, 1e-8])
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_nearly_cancel_end_the_pursuit(gap, seed):
    """The pursuit does not try again and again a row that depends on the members."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(6, 8))
    matrix = np.vstack([rows, -rows + gap * rng.normal(size=(1, 8))])
    result = pursue(matrix, 12)
    assert len(set(result.indices)) == len(result.indices)
    assert set(filled(matrix, 12, result)[0]) == set(range(12))
    (batched,) = batched_matching_pursuit([as_gradients(matrix)], [12], ridge=0.0, centers=[0.0], tolerance=0.0)
    assert len(set(batched.indices)) == len(batched.indices)


@pytest.mark.parametrize("atoms_per_step", [3, 5])
@settings(deadline=None, max_examples=20)
@given(seed=seeds, n_zero=st.integers(6, 9))
def test_a_batch_admits_no_row_twice_when_there_are_fewer_candidates_than_atoms(seed, n_zero, atoms_per_step):
    matrix = random_matrix(seed, n=10, d=6)
    matrix[:n_zero] = 0
    options = {"ridge": 0.1, "tolerance": 0.0, "atoms_per_step": atoms_per_step}
    (batched,) = batched_matching_pursuit([as_gradients(matrix)], [10], centers=[1.0], **options)
    np.testing.assert_array_equal(batched.indices, pursue(matrix, 10, center=1.0, **options).indices)


def test_sizes_beyond_what_squares_can_hold_end_too():
    matrix = 1e100 * random_matrix(0)
    assert len(filled(matrix, 8, pursue(matrix, 8))[0]) == 8
