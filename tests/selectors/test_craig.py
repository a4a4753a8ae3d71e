"""CRAIG does what it says; test_facility_location.py tests its greedy algorithm."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors import CRAIG, RandomSelector, _classes, craig


@pytest.fixture
def clusters():
    """Make twelve tight clusters of very different sizes."""
    rng = np.random.default_rng(0)
    sizes = [1, 1, 2, 2, 3, 5, 8, 13, 21, 34, 55, 89]
    labels = rng.permutation(np.repeat(np.arange(12), sizes))
    return 10 * rng.normal(size=(12, 6))[labels] + 0.01 * rng.normal(size=(len(labels), 6)), labels


def cost(G, indices):
    return np.linalg.norm(G[:, None] - G[indices], axis=2).min(axis=1).sum()


def test_takes_one_of_every_cluster_and_weighs_it_by_the_clusters_size(clusters):
    G, labels = clusters
    selector = CRAIG(n_select=12).fit(G)
    found = labels[selector.indices_]
    assert set(found) == set(range(12))
    np.testing.assert_array_equal(selector.weights_, np.bincount(labels)[found])
    assert selector.approximation_error_ < 1e-2


def test_covers_far_better_than_chance(clusters):
    """The published code takes indices of shuffled rows for those of the originals (algorithms.md 2.10, 1)."""
    G, _ = clusters
    by_chance = RandomSelector(n_select=12, random_state=0).fit(G)
    assert cost(G, CRAIG(n_select=12).fit(G).indices_) < cost(G, by_chance.indices_) / 50


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_a_single_pick_is_the_medoid_of_the_metric(metric):
    G = np.random.default_rng(1).exponential(size=(60, 3)) ** 3
    distances = np.linalg.norm(G[:, None] - G, axis=2) ** (2 if metric == "sqeuclidean" else 1)
    assert CRAIG(n_select=1, metric=metric).fit(G).indices_ == [distances.sum(0).argmin()]


def test_the_metrics_differ():
    G = np.random.default_rng(1).exponential(size=(60, 3)) ** 3
    picks = [CRAIG(n_select=6, metric=metric).fit(G).indices_ for metric in ("euclidean", "sqeuclidean")]
    assert not np.array_equal(*picks)


@pytest.mark.parametrize("n_select", [3, 9, 12])
def test_duplicates_are_distinct_picks_of_at_least_weight_one(n_select):
    """The published code picked 71 different rows of 120, and gave 49 picks weight 0 (algorithms.md 2.10, 2)."""
    G = np.tile(np.random.default_rng(2).normal(size=(4, 5)), (3, 1))
    selector = CRAIG(n_select=n_select).fit(G)
    assert len(set(selector.indices_)) == n_select
    assert selector.weights_.min() >= 1 and selector.weights_.sum() == 12


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("memory_budget", [1, 20_000])
def test_distances_computed_when_needed_give_the_same_as_the_kept_matrix(clusters, metric, per_class, memory_budget):
    G, y = clusters
    kept = CRAIG(n_select=30, metric=metric, per_class=per_class).fit(G, y)
    computed = CRAIG(n_select=30, metric=metric, per_class=per_class, memory_budget=memory_budget).fit(G, y)
    np.testing.assert_array_equal(computed.indices_, kept.indices_)
    np.testing.assert_array_equal(computed.weights_, kept.weights_)


@pytest.mark.parametrize("block", [7, 256])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_distances_are_those_of_the_written_out_gradients(metric, block, monkeypatch):
    monkeypatch.setattr(craig, "_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    factors = LastLayerGradients([tuple(torch.randn(20, m, generator=generator) for m in (3, 5)) for _ in range(2)])
    distances = craig._Distances(factors, metric, 10**6)
    expected = cdist(np.asarray(factors), np.asarray(factors), metric)
    expected *= distances.matrix().max().item() / expected.max()  # they come in units of their own
    np.testing.assert_allclose(distances.matrix(), expected, rtol=1e-4, atol=1e-5)
    for which in (3, slice(2, 5), np.array([4, 1])):
        np.testing.assert_allclose(distances.rows(which), expected[which], rtol=1e-4, atol=1e-5)


def test_the_memory_that_is_stated_holds(clusters, monkeypatch):
    """No block of rows is larger than the budget, and no n x n matrix is made."""
    G, _ = clusters
    largest = []
    between = craig._Distances._between

    def watch(self, left, right):
        found = between(self, left, right)
        largest.append(found.numel())
        return found

    monkeypatch.setattr(craig._Distances, "_between", watch)
    CRAIG(n_select=30, memory_budget=32 * 5 * len(G)).fit(G)
    assert max(largest) == 5 * len(G)


def test_stochastic_greedy_is_nearly_as_good_and_reproducible(clusters):
    G, _ = clusters
    exact = CRAIG(n_select=30).fit(G)
    one, same, other = (CRAIG(n_select=30, optimizer="stochastic", random_state=s).fit(G) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.indices_, same.indices_)
    assert set(one.indices_) != set(other.indices_)
    assert one.weights_.sum() == len(G)
    assert cost(G, exact.indices_) <= cost(G, one.indices_) <= 1.3 * cost(G, exact.indices_)


@pytest.mark.parametrize("n_bytes", [1, 10**9])
@pytest.mark.parametrize("n_select", [3, 30])
def test_classes_as_batches_give_what_they_give_one_by_one(clusters, n_bytes, n_select, monkeypatch):
    """The CPU runs what a GPU would."""
    G, _ = clusters
    y = np.random.default_rng(1).integers(0, 4, size=len(G))
    one_by_one = CRAIG(n_select=n_select, per_class=True).fit(G, y)
    monkeypatch.setattr(craig, "on_gpu", lambda gradients: True)
    monkeypatch.setattr(_classes, "_free_bytes", lambda device: n_bytes)
    batched = CRAIG(n_select=n_select, per_class=True).fit(G, y)
    np.testing.assert_array_equal(batched.indices_, one_by_one.indices_)
    np.testing.assert_array_equal(batched.weights_, one_by_one.weights_)


def test_near_copies_far_from_the_origin_are_told_apart(clusters):
    """Float32 inner products would lose squared distances of 1e-4 beside squared norms of 1e7."""
    shifted = (clusters[0] + 1e3).astype(np.float32)
    centred = shifted.astype(np.float64) - 1e3
    np.testing.assert_array_equal(CRAIG(n_select=30).fit(shifted).indices_, CRAIG(n_select=30).fit(centred).indices_)


@pytest.mark.parametrize("memory_budget", [1, 2**30])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e150])
def test_sizes_whose_squares_float32_cannot_hold_change_nothing(clusters, scale, metric, memory_budget):
    G, _ = clusters
    plain, scaled = (CRAIG(n_select=30, metric=metric, memory_budget=memory_budget).fit(s * G) for s in (1, scale))
    np.testing.assert_array_equal(scaled.indices_, plain.indices_)
    np.testing.assert_array_equal(scaled.weights_, plain.weights_)


def test_with_fewer_rows_than_classes_the_weights_add_up_to_the_samples_of_the_classes_with_a_row():
    y = np.repeat([0, 1, 2], [5, 3, 4])
    selector = CRAIG(n_select=2, per_class=True).fit(np.random.default_rng(0).normal(size=(12, 3)), y)
    assert set(y[selector.indices_]) == {0, 2}
    np.testing.assert_array_equal(selector.weights_, [5, 4])


def test_an_unknown_metric_is_named(clusters):
    with pytest.raises(ValueError, match="'metric' parameter of CRAIG"):
        CRAIG(metric="cosine").fit(clusters[0])
