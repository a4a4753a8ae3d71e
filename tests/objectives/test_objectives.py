"""Objectives: losses against their formulas, gradients against closed forms and against vmap of the last layer."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from scipy.special import softmax as scipy_softmax
from sklearn.base import clone
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from sklearn_acs.attacks import PGD
from sklearn_acs.gradients import LastLayerGradients, batch_factors
from sklearn_acs.models import frozen
from sklearn_acs.objectives import (
    ADVERSARIAL,
    CLEAN,
    MART,
    OBJECTIVES,
    PAT,
    TRADES,
    Adversarial,
    FastAT,
    Natural,
    Objective,
)

N, C, D = 9, 4, 6


class HalfAndHalf(Objective):
    """An objective of a user's own: half clean, half adversarial, and a focal factor that sees the labels."""

    branches = ("clean", "adversarial")
    attack_uses_clean = False

    def loss(self, logits, y):
        adversarial = F.cross_entropy(logits["adversarial"], y, reduction="none")
        right = logits["clean"].softmax(1).gather(1, y[:, None]).squeeze(1)
        return (F.cross_entropy(logits["clean"], y, reduction="none") + (1 - right) * adversarial) / 2


INSTANCES = {
    "natural": Natural(),
    "natural, smoothed": Natural(label_smoothing=0.2),
    "adversarial": Adversarial(),
    "adversarial, smoothed": Adversarial(label_smoothing=0.1),
    "trades": TRADES(),
    "trades, beta 0": TRADES(beta=0),
    "trades, smoothed": TRADES(label_smoothing=0.3),
    "trades, cross-entropy": TRADES(beta=2.5, divergence="ce"),
    "mart": MART(),
    "mart, beta 0": MART(beta=0),
    "fast": FastAT(),
    "a user's own": HalfAndHalf(),
}


@pytest.fixture(params=INSTANCES)
def objective(request):
    return clone(INSTANCES[request.param])


def logits_and_labels():
    rng = np.random.RandomState(0)
    return 2 * rng.randn(N, C), 2 * rng.randn(N, C), rng.randint(C, size=N)


def as_branches(objective, clean, adversarial):
    """The leaves that `loss` is differentiated with respect to."""
    both = {CLEAN: clean, ADVERSARIAL: adversarial}
    return {branch: torch.tensor(both[branch], requires_grad=True) for branch in objective.branches}


def loss_of(objective):
    clean, adversarial, y = logits_and_labels()
    return objective.loss(as_branches(objective, clean, adversarial), torch.from_numpy(y)).detach().numpy()


def logit_gradients(objective):
    clean, adversarial, y = logits_and_labels()
    leaves = as_branches(objective, clean, adversarial)
    objective.loss(leaves, torch.from_numpy(y)).sum().backward()
    return {branch: leaf.grad.numpy() for branch, leaf in leaves.items()}


def probabilities():
    clean, adversarial, y = logits_and_labels()
    return scipy_softmax(clean, axis=1), scipy_softmax(adversarial, axis=1), np.eye(C)[y], y


# Loss per sample


def test_natural_loss_is_minus_the_log_probability_of_the_label():
    p, _, _, y = probabilities()
    np.testing.assert_allclose(loss_of(Natural()), -np.log(p[np.arange(N), y]))


def test_adversarial_loss_is_minus_the_log_probability_of_the_label_under_attack():
    _, q, _, y = probabilities()
    np.testing.assert_allclose(loss_of(Adversarial()), -np.log(q[np.arange(N), y]))


@pytest.mark.parametrize("beta", [0, 1, 6.0])
def test_trades_loss_is_cross_entropy_and_beta_times_the_divergence(beta):
    p, q, _, y = probabilities()
    expected = -np.log(p[np.arange(N), y]) + beta * rel_entr(p, q).sum(1)
    np.testing.assert_allclose(loss_of(TRADES(beta=beta)), expected)


def test_trades_ce_loss_is_the_papers_formula():
    p, q, _, y = probabilities()
    expected = [-np.log(p[i, y[i]]) - 2.5 * sum(p[i, c] * np.log(q[i, c]) for c in range(C)) for i in range(N)]
    np.testing.assert_allclose(loss_of(TRADES(beta=2.5, divergence="ce")), expected)


def smoothed(p, y, share):
    label = (1 - share) * np.eye(C)[y] + share / C
    return -(label * np.log(p)).sum(1)


@pytest.mark.parametrize("kind", [Adversarial, FastAT, PAT])
def test_smoothed_loss_is_cross_entropy_with_a_share_of_the_label_spread_over_all_classes(kind):
    p, q, _, y = probabilities()
    np.testing.assert_allclose(loss_of(kind(label_smoothing=0.1)), smoothed(q, y, 0.1))
    np.testing.assert_allclose(loss_of(Natural(label_smoothing=0.1)), smoothed(p, y, 0.1))


def test_trades_smooths_its_clean_term_alone():
    p, q, _, y = probabilities()
    expected = smoothed(p, y, 0.3) + 6 * rel_entr(p, q).sum(1)
    np.testing.assert_allclose(loss_of(TRADES(label_smoothing=0.3)), expected)


@pytest.mark.parametrize("kind", [Natural, Adversarial, FastAT, PAT, TRADES])
def test_smoothing_leaves_what_the_attack_raises(kind):
    clean, adversarial, y = logits_and_labels()
    args = torch.tensor(adversarial), torch.from_numpy(y), torch.tensor(clean)
    torch.testing.assert_close(kind(label_smoothing=0.5).inner_loss(*args), kind().inner_loss(*args))


def test_trades_penalty_vanishes_where_nothing_moved():
    clean, _, y = logits_and_labels()
    logits = as_branches(TRADES(), clean, clean)
    torch.testing.assert_close(
        TRADES(beta=10.0).loss(logits, torch.from_numpy(y)), Natural().loss(logits, torch.from_numpy(y))
    )


def test_trades_loss_is_finite_for_certain_predictions():
    logits = {CLEAN: torch.tensor([[1e4, -1e4]]), ADVERSARIAL: torch.tensor([[9e3, -9e3]])}
    assert TRADES().loss(logits, torch.tensor([0])).item() == 0


@pytest.mark.parametrize("beta", [0, 1, 5.0])
def test_mart_loss_is_boosted_cross_entropy_and_the_weighted_divergence(beta):
    p, q, e, y = probabilities()
    wrong = np.where(e, 0, q).max(1)
    boosted = -np.log(q[np.arange(N), y]) - np.log(1.0001 - wrong)
    expected = boosted + beta * rel_entr(p, q).sum(1) * (1 - p[np.arange(N), y])
    np.testing.assert_allclose(loss_of(MART(beta=beta)), expected)


@pytest.mark.parametrize("wrong", [False, True])
def test_mart_loss_and_gradient_are_finite_for_certain_predictions(wrong):
    leaf = torch.tensor([[60.0, -60.0]], requires_grad=True)
    loss = MART().loss({CLEAN: leaf, ADVERSARIAL: 0.9 * leaf}, torch.tensor([int(wrong)]))
    loss.sum().backward()
    assert loss.isfinite()
    assert leaf.grad.isfinite().all()
    assert (loss > 50) == wrong


def test_loss_is_one_number_per_sample(objective):
    assert loss_of(objective).shape == (N,)


def test_loss_of_a_sample_does_not_depend_on_the_others(objective):
    clean, adversarial, y = logits_and_labels()
    alone = objective.loss(as_branches(objective, clean[3:4], adversarial[3:4]), torch.from_numpy(y[3:4]))
    assert alone.item() == pytest.approx(loss_of(objective)[3])


# Logit gradients: the closed forms


def test_natural_gradient_is_p_minus_label():
    p, _, e, _ = probabilities()
    np.testing.assert_allclose(logit_gradients(Natural())[CLEAN], p - e, atol=1e-12)


def test_adversarial_gradient_is_q_minus_label():
    _, q, e, _ = probabilities()
    np.testing.assert_allclose(logit_gradients(Adversarial())[ADVERSARIAL], q - e, atol=1e-12)


@pytest.mark.parametrize("divergence", ["kl", "ce"])
def test_trades_adversarial_gradient_is_beta_times_q_minus_p(divergence):
    p, q, _, _ = probabilities()
    gradient = logit_gradients(TRADES(beta=6, divergence=divergence))[ADVERSARIAL]
    np.testing.assert_allclose(gradient, 6 * (q - p), atol=1e-12)


def test_trades_clean_gradient_in_kl():
    p, q, e, _ = probabilities()
    expected = (p - e) + 6 * p * (np.log(p / q) - rel_entr(p, q).sum(1, keepdims=True))
    np.testing.assert_allclose(logit_gradients(TRADES(beta=6))[CLEAN], expected, atol=1e-12)


def test_trades_clean_gradient_in_ce():
    p, q, e, _ = probabilities()
    cross = -(p * np.log(q)).sum(1, keepdims=True)
    expected = (p - e) + 6 * p * (-np.log(q) - cross)
    np.testing.assert_allclose(logit_gradients(TRADES(beta=6, divergence="ce"))[CLEAN], expected, atol=1e-12)


def test_mart_gradients():
    p, q, e, y = probabilities()
    wrong = np.where(e, 0, q).argmax(1)
    true, worst = p[np.arange(N), y][:, None], q[np.arange(N), wrong][:, None]
    divergence = rel_entr(p, q).sum(1, keepdims=True)
    boosted = (q - e) + worst / (1.0001 - worst) * (np.eye(C)[wrong] - q)
    moved = (1 - true) * p * (np.log(p / q) - divergence) - divergence * true * (e - p)
    gradients = logit_gradients(MART(beta=5))
    np.testing.assert_allclose(gradients[ADVERSARIAL], boosted + 5 * (1 - true) * (q - p), atol=1e-12)
    np.testing.assert_allclose(gradients[CLEAN], 5 * moved, atol=1e-12)


# Last-layer gradients


def make_model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, D), nn.BatchNorm1d(D), nn.Tanh(), nn.Linear(D, C)).eval()


def make_inputs(objective):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(N, 5, generator=rng)
    both = {CLEAN: x, ADVERSARIAL: x + 0.3 * torch.randn(N, 5, generator=rng)}
    return {branch: both[branch] for branch in objective.branches}, torch.randint(C, (N,), generator=rng)


def test_last_layer_gradients_are_those_of_the_whole_last_layer(objective):
    model = make_model()
    inputs, y = make_inputs(objective)
    last = {name: value.detach() for name, value in model.named_parameters() if name.startswith("3.")}

    def loss_of_one(layer, samples, label):
        logits = {branch: functional_call(model, layer, (x[None],)) for branch, x in samples.items()}
        return objective.loss(logits, label[None]).squeeze(0)

    oracle = vmap(grad(loss_of_one), in_dims=(None, 0, 0))(last, inputs, y)  # (n, C, D) and (n, C)
    expected = torch.cat([oracle["3.weight"], oracle["3.bias"][:, :, None]], dim=2).flatten(1)
    got = LastLayerGradients(batch_factors(model, model[3], objective.loss, inputs, y))
    torch.testing.assert_close(got.dense(), expected, atol=1e-5, rtol=1e-5)


def test_factors_come_one_pair_for_each_branch(objective):
    inputs, y = make_inputs(objective)
    model = make_model()
    factors = batch_factors(model, model[3], objective.loss, inputs, y)
    assert [(g.shape, h.shape) for g, h in factors] == [((N, C), (N, D + 1))] * len(objective.branches)


def test_factors_leave_the_models_gradients_alone(objective):
    inputs, y = make_inputs(objective)
    model = make_model()
    batch_factors(model, model[3], objective.loss, inputs, y)
    assert all(parameter.grad is None for parameter in model.parameters())


# What the attack raises


@pytest.mark.parametrize("name", ["natural", "adversarial", "adversarial, smoothed", "mart", "a user's own"])
def test_inner_loss_is_cross_entropy_unless_said_otherwise(name):
    _, adversarial, y = logits_and_labels()
    inner = INSTANCES[name].inner_loss(torch.tensor(adversarial), torch.from_numpy(y), None)
    q = probabilities()[1]
    np.testing.assert_allclose(inner, -np.log(q[np.arange(N), y]))


def test_trades_inner_loss_has_the_gradient_of_the_divergence():
    clean, adversarial, y = logits_and_labels()
    leaf = torch.tensor(adversarial, requires_grad=True)
    TRADES().inner_loss(leaf, torch.from_numpy(y), torch.tensor(clean)).sum().backward()
    again = torch.tensor(adversarial, requires_grad=True)
    F.kl_div(again.log_softmax(1), torch.tensor(clean).softmax(1), reduction="sum").backward()
    torch.testing.assert_close(leaf.grad, again.grad)


def test_trades_inner_loss_differs_from_the_divergence_by_a_constant_per_sample():
    clean, adversarial, y = logits_and_labels()
    p, q, _, _ = probabilities()
    inner = TRADES().inner_loss(torch.tensor(adversarial), torch.from_numpy(y), torch.tensor(clean)).numpy()
    np.testing.assert_allclose(inner - rel_entr(p, q).sum(1), -(p * np.log(p)).sum(1))


def trades_attack(init):
    """Inputs, adversarial examples and clean logits of an attack on the TRADES inner loss."""
    model, (inputs, y) = make_model(), make_inputs(TRADES())
    x = inputs[CLEAN]
    with frozen(model), torch.no_grad():
        clean_logits = model(x)
    attack = PGD(eps=0.5, init=init)
    return model, x, attack.perturb(model, x, y, loss=TRADES().inner_loss, clean_logits=clean_logits), clean_logits


def test_trades_inner_loss_has_no_gradient_at_the_sample_itself():
    model, x, _, clean_logits = trades_attack("zero")
    leaf = x.clone().requires_grad_()
    TRADES().inner_loss(model(leaf), torch.zeros(N, dtype=torch.long), clean_logits).sum().backward()
    assert leaf.grad.abs().max() < 1e-6  # rounding: p - q is no exact 0


def divergence(clean_logits, logits):
    p, q = clean_logits.softmax(1), logits.detach().softmax(1)
    return rel_entr(p.numpy(), q.numpy()).sum(1)


def test_trades_asks_for_a_start_beside_the_sample():
    assert TRADES.attack_init == "normal"


def test_trades_from_a_normal_start_reaches_the_edge_of_the_ball():
    _, x, x_adv, _ = trades_attack("normal")
    assert (x_adv - x).abs().amax(1).numpy() == pytest.approx(np.full(N, 0.5), rel=1e-4)


def test_trades_from_a_normal_start_moves_predictions_farther_than_random_corners_do():
    model, x, x_adv, clean_logits = trades_attack("normal")
    rng = torch.Generator().manual_seed(0)
    corners = [divergence(clean_logits, model(x + 0.5 * torch.randn(x.shape, generator=rng).sign())) for _ in range(50)]
    assert divergence(clean_logits, model(x_adv)).mean() > 1.5 * np.mean(corners)


# Parameters


@pytest.mark.parametrize(
    ("bad", "name", "value"),
    [
        (TRADES(beta=-1), "beta", "-1"),
        (TRADES(beta="six"), "beta", "six"),
        (TRADES(divergence="js"), "divergence", "js"),
        (TRADES(attack=3), "attack", "3"),
        (MART(beta=-0.5), "beta", "-0.5"),
        (Adversarial(label_smoothing=1.0), "label_smoothing", "1.0"),
        (FastAT(label_smoothing=-0.1), "label_smoothing", "-0.1"),
        (TRADES(label_smoothing="some"), "label_smoothing", "some"),
        (Adversarial(attack=PGD), "attack", "PGD"),
        (Natural(attack=[1]), "attack", "1"),
    ],
    ids=repr,
)
def test_bad_parameter_is_named_with_its_value(bad, name, value):
    with pytest.raises(ValueError, match=name) as error:
        bad.validate()
    assert value in str(error.value)


def test_good_parameters_pass(objective):
    objective.set_params(attack=PGD(eps=0.1)).validate()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_names_mean_classes_that_pass_with_their_defaults(name):
    OBJECTIVES[name]().validate()


def test_parameters_reach_into_the_attack():
    objective = TRADES(attack=PGD()).set_params(attack__eps=0.25, beta=1.0)
    assert (objective.attack.eps, objective.beta) == (0.25, 1.0)
