"""Generated bad inputs, handed to every public entrance: each works, or raises an error that names what was wrong.

About 1,200 cases run in the suite. ``SKLEARN_ACS_BAD_INPUTS=20`` runs twenty times as many. The same cases come every
time. How they ended is counted by entrance and printed at the end of the tests.

A case is one argument replaced by something that it may not be, or hardly: a value of another type, NaN, infinity, a
bool, NumPy's and torch's numbers, data of every wrong kind. It may end in

- a result, because the value is right after all,
- ValueError or TypeError whose message names the argument (for `X` and `y` also in scikit-learn's own sentences, which
  its checks of estimators ask for), OSError for a path, FloatingPointError for a training that diverged,

and in nothing else: no other error, no hang (`LONGEST` seconds a case), no crash.
"""

import faulthandler
import os
import re
import signal
import warnings
from collections import Counter
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from functools import cache
from inspect import signature

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import sklearn_acs
from sklearn_acs import (
    CRAIG,
    EMA,
    CoresetDisplay,
    CoresetSchedule,
    Glister,
    GradMatch,
    InBatchSelection,
    LastLayerGradients,
    PerturbationDisplay,
    RandomSelector,
    RobustClassifier,
    RobustnessCurveDisplay,
    ScoreSelector,
    TradeoffDisplay,
    evaluate,
    make_robustness_report,
    robust_accuracy,
    robust_scorer,
)
from sklearn_acs.attacks import ATTACKS, PGD
from sklearn_acs.objectives import OBJECTIVES

TIMES = int(os.environ.get("SKLEARN_ACS_BAD_INPUTS", "1"))

LONGEST = 20
"""Seconds that a case may take."""

N, FEATURES, SIDE = 24, 3, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, FEATURES)).astype(np.float32)
Y = np.arange(N) % 2
IMAGES = RNG.random((N, SIDE, SIDE)).astype(np.float32)
WEIGHTS = np.ones(N)

# What is handed over


class Items(Dataset):
    """A Dataset of the items given."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(IMAGES, Y, strict=True)


class Wide(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :5]


NUMBERS = [
    None, True, False, 0, 1, 2, -1, -5, 2.5, 0.5, -0.5, 0.0, -0.0, 1e-300, 1e300, np.nan, np.inf, -np.inf, 2**31, 2**70,
    np.int64(2), np.uint8(3), np.int8(-1), np.float32(0.5), np.float64(np.nan), np.float16(1), np.bool_(True),
    np.array(1), np.array(0.5), np.array([0.1, 0.2]), np.array([]), np.array([0.1] * FEATURES), np.array([[np.nan]]),
    np.longdouble(1), torch.tensor(1), torch.tensor(0.5), torch.tensor([1.0, 2.0]), torch.tensor(np.nan),
    1 + 2j, Decimal("0.5"), Fraction(1, 2),
]  # fmt: skip
STRINGS = ["", "auto", "8", "False", "nan", "pgd", "PGD", "linf", "l2", "random", "None", "\ud800", "ß\n", b"pgd", "x__y"]
OBJECTS = [
    [], [1], [None], [0.1, 0.2], ["pgd"], (), (0, 1), (1, 0), (0, np.nan), (0.0, 1.0, 2.0), ("a", "b"), {}, {"a": 1},
    {"a": PGD(eps=0.1, steps=1)}, set(), {1}, range(3), object(), print, int, len, lambda *given: given, Ellipsis,
    NotImplemented, slice(2), nn.Linear, nn.Linear(2, 2), nn.Identity(), Wide(), PGD, PGD(eps=0.1, steps=1),
    PGD(eps=-1), GradMatch, GradMatch(), RobustClassifier(), torch.device("cpu"), torch.float16, np.float32, np.dtype(int),
    torch.optim.SGD, np.random.RandomState(0), np.random.default_rng(0), torch.Generator(), pd.NA, pd.NaT,
    pd.Timestamp("2020-01-01"), pd.Series([1, 2]), np.datetime64("2020-01-01"), np.ma.masked, np.array(["a"]),
    np.array([object()]), Exception("no"),
]  # fmt: skip

VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(STRINGS),
    st.sampled_from(OBJECTS),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.floats(), max_size=4),
)


def spoilt(value):
    """X with one entry replaced."""
    x = X.astype(object if isinstance(value, str) or value is pd.NA else type(value))
    x[3, 1] = value
    return x


TABLES = {
    "one axis": X[:, 0], "no axis": np.array(1.0), "transposed": X.T, "five axes": X[:, :, None, None, None],
    "another width": X[:, :2], "no column": X[:, :0], "no row": X[:0], "one row": X[:1], "empty": np.array([]),
    "nan": spoilt(np.float64(np.nan)), "inf": spoilt(np.float32(np.inf)), "huge": spoilt(np.float64(1e300)),
    "object": X.astype(object), "a string": spoilt("a"), "pd.NA": spoilt(pd.NA), "strings": X.astype(str),
    "string numbers": X.round(1).astype(str).tolist(), "bytes": X.astype("S"), "complex": X.astype(complex),
    "bool": X > 0, "integers": (X * 9).astype(int), "int8": (X * 9).astype(np.int8), "uint64": (X**2).astype(np.uint64),
    "float16": X.astype(np.float16), "longdouble": X.astype(np.longdouble), "datetime": X.astype("datetime64[s]"),
    "timedelta": X.astype("timedelta64[s]"), "records": np.zeros(N, [("a", float), ("b", float)]),
    "masked": np.ma.masked_less(X, 0), "sparse": sparse.csr_matrix(X), "sparse array": sparse.coo_array(X),
    "tensor": torch.from_numpy(X), "bfloat16": torch.from_numpy(X).bfloat16(), "int tensor": torch.ones(N, 3).long(),
    "sparse tensor": torch.eye(3).to_sparse(), "meta": torch.empty(N, 3, device="meta"),
    "complex tensor": torch.ones(N, 3, dtype=torch.complex64), "nan tensor": torch.full((N, 3), np.nan),
    "list": X.tolist(), "ragged": [[1.0, 2.0], [3.0]], "tuple": tuple(map(tuple, X)), "dict": {"a": X[:, 0]},
    "set": {1.0, 2.0}, "generator": iter(X), "string": "X", "none": None, "number": 3.0, "class": np.ndarray,
    "frame": pd.DataFrame(X), "named frame": pd.DataFrame(X, columns=list("abc")), "series": pd.Series(X[:, 0]),
    "mixed names": pd.DataFrame(X, columns=["a", 1, "b"]), "doubled names": pd.DataFrame(X, columns=list("aab")),
    "strings frame": pd.DataFrame(X.astype(str)), "dates frame": pd.DataFrame({"a": pd.date_range("2020", periods=N)}),
    "NA frame": pd.DataFrame(X).astype("Float64").mask(X > 1), "category": pd.DataFrame({"a": pd.Categorical(["u"] * N)}),
    "images": IMAGES, "uint8 images": (IMAGES * 255).astype(np.uint8), "images beyond": 9 * IMAGES, "images nan":
    IMAGES * np.nan, "no image": IMAGES[:0], "no height": IMAGES[:, :0], "colour": np.stack([IMAGES] * 3, 1),
    "channels": np.stack([IMAGES] * 7, 3), "string images": IMAGES.astype(str), "object images": IMAGES.astype(object),
    "integer images": (IMAGES * 9).astype(int), "bool images": IMAGES > 0.5, "ragged images": [IMAGES[0], IMAGES[1, :2]],
    "dataset": TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(Y)),
    "table dataset": TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
    "unlabelled dataset": TensorDataset(torch.from_numpy(IMAGES)), "empty dataset": Items([]),
    "ragged dataset": Items([(IMAGES[0], 0), (IMAGES[1, :2], 1)] * 4), "dict dataset": Items([{"image": IMAGES[0]}] * 8),
    "array dataset": Items(list(IMAGES)), "string dataset": Items([("a", 0), ("b", 1)] * 4), "stream": Stream(),
    "nan dataset": Items([(IMAGES[0] * np.nan, 0), (IMAGES[1], 1)] * 4), "none dataset": Items([(IMAGES[0], None)] * 8),
    "loader": torch.utils.data.DataLoader(TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(Y))),
}  # fmt: skip

LABELS = {
    "none": None, "one class": np.zeros(N, int), "short": Y[:-1], "long": np.r_[Y, Y], "empty": [], "column": Y[:, None],
    "one-hot": np.eye(2)[Y], "nan": np.where(Y, np.nan, 0), "inf": np.where(Y, np.inf, 0), "continuous": Y + 0.5,
    "floats": Y.astype(float), "bools": Y > 0, "strings": np.array(["b", "a"])[Y], "objects": np.array(["b", "a"], object)[Y],
    "mixed": np.array(["a", 1], object)[Y], "with none": np.array(["a", None], object)[Y], "negative": -Y, "huge": Y * 2**40,
    "uint64": Y.astype(np.uint64), "new": Y + 5, "a string": "y", "a number": 1, "dict": {"a": 1}, "set": {0, 1},
    "generator": iter(Y), "masked": np.ma.masked_equal(Y, 0), "sparse": sparse.csr_matrix(Y), "complex": Y + 1j,
    "datetime": Y.astype("datetime64[s]"), "ragged": [[0], [1, 0]], "tensor": torch.from_numpy(Y), "meta":
    torch.empty(N, device="meta"), "float tensor": torch.from_numpy(Y).float(), "series": pd.Series(Y), "frame":
    pd.DataFrame(Y), "two columns": pd.DataFrame({"a": Y, "b": Y}), "NA": pd.Series(Y, dtype="Int64").mask(Y == 0),
    "category": pd.Series(Y).astype("category"), "all different": np.arange(N), "surrogates": np.array(["\ud800", "a"])[Y],
    "bytes": np.array([b"b", b"a"])[Y], "records": np.zeros(N, [("a", int)]), "three axes": Y.reshape(2, 3, 4),
}  # fmt: skip

SAMPLE_WEIGHTS = {
    "nan": WEIGHTS * np.nan, "inf": WEIGHTS * np.inf, "negative": -WEIGHTS, "one negative": np.r_[-1, WEIGHTS[1:]],
    "zeros": 0 * WEIGHTS, "one": np.r_[1, 0 * WEIGHTS[1:]], "short": WEIGHTS[:-1], "long": np.r_[WEIGHTS, 1], "empty": [],
    "column": WEIGHTS[:, None], "square": np.eye(N), "a number": 2.0, "zero": 0, "strings": ["a"] * N, "string": "balanced",
    "dict": {0: 1, 1: 2}, "bools": WEIGHTS > 0, "complex": WEIGHTS + 1j, "objects": WEIGHTS.astype(object), "nones":
    [None] * N, "masked": np.ma.masked_equal(WEIGHTS, 1), "tensor": torch.ones(N), "series": pd.Series(WEIGHTS), "huge":
    WEIGHTS * 1e300, "tiny": WEIGHTS * 1e-300, "sparse": sparse.csr_matrix(WEIGHTS), "datetime": Y.astype("datetime64[s]"),
    "NA": pd.Series([pd.NA] * N), "ragged": [[1], [1, 2]], "generator": iter(WEIGHTS), "object": object(),
}  # fmt: skip

GRADIENTS = {
    "zeros": np.zeros((N, 3)), "huge": X.astype(float) * 1e155, "tiny": X.astype(float) * 1e-300, "nearly infinite": X.astype(float) * 1e307,
    "factors": LastLayerGradients([(torch.ones(N, 2), torch.ones(N, 2))]), "equal": np.ones((N, 3)),
}

# Where to


def tiny(**params):
    defaults = {"module": "mlp", "module__hidden": (4,), "max_epochs": 2, "batch_size": 8, "attack": "fgsm"}
    return RobustClassifier(**{**defaults, "lr": 0.01, "random_state": 0, **params})


@cache
def fitted(kind="table"):
    return tiny().fit(X if kind == "table" else IMAGES, Y)


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 2))


@cache
def folder():
    from tempfile import mkdtemp

    return mkdtemp()


def call(function, **defaults):
    """A way in: the function with good arguments, and one other."""
    return lambda name, value: function(**{**defaults, name: value})


def of_fitted(method, kind, **defaults):
    samples = X if kind == "table" else IMAGES
    return lambda name, value: getattr(fitted(kind), method)(**{"X": samples, **defaults, name: value})


def fit_with(part, **defaults):
    """A way into the parameters of a part, by a fit."""
    return lambda name, value: tiny(**defaults, **{f"{part}__{name}" if part else name: value}).fit(X, Y)


def data_kinds(**more):
    named = {"X": TABLES, "y": LABELS, "sample_weight": SAMPLE_WEIGHTS, "G": {**TABLES, **GRADIENTS}, "classes": LABELS}
    return {**named, "validation": named["G"], **more}


DATA = data_kinds()

WORK = {"max_epochs", "steps", "restarts", "rounds", "n_iter_no_change", "robust_steps", "n_jobs", "compile", "n_images"}
"""Arguments that are right in any size, and make a case as long: they get small numbers alone."""

LEFT_OUT = {"memory_budget", "self", "options", "kwargs", "cross_kw", "line_kw", "bar_kw"}


def arguments(callable_, *extra):
    return [name for name in (*signature(callable_).parameters, *extra) if name not in LEFT_OUT]


Entrance = tuple  # of argument names, and what calls with one of them replaced
ONE_STEP = PGD(eps=0.1, steps=1)

ENTRANCES = {
    "RobustClassifier": (
        [*arguments(RobustClassifier), "module__hidden", "attack__eps", "attack__random_start", "selector__ridge"],
        lambda name, value: tiny(**{name: value}).fit(X, Y),
    ),
    "RobustClassifier, parts": (
        ["optimizer__momentum", "optimizer__weight_decay", "selector__tolerance", "objective__beta", "module__activation",
         "averaging__decay", "callbacks__a__b", "iterator_train__num_workers", "iterator_valid__num_workers", "epochs",
         "selector__n_select", "attack__norm", "attack__step_size", "in_batch__share", "selection_attack__eps"],
        lambda name, value: tiny(objective="trades", averaging="ema", in_batch=InBatchSelection(), attack="pgd",
                                 attack__steps=1, selection_attack="fgsm", **{name: value}).fit(X, Y),
    ),
    "fit": (["X", "y", "sample_weight"], lambda name, value: tiny().fit(**{"X": X, "y": Y, name: value})),
    "fit of images": (["X", "y"], lambda name, value: tiny(module="auto", selector=None).fit(
        **({"X": value} if isinstance(value, Dataset) else {"X": IMAGES, "y": Y, name: value}))),
    "partial_fit": (["X", "y", "classes", "sample_weight"],
                    lambda name, value: tiny().partial_fit(**{"X": X, "y": Y, name: value})),
    "predict": (["X"], of_fitted("predict", "table")),
    "predict_proba of images": (["X"], of_fitted("predict_proba", "images")),
    "score": (["X", "y", "sample_weight"], of_fitted("score", "table", y=Y)),
    "robust_score": (["X", "y", "attack", "sample_weight", "batch_size"], of_fitted("robust_score", "table", y=Y)),
    "robust_score of images": (["X", "y", "attack"], of_fitted("robust_score", "images", y=Y)),
    "perturb": (["X", "y", "attack", "batch_size"], of_fitted("perturb", "table", y=Y)),
    "evaluate": (
        arguments(evaluate), lambda name, value: evaluate(**{"model": fitted(), "X": X, "y": Y, "attacks": ONE_STEP, name: value})
    ),
    "evaluate a module": (
        arguments(evaluate), call(evaluate, model=linear(), X=X, y=Y, attacks=ONE_STEP, clip=None)
    ),
    "robust_accuracy": (
        arguments(robust_accuracy), call(robust_accuracy, model=linear(), X=X, y=Y, attack=ONE_STEP, clip=None)
    ),
    "robust_scorer": (
        ["attack", "X", "y", "sample_weight", "estimator"],
        lambda name, value: robust_scorer(**{name: value}) if name == "attack" else
        robust_scorer(ONE_STEP)(**{"estimator": fitted(), "X": X, "y": Y, name: value}),
    ),
    "CoresetSchedule": (
        ["max_epochs", "coreset_frac", "select_every", "warmup_frac"],
        lambda name, value: CoresetSchedule(**{"max_epochs": 10, "coreset_frac": 0.5, name: value}).expected_speedup(),
    ),
    "make_robustness_report": (
        ["clf", "path", "y", "attacks", "y_train", "title", "batch_size", "check_masking"],
        lambda name, value: make_robustness_report(**{"clf": fitted(), "X": X, "y": Y, "attacks": ONE_STEP,
            "check_masking": False, "path": os.path.join(folder(), "report.html"), name: value}),
    ),
    "displays": (
        ["n_images", "eps", "speedup", "robust_error", "names", "accuracy", "estimator", "estimators", "by", "panels", "ax"],
        lambda name, value: display(name, value),
    ),
    **{
        f"{selector.__name__}.fit": (
            [*arguments(selector), *(name for name in arguments(selector.fit) if name != "scores")],
            lambda name, value, selector=selector: fit_selector(selector, name, value),
        )
        for selector in (GradMatch, CRAIG, Glister, RandomSelector, ScoreSelector)
    },
    **{
        f"{name}.perturb": (
            [*arguments(made), "clip", "y_target", "start"],
            lambda argument, value, made=made: perturb(made, argument, value),
        )
        for name, made in ATTACKS.items() if name not in ("lpa", "ppgd")
    },
    **{
        f"{name} objective": (arguments(made), fit_with("objective", objective=name))
        for name, made in OBJECTIVES.items() if arguments(made)
    },
    "EMA": (["decay"], lambda name, value: tiny(averaging=EMA(**{name: value})).fit(X, Y)),
    "InBatchSelection": (
        arguments(InBatchSelection), lambda name, value: tiny(in_batch=InBatchSelection(**{name: value})).fit(X, Y)
    ),
}  # fmt: skip


def fit_selector(selector, name, value):
    made = {name: value} if name in arguments(selector) else {}
    given = {"G": X, "y": Y, **({"validation": X} if selector is Glister else {})}
    return selector(**{"n_select": 4, **made}).fit(**{**given, **({} if made else {name: value})})


def perturb(made, name, value):
    of_call = name in ("clip", "y_target", "start")
    brief = {key: 1 for key in ("steps", "restarts", "rounds") if key in signature(made).parameters}
    attack = made(**{**brief, **({} if of_call else {name: value})})
    x, y = torch.from_numpy(np.stack([IMAGES] * 3, 1))[:4], torch.from_numpy(Y)[:4]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    attack.validate()
    return attack.perturb(model, x, y, **{"clip": (0.0, 1.0), **({name: value} if of_call else {})})


def display(name, value):
    if name in ("speedup", "robust_error", "names"):
        given = {"speedup": [1.0, 2.0], "robust_error": [0.1, 0.2], "names": ["a", "b"], name: value}
        return TradeoffDisplay.from_predictions(**given)
    if name == "accuracy":
        return RobustnessCurveDisplay(eps=[0, 1], accuracy=value).plot()
    if name == "eps":
        return RobustnessCurveDisplay.from_estimator(fitted(), X, Y, eps=value, attack=ONE_STEP)
    if name == "n_images":
        return PerturbationDisplay.from_estimator(fitted("images"), IMAGES, Y, n_images=value)
    if name == "estimators":
        return RobustnessCurveDisplay.from_estimators(value, X, Y, eps=[0.1], attack=ONE_STEP)
    if name == "by":
        return TradeoffDisplay.from_estimators({"a": fitted()}, X, Y, attack=ONE_STEP, by=value)
    return CoresetDisplay.from_estimator(**{"estimator": fitted(), name: value})


# How it ends

OF_DATA = re.compile(
    r"\bX\b|\bG\b|\by\b|validation|Found array|inconsistent numbers of samples|Reshape your data|[Ss]parse|Complex data|"
    r"Unknown label type|labels?\b|images?\b|Dataset|samples|features|feature names|target|array"
)
"""How scikit-learn and this library speak of data."""

PATHS = {"path", "state_path"}


@contextmanager
def limited():
    """Raise TimeoutError after `LONGEST` seconds; end the process, with its stack, where Python does not get to that."""

    def too_long(*_):
        raise TimeoutError(f"took longer than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    faulthandler.dump_traceback_later(3 * LONGEST, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def names(argument, text):
    plain = argument.rpartition("__")[2]
    if argument in DATA:
        return bool(OF_DATA.search(text)) or re.search(rf"\b{plain}\b", text) is not None
    return re.search(rf"\b{re.escape(plain)}\b", text) is not None


def outcome(way_in, argument, value):
    """Say how a case ended, and what is wrong with that."""
    try:
        with limited(), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            way_in(argument, value)
        return ("works with a warning" if told else "works"), None
    except (ValueError, TypeError, FloatingPointError) as error:
        text = "\n".join([str(error), *getattr(error, "__notes__", [])])
        if isinstance(error, FloatingPointError) or names(argument, text):
            return type(error).__name__, None
        return "names nothing", f"{type(error).__name__}: {text}"
    except OSError as error:
        if argument in PATHS and names(argument, str(error)):
            return "OSError", None
        return "another error", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "another error", f"{type(error).__name__}: {error}"


def values(argument):
    if argument in DATA:
        return st.one_of(st.sampled_from(sorted(DATA[argument])).map(DATA[argument].get), VALUES)
    if argument in WORK:
        return VALUES.filter(lambda value: not (isinstance(value, int | float | np.number) and value > 3))
    return VALUES


def shown(value):
    return " ".join(repr(value).split()).encode("utf-8", "backslashreplace").decode()[:100]


@pytest.fixture(autouse=True)
def no_pictures_stay_open():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_bad_inputs_work_or_are_refused_by_name(entrance, record_property):
    arguments, way_in = ENTRANCES[entrance]
    ends, faults = Counter(), {}

    @settings(
        max_examples=TIMES * max(15, 8 * len(arguments)),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(arguments).flatmap(lambda argument: st.tuples(st.just(argument), values(argument))))
    def try_one(case):
        argument, value = case
        end, fault = outcome(way_in, argument, value)
        ends[end] += 1
        if fault:
            faults.setdefault(f"{argument}: {fault[:300]}", f"{argument}={shown(value)}: {fault[:300]}")

    try_one()
    record_property("bad inputs", {"entrance": entrance, **ends})
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults.values())
    assert sklearn_acs.__version__
