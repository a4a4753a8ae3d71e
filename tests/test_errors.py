"""Bad input gets a clear error before any work: the parameter, the value, and what is allowed."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

from sklearn_acs import PGD, TRADES, RobustClassifier

X = (load_digits(n_class=3).images / 16).astype(np.float32)
y = load_digits(n_class=3).target


@pytest.fixture
def no_work(monkeypatch):
    """Make any attack fail, so that an error after work has begun is another error."""

    def attack(*args, **kwargs):
        raise AssertionError("work has begun")

    monkeypatch.setattr(PGD, "_attack", attack)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"objective": "trade"}, ["objective", "'trade'", "trades", "adversarial", "natural"]),
        ({"selector": "gradmach"}, ["selector", "'gradmach'", "gradmatch", "craig", "random"]),
        ({"attack": "pdg"}, ["attack", "'pdg'", "pgd", "fgsm"]),
        ({"module": "resnet"}, ["module", "'resnet'", "resnet18", "wrn-28-10"]),
        ({"optimizer": "sdg"}, ["optimizer", "'sdg'", "adam"]),
        ({"lr_schedule": "cos"}, ["lr_schedule", "'cos'", "cosine"]),
        ({"augment": "mirror"}, ["augment", "'mirror'", "crop-flip"]),
        ({"select_by": "group"}, ["select_by", "'group'", "sample", "class", "batch"]),
        ({"attack": PGD(eps=0)}, ["eps", "0"]),
        ({"attack__eps": -0.1}, ["eps", "-0.1"]),
        ({"attack": PGD(steps=0)}, ["steps", "0"]),
        ({"attack": PGD(norm="l3")}, ["norm", "'l3'", "linf", "l2", "l1"]),
        ({"attack": PGD(eps=[0.1, 0.2], norm="l2")}, ["eps", "linf"]),
        ({"objective": "trades", "attack": "fgsm"}, ["FGSM(", "TRADES", "no gradient", "random_start=True"]),
        ({"objective": TRADES(attack=PGD(init="zero"))}, ["init='zero'", "no gradient"]),
        ({"attack": PGD(eps=[0.1, 0.2])}, ["eps", "(1, 8, 8)", "(2,)"]),
        ({"optimizer": torch.optim.RMSprop}, ["lr", "RMSprop"]),
        ({"objective": "trades", "objective__attack__eps": 0.1}, ["objective__attack__eps", "0.1", "attack=None"]),
        ({"objective": TRADES(beta=-1)}, ["beta", "-1"]),
        ({"objective": TRADES(attack="pdg")}, ["attack", "'pdg'", "pgd"]),
        ({"coreset_frac": 0}, ["coreset_frac", "0", "(0", "1"]),
        ({"coreset_frac": 1.5}, ["coreset_frac", "1.5"]),
        ({"select_every": 0}, ["select_every", "0"]),
        ({"warmup_frac": 1.0}, ["warmup_frac", "1.0"]),
        ({"max_epochs": 0}, ["max_epochs", "0"]),
        ({"lr": 0.0}, ["lr", "0.0"]),
        ({"clip": (1, 0)}, ["clip", "(1, 0)"]),
        ({"iterator_train__workers": 2}, ["iterator_train__workers", "num_workers"]),
        ({"iterator_valid__workers": 2}, ["iterator_valid__workers", "num_workers"]),
        ({"iterator_train__shuffle": True}, ["iterator_train__shuffle", "num_workers"]),
        ({"iterator_train__generator": None}, ["iterator_train__generator", "num_workers"]),
        ({"device": "gpu"}, ["device", "'gpu'", "cuda", "cpu"]),
        ({"device": "cuda:7"}, ["device", "'cuda:7'", "CUDA devices", "'cpu'"]),
    ],
    ids=str,
)
def test_a_bad_parameter_is_named_with_its_value_and_what_is_allowed(no_work, params, words):
    with pytest.raises((ValueError, TypeError)) as error:
        RobustClassifier(**params).fit(X, y)
    for word in words:
        assert word in str(error.value)


def test_augmentation_of_a_table_is_refused(no_work):
    with pytest.raises(ValueError, match="augment='crop-flip' is for images, and X is a table"):
        RobustClassifier(augment="crop-flip").fit(X.reshape(len(X), -1), y)


def test_augmentation_that_leaves_the_box_is_refused(no_work):
    with pytest.raises(ValueError, match=r"augment='crop' shows 0 .* outside clip=\(0.5, 1.5\)"):
        RobustClassifier(augment="crop", clip=(0.5, 1.5)).fit(X + 0.5, y)


def test_images_that_are_only_mirrored_may_lie_in_any_box():
    RobustClassifier(augment="flip", clip=(0.5, 1.5), max_epochs=1, attack__steps=1).fit(X + 0.5, y)


BAD_IMAGES = X.copy()
BAD_IMAGES[3, 2, 1] = np.nan


@pytest.mark.parametrize(
    ("data", "labels", "match"),
    [
        (X * 16, y, r"from 0 to 16, outside clip=\(0.0, 1.0\)"),
        (X - 0.5, y, "outside clip"),
        (X, np.zeros(len(X)), "at least two classes.*1 class"),
        (BAD_IMAGES, y, "NaN"),
        (torch.from_numpy(BAD_IMAGES), y, "NaN"),
        (X, np.where(y == 0, np.nan, y), "y contains NaN"),
        (X, y[:-1], "inconsistent numbers of samples"),
        (X, None, "requires y to be passed"),
        (X, y + 0.5, "Unknown label type"),
        (X[:, None, None], y, r"images \(n, H, W\)"),
        ((X * 9).astype(np.int32), y, "uint8 or float"),
        (TensorDataset(torch.from_numpy(X * 16), torch.from_numpy(y)), None, "outside clip"),
        (TensorDataset(torch.from_numpy(BAD_IMAGES), torch.from_numpy(y)), None, "NaN"),
        (X[:0], y[:0], "0 sample"),
    ],
)
def test_bad_data_is_refused(no_work, data, labels, match):
    with pytest.raises(ValueError, match=match):
        RobustClassifier().fit(data, labels)


def test_one_class_of_positive_weight_is_one_class():
    with pytest.raises(ValueError, match="at least two classes"):
        RobustClassifier().fit(X, y, sample_weight=(y == 1).astype(float))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "perturb", "robust_score"])
@pytest.mark.parametrize("wrong", [X[:, :4], X[:, :, :, None].repeat(3, 3), X.reshape(len(X), -1)])
def test_another_shape_than_that_of_fit_is_refused(method, wrong):
    clf = RobustClassifier(selector=None, max_epochs=1, attack__steps=1).fit(X, y)
    arguments = (y,) if method in ("perturb", "robust_score") else ()
    with pytest.raises(ValueError, match=r"samples of shape .* but fit saw samples of shape \(8, 8\)"):
        getattr(clf, method)(wrong, *arguments)


def test_a_label_that_fit_never_saw_is_refused():
    clf = RobustClassifier(selector=None, max_epochs=1, attack__steps=1).fit(X, y)
    with pytest.raises(ValueError, match="label 7"):
        clf.partial_fit(X, np.where(y == 2, 7, y))
    with pytest.raises(ValueError, match="label 7"):
        clf.perturb(X, np.where(y == 2, 7, y))


class NoLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 8)

    def forward(self, x):
        return self.conv(x).flatten(1)


def test_a_module_without_a_final_linear_layer_is_told_what_to_do(no_work):
    with pytest.raises(ValueError, match=r"nn.Linear.*selector='random'"):
        RobustClassifier(module=NoLinear(), coreset_frac=0.5).fit(X, y)


@pytest.mark.parametrize("selector", ["gradmatch", "random", None])
def test_a_module_that_ends_in_a_softmax_is_told_what_to_do(no_work, selector):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Softmax(1))
    with pytest.raises(ValueError, match=r"outputs are probabilities.* Remove the softmax"):
        RobustClassifier(module=module, selector=selector).fit(X, y)


@pytest.mark.parametrize("n_logits", [1, 5])
@pytest.mark.parametrize("selector", ["gradmatch", None])
def test_a_module_with_another_number_of_logits_is_refused(no_work, n_logits, selector):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, n_logits))
    with pytest.raises(ValueError, match=rf"logits of shape .*\(2, 3\); it gave \(2, {n_logits}\)"):
        RobustClassifier(module=module, selector=selector).fit(X, y)


def test_a_dataset_without_a_length_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from zip(X, y, strict=True)

    with pytest.raises(TypeError, match="must have a length"):
        RobustClassifier().fit(Stream())


@pytest.mark.parametrize("selector", ["random", None])
def test_a_module_without_a_final_linear_layer_trains_where_no_gradient_is_looked_at(selector):
    RobustClassifier(module=NoLinear(), selector=selector, max_epochs=2, attack__steps=1).fit(X, y)


def test_a_diverging_loss_stops_the_fit_and_keeps_the_last_finite_weights():
    clf = RobustClassifier(selector=None, lr=1e6, max_epochs=20, random_state=0, lr_schedule="constant")
    diverges = pytest.raises(FloatingPointError, match=r"diverged in epoch \d+: the loss is (nan|inf) at lr=1e\+06")
    with diverges:
        clf.fit(X, y)
    assert not hasattr(clf, "net_")  # no epoch was over
    clf.set_params(lr_schedule=lambda progress: 1e-8 if progress < 0.1 else 1.0)
    with diverges:
        clf.fit(X, y)
    assert np.isfinite(np.concatenate([p.detach().numpy().ravel() for p in clf.net_.module_.parameters()])).all()
    assert clf.predict(X).shape == y.shape
    assert 1 <= len(clf.history_) < 20
    clf.set_params(lr=1e-3).partial_fit(X, y)  # neither weights nor momentum are beyond repair
    assert np.isfinite(clf.history_[-1, "train_loss"])
