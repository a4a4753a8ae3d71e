"""Half precision and compilation: as good as float32, and noticed by nobody outside the module."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F

from sklearn_acs import PGD, FastAT, RobustClassifier, evaluate
from sklearn_acs.data.batches import ArrayData, Batches
from sklearn_acs.models import build_model, frozen, last_linear
from sklearn_acs.training import precision as precision_module
from sklearn_acs.training.net import find_device
from sklearn_acs.training.precision import (
    Forward,
    compile_forward,
    find_precision,
    may_use_bf16,
    set_precision,
    time_precisions,
)

HALF = ["bf16", "fp16"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    data = load_digits(n_class=4)
    return (data.images / 16).astype(np.float32), data.target


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model("convnet", (1, 8, 8), 4, mean=0.3, scale=0.3)


def quick(**params) -> RobustClassifier:
    settings = {"max_epochs": 8, "batch_size": 32, "attack": PGD(eps=0.15, steps=4), "random_state": 0}
    settings |= {"coreset_frac": 0.5, "averaging": None, "attack_ramp": 0.0}
    return RobustClassifier(**{**settings, **params})


def logits_of(clf, X):
    return torch.from_numpy(clf.decision_function(X))


# As good as float32


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("objective", ["adversarial", "trades", "mart"])
def test_half_precision_trains_as_well(digits, precision, objective):
    X, y = digits
    full, half = (quick(objective=objective, precision=p).fit(X, y) for p in ("fp32", precision))
    assert half.net_.precision_ == precision
    assert abs(half.score(X, y) - full.score(X, y)) < 0.03
    assert abs(half.robust_score(X, y) - full.robust_score(X, y)) < 0.05
    assert abs(half.history_[-1, "train_loss"] / full.history_[-1, "train_loss"] - 1) < 0.25
    assert all(value.dtype == torch.float32 for value in half.net_.module_.state_dict().values())


@pytest.mark.parametrize(
    ("selector", "precision"),
    [*((name, "bf16") for name in ("gradmatch", "craig", "glister", "random", "score")), ("gradmatch", "fp16")],
)
def test_every_selector_chooses_in_half_precision(digits, selector, precision):
    clf = quick(selector=selector, precision=precision, max_epochs=4, select_every=2).fit(*digits)
    assert np.isfinite(clf.coreset_.weights).all()
    assert clf.score(*digits) > 0.6


@pytest.mark.parametrize("precision", HALF)
def test_gradalign_differentiates_twice(digits, precision):
    objective = FastAT(start="zero", gradalign=0.2)
    full, half = (
        quick(objective=objective, attack=None, attack__eps=0.15, precision=p, max_epochs=4).fit(*digits)
        for p in ("fp32", precision)
    )
    assert abs(half.history_[-1, "train_loss"] / full.history_[-1, "train_loss"] - 1) < 0.25


@pytest.mark.parametrize("precision", HALF)
def test_evaluate_sees_the_same_model(digits, precision):
    X, y = digits
    clf = quick(precision=precision).fit(X, y)
    result = evaluate(clf, X[:100], y[:100], PGD(eps=0.15, steps=4))
    assert result.clean_.mean() == clf.score(X[:100], y[:100])
    assert abs(result.worst_case_.mean() - clf.robust_score(X[:100], y[:100])) < 0.05


@pytest.mark.parametrize("precision", HALF)
def test_logits_and_gradients_are_float32_and_close(net, precision):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(16, 1, 8, 8, generator=generator), torch.randint(4, (16,), generator=generator)

    def look(module):
        at = x.clone().requires_grad_()
        with frozen(module):
            logits = module(at)
            return logits.detach(), torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), at)[0]

    exact, half = look(net), look(set_precision(copy.deepcopy(net), precision))
    for a, b in zip(exact, half, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).norm() < 0.2 * a.norm()  # a ReLU may flip


def test_gradients_of_an_attack_do_not_underflow_in_fp16(net):
    """A sample that the model is all but certain of has gradients of 1e-9, far below what float16 holds."""
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net[-1][-1].bias += torch.tensor([20.0, 0, 0, 0])
    y = torch.zeros(8, dtype=torch.long)
    found = []
    for module in (net, set_precision(copy.deepcopy(net), "fp16")):
        at = x.clone().requires_grad_()
        with frozen(module):
            found.append(
                torch.autograd.grad(F.cross_entropy(module(at).double(), y, reduction="sum"), at)[0].flatten(1)
            )
    assert found[0].abs().max() < 1e-8
    assert ((found[0] - found[1]).norm(dim=1) < 0.2 * found[0].norm(dim=1)).all()  # a ReLU may flip


# Noticed by nobody


def test_fp32_leaves_the_module_alone(net):
    before = dict(vars(net))
    assert set_precision(net, "fp32") is net
    assert vars(net) == before
    set_precision(set_precision(net, "bf16"), "fp32")
    assert vars(net) == before


@pytest.mark.parametrize("precision", HALF)
def test_names_of_weights_and_layers_stay(net, precision):
    names, layers = list(net.state_dict()), [name for name, _ in net.named_modules()]
    set_precision(net, precision)
    assert list(net.state_dict()) == names
    assert [name for name, _ in net.named_modules()] == layers
    assert last_linear(net, torch.rand(2, 1, 8, 8)) is net[-1][-1]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_compute_with_their_own_weights(net, copied):
    x = torch.rand(4, 1, 8, 8)
    twin = copied(set_precision(net, "bf16"))
    torch.testing.assert_close(twin(x), net(x), rtol=0, atol=0)
    with torch.no_grad():
        net[-1][-1].bias += 1
    assert ((net(x) - twin(x) - 1).abs() < 0.02).all()
    assert vars(twin)["forward"].module is twin


@pytest.mark.parametrize("precision", HALF)
def test_pickle_clone_and_params(digits, precision):
    X, y = digits
    clf = quick(precision=precision, max_epochs=2).fit(X, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).decision_function(X), clf.decision_function(X))
    assert clone(clf).get_params()["precision"] == precision


@pytest.mark.parametrize("precision", HALF)
def test_training_goes_on(digits, precision):
    X, y = digits
    clf = quick(precision=precision, lr=0.02, optimizer="adam")
    for _ in range(3):
        clf.partial_fit(X, y)
    assert len(clf.history_) == 3
    assert bool(clf.net_.step_.scaler.state_dict()) == (precision == "fp16")
    assert clf.set_params(warm_start=True, max_epochs=2, lr=0.002).fit(X, y).score(X, y) > 0.8


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_momentum_survives_a_change_of_memory_format(digits, optimizer):
    """Fused optimisers read it in the order of the parameter's memory."""
    X, y = digits
    clf = quick(optimizer=optimizer, lr=0.01).partial_fit(X, y)
    before = [state.clone() for state in momenta(clf)]
    other = copy.deepcopy(clf).set_params(precision="bf16", lr=1e-12).partial_fit(X, y)
    for parameter, found in zip(other.net_.module_.parameters(), momenta(other), strict=True):
        assert found.stride() == parameter.stride()
    clf.set_params(lr=1e-12).partial_fit(X, y)
    for a, b, c in zip(before, momenta(clf), momenta(other), strict=True):
        assert (b - c).norm() < 0.3 * max(a.norm(), b.norm())  # in another order it would be more than 1


def momenta(clf):
    name = {"sgd": "momentum_buffer", "adam": "exp_avg"}[clf.optimizer]
    return [clf.net_.optimizer_.state[p][name] for p in clf.net_.module_.parameters()]


def test_batchnorm_keeps_float32_statistics_and_an_attack_leaves_them():
    net = set_precision(build_model("preact_resnet18", (3, 8, 8), 4, mean=0.5, scale=0.25), "bf16")
    x, y = torch.rand(4, 3, 8, 8), torch.arange(4)
    net.train()(x)
    before = copy.deepcopy(net.state_dict())
    PGD(eps=0.1, steps=1).perturb(net, x, y)
    for name, value in net.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.equal(value, before[name])


# What "auto" is, and what is refused


@pytest.fixture
def native(monkeypatch):
    """A CPU that has bfloat16, and batches whose seconds are given: those in float32 and in bfloat16."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)

    def seconds(fp32, bf16):
        timed = []
        monkeypatch.setattr(
            precision_module, "time_precisions", lambda *args: timed.append(args) or {"fp32": fp32, "bf16": bf16}
        )
        return timed

    return seconds


def test_bfloat16_may_pay_where_it_is_native(monkeypatch, net):
    table = build_model("mlp", (4,), 3)
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert may_use_bf16(net, CPU) == native
        assert not may_use_bf16(table, CPU)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert may_use_bf16(table, torch.device("cuda")) == native


@pytest.mark.parametrize(("bf16", "chosen"), [([1.0, 1.1, 9.0], "bf16"), ([1.0, 3.0, 3.1], "fp32"), ([2.0], "fp32")])
def test_auto_is_what_has_the_smaller_median(net, native, bf16, chosen, capsys):
    native(fp32=[2.0, 2.0, 2.0], bf16=bf16)
    x = torch.rand(2, 1, 8, 8)
    assert find_precision("auto", net, x) == chosen
    assert capsys.readouterr().err == ""
    find_precision("auto", net, x, verbose=1)
    assert f"is {chosen}" in capsys.readouterr().err


def test_a_named_precision_is_not_timed(net, native):
    timed = native([1.0], [2.0])
    assert [find_precision(name, net, torch.rand(2, 1, 8, 8)) for name in ("fp32", "bf16", "fp16")] == [
        *("fp32", "bf16", "fp16")
    ]
    assert timed == []


def test_timing_leaves_no_trace(net):
    """Neither in weights, BatchNorm statistics, modes and gradients nor in the global generator."""
    net.train()
    module, x = nn.Sequential(net, nn.BatchNorm1d(4), nn.Dropout(0.5)), torch.rand(4, 1, 8, 8)
    before, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    seconds = time_precisions(module, x, repeats=2)
    assert {name: len(times) for name, times in seconds.items()} == {"fp32": 2, "bf16": 2}
    assert all(time > 0 for times in seconds.values() for time in times)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(part.training for part in module.modules()) and torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not isinstance(vars(module).get("forward"), Forward)


@pytest.mark.parametrize(("seconds", "chosen"), [(([1.0], [2.0]), "fp32"), (([2.0], [1.0]), "bf16")])
def test_the_same_bits_follow_once_the_precision_is_chosen(digits, native, seconds, chosen):
    X, y = digits
    timed = native(*seconds)
    named, auto = (quick(module="convnet", precision=p, max_epochs=2).fit(X, y) for p in (chosen, "auto"))
    assert auto.net_.precision_ == chosen
    assert [len(x) for _, x in timed] == [32]
    assert torch.equal(logits_of(named, X), logits_of(auto, X))


def test_training_that_goes_on_keeps_what_was_chosen(digits, native):
    X, y = digits
    native([2.0], [1.0])
    clf = quick(module="convnet", precision="auto", max_epochs=1, warm_start=True).fit(X, y)
    timed = native([1.0], [2.0])
    clf.fit(X, y).partial_fit(X, y)
    assert clf.net_.precision_ == "bf16" and timed == []


def test_a_state_brings_the_precision_that_was_chosen(digits, native):
    """Another training of the same plan may have measured otherwise."""
    X, y = digits
    states, ends = [], []

    class Keep(Callback):
        def on_epoch_end(self, net, **kwargs):
            states.append(copy.deepcopy(net.training_.state_dict()))

    class Resume(Callback):
        def on_train_begin(self, net, **kwargs):
            net.training_.load_state_dict(states[0])
            ends.append(net.training_.precision)

    params = {"module": "convnet", "precision": "auto", "averaging": "ema", "max_epochs": 2}
    native([2.0], [1.0])
    whole = quick(**params, callbacks=[Keep()]).fit(X, y)
    native([1.0], [2.0])
    resumed = quick(**params, callbacks=[Resume()]).fit(X, y)
    assert ends == ["bf16"] and resumed.net_.precision_ == "bf16"
    assert torch.equal(logits_of(whole, X), logits_of(resumed, X))


def test_auto_changes_no_bit_of_a_table():
    X, y = load_iris(return_X_y=True)
    a, b = (quick(attack=None, precision=precision).fit(X, y) for precision in ("fp32", "auto"))
    assert b.net_.precision_ == "fp32"
    assert torch.equal(logits_of(a, X), logits_of(b, X))


@pytest.mark.parametrize("params", [{"precision": "fp8"}, {"precision": None}, {"compile": "yes"}])
def test_unknown_values_are_refused(digits, params):
    with pytest.raises(
        ValueError, match=r"precision.*'auto'.*'bf16'|precision.*'bf16'.*'auto'|compile.*must be an instance of"
    ):
        quick(**params).fit(*digits)


# Compiled


@pytest.fixture
def table():
    X, y = load_iris(return_X_y=True)
    return X.astype(np.float32), y


@pytest.fixture
def no_code(monkeypatch):
    """Compilation up to the point where code would be generated, which takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.mark.parametrize("precision, averaging", [("fp32", None), ("fp16", "ema")])
def test_compiled_training_is_the_same(table, precision, averaging, no_code):
    X, y = table
    params = {"attack": None, "module__hidden": (8,), "objective": "trades", "batch_size": 50, "precision": precision}
    params["averaging"] = averaging
    plain, compiled = (quick(**params, compile=c, max_epochs=4).fit(X, y) for c in (False, True))
    accuracy = 1e-3 if precision == "fp32" else 0.1
    np.testing.assert_allclose(compiled.decision_function(X), plain.decision_function(X), atol=accuracy)
    assert compiled.net_.module_.forward.compiled is not None
    # `cost_` counts what goes through compiled code as well.
    for phase in ("full", "selection", "coreset"):
        a, b = plain.cost_[phase], compiled.cost_[phase]
        assert (a.forwards, a.backwards) == (b.forwards, b.backwards)
    loaded = pickle.loads(pickle.dumps(compiled))
    assert loaded.net_.module_.forward.compiled is None
    np.testing.assert_allclose(loaded.decision_function(X), compiled.decision_function(X), atol=accuracy)


def test_every_module_is_compiled_however_many_there_are(no_code):
    """The compiler gives up on a function after 8 versions of it."""
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    for _ in range(12):
        module = nn.Linear(2, 2)
        compile_forward(module)
        module(torch.rand(3, 2))
    assert counters["stats"]["unique_graphs"] == before + 12


def test_gradalign_trains_compiled(table, no_code):
    """Compiled code has no second derivatives."""
    objective = FastAT(gradalign=0.2, guard=None)
    clf = quick(objective=objective, attack=None, module__hidden=(8,), compile=True, max_epochs=2).fit(*table)
    assert np.isfinite(clf.history_[-1, "train_loss"])


def test_layers_with_hooks_run_uncompiled(net):
    compile_forward(net)
    net.forward.compiled = lambda x: pytest.fail("compiled code was called")
    with pytest.raises(pytest.fail.Exception):
        net(torch.rand(2, 1, 8, 8))
    assert last_linear(net, torch.rand(2, 1, 8, 8)) is net[-1][-1]


def test_a_machine_without_a_compiler_says_so(monkeypatch, table):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(config, "fx_graph_cache", False)
    torch.compiler.reset()
    clf = quick(attack=None, compile=True, module__hidden=(7,))
    with pytest.raises(RuntimeError, match=r"compile=True could not compile .* a C\+\+ compiler .* use compile=False"):
        clf.fit(*table)
    assert not hasattr(clf, "net_")


# Host syncs


class NoSync(torch.utils._python_dispatch.TorchDispatchMode):
    """Forbids what makes a host wait for its device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        forbidden = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal.")
        assert not str(func).startswith(forbidden), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("objective", ["adversarial", "trades", "mart", FastAT(gradalign=0.1, guard=None)])
def test_no_training_step_waits_for_its_device(digits, objective, monkeypatch):
    from sklearn_acs.training.net import AdversarialNet

    taken = []
    original = AdversarialNet.train_step_single

    def watched(self, batch, **fit_params):
        with NoSync():
            taken.append(original(self, batch, **fit_params))
        return taken[-1]

    monkeypatch.setattr(AdversarialNet, "train_step_single", watched)
    quick(objective=objective, attack=None, attack__eps=0.1, max_epochs=1, selector=None).fit(*digits)
    assert taken


def test_batches_are_moved_once_an_epoch(monkeypatch):
    data = ArrayData(torch.rand(64, 3), torch.zeros(64, dtype=torch.long), find_device("cpu"))
    batches = Batches(data, 8, generator=torch.Generator().manual_seed(0))
    moves = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **kwargs: moves.append(args) or self)
    assert len(list(batches)) == 8
    assert len(moves) == 3  # rows, for the samples and for the batch, and weights
    assert list(data.fetch([])) == []


def test_a_forward_is_not_stacked_on_another(net):
    set_precision(set_precision(net, "bf16"), "fp16")
    assert not isinstance(net.forward.inner, Forward)
