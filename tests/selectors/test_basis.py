"""A pursuit's basis solves its normal equations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_acs.selectors import _basis
from sklearn_acs.selectors._basis import Basis


def admit(basis, gram, rows, row):
    rows.append(row)
    return basis.append(gram[row, rows][None], gram[[row], [row]])


def test_dependent_row_does_not_come_in():
    """A pursuit rarely tries one: its correlation is zero but for rounding."""
    matrix = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    basis, gram = Basis(3), matrix @ matrix.T
    assert admit(basis, gram, [], 0) is not None
    assert admit(basis, gram, [0], 1) is None
    assert admit(basis, gram, [0], 2) is not None
    assert basis.size == 2


@pytest.mark.parametrize(("dtype", "precision"), [(np.float64, 1e-8), (np.float32, 2e-3)])
@pytest.mark.parametrize("panel", [2, 256])
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**16), removed=st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_basis_solves_as_if_built_anew_after_rows_left_it(seed, removed, panel, dtype, precision):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(9, 6))
    gram = matrix @ matrix.T + 0.1 * np.eye(9)
    basis, rows = Basis(9, dtype), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_basis, "PANEL", panel)
        for row in range(5):
            assert admit(basis, gram, rows, row) is not None
        for i, place in enumerate(removed[:4]):
            basis.delete(place)
            rows[place] = rows[-1]
            del rows[-1]
            assert admit(basis, gram, rows, 5 + i) is not None
        right = rng.normal(size=len(rows))
        solved = basis.solve(right)
    expected = np.linalg.solve(gram[np.ix_(rows, rows)], right)
    np.testing.assert_allclose(solved, expected, rtol=precision, atol=precision * abs(expected).max())
