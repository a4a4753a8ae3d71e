"""Networks, parameters and gradients as people bring them: they work, or one sentence says what to do before work."""

import io
import pickle
import warnings
from collections import OrderedDict
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.nn import functional as F
from torchvision.models import GoogLeNet

from sklearn_acs import PGD, GradMatch, LastLayerGradients, RandomSelector, RobustClassifier, ScoreSelector, evaluate
from sklearn_acs.models import MODELS, LogitsOf, build_model, check_logits, giving_logits
from sklearn_acs.selectors import SELECTORS

X, y = load_digits(n_class=3, return_X_y=True)
X, y = (X / 16).reshape(-1, 8, 8).astype(np.float32)[:120], y[:120]
QUICK = {"max_epochs": 1, "selector": None, "attack": PGD(eps=0.1, steps=1), "random_state": 0}
LEARNS = {**QUICK, "max_epochs": 8, "batch_size": 16}


@pytest.fixture
def no_work(monkeypatch):
    """Make any attack fail, so that an error after work has begun is another error."""

    def attack(*args, **kwargs):
        raise AssertionError("work has begun")

    monkeypatch.setattr(PGD, "_attack", attack)


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Net(nn.Module):
    """Makes of images the logits of three classes."""

    def __init__(self, hidden=16):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, 3)

    def forward(self, x):
        return self.head(self.layers(x))


OF_A_SIZE = [name for name, cls in SELECTORS.items() if "n_select" in cls().get_params()]

# A softmax at the end


class Softmax(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)


class TwoProbabilities(Net):
    def forward(self, x):
        p = super().forward(x)[:, :1].sigmoid()
        return torch.cat([1 - p, p], 1)


class LogSoftmax(Net):
    def forward(self, x):
        return super().forward(x).log_softmax(1)


ENDS_IN_SOFTMAX = {"match": "module must give logits, and its outputs are probabilities.* Remove the softmax"}


@pytest.mark.parametrize("selector", [None, "random", "gradmatch", ScoreSelector(scores="loss")])
def test_network_that_ends_in_softmax_is_refused_whatever_the_selector(no_work, selector):
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, **ENDS_IN_SOFTMAX):
            getattr(RobustClassifier(Softmax(), **{**QUICK, "selector": selector}), method)(X, y)


def test_sigmoids_of_two_classes_are_refused(no_work):
    with pytest.raises(ValueError, **ENDS_IN_SOFTMAX):
        RobustClassifier(TwoProbabilities, **QUICK).fit(X[y < 2], y[y < 2])


@pytest.mark.parametrize("network", [Net, LogSoftmax])
def test_logits_and_logarithms_of_probabilities_learn(network):
    assert RobustClassifier(network(), **LEARNS).fit(X, y).score(X, y) > 0.95


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"wrn-28-10", "resnet50"}))
def test_no_named_network_is_taken_for_one_that_ends_in_softmax(name):
    for n_classes in (2, 10):
        check_logits(build_model(name, (1, 8, 8), n_classes), torch.rand(8, 1, 8, 8), n_classes)


def test_bare_module_that_ends_in_softmax_is_judged_with_a_warning():
    with pytest.warns(UserWarning, match="outputs of model=Softmax are probabilities.*attacks on them are weak"):
        evaluate(Softmax(), X[:20], y[:20], PGD(steps=1))
    evaluate(Net(), X[:20], y[:20], PGD(steps=1))  # warnings are errors
    evaluate(LogSoftmax(), X[:20], y[:20], PGD(steps=1))


# A class, a function, an object


class OfShape(Net):
    def __init__(self, input_shape, n_classes, hidden=16):
        super().__init__(hidden)
        assert (input_shape, n_classes) == ((1, 8, 8), 3)


class OtherNames(OfShape):
    def __init__(self, shape, k):
        super().__init__(shape, k)


class OfClasses(Net):
    def __init__(self, hidden, *, n_classes=10):
        super().__init__(hidden)
        assert n_classes == 3


def of_shape(input_shape, n_classes, hidden=16):
    return OfShape(input_shape, n_classes, hidden)


@pytest.mark.parametrize(
    ("module", "options", "hidden"),
    [
        (Net, {}, 16),
        (Net, {"module__hidden": 4}, 4),
        (partial(Net, hidden=5), {}, 5),
        (OfShape, {"module__hidden": 4}, 4),
        (OtherNames, {}, 16),
        (OfClasses, {"module__hidden": 4}, 4),
        (of_shape, {"module__hidden": 4}, 4),
        (Net(4), {}, 4),
    ],
    ids=["class", "class with option", "partial", "class of shape", "by place", "by name", "function", "object"],
)
def test_class_is_called_as_skorch_does_and_whatever_asks_for_shape_and_classes_gets_them(module, options, hidden):
    clf = clone(RobustClassifier(module, **QUICK, **options)).fit(X, y)
    assert clf.net_.module_.head.in_features == hidden


def test_class_goes_through_a_grid_of_its_options():
    search = GridSearchCV(RobustClassifier(Net, **QUICK), {"module__hidden": [4, 8]}, cv=2, error_score="raise")
    assert search.fit(X, y).best_estimator_.net_.module_.head.in_features in (4, 8)


def test_class_that_cannot_be_made_says_what_it_takes(no_work):
    class Needs(Net):
        def __init__(self, width, depth, kernel):
            super().__init__()

    with pytest.raises(TypeError, match=r"module=Needs cannot be made as Needs\(\): it takes \(width, depth, kernel\)"):
        RobustClassifier(Needs, **QUICK).fit(X, y)


# Precision, device, parameters, outputs


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_network_in_another_precision_is_trained_in_float32_and_left_as_it_was(kind):
    given = Net().to(kind)
    with pytest.warns(UserWarning, match=rf"module has parameters in {str(kind)[6:]}, and is trained in float32"):
        clf = RobustClassifier(given, **LEARNS).fit(X, y)
    assert {p.dtype for p in clf.net_.module_.parameters()} == {torch.float32}
    assert {p.dtype for p in given.parameters()} == {kind}
    assert clf.score(X, y) > 0.95


def test_bare_module_in_float64_is_not_judged():
    with pytest.raises(ValueError, match=r"model=Net fails on float32 .* \(1, 8, 8\) in eval mode"):
        evaluate(Net().double(), X, y, PGD(steps=1))


class Returns(Net):
    """Returns what `wrap` makes of images and logits, in train mode and, with `always`, in eval mode."""

    def __init__(self, wrap, always=True):
        super().__init__()
        self.wrap, self.always = wrap, always

    def forward(self, x):
        logits = super().forward(x)
        return self.wrap(x, logits) if self.always or self.training else logits


class Output(NamedTuple):
    aux: torch.Tensor
    logits: torch.Tensor


class Named:
    def __init__(self, logits):
        self.logits = logits


WRAPS = {
    "tuple": lambda x, logits: (logits, logits.flip(1)),
    "images first": lambda x, logits: (x, logits),
    "list": lambda x, logits: [x, None, logits],
    "dict": lambda x, logits: {"features": logits.flip(1), "logits": logits},
    "dict without the name": lambda x, logits: {"x": x, "out": logits},
    "ModelOutput": lambda x, logits: OrderedDict(loss=None, logits=logits),
    "named tuple": lambda x, logits: Output(logits.flip(1), logits),
    "object": lambda x, logits: Named(logits),
}


@pytest.mark.parametrize("always", [True, False], ids=["always", "in train mode"])
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_logits_are_taken_out_of_what_a_network_returns(wrap, always):
    network = Returns(wrap, always)
    clf = RobustClassifier(network, **{**QUICK, "selector": "gradmatch", "warmup_frac": 0}).fit(X, y)
    plain = Net()
    plain.load_state_dict(network.state_dict())
    np.testing.assert_array_equal(
        clf.decision_function(X),
        RobustClassifier(plain, **{**QUICK, "selector": "gradmatch", "warmup_frac": 0}).fit(X, y).decision_function(X),
    )
    result = evaluate(network, X[:20], y[:20], PGD(steps=1))
    assert result["accuracy"] == evaluate(plain, X[:20], y[:20], PGD(steps=1))["accuracy"]


def test_features_of_another_width_beside_the_logits_are_told_apart_by_the_number_of_classes():
    network = Returns(lambda x, logits: (x.flatten(1), logits))
    clf = RobustClassifier(network, **LEARNS).fit(X, y)
    assert clf.score(X, y) > 0.95
    with pytest.raises(
        ValueError, match=r"model=Returns must give logits .* the only ones of their width; it gave tuple"
    ):
        evaluate(network, X, y, PGD(steps=1))
    assert evaluate(LogitsOf(network, 3), X, y, PGD(steps=1))["accuracy"][0] < 1


def test_network_of_several_outputs_is_pickled_averaged_and_trained_in_bfloat16():
    clf = RobustClassifier(Tuple(), averaging="ema", precision="bf16", **QUICK).fit(X, y)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))


class Tuple(Net):
    def forward(self, x):
        return super().forward(x), x


def test_torchvisions_auxiliary_heads_are_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, of its initial weights
        network = GoogLeNet(num_classes=3, init_weights=False)
    reduced = giving_logits(network, torch.zeros(2, 3, 32, 32), 3, trains=True)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(reduced.eval()(x), network(x))
    assert reduced.train()(x).shape == (2, 3)


def not_to_be_copied():
    """A layer with a tensor that belongs to a graph, as torch.nn.utils.weight_norm keeps one."""
    layer = nn.Linear(64, 3)
    layer.twice = layer.weight * 2
    return layer


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            Returns(lambda x, logits: (x, logits[:, :2])),
            r"must give logits of shape \(batch, 3\), alone, called 'logits'",
        ),
        (Returns(lambda x, logits: None), r"must give logits .*it gave NoneType"),
        (Returns(lambda x, logits: logits[:, :2], False), r"logits of shape .* \(2, 3\); it gave \(2, 2\)"),
        (Returns(lambda x, logits: logits[:, :, None]), r"it gave \(2, 3, 1\)"),
        (
            Returns(lambda x, logits: x.missing, False),
            r"module=Returns fails on float32 .* in train mode, AttributeErr",
        ),
        (nn.Linear(10, 3), r"module=Linear fails on float32 samples of shape \(1, 8, 8\) in eval mode, RuntimeError"),
        (Net().requires_grad_(False), "module=Net has nothing to train"),
        (nn.Flatten(), "module=Flatten has nothing to train"),
        (not_to_be_copied(), "module=Linear cannot be copied: .* Give a class or a function"),
        (dict, "module=<class 'dict'> must be a class of nn.Module"),
    ],
    ids=[
        *("no logits", "None", "wrong in train mode", "three axes", "fails in train mode", "shape", "frozen", "empty"),
        *("not to be copied", "another class"),
    ],
)
def test_network_that_cannot_be_trained_is_refused_in_one_sentence(no_work, network, message):
    with pytest.raises((ValueError, TypeError), match=message):
        RobustClassifier(network, **QUICK).fit(X, y)


def test_network_with_some_frozen_layers_trains_the_others():
    network = Net()
    network.layers.requires_grad_(False)
    trained = RobustClassifier(network, **QUICK).fit(X, y).net_.module_
    assert torch.equal(trained.layers[1].weight, network.layers[1].weight)
    assert not torch.equal(trained.head.weight, network.head.weight)


def test_lazy_layers_get_their_shape():
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    assert RobustClassifier(lazy, **QUICK).fit(X, y).net_.module_[1].in_features == 64


@pytest.mark.parametrize("trains", [True, False])
def test_trying_a_network_out_changes_nothing(trains, global_randomness):
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 3))
    network[1].eval()
    before, x = {name: value.clone() for name, value in network.state_dict().items()}, torch.rand(4, 1, 8, 8)
    random = global_randomness()
    assert giving_logits(network, x, 3, trains=trains) is network
    assert [part.training for part in network] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert global_randomness() == random
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


class Counts(Net):
    """Puts another tensor in the place of its buffer in each pass."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes = self.passes + 1
        return super().forward(x)


def test_trying_a_network_out_puts_buffers_back():
    network = Counts()
    giving_logits(network, torch.rand(4, 1, 8, 8), 3, trains=True)
    assert network.passes == 0


# Taking the network away


@pytest.mark.parametrize(
    ("params", "tolerance"),
    [({}, 0), ({"averaging": "ema"}, 0), ({"precision": "bf16"}, 0.05), ({"module": Tuple}, 0)],
    ids=["fp32", "average", "bf16", "tuple"],
)
def test_exported_network_is_plain_float32_and_gives_the_logits_of_the_classifier(params, tolerance):
    clf = RobustClassifier(**{**QUICK, "module": "convnet", **params}).fit(X, y)
    module, x = clf.export_module(), torch.from_numpy(X[:, None])
    logits = module(x)
    assert (logits.detach().numpy() - clf.decision_function(X)).__abs__().max() <= tolerance
    assert not any(part.training for part in module.modules())
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert "forward" not in vars(module)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(x[:9]), logits[:9])
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert all(torch.equal(saved[name], value) for name, value in clf.net_.module_.state_dict().items())


def test_exported_network_shares_nothing_has_no_hooks_and_is_trained_again():
    clf = RobustClassifier("convnet", precision="bf16", **QUICK).fit(X, y)
    seen = []
    clf.net_.module_[0].register_forward_hook(lambda *given: seen.append(given))
    module = clf.export_module()
    module(torch.from_numpy(X[:, None]))
    assert seen == []
    before = clf.decision_function(X)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(clf.decision_function(X), before)
    assert seen != []
    tuned = RobustClassifier(clf.export_module(), **{**LEARNS, "lr": 0.02}).fit(X, y)
    assert tuned.score(X, y) > 0.9


def test_onnx_takes_the_exported_network(tmp_path):
    pytest.importorskip("onnxscript")
    module = RobustClassifier("convnet", precision="bf16", **QUICK).fit(X, y).export_module()
    x = torch.from_numpy(X[:, None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the packages
        program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
        program.save(tmp_path / "network.onnx")
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(tmp_path / "network.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(logits, module(x).detach().numpy(), atol=1e-5)


# Gradients out of range


G = np.random.default_rng(0).normal(size=(40, 5)) + 0.3


def chosen(name, gradients, **params):
    selector = SELECTORS[name](n_select=4, **params)
    if "random_state" in selector.get_params():
        selector.set_params(random_state=0)
    selector.fit(gradients)
    return np.asarray(selector.indices_).tolist(), np.asarray(selector.weights_).tolist(), selector.approximation_error_


@pytest.mark.parametrize("name", OF_A_SIZE)
def test_gradients_of_any_scale_give_the_same_coreset(name):
    plain = chosen(name, G)
    for exponent in (515, -664, 1020, -1020, 30, -30):  # 2^515 is 1e155
        assert_same(chosen(name, np.ldexp(G, exponent)), plain)
    small, of_small = torch.from_numpy(G).float(), chosen(name, torch.from_numpy(G).float())
    for exponent in (120, -100):
        assert_same(chosen(name, small * 2.0**exponent), of_small)


def assert_same(one, other):
    assert one[:2] == other[:2]
    assert one[2] == pytest.approx(other[2], rel=1e-12)


@pytest.mark.parametrize("name", OF_A_SIZE)
def test_decimal_scales_give_the_same_rows(name):
    rows, weights, error = chosen(name, G)
    for scale in (1e155, 1e-200, 1e307):
        scaled = chosen(name, G * scale)
        assert scaled[0] == rows
        np.testing.assert_allclose(scaled[1], weights)
        assert scaled[2] == pytest.approx(error)


@pytest.mark.parametrize("side", [0, 1], ids=["at the logits", "features"])
@pytest.mark.parametrize("name", sorted(set(OF_A_SIZE) - {"glister"}))  # which reads probabilities off factors
def test_factors_of_any_scale_give_the_same_coreset(name, side):
    rng = np.random.default_rng(1)
    pair = [torch.from_numpy(rng.normal(size=(40, m))).float() for m in (3, 6)]
    plain = chosen(name, LastLayerGradients([tuple(pair)]))
    for exponent in (60, -60):
        pair[side] = pair[side] * 2.0**exponent
        assert_same(chosen(name, LastLayerGradients([tuple(pair)])), plain)
        pair[side] = pair[side] * 2.0**-exponent


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("name", OF_A_SIZE)
def test_one_huge_gradient_is_all_that_counts(name, per_class):
    huge = G.copy()
    huge[7] *= 1e200
    selector = SELECTORS[name](n_select=4, per_class=per_class).fit(huge, np.arange(40) % 2)
    assert len(set(selector.indices_)) == 4
    assert np.isfinite(selector.weights_).all()
    if name not in ("random", "glister"):
        assert 7 in selector.indices_
    if name == "gradmatch":
        assert selector.approximation_error_ < 0.95


def test_ordinary_gradients_are_not_copied():
    gradients = LastLayerGradients(
        [(torch.randn(30, 3), 1e3 * torch.randn(30, 5)), (torch.zeros(30, 3), torch.ones(30, 5))]
    )
    assert gradients.scaled() == (gradients, 0)


# Sizes and gradients that are none


@pytest.mark.parametrize("n_select", [-5, 0, 41, True, "4", None, np.nan, 1.5, [4]], ids=str)
def test_impossible_size_is_named(n_select):
    with pytest.raises(ValueError, match="n_select"):
        RandomSelector(n_select=n_select).fit(G)


@pytest.mark.parametrize("n_select", [np.int64(4), np.uint8(4), np.float32(0.1), np.float64(0.1), np.float16(0.1)])
def test_numpys_numbers_are_sizes(n_select):
    assert len(RandomSelector(n_select=n_select).fit(G).indices_) == 4


@pytest.mark.parametrize(
    "bad",
    [
        np.where(G == G[3, 2], np.nan, G),
        np.where(G == G[3, 2], np.inf, G),
        torch.full((4, 2), torch.nan),
        G.astype(str),
        [["a", "b"]],
        pd.DataFrame({"a": ["x", "y"]}),
        G > 0,
        torch.from_numpy(G) > 0,
        torch.from_numpy(G) * 1j,
        G * 1j,
        G[:, 0],
        torch.ones(4, 2, 2),
        [[1, 2], [3]],
        np.empty((0, 3)),
        [[object()]],
        [["\ud800"]],
    ],
    ids=[
        *("NaN", "infinity", "NaN tensor", "digits as strings", "strings", "frame of strings", "truth values"),
        *(
            "truth tensor",
            "complex tensor",
            "complex",
            "one axis",
            "three axes",
            "ragged",
            "empty",
            "objects",
            "surrogate",
        ),
    ],
)
def test_gradients_that_are_none_are_refused_by_name(bad):
    with pytest.raises((ValueError, TypeError), match=r"\bG\b"):
        GradMatch(n_select=1).fit(bad)


@pytest.mark.parametrize("per_class", [False, True])
def test_labels_of_another_length_are_refused(per_class):
    with pytest.raises(ValueError, match="y must have one label for each of the 40 gradients, got 2"):
        GradMatch(n_select=4, per_class=per_class).fit(G, [0, 1])


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ({"selector__n_select": -5}, "'n_select' parameter of GradMatch .* Got -5"),
        ({"selector__n_select": 20}, "selector has n_select=20, which in a RobustClassifier coreset_frac says"),
        (
            {"selector": "craig", "selector__per_class": True},
            "per_class=True, which in a RobustClassifier select_by says",
        ),
        ({"selector": GradMatch(n_select=20)}, "coreset_frac says"),
        ({"selector__ridge": -1}, "'ridge' parameter of GradMatch"),
        ({"selector": GradMatch(ridge=True)}, "'ridge' parameter of GradMatch"),
    ],
    ids=str,
)
def test_selector_of_a_classifier_is_checked_before_work_and_its_size_is_the_classifiers(no_work, selector, message):
    with pytest.raises(ValueError, match=message):
        RobustClassifier(**{**QUICK, "selector": "gradmatch", "max_epochs": 4, **selector}).fit(X, y)


# Misspelt parameters


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *((name, "max_epochs") for name in ("epochs", "n_epochs", "max_iter", "max_epoch")),
        *((name, "lr") for name in ("learning_rate", "learning_rate_init")),
        *((name, "attack__eps") for name in ("eps", "epsilon", "attack_eps", "atack__eps")),
        *((name, "attack__steps") for name in ("steps", "n_steps")),
        *((name, "module") for name in ("net", "model")),
        *((name, "objective") for name in ("criterion", "objectiv")),
        ("hidden_layer_sizes", "module__hidden"),
        ("momentum", "optimizer__momentum"),
        ("batchsize", "batch_size"),
        ("seed", "random_state"),
    ],
)
def test_misspelt_parameter_is_refused_at_once_with_what_was_meant(name, meant):
    match = f"RobustClassifier has no parameter '{name}'; did you mean '{meant}'?"
    with pytest.raises(TypeError, match=match):
        RobustClassifier(**{name: 5})
    with pytest.raises(TypeError, match=match):
        RobustClassifier().set_params(**{name: 5})
    with pytest.raises(ValueError, match=match):
        GridSearchCV(RobustClassifier(**QUICK), {name: [5]}, cv=2).fit(X, y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"objective__gamma": 1}, "Adversarial has no parameter 'objective__gamma'. .* objective__label_smoothing"),
        ({"objective": "trades", "objective__bta": 1}, "did you mean 'objective__beta'?"),
        ({"attack": None, "attack__epsilon": 1}, "PGD has no parameter 'attack__epsilon'; did you mean 'attack__eps'?"),
        ({"selection_attack": "pgd", "selection_attack__n_steps": 1}, "did you mean 'selection_attack__steps'?"),
        ({"optimizer__momentun": 1}, "SGD has no parameter 'optimizer__momentun'; did you mean 'optimizer__momentum'?"),
        ({"optimizer": torch.optim.RMSprop, "lr": 0.1, "optimizer__apha": 1}, "did you mean 'optimizer__alpha'?"),
        ({"optimizer__params": []}, "SGD has no parameter 'optimizer__params'"),
        ({"module__x": 1}, "convnet has no parameter 'module__x'. Its parameters are module__hidden, module__width"),
        ({"module": Net, "module__hiden": 1}, "Net has no parameter 'module__hiden'; did you mean 'module__hidden'?"),
        ({"module": of_shape, "module__hiden": 1}, "of_shape has no parameter 'module__hiden'; did you mean"),
        ({"averaging": "ema", "averaging__decai": 0.9}, "did you mean 'averaging__decay'?"),
        ({"selector": "random", "selector__ridge": 0.9}, "RandomSelector has no parameter 'selector__ridge'"),
        ({"callbacks__clip__value": 1}, "callbacks has no parameter 'callbacks__clip__value'"),
    ],
)
def test_misspelt_parameter_of_a_part_is_found_before_work(no_work, params, message):
    clf = clone(RobustClassifier(**{**QUICK, **params}))
    assert clf.get_params().items() >= params.items()
    with pytest.raises(TypeError, match=message):
        clf.fit(X, y)


def test_values_are_not_looked_at_before_fit():
    clf = RobustClassifier(max_epochs="many", attack__eps="large", optimizer__momentum="none")
    assert clone(clf).set_params(lr="fast").get_params()["lr"] == "fast"
    with pytest.raises(ValueError, match="'max_epochs' parameter of RobustClassifier"):
        clf.fit(X, y)


def test_ordinary_use_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for module in (Net, Net(), LogSoftmax(), Tuple(), "mlp"):
            clf = RobustClassifier(module, **QUICK, optimizer__momentum=0.5).fit(X, y)
            evaluate(clf.export_module(), X[:10], y[:10], PGD(steps=1))
    assert F.cross_entropy(clf.export_module()(torch.from_numpy(X[:, None])), torch.from_numpy(y)).isfinite()
