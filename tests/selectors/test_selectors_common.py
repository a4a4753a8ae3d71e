"""Every selector keeps these promises; a new selector is one more row in INSTANCES."""

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors import CRAIG, SELECTORS, Glister, GradMatch, InfoBatch, RandomSelector, ScoreSelector
from sklearn_acs.selectors.base import _share_out

INSTANCES = [
    GradMatch(),
    GradMatch(per_class=True),
    GradMatch(n_select=1.0, ridge=0.0, atoms_per_step=3),
    CRAIG(),
    CRAIG(metric="sqeuclidean", per_class=True),
    RandomSelector(),
    RandomSelector(random_state=0, per_class=True),
    Glister(),
    Glister(method="r-greedy", step="sum", rounds=3, per_class=True),
    ScoreSelector(),
    ScoreSelector(order="lowest", per_class=True),
    InfoBatch(),
    InfoBatch(prune=0.25, random_state=0, per_class=True),
]


@parametrize_with_checks(INSTANCES)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


rng = np.random.default_rng(0)
N, K = 60, 12
G = rng.normal(size=(N, 8)) + 0.3
Y = rng.permutation(np.repeat(["a", "b", "c"], [30, 20, 10]))


def make_factors(dtype=torch.float64):
    """Make factors of a two-branch loss's gradients."""
    generator = torch.Generator().manual_seed(0)
    return LastLayerGradients(
        [tuple(torch.randn(N, m, generator=generator, dtype=torch.float64).to(dtype) for m in (3, 5)) for _ in range(2)]
    )


# InfoBatch keeps as many as come of it.
OF_A_SIZE = [name for name, cls in SELECTORS.items() if "n_select" in cls().get_params()]


@pytest.fixture(params=OF_A_SIZE)
def selector(request):
    """Make the selector of each name, with a fixed random state."""
    cls = SELECTORS[request.param]
    return cls(n_select=K, random_state=0) if "random_state" in cls().get_params() else cls(n_select=K)


def assert_same_coreset(a, b, rtol=1e-7):
    np.testing.assert_array_equal(a.coreset_.indices, b.coreset_.indices)
    np.testing.assert_allclose(a.coreset_.weights, b.coreset_.weights, rtol=rtol)
    assert a.approximation_error_ == pytest.approx(b.approximation_error_, rel=max(rtol, 1e-6))


def test_attributes_tell_of_the_same_coreset(selector):
    selector.fit(G)
    assert len(set(selector.indices_)) == len(selector.weights_) == K
    np.testing.assert_array_equal(np.flatnonzero(selector.support_), np.sort(selector.indices_))
    assert selector.coreset_.indices is selector.indices_
    assert selector.coreset_.n_matched == selector.n_matched_ == K
    assert selector.coreset_.stop_reason == selector.stop_reason_
    np.testing.assert_array_equal(np.asarray(selector.gradients_), G[selector.indices_])


@pytest.mark.parametrize("per_class", [False, True])
def test_error_is_that_of_the_weighted_sum_over_the_whole_set(selector, per_class):
    selector.set_params(per_class=per_class).fit(G, Y)
    gap = selector.weights_ @ G[selector.indices_] - G.sum(0)
    assert selector.approximation_error_ == pytest.approx(np.linalg.norm(gap) / np.linalg.norm(G.sum(0)))


def test_error_of_all_zero_gradients_is_zero(selector):
    assert selector.fit(np.zeros((N, 3))).approximation_error_ == 0.0


def test_error_of_a_sum_that_is_zero_but_for_rounding_is_zero_or_infinite(selector):
    """Measured in units of rounding it could be any number."""
    cancelling = np.concatenate([0.1 * G, -0.1 * G[::-1]]) + np.repeat([1e-17, 0], N)[:, None]
    for gradients in (cancelling, np.random.default_rng(1).permutation(cancelling)):
        error = selector.set_params(n_select=K).fit(gradients).approximation_error_
        assert error == (
            0.0 if np.allclose(selector.weights_ @ gradients[selector.indices_], 0, atol=1e-12) else np.inf
        )
        by_class = selector.set_params(n_select=2, per_class=True).fit(gradients, np.zeros(2 * N, dtype=int))
        assert by_class.approximation_error_ in (0.0, np.inf)
        selector.set_params(per_class=False)


def test_error_of_a_coreset_that_cancels_out_like_all_is_zero():
    gradients = np.concatenate([0.1 * G, -0.1 * G])
    assert RandomSelector(n_select=1.0).fit(gradients).approximation_error_ == 0.0
    assert CRAIG(n_select=1.0).fit(gradients).approximation_error_ == 0.0
    some = RandomSelector(n_select=K, random_state=0).fit(gradients)
    assert some.approximation_error_ == some.selection_report()["error"][0] == np.inf


def test_error_far_below_the_size_of_the_gradients_is_measured():
    gradients = np.concatenate([G, -G]) + np.append(1e-9, np.zeros(2 * N - 1))[:, None]
    total = gradients.sum(0)
    some = RandomSelector(n_select=K, random_state=0).fit(gradients)
    gap = some.weights_ @ gradients[some.indices_] - total
    assert some.approximation_error_ == pytest.approx(np.linalg.norm(gap) / np.linalg.norm(total), rel=1e-3)


def test_the_whole_set_is_a_coreset_of_small_error(selector):
    selector.set_params(n_select=1.0).fit(G)
    assert set(selector.indices_) == set(range(N))
    assert selector.approximation_error_ < 0.1


def test_a_single_sample(selector):
    selector.set_params(n_select=0.1).fit(G[:1])
    assert (selector.indices_, selector.approximation_error_) == ([0], pytest.approx(0, abs=1e-2))


@pytest.mark.parametrize("n_select, expected", [(1, 1), (7, 7), (0.001, 1), (0.5, 30), (1.0, 60)])
def test_n_select_is_a_count_or_a_fraction(selector, n_select, expected):
    assert len(selector.set_params(n_select=n_select).fit(G).indices_) == expected


@pytest.mark.parametrize("n_select", [0, -1, 0.0, 1.5, "all", N + 1])
def test_an_impossible_n_select_is_named(selector, n_select):
    with pytest.raises(ValueError, match=f"n_select.*{n_select}"):
        selector.set_params(n_select=n_select).fit(G)


def test_per_class_shares_the_budget_by_class_size(selector):
    selector.set_params(per_class=True).fit(G, Y)
    labels, counts = np.unique(Y[selector.indices_], return_counts=True)
    assert dict(zip(labels, counts, strict=True)) == {"a": 6, "b": 4, "c": 2}


def test_per_class_solves_each_class_on_its_own(selector):
    given = {"validation": G} if "validation" in selector.fit_inputs else {}  # the same for every class
    chosen = selector.set_params(per_class=True).fit(G, Y, **given).indices_
    if isinstance(selector, RandomSelector):
        return  # whose one generator goes on from class to class
    for label, k in {"a": 6, "b": 4, "c": 2}.items():
        alone = clone(selector).set_params(per_class=False, n_select=k).fit(G[label == Y], **given)
        np.testing.assert_array_equal(chosen[Y[chosen] == label], np.flatnonzero(label == Y)[alone.indices_])


def test_per_class_takes_labels_as_a_tensor(selector):
    codes = np.unique(Y, return_inverse=True)[1]
    selector.set_params(per_class=True)
    assert_same_coreset(clone(selector).fit(G, codes), clone(selector).fit(torch.tensor(G), torch.tensor(codes)))


def test_per_class_without_y_says_what_is_missing(selector):
    for gradients in (G, torch.tensor(G), make_factors()):
        with pytest.raises(ValueError, match=r"requires y to be passed, but the target y is None"):
            selector.set_params(per_class=True).fit(gradients)


def test_per_class_needs_a_label_for_each_row(selector):
    with pytest.raises(ValueError, match=r"60 .* 59"):
        selector.set_params(per_class=True).fit(G, Y[:-1])


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8), data=st.data())
def test_shares_sum_to_k_fit_into_the_classes_and_leave_none_out(sizes, data):
    k = data.draw(st.integers(1, sum(sizes)))
    shares = _share_out(k, sizes)
    assert shares.sum() == k
    assert (shares <= sizes).all()
    assert (shares >= (1 if k >= len(sizes) else 0)).all()


@pytest.mark.parametrize(
    "sizes, k, expected",
    [([900, 100], 10, [9, 1]), ([97, 2, 1], 10, [8, 1, 1]), ([5, 5, 5], 2, [1, 1, 0]), ([3, 3, 3], 4, [2, 1, 1])],
)
def test_shares_go_by_largest_remainder(sizes, k, expected):
    np.testing.assert_array_equal(_share_out(k, sizes), expected)


def test_factors_and_the_written_out_matrix_choose_the_same(selector):
    factors = make_factors()
    assert_same_coreset(clone(selector).fit(factors), clone(selector).fit(np.asarray(factors)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_tensors_give_tensors(selector, dtype):
    for gradients in (torch.tensor(G, dtype=dtype), make_factors(dtype)):
        selector.fit(gradients)
        assert selector.indices_.dtype == torch.int64
        assert selector.weights_.dtype == torch.promote_types(dtype, torch.float32)
        assert selector.support_.dtype == torch.bool
        assert isinstance(selector.transform(gradients), torch.Tensor)


def test_read_only_memory_map(selector, tmp_path):
    np.save(tmp_path / "G.npy", G)
    mapped = np.load(tmp_path / "G.npy", mmap_mode="r")
    assert_same_coreset(clone(selector).fit(mapped), clone(selector).fit(G))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_that_are_not_finite_are_refused(selector, bad):
    broken = G.copy()
    broken[3, 4] = bad
    g, h = make_factors().branches[0]
    for gradients in (broken, torch.tensor(broken), LastLayerGradients([(g * bad, h)])):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            selector.fit(gradients)


def test_no_gradients_at_all_are_refused(selector):
    with pytest.raises(ValueError, match="at least one"):
        selector.fit(torch.empty(0, 3))


def test_transform_gives_inner_products_with_the_members(selector):
    np.testing.assert_allclose(selector.fit(G).transform(G[:5]), G[:5] @ G[selector.indices_].T)


def test_transform_mixes_factors_and_matrices(selector):
    factors = make_factors()
    selector.fit(factors)
    np.testing.assert_allclose(selector.transform(np.asarray(factors)), selector.transform(factors), atol=1e-9)


def test_transform_refuses_tensors_of_another_width(selector):
    with pytest.raises(ValueError, match=r"X has 7 features, but .* is expecting 8"):
        selector.fit(G).transform(torch.ones(3, 7))


def test_feature_names_number_the_members(selector):
    names = selector.fit(G).get_feature_names_out()
    prefix = type(selector).__name__.lower()
    assert list(names) == [f"{prefix}{i}" for i in range(K)]


def test_a_fit_to_a_tensor_forgets_the_column_names_of_the_fit_before(selector):
    selector.fit(pandas.DataFrame(G, columns=list("abcdefgh")))
    assert list(selector.feature_names_in_) == list("abcdefgh")
    assert not hasattr(selector.fit(torch.tensor(G)), "feature_names_in_")


def test_select_takes_the_rows_of_anything(selector):
    indices = selector.fit(G).indices_
    frame = pandas.DataFrame(G, index=np.arange(N) + 100)
    from_frame, from_list, from_tensor, from_factors = selector.select(frame, list(Y), torch.tensor(G), make_factors())
    np.testing.assert_array_equal(from_frame.index, indices + 100)
    assert from_list == list(Y[indices])
    np.testing.assert_array_equal(from_tensor, G[indices])
    np.testing.assert_array_equal(np.asarray(from_factors), np.asarray(make_factors())[indices])


def test_select_gives_a_tuple_only_for_several(selector):
    selector.fit(G)
    np.testing.assert_array_equal(selector.select(G), G[selector.indices_])
    G_S, weights = selector.select(G, return_weights=True)
    np.testing.assert_array_equal(G_S, G[selector.indices_])
    assert weights is selector.weights_


def test_select_refuses_what_is_not_aligned(selector):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        selector.fit(G).select(G[:-1])


def test_a_coreset_cannot_be_changed(selector):
    with pytest.raises(AttributeError):
        selector.fit(G).coreset_.error = 0.0


def test_masked_gradients_are_refused():
    for selector in SELECTORS.values():
        with pytest.raises(ValueError, match="G is a masked array"):
            selector().fit(np.ma.masked_greater(np.eye(4), 0.5))
