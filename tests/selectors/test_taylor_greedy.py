"""taylor_greedy solves several problems at once as lists and loops solve them one after the other."""

from math import ceil, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.random import sample_without_replacement

from sklearn_acs.gradients import LastLayerGradients, as_gradients
from sklearn_acs.selectors._cross_entropy import CrossEntropy, FixedGradient
from sklearn_acs.selectors._taylor_greedy import _round_sizes, largest, taylor_greedy

C, D1, RATE = 3, 5, 0.3
SIZES = (20, 7, 1, 13)


def factors(seed, n):
    """Make gradients as a classifier does."""
    rng = np.random.default_rng(seed)
    g = torch.from_numpy(2 * rng.normal(size=(n, C))).softmax(1) - torch.eye(C)[rng.integers(0, C, size=n)]
    return LastLayerGradients([(g, torch.from_numpy(rng.normal(size=(n, D1))))])


LOSS = CrossEntropy.of(factors(2**16, 12))

FORMS = {
    "factors": factors,
    "two branches": lambda seed, n: LastLayerGradients(
        [factors(seed, n).branches[0], factors(seed + 9, n).branches[0]]
    ),
    "matrix": lambda seed, n: as_gradients(factors(seed, n).dense()),
    "every row three times": lambda seed, n: factors(seed, n).take(np.arange(n) % (n // 3 + 1)),
    "zeros": lambda seed, n: LastLayerGradients([(0 * g, h1) for g, h1 in factors(seed, n).branches]),
}
METHODS = {
    "naive": {},
    "r-greedy": {"rounds": 4},
    "few candidates": {"eps": 0.5},
    "many candidates": {"eps": 1e-3},
    "all candidates": {"eps": 1e-300},
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def solve(problems, budgets, *, loss=LOSS, rounds=None, eps=None):
    some = None
    if eps is not None:
        some = [ceil(len(problem) / k * log(1 / eps)) for problem, k in zip(problems, budgets, strict=True)]
    rngs = [np.random.RandomState(i) for i in range(len(problems))]
    return taylor_greedy(problems, budgets, loss, rate=RATE, rounds=rounds, n_candidates=some, rngs=rngs)


def by_loops(gradients, k, seed, *, rounds=None, eps=None):
    """Solve one problem with lists, drawing candidates when their turn comes; return each round's picks."""
    loss, left, rng, picks = LOSS, list(range(len(gradients))), np.random.RandomState(seed), []
    n_candidates = len(left) if eps is None else ceil(len(left) / k * log(1 / eps))
    rounds = k if rounds is None else min(rounds, k)
    for size in np.diff(np.arange(rounds + 1) * k // rounds):
        some = left
        if n_candidates < len(left):
            some = [left[i] for i in sorted(sample_without_replacement(len(left), n_candidates, random_state=rng))]
        gains = dict(zip(some, (gradients.take(some).dense() @ loss.gradient()).tolist(), strict=True))
        tie = 1e-13 * max(map(abs, gains.values()))
        last = sorted(gains.values())[-size]
        best = [row for row in some if gains[row] > last + tie]
        best += [row for row in some if abs(gains[row] - last) <= tie][: size - len(best)]
        picks.append(sorted(best, key=lambda row: -gains[row]))
        left = [row for row in left if row not in best]
        loss = loss.after(RATE * gradients.take(best).sum())
    return picks


@methods
@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**15), data=st.data())
def test_several_problems_give_what_each_gives_by_loops(form, method, seed, data):
    problems = [FORMS[form](seed + i, n) for i, n in enumerate(SIZES)]
    budgets = [data.draw(st.integers(1, n)) for n in SIZES]
    for i, (found, problem, k) in enumerate(zip(solve(problems, budgets, **method), problems, budgets, strict=True)):
        expected = by_loops(problem, k, i, **method)
        for mine, theirs in zip(np.split(found, np.cumsum([*map(len, expected)])[:-1]), expected, strict=True):
            if form == "every row three times":  # equal rows of one round come in any order
                mine, theirs = sorted(mine), sorted(theirs)
            np.testing.assert_array_equal(mine, theirs)


@methods
@pytest.mark.parametrize("form", FORMS)
def test_a_problem_alone_gives_what_it_gives_among_others(form, method):
    problems, budgets = [FORMS[form](i, n) for i, n in enumerate(SIZES)], [9, 7, 1, 2]
    first = solve(problems, budgets, **method)[0]
    np.testing.assert_array_equal(np.sort(solve(problems[:1], budgets[:1], **method)[0]), np.sort(first))


def test_a_fixed_gradient_gives_the_largest_products():
    problems, target = [factors(i, n) for i, n in enumerate(SIZES)], torch.linspace(-1, 2, C * D1).double()
    for found, problem in zip(
        solve(problems, [4, 7, 1, 3], loss=FixedGradient(target), rounds=1), problems, strict=True
    ):
        np.testing.assert_array_equal(found, (problem.dense() @ target).argsort(descending=True)[: len(found)])


@methods
def test_nothing_is_read_from_the_device_before_the_end(method, reads):
    problems = [factors(i, n) for i, n in enumerate(SIZES)]
    with reads() as seen:
        solve(problems, [9, 7, 1, 2], **method)
    assert seen == []


def test_rounds_share_the_budget_evenly_and_end_with_it():
    np.testing.assert_array_equal(_round_sizes([10, 2], 3), [[3, 1], [3, 1], [4, 0]])
    np.testing.assert_array_equal(_round_sizes([3, 1], None), [[1, 1], [1, 0], [1, 0]])


GAINS = torch.tensor([1.0, 3.0 - 1e-15, 3.0, 2.0, 3.0 + 1e-15, 2.0 + 1e-9], dtype=torch.float64)


def test_largest_takes_the_first_ones_up_to_rounding():
    def take(size):
        return largest(GAINS[None], torch.ones(1, 6, dtype=torch.bool), torch.tensor([size]), size)[0].tolist()

    assert take(1) == [1]
    assert set(take(2)) == {1, 2}
    assert take(4)[-1] == 5
    assert take(6)[-2:] == [3, 0]


def test_largest_looks_at_each_row_for_itself_and_only_at_what_counts():
    gains = torch.stack([GAINS, -GAINS, torch.full((6,), -torch.inf).double()])
    among = torch.tensor([[1, 0, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]]).bool()
    found = largest(gains, among, torch.tensor([2, 3, 1]), 3)
    assert found[0, :2].tolist() == [5, 3]
    assert found[1].tolist() == [0, 3, 5]
    assert found[2, 0] == 3
    assert largest(gains, among, torch.tensor([1, 1, 1]), 1)[:, 0].tolist() == [5, 0, 3]
