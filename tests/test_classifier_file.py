"""A classifier saved and loaded is the one that was saved: the same bits, attributes and further training."""

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, GradientNormClipping
from torch import nn

from sklearn_acs import (
    EMA,
    FGSM,
    PGD,
    TRADES,
    Dynamics,
    FastAT,
    FastLPA,
    InBatchSelection,
    RobustClassifier,
    ScoreSelector,
    StabilityTracker,
    evaluate,
)
from sklearn_acs.attacks import ATTACKS
from sklearn_acs.models import wide_resnet
from sklearn_acs.objectives import OBJECTIVES
from sklearn_acs.selectors import SELECTORS
from sklearn_acs.training.rate import one_cycle
from sklearn_acs.training.weights import weights_of

DIGITS = load_digits(n_class=3)
X, y = (DIGITS.images / 16).astype(np.float32)[:60], DIGITS.target[:60]
OBJECTS = np.array(["a", "b", "c"], object)[y]
TABLE = pd.DataFrame(DIGITS.data[:60, 18:26], columns=[f"pixel {i}" for i in range(8)])
RGB = np.stack([X, X[:, ::-1], X / 2], axis=1)
QUICK = {
    "module": "convnet", "module__width": 4, "module__hidden": 8, "attack": PGD(eps=0.05, steps=1),
    "max_epochs": 2, "batch_size": 16, "random_state": 0, "warm_start": True,
}  # fmt: skip


def clf_of(**params):
    given = {**QUICK, **params}
    if given["module"] != "convnet":
        given = {name: value for name, value in given.items() if name in params or not name.startswith("module__")}
    return RobustClassifier(**given)


def fit(clf, *data, method="fit"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one class alone, and of slips in eps, which are not looked at here
        return getattr(clf, method)(*data)


def loaded(clf, tmp_path, **given):
    clf.save(tmp_path / "file")
    return RobustClassifier.load(tmp_path / "file", **given)


def in_steps(tensor):
    """Tell how a tensor lies in memory, where that matters: an axis of one value has any stride."""
    return [step for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def assert_same(one, other, where="clf"):
    """Compare what users can see, however deep it is nested."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, in_steps(one)) == (other.dtype, other.shape, in_steps(other)), where
        assert torch.equal(one, other), where
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, where
        np.testing.assert_array_equal(one, other, where)
    elif isinstance(one, nn.Module):
        assert (repr(one), one.training) == (repr(other), other.training), where
        assert_same(weights_of(one), weights_of(other), where)
    elif isinstance(one, torch.optim.Optimizer):
        assert_same(one.state_dict(), other.state_dict(), where)
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    elif isinstance(one, np.random.RandomState):
        assert_same(one.get_state(), other.get_state(), where)
    elif not isinstance(one, Callback | torch.Generator) and hasattr(one, "__dict__") and not callable(one):
        assert_same(
            *({k: v for k, v in vars(each).items() if k[0] != "_" and k not in OWN} for each in (one, other)), where
        )
    elif not callable(one) and not isinstance(one, Callback | torch.Generator):
        assert one == other or one != one, where


OWN = {"begun", "training_", "ramp"}
"""Times at which things were made, a way back up, and a ramp that is at its end."""


ROUND_TRIPS = {
    "the default": ({"attack": None}, X, np.array(["a", "b", "c"])[y]),
    "adversarial, stopped early": ({"selector": "gradmatch", "early_stopping": True}, X, y * 1.0),
    "trades": ({"objective": "trades", "selector": "craig", "averaging": EMA(0.9)}, X, y),
    "mart": ({"objective": "mart", "selector": "glister", "select_by": "class", "attack": FGSM(eps=0.05)}, X, y),
    "natural": ({"objective": "natural", "selector": "random", "augment": "flip"}, X, y > 0),
    "pat": ({"objective": "pat", "attack": FastLPA(bound=0.1, steps=1), "selector": "infobatch"}, X, y),
    "fast": ({"objective": FastAT(gradalign=0.1), "attack": None, "attack__eps": 0.05}, X, y),
    "scores": ({"selector": ScoreSelector(scores=np.arange(60.0)), "attack": "n-fgsm", "attack__eps": 0.05}, X, y),
    "by time": ({"max_epochs": None, "max_seconds": 0.3}, X, y),
    "a table": ({"module": "mlp", "module__hidden": (8,), "attack": PGD(eps=np.linspace(0.1, 1, 8))}, TABLE, OBJECTS),
    "channels first": ({"precision": "bf16", "averaging": "ema", "clip": (0, 2)}, RGB, y),
    "channels last": ({"in_batch": InBatchSelection("adaptive"), "attack": "bullet"}, RGB.transpose(0, 2, 3, 1), y),
    "residual": ({"module": "wrn-28-10", "module__depth": 10, "module__width": 1}, X, y),
    "numbers of NumPy": ({"optimizer": torch.optim.Adam, "lr": np.float32(1e-3), "batch_size": np.int64(32)}, X, y),
    "a generator": ({"random_state": np.random.RandomState(3), "class_weight": {np.int64(0): 2.0, 1: 1, 2: 1}}, X, y),
    "callbacks": ({"callbacks": [("d", Dynamics()), StabilityTracker(minimum=True)], "callbacks__d__n_samples": 9},
                  X, y),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_a_loaded_classifier_is_the_one_saved_and_goes_on_as_it_would(name, tmp_path):
    params, samples, labels = ROUND_TRIPS[name]
    one = fit(clf_of(**params), samples, labels)
    other = loaded(one, tmp_path)
    assert vars(other).keys() == vars(one).keys()
    assert_same(vars(one), vars(other))
    np.testing.assert_array_equal(one.decision_function(samples), other.decision_function(samples))
    np.testing.assert_array_equal(one.perturb(samples, labels), other.perturb(samples, labels))
    if "max_seconds" in params:
        return
    for method in ("fit", "partial_fit")[: 2 - one.early_stopping]:
        fit(one, samples, labels, method=method)
        fit(other, samples, labels, method=method)
        np.testing.assert_array_equal(one.decision_function(samples), other.decision_function(samples), method)
        other = loaded(other, tmp_path)
    assert one.history_[:, "train_loss"] == other.history_[:, "train_loss"]


@pytest.mark.parametrize("family", ["objective", "attack", "selector"])
def test_every_part_comes_back_with_its_parameters(family, tmp_path):
    table = {"objective": OBJECTIVES, "attack": ATTACKS, "selector": SELECTORS}[family]
    for name in table:
        clf = RobustClassifier(**{family: table[name]()})
        again = loaded(clf, tmp_path)
        assert repr(again) == repr(clf)
        assert type(getattr(again, family)) is type(getattr(clf, family))
        assert_same(again.get_params(), clf.get_params())


def test_parameters_nested_in_one_another_come_back(tmp_path):
    clf = RobustClassifier(
        objective=TRADES(attack=PGD(eps=np.array([0.1, 0.2]), norm="l2"), beta=np.float64(2)),
        selection_attack="fgsm", class_weight={"a": 1, "b": 2.5}, clip=(0, np.inf), lr=np.float32(0.1),
        device=torch.device("cpu"), lr_schedule="cosine", module="mlp", module__hidden=[3, 4], random_state=2**31,
        iterator_train__num_workers=2,
    )  # fmt: skip
    again = loaded(clf, tmp_path)
    assert not hasattr(again, "net_")
    assert_same(again.get_params(), clf.get_params())
    assert type(again.lr) is np.float32


def test_functions_and_classes_of_the_library_torch_and_skorch_come_back(tmp_path):
    callbacks = [GradientNormClipping(1.0), EarlyStopping("train_loss"), EpochScoring("accuracy", on_train=True)]
    clf = RobustClassifier(wide_resnet, lr_schedule=one_cycle, optimizer=torch.optim.RAdam, lr=0.1, callbacks=callbacks)
    again = loaded(clf, tmp_path)
    assert (again.module, again.lr_schedule, again.optimizer) == (wide_resnet, one_cycle, torch.optim.RAdam)
    assert [each.get_params() for each in again.callbacks] == [each.get_params() for each in callbacks]
    one = fit(clf_of(callbacks=callbacks), X, y)
    fit(loaded(one, tmp_path), X, y)
    clf.set_params(callbacks=[EpochScoring(lambda net, X, y: 1, on_train=True)])
    with pytest.warns(UserWarning, match=r"leaves out callbacks \(.*<lambda>\)"):
        clf.save(tmp_path / "file")


def test_what_training_made_is_free_of_samples(tmp_path):
    marked = X.copy()
    marked[:, 0, 0] = 0.123456789
    clf = fit(clf_of(augment="crop", early_stopping=True, averaging="ema"), marked, y)
    clf.save(tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    assert all(sample.tobytes() not in content for sample in marked)
    assert marked[0, 0, 0].tobytes() not in content


def test_a_loaded_classifier_does_all_that_one_does(tmp_path):
    one = fit(clf_of(averaging="ema"), X, y)
    other = loaded(one, tmp_path)
    assert clone(other).get_params().keys() == one.get_params().keys()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(other)).predict_proba(X), one.predict_proba(X))
    assert other.robust_score(X, y) == one.robust_score(X, y)
    table, expected = (evaluate(clf, X, y, PGD(eps=0.05, steps=2)) for clf in (other, one))
    assert table["accuracy"] == expected["accuracy"]
    assert_same(other.export_module(), one.export_module())
    assert repr(other.selection_report()) == repr(one.selection_report())
    np.testing.assert_array_equal(other.net_.predict(X[:, None]), one.net_.predict(X[:, None]))
    with torch.inference_mode():
        inside = RobustClassifier.load(tmp_path / "file")
    fit(inside, X, y)


def test_parameters_set_since_the_fit_come_back_as_set_and_the_network_as_fitted(tmp_path):
    one = fit(clf_of(callbacks=[Dynamics()]), X, y)
    one.set_params(module="mlp", module__hidden=(4,), optimizer="adam", early_stopping=True, callbacks=None)
    other = loaded(one, tmp_path)
    assert repr(other) == repr(one)
    assert type(other.net_.optimizer_) is torch.optim.SGD
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    again = loaded(other, tmp_path)
    np.testing.assert_array_equal(one.decision_function(X), again.decision_function(X))


@pytest.mark.parametrize("averaging", [None, "ema"])
def test_what_was_compiled_is_compiled_again_unless_told_otherwise(averaging, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)  # which is not what is looked at here
    one = fit(clf_of(compile=True, averaging=averaging), X, y)
    other, plain = loaded(one, tmp_path), loaded(one, tmp_path, compile=False)
    for clf, is_compiled in ((one, True), (other, True), (plain, False)):
        for module in (clf.net_.module_, clf.net_.raw_module_):
            assert (getattr(module.forward, "compiled", None) is not None) == is_compiled


def test_a_subclass_loads_itself(tmp_path):
    class Mine(RobustClassifier):
        pass

    fit(Mine(**QUICK), X, y).save(tmp_path / "file")
    assert type(Mine.load(tmp_path / "file")) is Mine
    assert type(RobustClassifier.load(tmp_path / "file")) is RobustClassifier


def test_globals_are_left_alone(tmp_path):
    fit(clf_of(), X, y).save(tmp_path / "file")
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(0)
    np.random.seed(0)
    RobustClassifier.load(tmp_path / "file")
    assert_same((torch.rand(3), np.random.rand(3)), expected)


# Modules of one's own


class Own(nn.Module):
    """Has tied weights, buffers of every kind, and an extra state."""

    def __init__(self, width=6):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width)
        self.first, self.second, self.third = nn.Linear(36 * width, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.third.weight = self.second.weight
        self.last = nn.Linear(12, 3)
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.register_buffer("late", None)
        self.register_buffer("empty", torch.zeros(0, 2))
        self.register_buffer("count", torch.tensor(0))
        self.seen = 0

    def forward(self, x):
        if self.training:
            self.seen += len(x)
            self.count += 1
            self.hidden = self.hidden + 1
            self.late = torch.full((2,), float(self.seen))
        h = self.first(self.norm(self.conv(x)).relu().flatten(1)).relu()
        h = self.third(self.second(h).relu()).relu()
        return self.last(h) + 0.01 * self.hidden + (0 if self.late is None else self.late.mean() / 1000)

    def get_extra_state(self):
        return {"seen": self.seen, "of": ("samples", np.float32(1))}

    def set_extra_state(self, state):
        self.seen = state["seen"]


class Wider(Own):
    def __init__(self):
        super().__init__()
        self.more = nn.Linear(2, 2)


LEFT_OUT = r"leaves out module \((an object of )?Own.*\).* as module=\.\.\.$"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("averaging", [None, "ema"])
def test_a_module_of_ones_own_comes_back_in_the_one_given(layout, averaging, tmp_path):
    one = fit(clf_of(module=Own().to(memory_format=layout), averaging=averaging), X, y)
    with pytest.warns(UserWarning, match=LEFT_OUT) as told:
        one.save(tmp_path / "file")
    assert len(told) == 1
    with pytest.raises(ValueError, match=r"with module=an object of Own, .*give it as module="):
        RobustClassifier.load(tmp_path / "file")
    for given in (Own(), Own, lambda shape, n: Own()):
        other = RobustClassifier.load(tmp_path / "file", module=given)
        for module, expected in (
            (other.net_.module_, one.net_.module_),
            (other.net_.raw_module_, one.net_.raw_module_),
        ):
            assert_same(module, expected)
            assert module.seen == expected.seen > 0
            assert module.third.weight is module.second.weight
            assert module.conv.weight.is_contiguous(memory_format=layout)
        np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
        assert other.module is given
    other = RobustClassifier.load(tmp_path / "file", module=Own().to(memory_format=layout))
    np.testing.assert_array_equal(fit(one, X, y).decision_function(X), fit(other, X, y).decision_function(X))


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Own(8), r"module=Own does not fit .*: conv.weight has the shape \(8, 1, 3, 3\) in the module, not \(6, "),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), r"module=Sequential .* is not in the module; .*more$"),
        ("convnet", r"module='convnet' does not fit"),
        (Wider, r"module=Wider .*: more.weight is in the module alone; more.bias"),
    ],
)  # fmt: skip
def test_another_module_is_refused_by_the_first_tensors_that_differ(module, why, tmp_path):
    with pytest.warns(UserWarning, match=LEFT_OUT):
        fit(clf_of(module=Own), X, y).save(tmp_path / "file")
    with pytest.raises(ValueError, match=why):
        RobustClassifier.load(tmp_path / "file", module=module)


def test_an_extra_state_that_cannot_be_held_is_refused_before_anything_is_written(tmp_path):
    class Odd(Own):
        def get_extra_state(self):
            return {"seen": self.seen, "code": compile("1", "", "eval")}

    clf = fit(clf_of(module=Odd), X, y)
    with pytest.raises(TypeError, match=r"weights/_extra_state/code is an object of code, .* pickle"):
        clf.save(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


class OwnAttack(PGD):
    """An attack of one's own."""


class OwnObjective(TRADES):
    """An objective of one's own."""


class OwnOptimizer(torch.optim.SGD):
    """An optimiser of one's own."""


class OwnCallback(Callback):
    """A callback of one's own."""


def own_schedule(progress):
    return 1 - progress


def own_augment(x, generator):
    return x.flip(3)


@pytest.mark.parametrize(
    "own",
    [
        {"attack": OwnAttack(eps=0.05, steps=1)},
        {"objective": OwnObjective(beta=2)},
        {"objective": OwnObjective(attack=OwnAttack(eps=0.05, steps=1)), "attack": None},
        {"attack": "bullet", "attack__attack": OwnAttack(eps=0.05, steps=1)},
        {"optimizer": OwnOptimizer, "lr": 0.01},
    ],
    ids=str,
)
def test_parts_of_ones_own_that_it_works_with_are_asked_for(own, tmp_path):
    one = fit(clf_of(**own), X, y)
    with pytest.warns(UserWarning, match=r"leaves out .*Own"):
        one.save(tmp_path / "file")
    with pytest.raises(ValueError, match=r"Own.*which a file does not hold; give it as \w+=\.\.\.$"):
        RobustClassifier.load(tmp_path / "file")
    other = RobustClassifier.load(tmp_path / "file", **own)
    assert_same(one.net_.optimizer_, other.net_.optimizer_)
    assert repr(other.attack_) == repr(one.attack_)
    np.testing.assert_array_equal(one.perturb(X, y), other.perturb(X, y))
    for method in ("partial_fit", "fit"):
        fit(one, X, y, method=method)
        fit(other, X, y, method=method)
        np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))


def test_what_training_alone_needs_is_asked_for_by_the_next_fit(tmp_path):
    own = {"callbacks": [Dynamics(), ("mine", OwnCallback())], "lr_schedule": own_schedule, "augment": own_augment}
    one = fit(clf_of(**own), X, y)
    with pytest.warns(UserWarning, match=r"leaves out \w+ \(\w.*\), \w+ \(\w.*\), \w+ \(\w+.*\):") as told:
        one.save(tmp_path / "file")
    for each in ("callbacks (an object of OwnCallback)", "lr_schedule (own_schedule)", "augment (own_augment)"):
        assert each in str(told[0].message)
    other = RobustClassifier.load(tmp_path / "file")
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    assert repr(other.callbacks[0].table_) == repr(one.callbacks[0].table_)
    for name in ("lr_schedule", "augment", "callbacks"):
        partly = clone(other).set_params(**{each: value for each, value in own.items() if each != name})
        with pytest.raises((ValueError, TypeError), match=rf"{name}.* which a file cannot hold: give it anew"):
            partly.fit(X, y)
    with pytest.warns(UserWarning, match="leaves out"):
        other.save(tmp_path / "again")
    whole = RobustClassifier.load(tmp_path / "again", **own)
    np.testing.assert_array_equal(fit(one, X, y).decision_function(X), fit(whole, X, y).decision_function(X))


def test_an_unfitted_classifier_with_a_module_of_ones_own_asks_for_it_in_fit(tmp_path):
    with pytest.warns(UserWarning, match=r"module \(Own\)"):
        clf_of(module=Own).save(tmp_path / "file")
    with pytest.raises((ValueError, TypeError), match="give it anew"):
        RobustClassifier.load(tmp_path / "file").fit(X, y)
    fit(RobustClassifier.load(tmp_path / "file", module=Own), X, y)


def test_what_callbacks_wrote_into_the_history_is_kept_where_it_can_be(tmp_path):
    class Writes(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("kept", (1, np.float32(2)))
            net.history.record("strange", self)

    one = fit(clf_of(callbacks=[Writes(), EpochScoring("accuracy", on_train=True, name="acc")]), X, y)
    with pytest.warns(UserWarning, match=r"callbacks .*history"):
        one.save(tmp_path / "file")
    other = RobustClassifier.load(tmp_path / "file")
    assert other.history_[:, ("kept", "train_loss")] == one.history_[:, ("kept", "train_loss")]


# Parameters given to load


def test_parameters_given_replace_those_in_the_file(tmp_path):
    one = fit(clf_of(objective=TRADES(beta=3)), X, y)
    other = loaded(one, tmp_path, max_epochs=5, objective__beta=7, verbose=0, precision="bf16", device="cpu")
    assert (other.max_epochs, other.objective.beta, other.precision) == (5, 7, "bf16")
    assert other.net_.precision_ == "bf16"
    assert other.net_.criterion_.beta == 3  # it was trained with
    np.testing.assert_allclose(one.decision_function(X), other.decision_function(X), atol=0.1)
    with pytest.raises(ValueError, match="no parameter 'epochs'"):
        RobustClassifier.load(tmp_path / "file", epochs=3)
    with pytest.raises(ValueError, match="device='nowhere'"):
        RobustClassifier.load(tmp_path / "file", device="nowhere")


def test_another_optimizer_begins_anew(tmp_path):
    one = fit(clf_of(), X, y)
    other = loaded(one, tmp_path, optimizer="adam")
    assert type(other.net_.optimizer_) is torch.optim.Adam
    assert not other.net_.optimizer_.state
    fit(other, X, y, method="partial_fit")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_load_moves_a_classifier(tmp_path):
    one = fit(clf_of(device="cuda", averaging="ema"), X, y)
    other = loaded(one, tmp_path)
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    there = RobustClassifier.load(tmp_path / "file", device="cpu")
    np.testing.assert_allclose(one.decision_function(X), there.decision_function(X), atol=1e-4)
    back = loaded(fit(there, X, y, method="partial_fit"), tmp_path, device="cuda:0")
    assert next(back.net_.module_.parameters()).is_cuda
    fit(back, X, y)


# Versions


def test_the_file_of_the_first_version_is_read_by_every_later_one():
    folder = Path(__file__).parent / "data"
    expected = json.loads((folder / "classifier_1.json").read_text())
    iris = load_iris(as_frame=True)
    names = iris.target_names[iris.target]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = RobustClassifier.load(folder / "classifier_1.safetensors", device="cpu")
    np.testing.assert_allclose(clf.decision_function(iris.data[::15]), expected["logits"], rtol=1e-5, atol=1e-6)
    assert clf.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert clf.feature_names_in_.tolist() == list(iris.data.columns)
    assert (clf.objective.beta, clf.module__hidden, clf.best_epoch_, len(clf.history_)) == (2, (4,), 3, 3)
    np.testing.assert_array_equal(clf.attack_.eps, [0.1, 0.2, 0.3, 0.1])
    assert [len(coreset.indices) for coreset in clf.coresets_.values()] == [68, 68]
    assert clf.cost_.total.forwards > 0
    before = clf.decision_function(iris.data)
    clf.fit(iris.data, names)
    assert (clf.decision_function(iris.data) != before).any()


# Refusals


def test_paths_that_cannot_be_used_are_named_before_work(tmp_path):
    clf = RobustClassifier()
    with pytest.raises(FileNotFoundError):
        RobustClassifier.load(tmp_path / "no")
    with pytest.raises(IsADirectoryError, match=r"path=.* cannot be written"):
        clf.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="folder that does not exist"):
        clf.save(tmp_path / "no" / "file")
    for use in (clf.save, RobustClassifier.load):
        with pytest.raises(TypeError, match="path=5 must be a str or Path"):
            use(5)


def test_a_file_that_holds_something_else_or_is_of_the_future_is_refused(tmp_path):
    from sklearn_acs.saving.tensor_file import read_tensors, write_tensors

    RobustClassifier().save(tmp_path / "file")
    tensors, about = read_tensors(tmp_path / "file")
    write_tensors(tmp_path / "future", tensors, {**about, "format": 2, "sklearn_acs": "9.9"})
    with pytest.raises(ValueError, match=r"future' has the format 2 of sklearn_acs 9\.9, .* a newer version is needed"):
        RobustClassifier.load(tmp_path / "future")
    for other in ({**about, "holds": "a checkpoint"}, {**about, "format": "1"}, [], None):
        write_tensors(tmp_path / "other", tensors, other)
        with pytest.raises(ValueError, match="other' does not hold a classifier"):
            RobustClassifier.load(tmp_path / "other")
