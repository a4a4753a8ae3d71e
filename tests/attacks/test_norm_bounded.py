"""What an attack of one's own inherits: a ball, its size, and everything that training and evaluation ask."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_acs import (
    FGSM,
    JPEG,
    LPA,
    NFGSM,
    PGD,
    PGD5010,
    PPGD,
    TRADES,
    AutoAttack,
    BulletTrain,
    FastAT,
    FastLPA,
    ReColor,
    StAdv,
    robust_accuracy,
)
from sklearn_acs.attacks import ATTACKS, TABLE_EPS, Attack, NormBoundedAttack, Threat
from sklearn_acs.data.formats import DataFormat, InputFormat

SCALE = torch.tensor([1.0, 2.0, 4.0])


def known(form, clip, scale=SCALE):
    return DataFormat(form, clip, np.arange(2), torch.zeros(len(scale)), scale)


TABLE = known(InputFormat((3,)), None)
GREY, LAST, FIRST = (known(InputFormat.of(shape), (0.0, 1.0)) for shape in [(5, 4, 6), (5, 4, 6, 3), (5, 3, 4, 6)])


class Jump(NormBoundedAttack):
    """All of the radius at once up the gradient."""

    def __init__(self, eps=None, *, norm="linf"):
        self.eps = eps
        self.norm = norm

    def _attack(self, problem, start):
        ball = self.threat.ball(problem.x, problem.clip)
        delta = torch.zeros_like(problem.x) if start is None else ball.project(start)
        return ball.perturbed(ball.project(ball.ascend(delta, problem.gradient(problem.x + delta), ball.eps)))


class Remembering(Jump):
    remembers = True
    max_age = 4

    def for_evaluation(self):
        return Jump(self.eps, norm=self.norm)


X, Y = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3


def make_model():
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))
        model[-1].bias -= model(X).mean(0)  # so that every class is predicted
    return model


# An attack of one's own


@pytest.mark.parametrize(("eps", "norm"), [(0.1, "linf"), ([0.1, 0.0, 0.3], "linf"), (0.2, "l2"), (0.3, "l1")])
def test_it_perturbs_within_its_ball_and_is_measured_there(eps, norm):
    attack, model = Jump(eps, norm=norm), make_model()
    attack.validate()
    assert (attack.threat.norm, attack.threat.eps) == (norm, eps)
    x_adv = attack.perturb(model, X, Y)
    sizes, bound = attack.measure(model, X, x_adv), 1.0 if np.ndim(eps) else eps
    np.testing.assert_allclose(sizes, bound, rtol=1e-4)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    if not np.ndim(eps):
        np.testing.assert_allclose(np.linalg.norm(x_adv - X, order, axis=1), sizes, rtol=1e-4)
    assert attack.metric == attack.threat.metric == (f"{norm}/eps" if np.ndim(eps) else norm)


def test_it_is_judged_as_the_others():
    model = make_model()
    y = model(X).argmax(1)
    shares = [robust_accuracy(model, X, y, Jump(eps), clip=None) for eps in (1e-4, 0.1, 3.0)]
    assert shares[0] > shares[1] > shares[2]
    assert shares[1] == robust_accuracy(model, X, y, FGSM(0.1), clip=None)


@pytest.mark.parametrize(("eps", "norm"), [(0, "linf"), ([0.1, 0.2], "l2"), ([0.0, -1.0], "linf"), (0.1, "l3")])
def test_its_parameters_are_checked(eps, norm):
    with pytest.raises(ValueError, match=r"eps|norm"):
        Jump(eps, norm=norm).validate()


def test_one_that_remembers_has_what_a_memory_asks_for():
    attack = Remembering(0.1)
    assert attack.remembers and attack.max_age == 4
    assert type(attack.without_memory()) is Jump and attack.without_memory().eps == 0.1
    assert not Jump().remembers and Jump().max_age is None
    around = BulletTrain(PGD(0.1, init="previous", max_age=2))
    assert (around.remembers, around.max_age, around.threat.eps) == (True, 2, 0.1)
    assert repr(around.without_memory()) == repr(PGD(0.1))
    assert (BulletTrain().remembers, BulletTrain().max_age) == (False, None)


# Threats


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_in_a_norm_have_a_threat_and_others_have_none(name):
    attack = ATTACKS[name]()
    bounded = isinstance(attack, NormBoundedAttack | BulletTrain)
    assert bounded == (name not in ("fast-lpa", "lpa", "ppgd", "stadv", "recolor", "jpeg"))
    if bounded:
        assert isinstance(attack.threat, Threat)
        assert (attack.threat.norm, attack.threat.eps) == ("linf", 8 / 255)
    else:
        assert attack.threat is None
        assert BulletTrain(attack).threat is None


def test_a_threats_ball_has_a_radius_like_the_samples():
    for x in (X, X.double()):
        assert Threat("linf", [0.1, 0.2, 0.3]).ball(x, None).eps.dtype == x.dtype
    assert isinstance(Threat("l2", 0.1).ball(X, None).eps, float)


# Fitted to the data


@pytest.mark.parametrize("attack", [Jump(), Remembering(), FGSM(), NFGSM(), PGD(), PGD5010(), AutoAttack()], ids=repr)
def test_a_radius_that_is_not_given_is_one_in_the_scale_of_the_data(attack):
    fitted = attack.settled(TABLE)
    np.testing.assert_allclose(fitted.eps, TABLE_EPS * SCALE.numpy())
    assert type(fitted) is type(attack)
    assert attack.eps is None  # as it was
    assert attack.threat.eps == attack.settled(FIRST).eps == 8 / 255
    assert attack.settled(known(LAST.inputs, (-100.0, 155.0))).eps == pytest.approx(8)
    assert attack.settled(known(LAST.inputs, None)).eps == 8 / 255
    assert attack.with_params(eps=0.3).settled(TABLE).eps == 0.3


@pytest.mark.parametrize("form", [TABLE, FIRST], ids=["table", "images"])
def test_a_threat_is_taken_where_there_is_no_radius(form):
    threat = Threat("l2", 0.7)
    for attack in (Jump(), FGSM(), AutoAttack()):
        fitted = attack.settled(form, threat=threat)
        assert (fitted.eps, fitted.norm) == (0.7, "l2")
        given = attack.with_params(eps=0.2)
        assert given.settled(form, threat=threat).get_params() == given.get_params()
    inner = BulletTrain().settled(form, threat=threat).attack
    assert (inner.eps, inner.norm) == (0.7, "l2")
    assert BulletTrain(PGD(0.1)).settled(form, threat=threat).attack.eps == 0.1


@pytest.mark.parametrize("form", [GREY, LAST, FIRST], ids=["grey", "channels last", "channels first"])
def test_a_radius_for_each_feature_may_have_the_users_layout_or_the_models(form):
    form, format = form.inputs, form
    given = np.arange(1.0, 1 + np.prod(form.given_shape)).reshape(form.given_shape)
    own = form.to_model(torch.from_numpy(given)[None])[0].numpy()
    for eps in (given, own, given.tolist()):
        fitted = PGD(eps).settled(format)
        np.testing.assert_array_equal(fitted.eps, own)
    inside = BulletTrain(PGD(given)).settled(format)
    np.testing.assert_array_equal(inside.attack.eps, own)
    with pytest.raises(ValueError, match=r"eps must be a number or of the shape of one sample, .*; got shape \(2,\)"):
        PGD([0.1, 0.2]).settled(format)


@pytest.mark.parametrize("shape", [(5, 8, 6, 3), (5, 3, 8, 6)], ids=["channels last", "channels first"])
def test_a_radius_for_each_channel_spreads_over_the_pixels(shape):
    format, channels = known(InputFormat.of(shape), (0.0, 1.0)), np.array([0.1, 0.2, 0.0])
    for eps in (channels[:, None, None], channels[None, None] if shape[3] == 3 else channels[:, None, None]):
        np.testing.assert_array_equal(PGD(eps).settled(format).eps, np.broadcast_to(channels[:, None, None], (3, 8, 6)))


def test_a_radius_for_each_channel_spreads_without_a_classifier_too():
    x = torch.rand(2, 3, 4, 6)
    ball = PGD(np.array([0.1, 0.2, 0.0])[:, None, None]).threat.ball(x, None)
    assert ball.project(torch.ones_like(x)).amax((0, 2, 3)).tolist() == pytest.approx([0.1, 0.2, 0.0])
    with pytest.raises(ValueError, match=r"eps must be a number or of the shape of one sample, \(3, 4, 6\)"):
        PGD([0.1, 0.2]).threat.ball(x, None)


def test_auto_becomes_the_start_of_the_training():
    assert PGD().settled(TABLE, init="normal").init == "normal"
    assert PGD().settled(TABLE).init == "auto"
    assert PGD(init="zero").settled(TABLE, init="normal").init == "zero"
    assert BulletTrain().settled(TABLE, init="normal").attack.init == "normal"


@pytest.mark.parametrize("make", [FastLPA, LPA, PPGD])
def test_perceptual_attacks_count_in_the_scale_of_a_table(make):
    np.testing.assert_array_equal(make().settled(TABLE).scale, SCALE)
    assert make().settled(FIRST).scale == "auto"
    assert make(scale=3.0).settled(TABLE).scale == 3.0
    np.testing.assert_array_equal(BulletTrain(make()).settled(TABLE).attack.scale, SCALE)


def test_transforms_have_nothing_to_fit():
    for attack in (StAdv(), ReColor(), JPEG()):
        assert attack.settled(FIRST).get_params() == attack.get_params()


# What objectives ask


class AtSample(Jump):
    starts_at_sample = True


@pytest.mark.parametrize("attack", [FGSM(), PGD(init="zero"), BulletTrain(PGD(init="zero")), AtSample()], ids=repr)
def test_a_divergence_is_not_attacked_from_the_sample_itself(attack):
    with pytest.raises(ValueError, match="starts at the sample itself, where what TRADES maximises"):
        TRADES().check_attack(attack)
    FastAT().check_attack(attack)


@pytest.mark.parametrize("attack", [FGSM(random_start=True), NFGSM(), PGD(), PGD(init="previous"), BulletTrain()])
def test_a_divergence_is_attacked_from_anywhere_else(attack):
    TRADES().check_attack(attack)


def test_gradalign_and_the_guard_take_any_ball():
    for attack in (Jump(), Remembering(), BulletTrain(PGD())):
        FastAT(gradalign=0.2).check_attack(attack)
    with pytest.raises(ValueError, match="draws from the ball of a norm"):
        FastAT().check_attack(FastLPA())


# What was learned


def test_what_was_learned_goes_on_in_an_attack_that_knows_it():
    before, after = BulletTrain(), BulletTrain(gamma=0.5)
    before.robust_share_ = torch.tensor(0.3)
    after.load_state_dict(before.state_dict())
    assert after.robust_share_ == before.robust_share_
    after.load_state_dict(PGD().state_dict())
    assert after.robust_share_ == before.robust_share_
    attack = Jump()
    attack.load_state_dict(before.state_dict())
    assert attack.state_dict() == Attack.state_dict(attack) == {}
