"""Greedy facility location agrees with exhaustive search and the textbook's loop."""

import gc
import weakref
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_acs.selectors import _facility_location
from sklearn_acs.selectors._facility_location import (
    batched_facility_location,
    facility_location,
    stochastic_facility_location,
)

seeds = st.integers(0, 2**16)
sizes_and_seeds = {"seed": seeds, "n": st.integers(1, 8), "k": st.integers(1, 8)}


def random_distances(seed, n):
    points = np.random.default_rng(seed).normal(size=(n, 2))
    return np.linalg.norm(points[:, None] - points, axis=2)


def solve(distances, k):
    return facility_location(distances.__getitem__, len(distances), k)


def stochastic(rows, n, k):
    """Draw all points as candidates of every step."""
    return stochastic_facility_location(rows, n, k, n, np.random.RandomState(0))


def value(distances, chosen):
    return np.sum(distances.max() - distances[:, list(chosen)].min(axis=1))


def textbook_greedy(distances, k):
    """Pick the best point at every step, rounding gains since two neighbours often gain the same."""
    chosen = []
    for _ in range(k):
        rest = [j for j in range(len(distances)) if j not in chosen]
        chosen.append(max(rest, key=lambda j: round(value(distances, [*chosen, j]), 9)))
    return chosen


@settings(deadline=None, max_examples=40)
@given(**sizes_and_seeds)
def test_picks_are_those_of_the_textbooks_loop(seed, n, k):
    distances, k = random_distances(seed, n), min(k, n)
    np.testing.assert_array_equal(solve(distances, k)[0], textbook_greedy(distances, k))


@settings(deadline=None, max_examples=40)
@given(**sizes_and_seeds)
def test_value_is_within_the_guarantee_of_the_optimum(seed, n, k):
    distances, k = random_distances(seed, n), min(k, n)
    optimum = max(value(distances, subset) for subset in combinations(range(n), k))
    assert value(distances, solve(distances, k)[0]) >= (1 - 1 / np.e) * optimum - 1e-9


@settings(deadline=None, max_examples=20)
@given(seed=seeds, n=st.integers(1, 40))
def test_a_single_pick_is_the_optimum(seed, n):
    distances = random_distances(seed, n)
    assert solve(distances, 1)[0] == [distances.sum(0).argmin()]


@settings(deadline=None, max_examples=20)
@given(seed=seeds, k=st.integers(1, 60))
def test_sizes_count_the_nearest_points(seed, k):
    distances = random_distances(seed, 60)
    picks, sizes = solve(distances, k)
    np.testing.assert_array_equal(sizes, np.bincount(distances[:, picks].argmin(axis=1), minlength=k))


@pytest.mark.parametrize("k", [1, 5, 12])
def test_duplicates_are_picked_once_each_and_none_weighs_nothing(k):
    """The published code maps equal points to one index, which leaves weights of zero (algorithms.md 2.10, 2)."""
    distances = np.kron(1 - np.eye(4), np.ones((3, 3)))
    picks, sizes = solve(distances, k)
    assert len(set(picks)) == k
    assert sizes.min() >= 1 and sizes.sum() == 12


def test_ties_go_to_the_lowest_index_and_to_the_earliest_pick():
    picks, sizes = solve(np.kron(1 - np.eye(3), np.ones((2, 2))), 4)
    np.testing.assert_array_equal(picks, [0, 2, 4, 1])
    np.testing.assert_array_equal(sizes, [1, 2, 2, 1])


def test_all_points_equal():
    picks, sizes = solve(np.zeros((5, 5)), 3)
    np.testing.assert_array_equal(picks, [0, 1, 2])
    np.testing.assert_array_equal(sizes, [3, 1, 1])


def test_blocks_of_rows_do_not_change_the_answer(monkeypatch):
    distances = random_distances(0, 50)
    expected = solve(distances, 20)
    monkeypatch.setattr(_facility_location, "_BLOCK_BYTES", 50 * 8 * 7)  # seven rows a block
    for got, want in zip(solve(distances, 20), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_float32_distances_give_the_same_picks():
    distances = random_distances(1, 80)
    np.testing.assert_array_equal(solve(distances, 30)[0], solve(distances.astype(np.float32), 30)[0])


@settings(deadline=None, max_examples=25)
@given(seed=seeds, k=st.integers(1, 40), at_once=st.sampled_from([1, 2, 64]))
def test_looking_at_several_rows_at_once_changes_nothing(seed, k, at_once):
    distances = random_distances(seed, 40)
    got = facility_location(distances.__getitem__, 40, k, at_once=at_once)
    for one, other in zip(got, solve(distances, k), strict=True):
        np.testing.assert_array_equal(one, other)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, k=st.integers(1, 40), n_candidates=st.integers(1, 40))
def test_stochastic_picks_are_distinct_and_of_all_candidates_the_greedy_ones(seed, k, n_candidates):
    distances = random_distances(seed, 40)
    rng = np.random.RandomState(seed)
    picks, sizes = stochastic_facility_location(distances.__getitem__, 40, k, n_candidates, rng)
    assert len(set(picks)) == k and sizes.sum() == 40 and sizes.min() >= 1
    if n_candidates == 40:
        np.testing.assert_array_equal(picks, solve(distances, k)[0])


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_a_batch_gives_what_each_problem_gives_alone(seed):
    sizes, budgets = [12, 5, 1, 9], [4, 5, 1, 9]
    problems = [random_distances(seed + i, n) for i, n in enumerate(sizes)]
    padded = torch.full((4, 12, 12), torch.nan, dtype=torch.float64)
    for matrix, distances in zip(padded, problems, strict=True):
        matrix[: len(distances), : len(distances)] = torch.from_numpy(distances)
    found = batched_facility_location(padded, sizes, budgets)
    for distances, k, (picks, points) in zip(problems, budgets, found, strict=True):
        alone = solve(distances, k)
        np.testing.assert_array_equal(picks, alone[0])
        np.testing.assert_array_equal(points, alone[1])


def test_a_batch_reads_nothing_from_the_device_before_the_end(reads):
    with reads() as seen:
        batched_facility_location(torch.rand(2, 9, 9), [9, 4], [5, 4])
    assert seen == []


def test_a_step_looks_only_at_points_that_could_be_the_best():
    distances, looks = random_distances(0, 200), []

    def rows(which):
        looks.append(np.size(np.arange(200)[which]))
        return distances[which]

    facility_location(rows, 200, 100)
    assert sum(looks) < 200 * 10  # looking at all would be 100 * 200 / 2


@pytest.mark.parametrize("choose", [partial(facility_location, at_once=4), stochastic], ids=["lazy", "stochastic"])
def test_rows_are_looked_up_in_blocks_and_not_kept(choose, monkeypatch):
    monkeypatch.setattr(_facility_location, "_BLOCK_BYTES", 40 * 8 * 5)
    distances, alive = random_distances(0, 40), []

    def rows(which):
        found = distances[which].copy()
        alive.append(weakref.ref(found))
        gc.collect()
        assert sum(ref() is not None and ref().size for ref in alive) <= 40 * 12
        assert found.size <= 40 * 5
        return found

    choose(rows, 40, 10)
