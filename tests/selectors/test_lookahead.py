"""A pursuit that looks ahead picks what one that searches all rows in every step picks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_acs.gradients import as_gradients
from sklearn_acs.selectors import _lookahead
from sklearn_acs.selectors._lookahead import Lookahead
from sklearn_acs.selectors._omp import orthogonal_matching_pursuit


def pursue(matrix, **options):
    return orthogonal_matching_pursuit(as_gradients(matrix), 60, **options)


def random_matrix(seed):
    return np.random.default_rng(seed).normal(size=(170, 40)) + 0.3


@pytest.mark.parametrize("pool, steps", [(3, 4), (12, 4), (40, 16)])
@pytest.mark.parametrize("ridge, center", [(0.0, 0.0), (0.1, 3.0)])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**16))
def test_looking_ahead_changes_nothing(seed, ridge, center, pool, steps):
    """The pools are so small that the pursuit has to undo many steps."""
    matrix = random_matrix(seed)
    options = {"ridge": ridge, "center": center, "tolerance": 1e-6}
    expected = pursue(matrix, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_lookahead, "POOL", pool)
        patch.setattr(_lookahead, "STEPS", steps)
        result = pursue(matrix, **options)
    np.testing.assert_array_equal(result.indices, expected.indices)
    np.testing.assert_allclose(result.weights, expected.weights, rtol=1e-7)
    assert result.stop_reason == expected.stop_reason


def test_steps_are_taken_back_when_a_row_outside_the_pool_would_have_been_better(monkeypatch):
    matrix = random_matrix(0)
    outcomes = []
    check = Lookahead.check

    def watch(self, *args):
        found = check(self, *args)
        outcomes.append(found[0] == len(self.ways))
        return found

    monkeypatch.setattr(Lookahead, "check", watch)
    monkeypatch.setattr(_lookahead, "POOL", 3)
    pursue(matrix, ridge=0.1)
    assert set(outcomes) == {True, False}
