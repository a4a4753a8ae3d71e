"""Every member of LastLayerGradients against the matrix it stands for."""

import numpy as np
import pytest
import torch

from sklearn_acs.gradients import DenseGradients, LastLayerGradients, as_gradients

N, C, D1 = 7, 3, 5


def make_branches(n_branches, dtype=torch.float64):
    rng = torch.Generator().manual_seed(n_branches)
    return [
        (
            torch.randn(N, C, generator=rng, dtype=torch.float64).to(dtype),
            torch.cat([torch.randn(N, D1 - 1, generator=rng, dtype=torch.float64), torch.ones(N, 1)], 1).to(dtype),
        )
        for _ in range(n_branches)
    ]


def written_out(branches):
    """The matrix by its definition, entry by entry: G[i, c * (D + 1) + d] = sum_b g_b[i, c] h_b[i, d]."""
    dense = torch.zeros(N, C * D1, dtype=torch.float64)
    for g, h in branches:
        for c in range(C):
            for d in range(D1):
                dense[:, c * D1 + d] += g[:, c].double() * h[:, d].double()
    return dense


@pytest.fixture(params=["one branch", "two branches", "dense"])
def case(request):
    """Gradients and the same as a plain float64 matrix."""
    branches = make_branches(2 if request.param == "two branches" else 1)
    matrix = written_out(branches)
    return (DenseGradients(matrix) if request.param == "dense" else LastLayerGradients(branches)), matrix


def test_shape_length_type_and_device(case):
    gradients, matrix = case
    assert gradients.shape == tuple(matrix.shape) == (len(gradients), C * D1)
    assert gradients.dtype == torch.float64
    assert gradients.device == matrix.device


def test_array_is_the_matrix(case):
    gradients, matrix = case
    np.testing.assert_allclose(np.asarray(gradients), matrix, atol=1e-12)
    assert np.asarray(gradients, dtype=np.float32).dtype == np.float32


def test_array_without_a_copy_is_refused(case):
    with pytest.raises(ValueError, match="without a copy"):
        case[0].__array__(copy=False)


@pytest.mark.parametrize("rows", [None, [4, 0]])
@pytest.mark.parametrize("cols", [None, [1, 1, 6]])
def test_gram(case, rows, cols):
    gradients, matrix = case
    left, right = (matrix if index is None else matrix[index] for index in (rows, cols))
    torch.testing.assert_close(gradients.gram(rows, cols), left @ right.T)


def test_gram_column(case):
    gradients, matrix = case
    torch.testing.assert_close(gradients.gram_column(3), matrix @ matrix[3])


def test_dot(case):
    gradients, matrix = case
    target = torch.linspace(-1, 2, C * D1, dtype=torch.float64)
    torch.testing.assert_close(gradients.dot(target), matrix @ target)


def test_sum(case):
    gradients, matrix = case
    weights = torch.linspace(0, 3, N, dtype=torch.float64)
    torch.testing.assert_close(gradients.sum(), matrix.sum(0))
    torch.testing.assert_close(gradients.sum(weights), weights @ matrix)


def test_mean_by(case):
    gradients, matrix = case
    groups = np.array([2, 0, 2, 0, 0, 1, 2])
    expected = torch.stack([matrix[groups == m].mean(0) for m in range(3)])
    torch.testing.assert_close(gradients.mean_by(groups), expected)


def test_mean_by_of_an_unused_group_is_zero(case):
    assert not case[0].mean_by([0, 0, 0, 2, 2, 2, 2])[1].any()


def test_take(case):
    gradients, matrix = case
    np.testing.assert_allclose(np.asarray(gradients.take([5, 2])), matrix[[5, 2]], atol=1e-12)


def test_norms(case):
    gradients, matrix = case
    torch.testing.assert_close(gradients.norms(), matrix.norm(dim=1))


def test_to_converts_every_factor(case):
    assert case[0].to(torch.float32).dtype == torch.float32


def test_nbytes_counts_the_factors_only():
    assert LastLayerGradients(make_branches(2)).nbytes == 2 * N * (C + D1) * 8


def test_half_precision_storage_is_computed_in_float32():
    branches = make_branches(2, torch.float16)
    gradients, matrix = LastLayerGradients(branches), written_out(branches)
    assert gradients.nbytes == 2 * N * (C + D1) * 2
    assert gradients.dtype == gradients.gram().dtype == gradients.sum().dtype == torch.float32
    torch.testing.assert_close(gradients.gram(), (matrix @ matrix.T).float())  # float16 would miss by 1e-3


def test_isfinite_sees_a_single_nan():
    g, h = make_branches(1)[0]
    assert LastLayerGradients([(g, h)]).isfinite()
    h[3, 2] = torch.nan
    assert not LastLayerGradients([(g, h)]).isfinite()


def test_as_gradients_hands_gradients_back():
    gradients = LastLayerGradients(make_branches(1))
    assert as_gradients(gradients) is gradients


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor, list], ids=["array", "tensor", "list"])
def test_as_gradients_takes_any_matrix_of_numbers(make):
    gradients = as_gradients(make([[1, 2], [3, 4]]))
    assert gradients.dtype == torch.float64
    np.testing.assert_array_equal(np.asarray(gradients), [[1, 2], [3, 4]])


def test_as_gradients_reads_a_read_only_memory_map(tmp_path):
    np.save(tmp_path / "G.npy", np.eye(3))
    mapped = np.load(tmp_path / "G.npy", mmap_mode="r")
    np.testing.assert_array_equal(np.asarray(as_gradients(mapped)), np.eye(3))


@pytest.mark.parametrize(
    "branches",
    [
        [],
        [(torch.ones(3), torch.ones(3, 2))],
        [(torch.ones(3, 2), torch.ones(4, 2))],
        [(torch.ones(3, 2), torch.ones(3, 2)), (torch.ones(3, 2), torch.ones(3, 4))],
    ],
    ids=["none", "one-dimensional", "other length", "other width"],
)
def test_branches_that_do_not_fit_are_refused(branches):
    with pytest.raises(ValueError, match="branches must"):
        LastLayerGradients(branches)


def test_dense_gradients_must_be_a_matrix():
    with pytest.raises(ValueError, match="shape"):
        DenseGradients(torch.ones(3))


@pytest.mark.parametrize("change", [lambda a: a[::-1], lambda a: a.astype(">f4"), lambda a: a[:, ::-1]])
def test_arrays_of_any_layout_are_taken(change):
    array = change(np.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(np.asarray(as_gradients(array)), array)
    np.testing.assert_array_equal(np.asarray(LastLayerGradients([(array[:, :1], array)])), array[:, :1] * array)


def test_rows_of_a_matrix_are_a_matrix():
    matrix = DenseGradients(np.eye(4))
    for part in (matrix.take([1, 2]), matrix.to(torch.float32), next(matrix.blocks())):
        assert isinstance(part, DenseGradients)


def test_arithmetic_is_in_the_widest_type_of_the_factors():
    assert LastLayerGradients([(torch.ones(2, 1), torch.ones(2, 3, dtype=torch.float64))]).dtype == torch.float64
