"""ScoreSelector keeps the right end of the right ranking, wherever its scores come from."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sklearn_acs.gradients import LastLayerGradients, as_gradients
from sklearn_acs.selectors import CRAIG, ScoreSelector

rng = np.random.default_rng(0)
N, K = 50, 10
G = rng.normal(size=(N, 6))
SCORES = rng.normal(size=N)


def cross_entropy_gradients(dtype=torch.float64, scale=1.0):
    """Make logits and labels, and compute cross-entropy's last-layer gradients by autograd."""
    generator = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(N, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(4, (N,), generator=generator)
    g = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), logits)[0]
    h1 = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    return logits.detach(), labels, LastLayerGradients([(g.to(dtype), h1.to(dtype))])


def extreme(values, order):
    """Find the K rows at one end, of equal ones those with the lowest index."""
    sign = -1 if order == "highest" else 1
    return sorted(range(len(values)), key=lambda i: (sign * values[i], i))[:K]


@pytest.mark.parametrize("order", ["highest", "lowest"])
def test_gradient_norms_rank_by_the_length_of_each_row(order):
    selector = ScoreSelector(n_select=K, order=order).fit(G)
    np.testing.assert_array_equal(selector.indices_, extreme(np.linalg.norm(G, axis=1), order))


def test_gradient_norms_of_factors_in_blocks_are_those_of_the_written_out_matrix(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    factors = LastLayerGradients([tuple(torch.randn(N, m, generator=generator).half() for m in (4, 7)) for _ in "ab"])
    norms = np.linalg.norm(np.asarray(factors, dtype=np.float64), axis=1)
    monkeypatch.setattr("sklearn_acs.gradients._BLOCK_BYTES", 1000)  # a few rows each
    np.testing.assert_array_equal(ScoreSelector(n_select=K).fit(factors).indices_, extreme(norms, "highest"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("order", ["highest", "lowest"])
def test_loss_and_margin_follow_from_cross_entropy_gradients(dtype, order):
    logits, labels, gradients = cross_entropy_gradients(dtype)
    p = logits.softmax(1).numpy()
    label = np.arange(N), labels.numpy()
    others = p.copy()
    others[label] = -1
    expected = {"loss": -np.log(p[label]), "margin": p[label] - others.max(1)}
    for name, values in expected.items():
        chosen = ScoreSelector(n_select=K, scores=name, order=order).fit(gradients).indices_
        if dtype == torch.float16:  # which rounds neighbours in the ranking to the same number
            by_rank = np.sort(values)[::-1] if order == "highest" else np.sort(values)
            np.testing.assert_allclose(values[chosen], by_rank[:K], rtol=2e-2, atol=2e-3)
        else:
            np.testing.assert_array_equal(chosen, extreme(values, order))


def test_probabilities_beyond_the_precision_are_the_highest_loss():
    _, _, gradients = cross_entropy_gradients(torch.float32, scale=100.0)
    chosen = ScoreSelector(n_select=5, scores="loss").fit(gradients).indices_
    lost = torch.nonzero(gradients.branches[0][0].amin(1) == -1)[:, 0]
    assert len(lost) > 5
    torch.testing.assert_close(chosen, lost[:5])


def not_cross_entropy():
    _, _, gradients = cross_entropy_gradients()
    (g, h1), ones = gradients.branches[0], torch.ones(N, 1)
    weight = torch.linspace(0.5, 1.5, N)[:, None]
    return {
        "an ordinary matrix": G,
        "a tensor": torch.tensor(G),
        "two branches": LastLayerGradients([(g, h1), (g, h1)]),
        "weights above 1": LastLayerGradients([(100 * weight * g, h1)]),
        "another sign": LastLayerGradients([(-g, h1)]),
        "any numbers": LastLayerGradients([(torch.tensor(G), h1)]),
        "one logit": LastLayerGradients([(ones, h1)]),
    }


@pytest.mark.parametrize("name", ["loss", "margin"])
@pytest.mark.parametrize("form", not_cross_entropy())
def test_gradients_of_another_form_are_refused_with_what_to_pass(name, form):
    with pytest.raises(ValueError, match=rf"'{name}' does not follow from G.*fit\(G, scores=\.\.\.\)"):
        ScoreSelector(scores=name).fit(not_cross_entropy()[form])
    ScoreSelector(scores=name).fit(not_cross_entropy()[form], scores=SCORES)


@pytest.mark.parametrize("order", ["highest", "lowest"])
@pytest.mark.parametrize("given", [SCORES, SCORES.tolist(), torch.tensor(SCORES)], ids=["array", "list", "tensor"])
def test_scores_of_ones_own_as_a_parameter_and_at_fit(order, given):
    for selector in (
        ScoreSelector(n_select=K, scores=given, order=order).fit(G),
        ScoreSelector(n_select=K, scores="loss", order=order).fit(G, scores=given),
        ScoreSelector(n_select=K, scores=-SCORES, order=order).fit(G, scores=given),
    ):
        np.testing.assert_array_equal(selector.indices_, extreme(SCORES, order))


@pytest.mark.parametrize("order", ["highest", "lowest"])
def test_of_equal_scores_the_lowest_index_is_kept(order):
    scores = np.round(SCORES)
    assert len(np.unique(scores)) < K
    np.testing.assert_array_equal(
        ScoreSelector(n_select=K, scores=scores, order=order).fit(G).indices_, extreme(scores, order)
    )


def test_by_class_each_class_has_its_own_end_of_the_ranking_and_its_own_weight():
    y = np.random.default_rng(1).permutation(np.repeat(["a", "b", "c"], [30, 12, 8]))
    selector = ScoreSelector(n_select=11, scores=SCORES, per_class=True).fit(G, y)
    for label, k, n in (("a", 6, 30), ("b", 3, 12), ("c", 2, 8)):
        chosen = selector.indices_[y[selector.indices_] == label]
        rows = np.flatnonzero(y == label)
        np.testing.assert_array_equal(chosen, rows[np.argsort(-SCORES[rows])[:k]])
        np.testing.assert_allclose(selector.weights_[y[selector.indices_] == label], n / k)


def test_all_count_alike_and_the_reason_says_what_was_kept():
    selector = ScoreSelector(n_select=K, order="lowest").fit(G)
    np.testing.assert_array_equal(selector.weights_, N / K)
    assert selector.n_matched_ == K
    assert selector.stop_reason_ == "the lowest scores use all of the budget"


@pytest.mark.parametrize(
    "bad, words",
    [
        (SCORES[:-1], r"scores must have one value for each of the 50 samples, got shape \(49,\)"),
        (SCORES[:, None], r"scores must .* got shape \(50, 1\)"),
        (np.where(np.arange(N) == 3, np.nan, SCORES), "scores contains NaN"),
        (np.where(np.arange(N) == 3, np.inf, SCORES), "scores contains infinity"),
    ],
)
def test_scores_that_cannot_be_ranked_are_named(bad, words):
    for selector, given in ((ScoreSelector(scores=bad), None), (ScoreSelector(), bad)):
        with pytest.raises(ValueError, match=words):
            selector.fit(G, scores=given)


@pytest.mark.parametrize("parameter", ["scores", "order"])
def test_unknown_names_are_refused(parameter):
    with pytest.raises(ValueError, match=f"'{parameter}' parameter of ScoreSelector"):
        ScoreSelector(**{parameter: "best"}).fit(G)


def test_it_says_what_it_needs():
    needs = {"gradient_norm": ("gradients",), "loss": ("loss",), "margin": ("margin",)}
    assert {name: ScoreSelector(scores=name).fit_inputs for name in needs} == needs
    assert ScoreSelector(scores=SCORES).fit_inputs == ()


@pytest.mark.parametrize("scores", [SCORES, "gradient_norm"], ids=["given", "norms"])
def test_a_group_scores_what_its_samples_do_on_average(scores):
    values = SCORES if scores is SCORES else np.linalg.norm(G, axis=1)
    groups = np.arange(N) % 7
    given = ScoreSelector(scores=scores).for_groups(as_gradients(G), groups)
    np.testing.assert_allclose(given["scores"], [values[groups == group].mean() for group in range(7)])
    assert CRAIG().for_groups(as_gradients(G), groups, validation=G) == {"validation": G}


def test_an_array_of_scores_is_cut_to_the_samples_left_and_nothing_else_is():
    selector, rows = ScoreSelector(scores=SCORES), np.array([3, 1])
    selector.keep_rows(rows, N)
    np.testing.assert_array_equal(selector.scores, SCORES[rows])
    for other in (ScoreSelector(scores="margin"), CRAIG()):
        before = other.get_params()
        other.keep_rows(rows, N)
        assert other.get_params() == before


def test_scores_that_carry_a_graph_are_taken():
    scores = torch.arange(6.0, requires_grad=True) * 1.0
    np.testing.assert_array_equal(ScoreSelector(n_select=2).fit(np.eye(6), scores=scores).indices_, [5, 4])
