"""Every selector keeps its promises on random gradients and on degenerate ones."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors import CRAIG, Glister, GradMatch, RandomSelector, ScoreSelector

C, D1 = 4, 6  # classes and inputs of the last layer, with their one

INSTANCES = {
    "gradmatch": GradMatch(),
    "gradmatch, no ridge": GradMatch(ridge=0.0),
    "gradmatch, zero": GradMatch(ridge_center="zero"),
    "gradmatch, 3 a step": GradMatch(atoms_per_step=3),
    "craig": CRAIG(),
    "craig, squared": CRAIG(metric="sqeuclidean"),
    "craig, by row": CRAIG(memory_budget=1),
    "craig, stochastic": CRAIG(optimizer="stochastic", random_state=0),
    "glister": Glister(random_state=0),
    "glister, naive": Glister(method="naive", eta=3.0),
    "glister, rounds": Glister(method="r-greedy", rounds=4),
    "score": ScoreSelector(),
    "score, lowest": ScoreSelector(order="lowest"),
    "random": RandomSelector(random_state=0),
}


def instances(*without):
    """Take all instances of the table but those whose name begins with one of the words."""
    chosen = {name: selector for name, selector in INSTANCES.items() if not name.startswith(without or ("-",))}
    return pytest.mark.parametrize("selector", chosen.values(), ids=chosen)


properties = settings(deadline=None, max_examples=8)  # of each selector
seeds = st.integers(0, 2**32 - 1)


def cross_entropy_factors(seed, n=40, dtype=torch.float32):
    """Make factors as a classifier does: ``softmax - onehot``, and inputs with their one."""
    rng = np.random.default_rng(seed)
    logits, labels = 2 * rng.normal(size=(n, C)), rng.integers(0, C, size=n)
    g = torch.from_numpy(logits).softmax(1) - torch.eye(C)[labels]
    h1 = np.column_stack([rng.normal(size=(n, D1 - 1)), np.ones(n)])
    return LastLayerGradients([(g.to(dtype), torch.from_numpy(h1).to(dtype))])


VALIDATION = cross_entropy_factors(2**32, n=15)


def fit(selector, G, y=None, **params):
    """Fit a copy, and give GLISTER the same validation samples whatever the rows and scale of G."""
    given = {"validation": VALIDATION} if isinstance(selector, Glister) else {}
    return clone(selector).set_params(**params).fit(G, y, **given)


def random_labels(seed, n=40, n_classes=3):
    """Draw labels, each at least once."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.append(np.arange(n_classes), rng.integers(0, n_classes, size=n - n_classes)))


def assert_same(one, other, rtol=0.0):
    """Check that rows, weights and error are the same, to the bit unless rounding is allowed for."""
    np.testing.assert_array_equal(one.coreset_.indices, other.coreset_.indices)
    np.testing.assert_allclose(one.coreset_.weights, other.coreset_.weights, rtol=rtol)
    assert one.approximation_error_ == pytest.approx(other.approximation_error_, rel=10 * rtol, abs=10 * rtol)


# More budget


@pytest.mark.parametrize("ridge", [0.0, 0.1])
@settings(properties, max_examples=15)
@given(seed=seeds)
def test_gradmatchs_objective_never_grows_with_the_budget(ridge, seed):
    G = np.asarray(cross_entropy_factors(seed, n=20, dtype=torch.float64))
    penalty = ridge * np.mean(np.sum(G**2, axis=1))
    objectives = []
    for k in range(1, len(G) + 1):
        found = fit(GradMatch(ridge=ridge, ridge_center="zero"), G, n_select=k)
        if found.n_matched_ == k:  # else the weights are no longer those of matching
            gap = G.sum(0) - found.weights_ @ G[found.indices_]
            objectives.append(gap @ gap + penalty * found.weights_ @ found.weights_)
    assert len(objectives) >= 5
    assert (np.diff(objectives) <= 1e-9 * np.sum(G.sum(0) ** 2)).all()


@pytest.mark.parametrize("memory_budget", [1, 2**30])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@properties
@given(seed=seeds)
def test_craigs_picks_are_the_first_of_those_of_a_larger_budget_and_its_cost_never_grows(metric, memory_budget, seed):
    factors = cross_entropy_factors(seed, n=15, dtype=torch.float64)
    distances = pairwise(np.asarray(factors), metric)
    before, costs = np.empty(0), []
    for k in range(1, 16):
        picks = fit(CRAIG(metric=metric, memory_budget=memory_budget), factors, n_select=k).indices_.numpy()
        np.testing.assert_array_equal(picks[:-1], before)
        before = picks
        costs.append(distances[:, picks].min(axis=1).sum())
    assert (np.diff(costs) < 0).all()
    assert costs[-1] == 0


def pairwise(G, metric):
    distances = np.linalg.norm(G[:, None] - G, axis=2)
    return distances**2 if metric == "sqeuclidean" else distances


# The same gradients in another order, at another scale


@instances("craig", "glister", "random")
@properties
@given(per_class=st.booleans(), seed=seeds, k=st.integers(3, 12))
def test_permuted_rows_permute_the_answer(selector, per_class, seed, k):
    check_permutation(selector, per_class, seed, k)


@pytest.mark.parametrize("method", ["naive", "r-greedy"])
@properties
@given(per_class=st.booleans(), seed=seeds, k=st.integers(3, 12))
def test_permuted_rows_permute_what_glister_does_not_draw(method, per_class, seed, k):
    check_permutation(Glister(method=method), per_class, seed, k)


def check_permutation(selector, per_class, seed, k):
    G, y = cross_entropy_factors(seed, dtype=torch.float64), random_labels(seed)
    order = np.random.default_rng(seed).permutation(len(y))
    plain = fit(selector, G, y, n_select=k, per_class=per_class)
    permuted = fit(selector, G.take(order), y[order], n_select=k, per_class=per_class)
    np.testing.assert_array_equal(order[permuted.indices_], plain.indices_)
    np.testing.assert_allclose(permuted.weights_, plain.weights_, rtol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@properties
@given(seed=seeds)
def test_permuted_rows_permute_what_craig_picks_up_to_the_first_tie(metric, seed):
    """Of two rows that are each other's nearest and cover nobody else, either gains ``c_i + c_j - d_ij``."""
    G = cross_entropy_factors(seed, dtype=torch.float64)
    order = np.random.default_rng(seed).permutation(len(G))
    plain, permuted = (fit(CRAIG(metric=metric), rows, n_select=12) for rows in (G, G.take(order)))
    distances = pairwise(np.asarray(G), metric)
    for t in range(12):
        costs = [distances[:, [*plain.indices_[:t], j]].min(axis=1).sum() for j in range(40)]
        best, second = np.partition(costs, 1)[:2]
        if second - best < 1e-5 * costs[0]:
            assume(t > 0)
            return
        assert order[permuted.indices_[t]] == plain.indices_[t] == np.argmin(costs)
    np.testing.assert_array_equal(permuted.weights_, plain.weights_)


@instances()
@properties
@given(per_class=st.booleans(), scale=st.sampled_from([1e-6, 1e-3, 7.0, 1e3]), seed=seeds, k=st.integers(1, 12))
def test_scale_changes_nothing(selector, per_class, scale, seed, k):
    """GLISTER's step is along the gradients, and so has to be shorter for longer ones."""
    G, y = cross_entropy_factors(seed, dtype=torch.float64), random_labels(seed)
    scaled = LastLayerGradients([(g, scale * h1) for g, h1 in G.branches])
    params = {"n_select": k, "per_class": per_class}
    shorter = {"eta": selector.eta / scale} if isinstance(selector, Glister) else {}
    assert_same(fit(selector, scaled, y, **params, **shorter), fit(selector, G, y, **params), rtol=1e-6)


# The same gradients in another form


@instances()
@properties
@given(seed=seeds, k=st.integers(1, 12))
def test_factors_tensors_and_arrays_in_float32_and_float64_choose_the_same(selector, seed, k):
    G = cross_entropy_factors(seed)
    reference = fit(selector, G.to(torch.float64), n_select=k)
    assert_same(fit(selector, G, n_select=k), reference, rtol=1e-3)
    for matrix in (np.asarray(G), np.asarray(G.to(torch.float64))):
        array, tensor = (fit(selector, form, n_select=k) for form in (matrix, torch.from_numpy(matrix)))
        assert_same(array, reference, rtol=1e-3 if matrix.dtype == np.float32 else 1e-6)
        assert_same(array, tensor, rtol=1e-6)  # weights come in the precision of the tensor


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("per_class", [False, True])
@instances()
def test_memory_maps_of_both_factors_choose_the_same(selector, per_class, dtype, tmp_path):
    G, y = cross_entropy_factors(0), random_labels(0)
    factors = [factor.numpy().astype(dtype) for factor in G.branches[0]]
    loaded, mapped = [], []
    for name, factor in zip(("g", "h1"), factors, strict=True):
        np.save(tmp_path / f"{name}.npy", factor)
        loaded.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
        factor.tofile(tmp_path / name)
        mapped.append(np.memmap(tmp_path / name, dtype, mode="r", shape=factor.shape))
    params = {"n_select": 10, "per_class": per_class}
    reference = fit(selector, LastLayerGradients([tuple(map(torch.from_numpy, factors))]), y, **params)
    for pair in (loaded, mapped):
        assert_same(fit(selector, LastLayerGradients([tuple(pair)]), y, **params), reference)


@instances()
@properties
@given(per_class=st.booleans(), seed=seeds, k=st.integers(1, 12))
def test_half_precision_is_taken_for_the_numbers_it_stands_for(selector, per_class, seed, k):
    half, y = cross_entropy_factors(seed, dtype=torch.float16), random_labels(seed)
    params = {"n_select": k, "per_class": per_class}
    assert_same(fit(selector, half, y, **params), fit(selector, half.to(torch.float32), y, **params))


# Classes, threads, randomness


@instances()
@settings(properties, max_examples=5)
@given(seed=seeds, k=st.integers(1, 40), n_classes=st.integers(1, 6))
def test_two_threads_give_the_same_bits_as_one(selector, seed, k, n_classes):
    G, y = cross_entropy_factors(seed), random_labels(seed, n_classes=n_classes)
    one, two = (fit(selector, G, y, n_select=k, per_class=True, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert_same(two, one)


@instances()
@properties
@given(seed=seeds, k=st.integers(1, 5), n_classes=st.integers(6, 12))
def test_fewer_rows_than_classes_leave_some_classes_out_and_say_so(selector, seed, k, n_classes):
    y = random_labels(seed, n_classes=n_classes)
    found = fit(selector, cross_entropy_factors(seed), y, n_select=k, per_class=True)
    check_promises(found, len(y), k)
    counts = np.bincount(y[found.coreset_.indices], minlength=n_classes)
    assert f"leaves {np.sum(counts == 0)} classes without a row" in found.stop_reason_
    report = found.selection_report()
    assert report["selected"][:-1] == counts.tolist()
    assert [weight > 0 for weight in report["weight"]] == [selected > 0 for selected in report["selected"]]


@pytest.mark.parametrize("per_class", [False, True])
@instances()
def test_global_random_states_are_left_alone(selector, per_class, global_randomness):
    G, y = cross_entropy_factors(0), random_labels(0)
    before = global_randomness()
    params = {"random_state": None} if "random_state" in selector.get_params() else {}
    fit(selector, G, y, n_select=10, per_class=per_class, **params)
    assert global_randomness() == before


# Degenerate gradients


def spoilt(kind, rng, n):
    """Make a matrix of about n gradients that has the fault named."""
    matrix = rng.normal(size=(n, C * D1))
    if kind == "one row":
        return matrix[:1]
    if kind == "every row twice":
        return np.repeat(matrix, 2, axis=0)
    if kind == "zero rows":
        matrix[rng.permutation(n)[: n // 2 + 1]] = 0
    if kind == "all zero":
        matrix[:] = 0
    if kind == "constant columns":
        matrix[:] = matrix[0]
    if kind == "some constant columns":
        matrix[:, ::2] = 3.0
    if kind == "a single direction":
        matrix = np.outer(matrix[:, 0], matrix[0])
    if kind == "sizes far apart":
        matrix *= 10.0 ** rng.uniform(-6, 6, size=(n, 1))
    if kind == "tiny":
        matrix *= 1e-12
    if kind == "sum zero":
        matrix = np.vstack([matrix, -matrix])
    return matrix


KINDS = (
    "nothing",
    "one row",
    "every row twice",
    "zero rows",
    "all zero",
    "constant columns",
    "some constant columns",
    "a single direction",
    "sizes far apart",
    "tiny",
    "sum zero",
)


@instances()
@settings(properties, max_examples=25)
@given(
    kind=st.sampled_from(KINDS),
    seed=seeds,
    n=st.integers(1, 30),
    share=st.sampled_from(["one", "all"]) | st.floats(0, 1, exclude_min=True),
    n_classes=st.sampled_from([None, 1, 3]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_whatever_the_gradients_the_promises_hold(selector, kind, seed, n, share, n_classes, dtype):
    G = spoilt(kind, np.random.default_rng(seed), n).astype(dtype)
    k = {"one": 1, "all": len(G)}.get(share) or max(1, round(share * len(G)))
    y = None if n_classes is None else random_labels(seed, len(G), min(n_classes, len(G)))
    found = fit(selector, G, y, n_select=k, per_class=y is not None)
    check_promises(found, len(G), k)
    if kind != "sum zero":  # relative to which any error is infinite
        assert np.isfinite(found.approximation_error_)


def check_promises(found, n, k):
    indices, weights = found.coreset_.indices, found.coreset_.weights
    assert len(indices) == len(weights) == len(set(indices.tolist())) == k
    assert indices.min() >= 0 and indices.max() < n
    assert np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0
    report = found.selection_report()
    if isinstance(found, CRAIG):  # a class without a row has nobody to stand for it
        covered = zip(report["samples"], report["selected"], strict=True)
        per_part = [size if chosen else 0 for size, chosen in covered]
        assert weights.min() >= 1 and weights.sum() == (sum(per_part[:-1]) if len(report) > 1 else n)
    assert found.approximation_error_ >= 0  # and so not NaN
    assert len(found.stop_reason_.split()) > 3
    check_report(report, found, n, k)


def check_report(report, found, n, k):
    *_, last = zip(*(report[column] for column in report.columns), strict=True)
    expected = [n, k, found.n_matched_, found.coreset_.weights.sum(), found.approximation_error_, found.stop_reason_]
    assert list(last[1:4]) == expected[:3] and last[6] == found.stop_reason_
    assert last[4:6] == pytest.approx(expected[3:5], rel=1e-9, abs=1e-12)
    assert all(matched <= selected for matched, selected in zip(report["matched"], report["selected"], strict=True))
    if len(report) > 1:
        for column, total in zip(report.columns[1:5], expected[:4], strict=True):
            assert sum(report[column][:-1]) == pytest.approx(total)
