"""LastLayerGradients computes what the matrix it stands for gives."""

import numpy as np
import pytest
import torch

from sklearn_acs.gradients import LastLayerGradients, as_gradients, entering

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
    """Write out the matrix entry by entry: G[i, c * (D + 1) + d] = sum_b g_b[i, c] h_b[i, d]."""
    dense = torch.zeros(N, C * D1, dtype=torch.float64)
    for g, h in branches:
        for c in range(C):
            for d in range(D1):
                dense[:, c * D1 + d] += g[:, c].double() * h[:, d].double()
    return dense


@pytest.fixture(params=["one branch", "two branches", "matrix"])
def case(request):
    """Make gradients, and the same as a plain float64 matrix."""
    branches = make_branches(2 if request.param == "two branches" else 1)
    matrix = written_out(branches)
    return (as_gradients(matrix) if request.param == "matrix" else LastLayerGradients(branches)), matrix


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


def test_gram(case):
    gradients, matrix = case
    torch.testing.assert_close(gradients.gram(), matrix @ matrix.T)
    torch.testing.assert_close(
        gradients.take([4, 0]).gram(gradients.take([1, 1, 6])), matrix[[4, 0]] @ matrix[[1, 1, 6]].T
    )


def test_gram_of_factors_and_a_matrix(case):
    gradients, matrix = case
    other = torch.linspace(-1, 2, 2 * C * D1, dtype=torch.float64).reshape(2, -1)
    torch.testing.assert_close(gradients.gram(as_gradients(other)), matrix @ other.T)
    torch.testing.assert_close(as_gradients(other).gram(gradients), other @ matrix.T)


def test_sum(case):
    gradients, matrix = case
    weights = torch.linspace(0, 3, N, dtype=torch.float64)
    torch.testing.assert_close(gradients.sum(), matrix.sum(0))
    torch.testing.assert_close(gradients.sum(weights), weights @ matrix)


def test_exact_sum_adds_up_blocks_in_float64(case, monkeypatch):
    gradients, matrix = case
    monkeypatch.setattr("sklearn_acs.gradients._BLOCK_BYTES", 1)  # a row at a time
    weights = torch.linspace(0, 3, N, dtype=torch.float64)
    single = gradients.to(torch.float32)
    assert single.exact_sum().dtype == torch.float64
    torch.testing.assert_close(gradients.exact_sum(), matrix.sum(0))
    torch.testing.assert_close(gradients.exact_sum(weights), weights @ matrix)
    torch.testing.assert_close(single.exact_sum(weights), weights @ single.to(torch.float64).dense())
    assert not gradients.take(slice(0)).exact_sum().any()


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


def test_half_precision_storage_is_computed_in_float32():
    branches = make_branches(2, torch.float16)
    gradients, matrix = LastLayerGradients(branches), written_out(branches)
    assert {factor.dtype for pair in gradients.branches for factor in pair} == {torch.float16}
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


def test_as_gradients_refuses_what_is_not_a_matrix():
    with pytest.raises(ValueError, match="shape"):
        as_gradients(torch.ones(3))


@pytest.mark.parametrize("change", [lambda a: a[::-1], lambda a: a.astype(">f4"), lambda a: a[:, ::-1]])
def test_arrays_of_any_layout_are_taken(change):
    array = change(np.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(np.asarray(as_gradients(array)), array)
    np.testing.assert_array_equal(np.asarray(LastLayerGradients([(array[:, :1], array)])), array[:, :1] * array)


def test_a_matrix_is_not_copied_and_neither_are_its_blocks():
    matrix = torch.eye(4)
    gradients = as_gradients(matrix)
    for rows in (gradients, gradients.take(slice(2)), next(gradients.blocks())):
        assert rows.branches[0][1].data_ptr() == matrix.data_ptr()


def test_entering_collects_the_inputs_of_a_layer_within_the_context_alone():
    layer, x = torch.nn.Linear(3, 2), torch.randn(5, 3, requires_grad=True)
    with entering(layer) as inputs:
        layer(x)
        layer(2 * x)
    layer(x)
    assert [torch.equal(got, expected) for got, expected in zip(inputs, (x, 2 * x), strict=True)] == [True, True]
    assert not any(entered.requires_grad for entered in inputs)


def test_entering_leaves_the_layer_as_it_was_after_an_error():
    layer = torch.nn.Linear(3, 2)
    with pytest.raises(RuntimeError), entering(layer):
        layer(torch.ones(5, 4))
    assert not layer._forward_pre_hooks


def test_arithmetic_is_in_the_widest_type_of_the_factors():
    assert LastLayerGradients([(torch.ones(2, 1), torch.ones(2, 3, dtype=torch.float64))]).dtype == torch.float64


# Scaling


def test_scaling_is_by_a_power_of_two_for_each_side_and_all_branches():
    g, h = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    G = LastLayerGradients([(g * 2.0**900, h), (g, h * 2.0**-700)])
    scaled, exponent = G.scaled()
    (g_a, h_a), (g_b, h_b) = scaled.branches
    assert torch.equal(h_a, h)
    assert torch.equal(torch.ldexp(g_a, torch.tensor(exponent - 900)), g)
    assert torch.equal(g_b.abs().amax() < 1e-200, torch.tensor(True))
    assert 0.5 <= g_a.abs().amax() < 1
    assert (h_b.abs() < 1e-200).all()


@pytest.mark.parametrize("size", [0.0, 2.0**-20, 1.0, 65504.0, 2.0**19])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_ordinary_and_empty_gradients_are_left_alone(size, dtype):
    if size > torch.finfo(dtype).max:
        size = torch.finfo(dtype).max
    G = as_gradients(torch.full((3, 2), size, dtype=dtype))
    assert G.scaled() == (G, 0)


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e155, 1.7e308])
def test_scaled_gradients_are_of_ordinary_size(size):
    scaled, exponent = as_gradients([[size, -size / 2]]).scaled()
    assert 0.5 <= scaled.branches[0][1][0, 0] < 1
    assert np.ldexp(float(scaled.branches[0][1][0, 0]), exponent) == size
