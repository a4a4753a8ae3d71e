"""The evaluation of a linear model whose margins are known, of classifiers, and of interrupted runs."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_acs import (
    FGSM,
    JPEG,
    LPA,
    PGD,
    AutoAttack,
    BulletTrain,
    Evaluation,
    FastLPA,
    ReColor,
    RobustClassifier,
    StAdv,
    evaluate,
    robust_accuracy,
)
from sklearn_acs.attacks import Attack
from sklearn_acs.attacks.threat import Threat
from sklearn_acs.evaluation.evaluating import perturbation_sizes
from sklearn_acs.evaluation.state import State

MARGINS = np.array([-0.3, -0.05, 0.02, 0.1, 0.25, 0.45])
"""Distances of the samples from the boundary, negative on the wrong side."""

DIGITS, LABELS = (load_digits(n_class=4).images / 16).astype(np.float32), load_digits(n_class=4).target
ATTACKS = {"weak": PGD(eps=0.05), "strong": PGD(eps=0.2), "l2": PGD(eps=0.12, norm="l2")}


def linear():
    """Two classes with the boundary at x = 0.5."""
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model.bias.copy_(torch.tensor([0.5, -0.5]))
    return model


def samples():
    """One sample of each margin in each class."""
    x = np.concatenate([0.5 - MARGINS, 0.5 + MARGINS])[:, None]
    return x, np.repeat([0, 1], len(MARGINS))


@pytest.fixture(scope="module")
def clf():
    names = np.array(["zero", "one", "two", "three"])
    clf = RobustClassifier(attack=PGD(eps=0.15, steps=3), attack_ramp=0.0, averaging=None, max_epochs=10, lr=0.03)
    return clf.set_params(random_state=0).fit(DIGITS[:300], names[LABELS[:300]])


def held_out():
    return DIGITS[300:400], np.array(["zero", "one", "two", "three"])[LABELS[300:400]]


class Counting(PGD):
    """PGD that counts its batches, trials on one sample excepted, and fails where it is told to."""

    calls: list = []
    fail_at = None

    def perturb(self, model, x, y, **options):
        if len(x) > 1:
            if self.fail_at is not None and len(self.calls) == self.fail_at:
                raise KeyboardInterrupt
            self.calls.append(len(x))
        return super().perturb(model, x, y, **options)


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setattr(Counting, "calls", [])
    monkeypatch.setattr(Counting, "fail_at", None)
    return Counting


class Elsewhere(Attack):
    """Returns what it is made with, whatever it is given."""

    threat = Threat("linf", 0.1)

    def __init__(self, value=0.0):
        self.value = value

    def _attack(self, problem, start):
        self.warnings_ = ["something was left out"]
        return torch.full_like(problem.x, self.value)


# The table


def test_rows_are_clean_the_attacks_and_the_worst_case():
    result = evaluate(linear(), *samples(), ATTACKS)
    assert isinstance(result, Evaluation)
    assert result.columns == ["attack", "accuracy", "attacked", "success", "size", "metric", "linf", "l2", "seconds"]
    assert result["attack"] == ["clean", "weak", "strong", "l2", "worst case"]
    assert result["accuracy"] == [np.mean(MARGINS > eps) for eps in (0, 0.05, 0.2, 0.12, 0.2)]
    assert result["attacked"] == [None, 8, 8, 8, 8]
    np.testing.assert_allclose(result["success"][1:], [0.25, 0.5, 0.5, 0.5])
    assert all(seconds >= 0 for seconds in result["seconds"])
    assert result["seconds"][-1] == sum(result["seconds"][:-1])


def test_each_accuracy_is_that_of_the_attack_alone():
    model, (x, y) = linear(), samples()
    result = evaluate(model, x, y, ATTACKS)
    assert result["accuracy"][1:-1] == [robust_accuracy(model, x, y, attack) for attack in ATTACKS.values()]


def test_worst_case_is_the_minimum_over_attacks_sample_by_sample(clf):
    # Three attacks none of which breaks all that another one does.
    attacks = [PGD(eps=0.2, steps=1), PGD(eps=0.9, norm="l2"), PGD(eps=3, norm="l1")]
    result = evaluate(clf, *held_out(), attacks)
    np.testing.assert_array_equal(result.worst_case_, result.clean_ & result.correct_.min(0))
    assert result["accuracy"][-1] == result.worst_case_.mean() < min(result["accuracy"][:-1])


def test_sizes_are_those_of_the_perturbations_that_broke_a_sample():
    x, y = samples()
    result = evaluate(linear(), x, y, {"strong": PGD(eps=0.2)})
    broken = result.attacked_[0] & ~result.correct_[0]
    assert result["linf"][1] == pytest.approx(np.mean(result.linf_[0][broken]))
    assert result["linf"][1] <= 0.2 + 1e-6
    assert np.isnan(result.linf_[0][~result.clean_]).all()
    np.testing.assert_array_equal(result.attacked_[0], result.clean_)


def test_an_attack_in_l1_has_its_norm_in_the_table():
    result = evaluate(linear(), *samples(), {"l1": PGD(eps=0.2, norm="l1")})
    assert result.columns[4:9] == ["size", "metric", "linf", "l2", "l1"]
    assert result["size"][1] == result["l1"][1] == pytest.approx(result["linf"][1])


def test_attacks_that_break_nothing_have_no_sizes():
    result = evaluate(linear(), *samples(), {"none": PGD(eps=0.001)})
    assert result["success"][1] == 0 and result["linf"][1] is None and result["size"][1] is None


def test_model_that_is_always_wrong_is_not_attacked(counting):
    x, _ = samples()
    result = evaluate(linear(), x, 1 - (x[:, 0] > 0.5), counting(eps=0.1))
    assert counting.calls == []
    assert result["accuracy"] == [0, 0, 0] and result["success"][1:] == [None, None]


def test_prints_as_a_table_and_becomes_a_frame_and_html():
    result = evaluate(linear(), *samples(), {"<weak>": PGD(eps=0.05)})
    assert str(result).splitlines()[0].split() == result.columns
    assert result.to_frame()["accuracy"].tolist() == result["accuracy"]
    assert "<td>&lt;weak&gt;</td>" in result._repr_html_()


# Sizes in the metric of each attack


@pytest.fixture(scope="module")
def coloured():
    """A plain net and tinted digits."""
    tint = np.random.default_rng(0).uniform(0.6, 1, (len(DIGITS), 3, 1, 1)).astype(np.float32)
    X = DIGITS[:, None] * tint
    clf = RobustClassifier(objective="natural", selector=None, max_epochs=8, batch_size=32, lr=0.03, random_state=0)
    return clf.fit(X[:300], LABELS[:300]), X[300:360], LABELS[300:360]


OF_EVERY_KIND = {
    "pgd": PGD(eps=0.2, steps=5),
    "pgd, each feature": PGD(eps=np.linspace(0, 0.3, 3 * 64).reshape(3, 8, 8), steps=5),
    "pgd, l2": PGD(eps=1.0, norm="l2", steps=5),
    "autoattack": AutoAttack(eps=1.0, norm="l2", attacks=["apgd-ce"]),
    "jpeg": JPEG(bound=2.0, steps=6, restarts=2),
    "stadv": StAdv(bound=0.2, steps=6, step_size=0.1),
    "recolor": ReColor(bound=0.3, steps=6, step_size=0.1),
    "fast-lpa": FastLPA(bound=0.3, steps=4),
    "lpa": LPA(bound=0.3, steps=4, distance="self"),
}
METRICS = ["linf", "linf/eps", "l2", "l2", "jpeg", "flow", "colour", "lpips-self", "lpips-self"]


@pytest.fixture(scope="module")
def of_every_kind(coloured):
    return evaluate(*coloured, OF_EVERY_KIND, batch_size=16)


def test_every_attack_is_told_in_its_own_metric_and_keeps_its_bound(of_every_kind):
    assert of_every_kind["metric"] == [None, *METRICS, None] and of_every_kind.metrics_ == METRICS
    broken = of_every_kind.attacked_ & ~of_every_kind.correct_
    for i, (name, attack) in enumerate(OF_EVERY_KIND.items()):
        bound = 1.0 if metric_is_relative(attack) else getattr(attack, "bound", getattr(attack, "eps", None))
        sizes = of_every_kind.size_[i]
        assert broken[i].any(), name
        np.testing.assert_array_equal(np.isnan(sizes), ~of_every_kind.attacked_[i])
        assert np.nanmin(sizes) >= 0 and np.nanmax(sizes) <= bound * (1 + 1e-5), name
        assert of_every_kind["size"][1 + i] == pytest.approx(sizes[broken[i]].mean())


def metric_is_relative(attack):
    return np.ndim(getattr(attack, "eps", 0)) > 0


def test_sizes_are_those_of_the_attack_run_batch_by_batch(coloured, of_every_kind):
    # By hand: no state, no table; what each metric means has its test in tests/attacks/test_base.py.
    clf, X, y = coloured
    rows = np.flatnonzero(of_every_kind.clean_)
    for i, attack in enumerate(OF_EVERY_KIND.values()):
        attack = clone(attack.for_evaluation())
        for number in range(0, len(rows), 16):
            part = rows[number : number + 16]
            x, seed = torch.from_numpy(X[part]), np.random.SeedSequence((0, number // 16))
            generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0] >> np.uint64(1)))
            module, codes = clf.net_.module_, torch.from_numpy(y[part])
            x_adv = attack.perturb(module, x, codes, clip=(0, 1), generator=generator)
            sizes = attack.measure(module, x, x_adv, clip=(0, 1))
            np.testing.assert_allclose(of_every_kind.size_[i][part], sizes.numpy(), atol=1e-6)


def test_in_a_norm_the_own_size_is_that_norms(of_every_kind):
    np.testing.assert_array_equal(of_every_kind.size_[0], of_every_kind.linf_[0])
    np.testing.assert_array_equal(of_every_kind.size_[2:4], of_every_kind.l2_[2:4])


def test_own_sizes_survive_an_interruption_to_the_bit(coloured, of_every_kind, tmp_path, monkeypatch):
    for fail_at in (1, 14):  # in the first attack, and between the batches of another
        saves, save = [], State.save

        def failing(self, saves=saves, save=save, fail_at=fail_at):
            save(self)
            saves.append(1)
            if len(saves) == fail_at + 1:
                raise KeyboardInterrupt

        monkeypatch.setattr(State, "save", failing)
        with pytest.raises(KeyboardInterrupt):
            evaluate(*coloured, OF_EVERY_KIND, batch_size=16, state_path=tmp_path / str(fail_at))
        monkeypatch.undo()
        result = evaluate(*coloured, OF_EVERY_KIND, batch_size=16, state_path=tmp_path / str(fail_at))
        np.testing.assert_array_equal(result.size_, of_every_kind.size_)
        assert result["size"] == of_every_kind["size"] and result["metric"] == of_every_kind["metric"]


def test_the_table_of_many_metrics_fits_a_page(of_every_kind):
    assert max(len(line) for line in str(of_every_kind).splitlines()) <= 100
    assert of_every_kind.to_frame()["metric"].tolist()[1:-1] == METRICS
    assert "<td>flow</td>" in of_every_kind._repr_html_()


def test_an_attack_without_a_metric_has_a_dash():
    result = evaluate(linear(), *samples(), {"own": Elsewhere(0.45)})
    assert result["size"] == result["metric"] == [None] * 3
    assert np.isnan(result.size_).all()


# Attacks of many kinds


def test_names_objects_and_suites_may_be_mixed():
    result = evaluate(linear(), *samples(), ["fgsm", PGD(eps=0.05), PGD(eps=0.05), "quick"])
    assert result.attacks_ == ["fgsm", "PGD(eps=0.05)", "PGD(eps=0.05) (2)", "PGD-20"]


def test_an_attack_draws_the_same_whatever_stands_beside_it(clf):
    alone = evaluate(clf, *held_out(), {"strong": PGD(eps=0.2, steps=2)})
    beside = evaluate(clf, *held_out(), {"weak": PGD(eps=0.05), "strong": PGD(eps=0.2, steps=2)})
    np.testing.assert_array_equal(alone.linf_[0], beside.linf_[1])
    np.testing.assert_array_equal(alone.l2_[0], beside.l2_[1])


def test_attacks_that_save_steps_in_training_are_replaced(clf):
    attacks = {"bullet": BulletTrain(PGD(eps=0.2)), "whole": PGD(eps=0.2)}
    result = evaluate(clf, *held_out(), attacks)
    np.testing.assert_array_equal(result.l2_[0], result.l2_[1])
    assert evaluate(clf, *held_out(), {"lpa": FastLPA(bound=0.1, steps=2)})["accuracy"][1] > 0


def test_the_users_attack_is_left_as_it_is():
    attack = Elsewhere(0.45)
    evaluate(linear(), *samples(), attack)
    assert not hasattr(attack, "warnings_")


# Classifiers and modules


def test_classifier_and_its_module_agree(clf):
    X, y = held_out()
    codes = np.searchsorted(clf.classes_, y)
    ours = evaluate(clf, X, y, ATTACKS, batch_size=32)
    theirs = evaluate(clf.net_.module_, X, codes, ATTACKS, batch_size=32)
    np.testing.assert_array_equal(ours.l2_, theirs.l2_)
    assert ours["accuracy"] == theirs["accuracy"]
    assert ours["accuracy"][0] == clf.score(X, y)


def test_attack_given_by_name_means_the_tables_scale():
    X, y = load_iris(return_X_y=True)
    clf = RobustClassifier(max_epochs=10, random_state=0).fit(X, y)
    result = evaluate(clf, X, y, "quick")
    assert np.nanmax(result.linf_) == pytest.approx(0.1 * X.std(0).max(), rel=1e-3)
    assert result["metric"][1] == "linf/eps" and np.nanmax(result.size_) == pytest.approx(1, rel=1e-3)
    assert result["accuracy"][1] > 0.5


def test_suites_for_images_are_refused_for_tables():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=r"attacks='linf' has radii for images .* suites for tables are \['quick'\]"):
        evaluate(nn.Linear(4, 3), X, y, "linf", clip=None)


def test_datasets_are_streamed(clf):
    X, y = held_out()
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(np.searchsorted(clf.classes_, y)))
    result = evaluate(clf.net_.module_, data, attacks=ATTACKS)
    np.testing.assert_array_equal(result.l2_, evaluate(clf, X, y, ATTACKS).l2_)


@pytest.mark.parametrize("judge", [evaluate, robust_accuracy])
def test_bytes_of_a_table_are_numbers_and_no_pixels(judge):
    seen, model = [], linear()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].max().item()))
    judge(model, np.array([[0], [200]], dtype=np.uint8), [0, 1], PGD(eps=0.1, init="zero"), clip=None)
    assert 200 in seen


def test_single_samples_at_the_end_are_no_special_case():
    x, y = samples()
    result = evaluate(linear(), x, y, ATTACKS, batch_size=7)
    np.testing.assert_array_equal(result.correct_, evaluate(linear(), x, y, ATTACKS).correct_)


def test_same_seed_same_bits_and_global_randomness_untouched(clf, global_randomness):
    before = global_randomness()
    one, two, other = (evaluate(clf, *held_out(), PGD(eps=0.2, steps=1), random_state=seed) for seed in (1, 1, 2))
    assert global_randomness() == before
    np.testing.assert_array_equal(one.l2_, two.l2_)
    assert not np.array_equal(one.l2_, other.l2_)


def test_module_keeps_its_modes():
    model = nn.Sequential(nn.Dropout(0.9), linear()).train()
    model[0].eval()
    result = evaluate(model, *samples(), ATTACKS, check_masking=True)
    assert [module.training for module in model.modules()] == [True, False, True]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert result["accuracy"][0] == np.mean(MARGINS > 0)


# Only the worst case


def test_broken_samples_are_spared_by_later_attacks(counting):
    attacks = {"first": counting(eps=0.15), "second": counting(eps=0.05), "third": counting(eps=0.3)}
    result = evaluate(linear(), *samples(), attacks, worst_case_only=True)
    assert counting.calls == result["attacked"][1:-1] == [8, 4, 4]
    assert result["accuracy"][1:] == [np.mean(MARGINS > eps) for eps in (0.15, 0.15, 0.3, 0.3)]
    np.testing.assert_array_equal(result.worst_case_, evaluate(linear(), *samples(), attacks).worst_case_)


def test_an_attack_that_cannot_work_fails_before_the_others_run(counting):
    class Gray(PGD):
        def perturb(self, model, x, y, **options):
            raise ValueError("not for these samples")

    with pytest.raises(ValueError, match="not for these samples") as caught:
        evaluate(linear(), *samples(), {"first": counting(eps=0.1), "second": Gray()})
    assert caught.value.__notes__ == ["in attack 'second', tried on one sample"]
    assert counting.calls == []


# Interrupted runs


@pytest.mark.parametrize("worst_case_only", [False, True])
@pytest.mark.parametrize("fail_at", [1, 4, 6])
def test_an_interrupted_evaluation_goes_on_to_the_same_bits(clf, counting, tmp_path, fail_at, worst_case_only):
    attacks = {"a": counting(eps=0.1, steps=1), "b": counting(eps=0.2, steps=1), "c": counting(eps=0.25, steps=1)}
    options = {"batch_size": 32, "worst_case_only": worst_case_only}
    whole = evaluate(clf, *held_out(), attacks, **options)
    n_batches = len(counting.calls)
    counting.calls.clear()
    counting.fail_at = fail_at
    with pytest.raises(KeyboardInterrupt):
        evaluate(clf, *held_out(), attacks, **options, state_path=tmp_path / "state")
    counting.fail_at = None
    counting.calls.clear()
    result = evaluate(clf, *held_out(), attacks, **options, state_path=tmp_path / "state")
    assert len(counting.calls) == n_batches - fail_at
    for name in ("correct_", "attacked_", "size_", "linf_", "l2_", "l1_", "worst_case_"):
        np.testing.assert_array_equal(getattr(result, name), getattr(whole, name))
    assert result["accuracy"] == whole["accuracy"] and result["size"] == whole["size"]


def test_what_is_done_is_not_done_again(counting, tmp_path):
    attack = {"a": counting(eps=0.1)}
    first = evaluate(linear(), *samples(), attack, state_path=tmp_path / "state")
    again = evaluate(linear(), *samples(), attack, state_path=tmp_path / "state")
    assert len(counting.calls) == 1
    assert again.rows[1] == first.rows[1]


def test_warnings_survive_an_interruption(tmp_path):
    for _ in range(2):
        result = evaluate(linear(), *samples(), {"away": Elsewhere(0.45)}, state_path=tmp_path / "state")
        assert "away: something was left out" in result.warnings


@pytest.mark.parametrize(
    "change",
    [
        {"model": nn.Linear(1, 2)},
        {"X": samples()[0] + 1e-6},
        {"y": 1 - samples()[1]},
        {"attacks": {"a": PGD(eps=0.11)}},
        {"attacks": {"b": PGD(eps=0.1)}},
        {"random_state": 1},
        {"batch_size": 5},
        {"clip": (-1.0, 1.0)},
        {"worst_case_only": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_state_of_another_evaluation_is_refused(tmp_path, change):
    x, y = samples()
    given = {"model": linear(), "X": x, "y": y, "attacks": {"a": PGD(eps=0.1)}, "state_path": tmp_path / "state"}
    evaluate(**given)
    with pytest.raises(ValueError, match=r"state_path=.* is the state of another evaluation"):
        evaluate(**{**given, **change})
    evaluate(**given)


def test_a_module_that_computes_otherwise_with_the_same_weights_is_refused(tmp_path):
    class Turned(nn.Module):
        def __init__(self, sign):
            super().__init__()
            self.sign, self.inner = sign, linear()

        def forward(self, x):
            return self.sign * self.inner(x)

    evaluate(Turned(1), *samples(), PGD(eps=0.1), state_path=tmp_path / "state")
    with pytest.raises(ValueError, match="another evaluation"):
        evaluate(Turned(-1), *samples(), PGD(eps=0.1), state_path=tmp_path / "state")


# What is to be known


def test_examples_out_of_their_ball_and_box_are_told_of():
    result = evaluate(linear(), *samples(), {"away": Elsewhere(1.5)})
    assert result.warnings == [
        "away: something was left out",
        "away: perturbations leave the ball of radius 0.1 in linf",
        "away: examples leave the box (0.0, 1.0)",
    ]
    assert result.warnings[1] in str(result)
    assert result.warnings[1] in result._repr_html_()


def test_examples_with_nan_do_not_count():
    result = evaluate(linear(), *samples(), {"nan": Elsewhere(np.nan)})
    assert result["accuracy"][1] == result["accuracy"][0]
    assert any("NaN" in warning for warning in result.warnings)


def test_answers_with_nan_are_wrong():
    class Failing(nn.Module):
        def forward(self, x):
            return torch.cat([0 / (x > 0.7), x], 1)

    result = evaluate(Failing(), [[0.1], [0.9]], [0, 0], PGD(eps=0.01))
    assert result.clean_.tolist() == [False, False]


def test_a_radius_for_samples_in_a_box_is_told_of_where_there_is_none(tmp_path):
    (x, y), own = samples(), PGD(eps=20)
    for _ in range(2):  # from the file as well
        result = evaluate(linear(), 255 * x, y, ["quick", own], clip=None, state_path=tmp_path / "state")
        assert result.warnings == [
            "PGD-20: its radius, 0.03137, is one for images in [0, 1], and these samples live in no box"
        ]
    assert evaluate(linear(), 255 * x, y, ["quick", own], clip=(0.0, 255.0)).warnings == []


def test_sound_evaluations_say_nothing():
    assert evaluate(linear(), *samples(), ATTACKS).notes == []


def test_progress_is_shown_when_asked_for(capsys):
    evaluate(linear(), *samples(), ATTACKS)
    assert capsys.readouterr().err == ""
    evaluate(linear(), *samples(), ATTACKS, verbose=1)
    assert "strong" in capsys.readouterr().err


@pytest.mark.parametrize("verbose", [0, 1])
def test_the_bar_ends_at_its_total(capsys, tmp_path, verbose):
    for _ in range(2):
        evaluate(linear(), *samples(), ATTACKS, worst_case_only=True, verbose=1, state_path=tmp_path / "state")
        assert "24/24" in capsys.readouterr().err.replace(".0", "")


# Errors


@pytest.mark.parametrize(
    "change, message",
    [
        ({"attacks": "magic"}, r"attacks='magic' is not known; suites are .*'quick'.*attacks .*'pgd'"),
        ({"attacks": []}, r"attacks=\[\] has no attack"),
        ({"attacks": {"a": PGD(steps=0)}}, "'steps' parameter of PGD"),
        ({"attacks": PGD(eps=[0.1, 0.2])}, r"eps must be .* shape of one sample, \(1,\); got shape \(2,\)"),
        ({"batch_size": 0}, "'batch_size' parameter of evaluate must be an int .* Got 0"),
        ({"random_state": -1}, "'random_state' parameter of evaluate must be an int .* Got -1"),
        ({"random_state": None}, "'random_state' parameter of evaluate must be an int .* Got None"),
        ({"X": [[0.5], [7.0]], "y": [0, 1]}, "outside clip"),
        ({"y": [0, 1]}, "inconsistent numbers of samples"),
        ({"y": np.full(12, 2)}, r"labels 0 to C-1 .* here 0 to 1; got \[2\]"),
    ],
)
def test_bad_input_is_refused(change, message):
    x, y = samples()
    with pytest.raises(ValueError, match=message):
        evaluate(**{"model": linear(), "X": x, "y": y, **change})


@pytest.mark.parametrize("judge", [evaluate, robust_accuracy])
def test_labels_and_logits_that_are_none_of_a_module_are_refused(judge):
    x, y = samples()
    with pytest.raises(ValueError, match=r"labels 0 to C-1 .* here 0 to 1; got \[1, 2\]"):
        judge(linear(), x, y + 1)
    with pytest.raises(ValueError, match=r"Linear must give logits .* C >= 2 classes; 8 samples gave \(8, 1\)"):
        judge(nn.Linear(1, 1), x, y)


def test_attacks_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="attacks must be one of"):
        evaluate(linear(), *samples(), {"a": 3})


def test_models_of_another_kind_are_refused():
    with pytest.raises(TypeError, match=r"model must be a fitted RobustClassifier, .* or an nn\.Module .*; got str"):
        evaluate("model", *samples())


def test_an_unfitted_classifier_is_refused():
    with pytest.raises(NotFittedError):
        evaluate(RobustClassifier(), *samples())


def test_sizes_in_three_norms():
    delta = torch.randn(5, 2, 3, 3)
    sizes = perturbation_sizes(delta)
    for norm, size in zip((np.inf, 2, 1), sizes, strict=True):
        np.testing.assert_allclose(size, np.linalg.norm(delta.reshape(5, -1).numpy(), norm, axis=1), rtol=1e-6)


def test_fgsm_of_every_kind_is_an_attack_of_the_table():
    assert evaluate(linear(), *samples(), [FGSM(eps=0.2), "fgsm"])["accuracy"][1] == np.mean(MARGINS > 0.2)
