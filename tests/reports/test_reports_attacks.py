"""What people really hand to attacks: radii in the wrong unit, constant columns, NaN gradients, NumPy's numbers."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_acs import (
    EMA,
    FGSM,
    JPEG,
    LPA,
    NFGSM,
    PGD,
    PPGD,
    AutoAttack,
    BulletTrain,
    CoresetSchedule,
    FastLPA,
    InBatchSelection,
    ReColor,
    RobustClassifier,
    StAdv,
    evaluate,
    robust_accuracy,
)
from sklearn_acs.attacks import ATTACKS
from sklearn_acs.data.training_data import TrainingData
from sklearn_acs.models import convnet, mlp
from sklearn_acs.plan import Plan
from sklearn_acs.selectors import SELECTORS

IMAGES, LABELS = load_digits(n_class=3, return_X_y=True)
IMAGES, LABELS = IMAGES.reshape(-1, 8, 8)[:120] / 16, LABELS[:120]
FLAT = IMAGES.reshape(len(IMAGES), -1)
RNG = np.random.default_rng(0)
TABLE = np.column_stack([RNG.normal(size=(90, 2)), np.ones(90), RNG.integers(0, 2, 90)])  # one constant, one 0/1
SIGN = (TABLE[:, 0] > 0).astype(int)


def quick(**params):
    return RobustClassifier(**{"selector": None, "max_epochs": 1, "batch_size": 64, "random_state": 0, **params})


# Columns


@pytest.mark.parametrize("params", [{}, {"attack": PGD(steps=3)}, {"attack": "bullet"}, {"objective": "fast"}], ids=str)
def test_constant_and_two_valued_columns_do_not_move_by_default(params):
    clf = quick(**params).fit(TABLE, SIGN)
    moved = np.abs(clf.perturb(TABLE, SIGN) - TABLE).max(0)
    np.testing.assert_allclose(moved, [*0.1 * TABLE.std(0)[:2], 0, 0], rtol=1e-3, atol=1e-6)


def test_one_hot_columns_do_not_move_and_scores_are_those_without_constants():
    hot = np.eye(3)[RNG.integers(0, 3, 90)]
    clf = quick(max_epochs=4).fit(np.column_stack([TABLE[:, :2], hot]), SIGN)
    assert not clf.attack_.eps[2:].any() and clf.attack_.eps[:2].all()
    module = nn.Linear(4, 2)
    with torch.no_grad():  # the constant would add 0.1 to the first class if it moved
        module.weight.copy_(torch.tensor([[0.0, 0, 1, 0], [1.0, 0, 1, 0]])), module.bias.zero_()
    clf = quick(module=module, lr=1e-12).fit(TABLE, SIGN)
    stays = np.abs(TABLE[:, 0]) > 0.1 * TABLE[:, 0].std()
    assert clf.robust_score(TABLE, SIGN) == pytest.approx(stays.mean())


def test_columns_of_two_values_move_where_there_are_no_others():
    bits = RNG.integers(0, 2, (90, 5))
    clf = quick().fit(bits, bits[:, 0])
    np.testing.assert_allclose(clf.attack_.eps, 0.1 * bits.std(0), rtol=1e-5)


def test_a_table_of_constants_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="all columns of X are constant"):
        quick().fit(np.ones((20, 3)), np.arange(20) % 2)
    quick(attack__eps=0.1).fit(np.ones((20, 3)), np.arange(20) % 2)


def test_perceptual_attacks_do_not_move_constants():
    clf = quick(objective="pat").fit(TABLE, SIGN)
    moved = np.abs(clf.perturb(TABLE, SIGN) - TABLE).max(0)
    assert moved[:2].min() > 0 and not moved[2:].any()


def test_a_radius_for_each_column():
    names = ["age", "dose", "batch", "smokes"]
    frame = pd.DataFrame(TABLE, columns=names)
    clf = quick(attack=PGD(eps={"dose": 0.3, "age": 0.1})).fit(frame, SIGN)
    moved = np.abs(clf.perturb(frame, SIGN) - TABLE).max(0)
    np.testing.assert_allclose(moved, [0.1, 0.3, 0, 0], atol=1e-6)
    attack = PGD(eps={"smokes": 1.0, "batch": 1.0}, unit="std")  # asked for, two values move; a constant cannot
    moved = np.abs(clf.perturb(frame, SIGN, attack) - TABLE).max(0)
    np.testing.assert_allclose(moved, [0, 0, 0, TABLE[:, 3].std()], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(quick(attack__eps=[0.1, 0.3, 0, 0]).fit(TABLE, SIGN).attack_.eps, [0.1, 0.3, 0, 0])
    series = pd.Series({"batch": 0.0, "dose": 0.3, "smokes": 0.0, "age": 0.1})  # by name, in any order
    np.testing.assert_allclose(quick(attack=PGD(series)).fit(frame, SIGN).attack_.eps, [0.1, 0.3, 0, 0])


def test_names_of_columns_that_are_not_there():
    frame = pd.DataFrame(TABLE, columns=["age", "dose", "batch", "smokes"])
    with pytest.raises(ValueError, match=r"does not have: \['weight'\]; it has \['age', 'dose', 'batch', 'smokes'\]"):
        quick(attack__eps={"weight": 0.1, "age": 0.1}).fit(frame, SIGN)
    with pytest.raises(ValueError, match="names columns, and X has no names"):
        quick(attack__eps={"age": 0.1}).fit(TABLE, SIGN)
    for eps in ({"age": -1.0}, {"age": "0.1"}, {}):
        with pytest.raises(ValueError, match="eps must be finite numbers >= 0"):
            quick(attack__eps=eps).fit(frame, SIGN)


@pytest.mark.parametrize("last", [False, True])
def test_a_radius_for_each_channel(last):
    X = RNG.random((12, 3, 8, 8), dtype=np.float32)
    eps = np.array([0.1, 0.2, 0.0]).reshape(3, 1, 1)
    if last:
        X, eps = X.transpose(0, 2, 3, 1), eps.reshape(1, 1, 3)
    clf = quick(attack=PGD(eps=eps, steps=2), clip=None).fit(X, np.arange(12) % 2)
    moved = np.abs(clf.perturb(X, np.arange(12) % 2) - X).max((0, 1, 2) if last else (0, 2, 3))
    np.testing.assert_allclose(moved, [0.1, 0.2, 0], atol=1e-6)


# Units


def test_a_radius_in_standard_deviations():
    raw = TABLE * [1000, 0.001, 1, 1] + [1e4, 0, 0, 0]
    clf = quick(attack=PGD(eps=0.2, unit="std")).fit(raw, SIGN)
    np.testing.assert_allclose(clf.attack_.eps, [*0.2 * raw.std(0)[:2], 0, 0], rtol=1e-4)
    assert clf.robust_score(raw, SIGN, PGD(eps=0.2, unit="std")) == clf.robust_score(raw, SIGN)
    for attack in (FGSM(eps=0.2, unit="std"), NFGSM(eps=0.2, unit="std"), BulletTrain(PGD(eps=0.2, unit="std"))):
        assert clf.robust_score(raw, SIGN, attack) <= clf.score(raw, SIGN)


def test_standard_deviations_of_channels():
    X = RNG.random((12, 8, 8, 3)) * [1.0, 0.5, 0.25]
    clf = quick(attack=PGD(eps=0.1, unit="std", steps=2)).fit(X, np.arange(12) % 2)
    np.testing.assert_allclose(clf.attack_.eps[:, 0, 0], 0.1 * X.std((0, 1, 2)), rtol=1e-4)


def test_standard_deviations_are_refused_where_they_are_not_known():
    x, y, module = torch.from_numpy(TABLE).float(), torch.from_numpy(SIGN), nn.Linear(4, 2)
    for attack in (PGD(eps=0.1, unit="std"), PGD(eps={"age": 0.1})):
        with pytest.raises(ValueError, match="a RobustClassifier knows; a module needs eps in units of X"):
            attack.perturb(module, x, y)
    with pytest.raises(ValueError, match="which a RobustClassifier knows and a bare module does not"):
        robust_accuracy(module, TABLE, SIGN, PGD(eps=0.1, unit="std"), clip=None)
    with pytest.raises(ValueError, match="for 'linf' only, not norm='l2'"):
        PGD(eps=0.1, norm="l2", unit="std").validate()
    with pytest.raises(ValueError, match="step_size is in units of X, and unit='std' is not"):
        PGD(eps=0.1, step_size=0.1, unit="std").validate()


# Slips


def told(*args, match, X=IMAGES, y=LABELS, **params):
    with pytest.warns(UserWarning, match=match):
        return quick(*args, **params).fit(X, y)


def test_deviations_of_constant_columns_alone_are_no_radius():
    frame = pd.DataFrame(TABLE, columns=list("abcd"))
    with pytest.raises(ValueError, match="eps with unit='std' moves only columns that are constant"):
        quick(attack=PGD(eps={"c": 0.1}, unit="std")).fit(frame, SIGN)


def test_a_radius_in_input_units_on_a_raw_table():
    told(X=FLAT[:, 18:46] * 1000, attack=PGD(eps=0.1), match="standard deviations of a column .* Was unit='std' meant")
    told(X=FLAT[:, 18:46] / 1000, attack__eps=0.1, match="standard deviations of a column .* Was unit='std' meant")
    told(X=FLAT * 255, attack__eps=0.1, match="standard deviations of a column")
    # Too large for half of the columns, too small for the others.
    X, y = load_breast_cancer(return_X_y=True)
    told(X=X, y=y, attack=PGD(eps=0.1), match="Was unit='std' meant")
    clf = quick().fit(FLAT[:, 18:46] * 1000, LABELS)
    with pytest.warns(UserWarning, match="standard deviations of a column"):
        clf.robust_score(FLAT[:, 18:46] * 1000, LABELS, PGD(eps=0.1))


def test_pixels_in_place_of_shares():
    with pytest.raises(ValueError, match=r"eps=8 covers the box clip=\(0.0, 1.0\).*; was eps=8/255 meant\?"):
        quick(attack__eps=8).fit(IMAGES, LABELS)
    told(attack=PGD(eps=8, norm="l2"), match=r"eps=8 in l2 can make all samples alike.* was eps=8/255 meant\?")
    told(attack=PGD(eps=0.6), match="eps=0.6 in linf can make all samples alike")
    told(
        attack=PGD(eps=0.1, step_size=2), match=r"step_size=2 is 20 times the radius, 0.1; was step_size=2/255 meant\?"
    )


def test_shares_in_place_of_pixels():
    told(X=IMAGES * 255, clip=(0, 255), attack__eps=0.1, match=r"of the box \(0, 255\); was eps=25.5 meant\?")
    clf = quick(clip=(0, 255)).fit(IMAGES * 255, LABELS)
    assert clf.attack_.eps == pytest.approx(8)  # the default is one of the box
    with pytest.warns(UserWarning, match=r"was eps=8 meant\?"):
        robust_accuracy(clf.net_.module_, IMAGES * 255, LABELS, PGD(eps=8 / 255), clip=(0, 255))


def test_images_that_do_not_fill_their_box():
    told(X=(IMAGES * 16).astype(np.uint8), match="to 0.0627, .* uint8 images are divided by 255 whatever their maximum")
    told(X=IMAGES / 255, match="X goes from 0 to 0.00392")
    told(X=IMAGES, clip=(0, 255), match="to 1, .* or give the clip that X has")


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_another_norm_asks_for_its_radius(norm):
    with pytest.raises(ValueError, match=f"norm='{norm}' asks for its eps: the default, 8/255, is a radius in 'linf'"):
        quick(attack__norm=norm).fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match="asks for its eps"):
        AutoAttack(norm=norm).perturb(nn.Linear(3, 2), torch.rand(2, 3), torch.zeros(2).long(), clip=(0, 1))
    quick(attack__norm=norm, attack__eps=0.5).fit(IMAGES, LABELS)


def test_ordinary_radii_are_not_doubted():
    scaled = StandardScaler().fit_transform(FLAT[:, 18:46])
    for attack in (None, PGD(eps=0.1), PGD(eps=0.01), PGD(eps=8 / 255), PGD(eps=1, norm="l2"), "fgsm"):
        quick(attack=attack).fit(scaled, LABELS)
    rare = np.eye(30)[RNG.integers(0, 30, len(scaled))] * (RNG.random((len(scaled), 1)) < 0.05)
    quick(attack=PGD(eps=0.5)).fit(np.column_stack([scaled, np.repeat(rare, 2, axis=1)]), LABELS)
    for attack in (PGD(eps=0.1), PGD(eps=0.3, step_size=0.1), PGD(eps=0.5, norm="l2"), PGD(eps=12, norm="l1"), None):
        quick(attack=attack).fit(IMAGES, LABELS)
        quick(attack=attack).fit(FLAT, LABELS)
    quick().fit((IMAGES * 255).astype(np.uint8), LABELS)
    quick(attack__eps=0.5).fit(FLAT * 16, LABELS)


def test_evaluation_goes_to_any_radius_without_a_word():
    clf = quick(attack=PGD(eps=0.1), attack_ramp=0.0, averaging=None).fit(IMAGES, LABELS)
    scores = [clf.robust_score(IMAGES, LABELS, PGD(eps=eps, steps=2)) for eps in (0.01, 0.5, 1, 8)]
    assert scores == sorted(scores, reverse=True) and scores[-1] < 0.5
    evaluate(clf, IMAGES, LABELS, [PGD(eps=1e-5, steps=1), PGD(eps=1.0, steps=1)], check_masking=True)


# Selections


def test_a_selection_attack_without_a_radius_takes_that_of_training():
    data = TrainingData.read(IMAGES, LABELS, None)
    for given in (PGD(steps=3), "pgd", "fgsm"):
        clf = RobustClassifier(attack__eps=0.1, selection_attack=given)
        assert Plan.of(clf.get_params(deep=False)).settled(data).selection_attack.eps == 0.1
    with pytest.warns(UserWarning, match="within eps=0.1 in linf, and selection_attack within eps=0.2 in linf"):
        quick(selector="craig", attack__eps=0.1, selection_attack=PGD(eps=0.2), max_epochs=2).fit(IMAGES, LABELS)


# What `perturb` is given


X, Y, MODULE = torch.rand(6, 3, 16, 16), torch.arange(6) % 3, convnet((3, 16, 16), 3)


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (PGD(eps=float("nan")), "eps"),
        (PGD(eps=float("inf")), "eps"),
        (PGD(eps=-0.1), "eps"),
        (PGD(eps="0.1"), "eps"),
        (PGD(eps=True), "eps"),
        (PGD(eps=np.array(-0.1)), "eps"),
        (PGD(eps=torch.tensor(-0.1)), "eps"),
        (PGD(steps=0), "steps"),
        (PGD(steps=True), "steps"),
        (PGD(step_size=float("inf")), "step_size"),
        (FGSM(random_start="False"), "random_start"),
        (NFGSM(noise=np.nan), "noise"),
        (StAdv(bound=np.nan), "bound"),
        (ReColor(steps=2.5), "steps"),
        (JPEG(restarts=True), "restarts"),
        (LPA(distance="self", rounds=np.bool_(True)), "rounds"),
        (PPGD(distance="self", bound="0.5"), "bound"),
        (FastLPA(only_correct="False"), "only_correct"),
        (BulletTrain(gamma=True), "gamma"),
        (BulletTrain(PGD(eps=np.nan)), "eps"),
        (AutoAttack(eps=np.nan), "eps"),
    ],
    ids=repr,
)
def test_a_parameter_out_of_range_is_refused_at_perturb_too(attack, name):
    with pytest.raises(ValueError, match=name):
        attack.perturb(MODULE, X, Y, clip=(0, 1))


def test_a_parameter_is_checked_again_when_it_changes():
    attack = PGD(steps=1)
    attack.perturb(MODULE, X, Y)
    attack.eps = float("nan")
    with pytest.raises(ValueError, match="eps"):
        attack.perturb(MODULE, X, Y)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"y": Y[:4]}, "y must have one int for each sample of x"),
        ({"y": Y[:, None]}, "y must have one int"),
        ({"y": Y.float()}, "y must have one int"),
        ({"y": Y + 1}, "y has labels from 1 to 3; the model has classes 0 to 2"),
        ({"y": Y - 1}, "y has labels from -1 to 1"),
        ({"y_target": Y[:1]}, "y_target must have one int"),
        ({"y_target": Y + 5}, "y_target has labels from 5 to 7"),
        ({"x": (255 * X).byte()}, "x must hold floats"),
        ({"clip": (1, 0)}, "clip="),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_batches_that_do_not_go_together_are_refused(change, error):
    with pytest.raises(ValueError, match=error):
        PGD(steps=1).perturb(**{"model": MODULE, "x": X, "y": Y, **change})
    with pytest.raises(TypeError, match="x must be a torch tensor; got ndarray"):
        PGD().perturb(MODULE, X.numpy(), Y)


# NaN


class Root(nn.Module):
    """Finite logits, whose gradient is NaN at samples whose first input is 0."""

    def __init__(self, shape):
        super().__init__()
        self.net = convnet(shape, 3) if len(shape) == 3 else mlp(shape, 3)

    def forward(self, x):
        first = x.flatten(1)[:, :1]
        return self.net(x) + (0 * first).sqrt() * (first == 0)


NAN_ATTACKS = [
    *(PGD(eps=0.1, norm=norm, init="zero", steps=2) for norm in ("linf", "l2", "l1")),
    *(FGSM(eps=0.1), NFGSM(eps=0.1), StAdv(steps=3), ReColor(steps=3), JPEG(steps=3), BulletTrain(PGD(init="zero"))),
    *(FastLPA(steps=2, only_correct=False), LPA(distance="self", steps=2, rounds=1, only_correct=False)),
    PPGD(distance="self", steps=2, only_correct=False),
]


@pytest.mark.parametrize("attack", NAN_ATTACKS, ids=repr)
def test_nan_gradients_are_zero_steps_and_told(attack):
    model = Root(X.shape[1:])
    with torch.no_grad():
        y = model(X).argmax(1)
    with pytest.warns(UserWarning, match="the gradient of the loss is NaN for some samples") as found:
        x_adv = attack.perturb(model, X, y, clip=(0, 1))
    assert x_adv.isfinite().all() and len(found) == 1
    assert attack.perturb(model.net, X, y, clip=(0, 1)).isfinite().all()  # without a word


def test_nan_gradients_are_told_once_an_epoch_in_training():
    with pytest.warns(UserWarning, match="the gradient of the loss is NaN") as found:
        quick(module=Root((1, 8, 8)), attack=FGSM(eps=0.1)).fit(IMAGES, LABELS)
    assert len([each for each in found if "NaN" in str(each.message)]) == 1


@pytest.mark.parametrize("attack", [StAdv(steps=2), ReColor(steps=2), JPEG(steps=2)], ids=repr)
def test_images_with_nan_are_refused_by_transforms(attack):
    with pytest.raises(ValueError, match="must be finite"):
        attack.perturb(MODULE, X.where(X > 0.5, torch.nan), Y)


# NumPy's numbers


def as_numpy(value):
    """The same number in the smallest of NumPy's types that has it."""
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return np.uint8(value) if value < 256 else np.int64(value)
    return np.float32(value)


def numbers_of(part):
    """Parameters whose default is a number, as NumPy's numbers."""
    params = part.get_params(deep=False)
    return {
        name: as_numpy(value)
        for name, value in params.items()
        if isinstance(value, bool | int | float) and name not in ("random_state", "verbose")
    }


@pytest.mark.parametrize("name", ATTACKS)
def test_numpys_numbers_are_numbers_in_attacks(name):
    attack = ATTACKS[name]()
    params = {"eps": 0.25} if "eps" in attack.get_params() else {}
    params |= {"distance": "self"} if "distance" in attack.get_params() else {}
    params |= {key: 2 for key in ("steps", "restarts", "rounds") if key in attack.get_params()}
    params |= {"attacks": ["apgd-ce"]} if name == "autoattack" else {}
    attack.set_params(**params)
    given = clone(attack).set_params(**numbers_of(attack))
    plain = clone(given).set_params(**{key: value.item() for key, value in numbers_of(attack).items()})
    x_adv = given.perturb(MODULE, X, Y, clip=(np.float32(0), np.float32(1)))
    torch.testing.assert_close(x_adv, plain.perturb(MODULE, X, Y, clip=(0, 1)), rtol=0, atol=0)
    assert all(given.get_params()[key] is value for key, value in numbers_of_given(given).items())


def numbers_of_given(part):
    return {name: value for name, value in part.get_params(deep=False).items() if isinstance(value, np.generic)}


def test_a_small_numpy_integer_does_not_wrap():
    x, module = 100 * X.flatten(1), mlp((768,), 3)
    moved = PGD(eps=np.uint8(2), steps=np.uint8(3)).perturb(module, x, Y, clip=(0, 255)) - x
    assert 0 < moved.abs().max() <= 2 + 1e-4


def test_numpys_numbers_are_numbers_in_a_classifier():
    clf = quick(selector="gradmatch", max_epochs=2, attack__eps=0.1, averaging="ema", in_batch=InBatchSelection())
    numbers = {**numbers_of(clf), "lr": np.float32(0.1), "n_iter_no_change": np.int64(3), "attack__steps": np.int64(2)}
    numbers |= {
        "selector__ridge": np.float32(0.5),
        "averaging__decay": np.float32(0.9),
        "in_batch__share": np.float32(0.5),
    }
    numbers |= {"optimizer__momentum": np.float32(0.5), "iterator_train__num_workers": np.int64(0)}
    given = clone(clf).set_params(**numbers).fit(IMAGES, LABELS)
    plain = clone(clf).set_params(**{name: value.item() for name, value in numbers.items()}).fit(IMAGES, LABELS)
    np.testing.assert_array_equal(given.predict_proba(IMAGES), plain.predict_proba(IMAGES))
    assert given.get_params()["batch_size"] is numbers["batch_size"] and clone(given).batch_size == 64
    quick(attack__eps=np.array(0.1)).fit(IMAGES, LABELS)
    quick(averaging=EMA(decay=np.float32(0.5)), attack=BulletTrain(PGD(steps=np.int64(2)))).fit(IMAGES, LABELS)


def test_a_grid_over_numpys_numbers():
    grid = {"batch_size": np.array([16, 32]), "attack__steps": np.array([1, 2])}
    search = GridSearchCV(quick(attack__eps=0.1), grid, cv=2, error_score="raise").fit(IMAGES[:40], LABELS[:40])
    assert search.best_params_["batch_size"] in (16, 32)


def test_ordinary_attacks_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for attack in (PGD(), FGSM(), NFGSM(), BulletTrain(), StAdv(steps=2), JPEG(steps=2), ReColor(steps=2)):
            attack.perturb(MODULE, X, Y, clip=(0, 1))


@pytest.mark.parametrize("name", sorted(set(SELECTORS) - {"infobatch"}))  # which has no n_select
def test_numpys_numbers_are_numbers_in_selectors(name):
    gradients = RNG.normal(size=(40, 6))
    for n_select in (np.uint8(6), np.int64(6), np.float32(0.25)):
        selector = SELECTORS[name](n_select=n_select)
        selector.set_params(**{key: value for key, value in numbers_of(selector).items() if key != "n_select"})
        if name == "score":
            selector.set_params(scores=np.arange(40.0))
        options = {"validation": gradients[:5]} if name == "glister" else {}
        assert len(selector.fit(gradients, **options).indices_) == (6 if n_select > 1 else 10)


def test_numpys_numbers_are_numbers_in_a_schedule():
    given = CoresetSchedule(np.uint8(40), np.float32(0.5), np.uint8(20), np.float16(0.5))
    plain = CoresetSchedule(40, 0.5, 20, 0.5)
    assert given == plain and given.n_selections == plain.n_selections == 1
