"""Generated bad inputs, handed to every public entrance: each works, or raises an error that names what was wrong.

About 2,000 cases run in the suite. ``SKLEARN_ACS_BAD_INPUTS=20`` runs twenty times as many. The same cases come every
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
from functools import cache, partial
from inspect import signature
from numbers import Real
from tempfile import mkdtemp

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from sklearn_acs import (
    EMA,
    AutoAttack,
    CoresetDisplay,
    CoresetSchedule,
    CostDisplay,
    GradMatch,
    InBatchSelection,
    LastLayerGradients,
    PerturbationDisplay,
    RobustClassifier,
    RobustnessCurveDisplay,
    TradeoffDisplay,
    evaluate,
    make_robustness_report,
    robust_accuracy,
    robust_scorer,
)
from sklearn_acs.attacks import ATTACKS, PGD
from sklearn_acs.objectives import OBJECTIVES
from sklearn_acs.selectors import SELECTORS

TIMES = int(os.environ.get("SKLEARN_ACS_BAD_INPUTS", "1"))

MANY, FEW = 20, 4
"""Cases for each argument that is data, and for each other."""

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
    None,
    True,
    False,
    0,
    1,
    2,
    -1,
    -5,
    2.5,
    0.5,
    -0.5,
    0.0,
    -0.0,
    1e-300,
    1e300,
    np.nan,
    np.inf,
    -np.inf,
    2**31,
    2**70,
    np.int64(2),
    np.uint8(3),
    np.int8(-1),
    np.float32(0.5),
    np.float64(np.nan),
    np.float16(1),
    np.bool_(True),
    np.array(1),
    np.array(0.5),
    np.array([0.1, 0.2]),
    np.array([]),
    np.array([0.1] * FEATURES),
    np.array([[np.nan]]),
    np.longdouble(1),
    torch.tensor(1),
    torch.tensor(0.5),
    torch.tensor([1.0, 2.0]),
    torch.tensor(np.nan),
    1 + 2j,
    Decimal("0.5"),
    Fraction(1, 2),
]
STRINGS = [
    "",
    "auto",
    "8",
    "False",
    "nan",
    "pgd",
    "PGD",
    "linf",
    "l2",
    "random",
    "None",
    "\ud800",
    "ß\n",
    b"pgd",
    "x__y",
]
OBJECTS = [
    [],
    [1],
    [None],
    [0.1, 0.2],
    ["pgd"],
    (),
    (0, 1),
    (1, 0),
    (0, np.nan),
    (0.0, 1.0, 2.0),
    ("a", "b"),
    {},
    {"a": 1},
    {"a": PGD(eps=0.1, steps=1)},
    set(),
    {1},
    range(3),
    object(),
    print,
    int,
    len,
    lambda *given: given,
    Ellipsis,
    NotImplemented,
    slice(2),
    nn.Linear,
    nn.Linear(2, 2),
    nn.Identity(),
    Wide(),
    PGD,
    PGD(eps=0.1, steps=1),
    PGD(eps=-1),
    GradMatch,
    GradMatch(),
    RobustClassifier(),
    torch.device("cpu"),
    torch.float16,
    np.float32,
    np.dtype(int),
    torch.optim.SGD,
    np.random.RandomState(0),
    np.random.default_rng(0),
    torch.Generator(),
    pd.NA,
    pd.NaT,
    pd.Timestamp("2020-01-01"),
    pd.Series([1, 2]),
    np.datetime64("2020-01-01"),
    np.ma.masked,
    np.array(["a"]),
    np.array([object()]),
    Exception("no"),
]

VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(NUMBERS),
    st.sampled_from(OBJECTS),
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
    "one axis": X[:, 0],
    "no axis": np.array(1.0),
    "transposed": X.T,
    "five axes": X[:, :, None, None, None],
    "another width": X[:, :2],
    "no column": X[:, :0],
    "no row": X[:0],
    "one row": X[:1],
    "empty": np.array([]),
    "nan": spoilt(np.float64(np.nan)),
    "inf": spoilt(np.float32(np.inf)),
    "huge": spoilt(np.float64(1e300)),
    "object": X.astype(object),
    "a string": spoilt("a"),
    "pd.NA": spoilt(pd.NA),
    "strings": X.astype(str),
    "string numbers": X.round(1).astype(str).tolist(),
    "bytes": X.astype("S"),
    "complex": X.astype(complex),
    "bool": X > 0,
    "integers": (X * 9).astype(int),
    "int8": (X * 9).astype(np.int8),
    "uint64": (X**2).astype(np.uint64),
    "float16": X.astype(np.float16),
    "longdouble": X.astype(np.longdouble),
    "datetime": X.astype("datetime64[s]"),
    "timedelta": X.astype("timedelta64[s]"),
    "records": np.zeros(N, [("a", float), ("b", float)]),
    "masked": np.ma.masked_less(X, 0),
    "sparse": sparse.csr_matrix(X),
    "sparse array": sparse.coo_array(X),
    "tensor": torch.from_numpy(X),
    "bfloat16": torch.from_numpy(X).bfloat16(),
    "int tensor": torch.ones(N, 3).long(),
    "sparse tensor": torch.eye(3).to_sparse(),
    "meta": torch.empty(N, 3, device="meta"),
    "complex tensor": torch.ones(N, 3, dtype=torch.complex64),
    "nan tensor": torch.full((N, 3), np.nan),
    "list": X.tolist(),
    "ragged": [[1.0, 2.0], [3.0]],
    "tuple": tuple(map(tuple, X)),
    "dict": {"a": X[:, 0]},
    "set": {1.0, 2.0},
    "generator": iter(X),
    "string": "X",
    "none": None,
    "number": 3.0,
    "class": np.ndarray,
    "frame": pd.DataFrame(X),
    "named frame": pd.DataFrame(X, columns=list("abc")),
    "series": pd.Series(X[:, 0]),
    "mixed names": pd.DataFrame(X, columns=["a", 1, "b"]),
    "doubled names": pd.DataFrame(X, columns=list("aab")),
    "strings frame": pd.DataFrame(X.astype(str)),
    "dates frame": pd.DataFrame({"a": pd.date_range("2020", periods=N)}),
    "NA frame": pd.DataFrame(X).astype("Float64").mask(X > 1),
    "category": pd.DataFrame({"a": pd.Categorical(["u"] * N)}),
    "images": IMAGES,
    "uint8 images": (IMAGES * 255).astype(np.uint8),
    "images beyond": 9 * IMAGES,
    "images nan": IMAGES * np.nan,
    "no image": IMAGES[:0],
    "no height": IMAGES[:, :0],
    "colour": np.stack([IMAGES] * 3, 1),
    "channels": np.stack([IMAGES] * 7, 3),
    "string images": IMAGES.astype(str),
    "object images": IMAGES.astype(object),
    "integer images": (IMAGES * 9).astype(int),
    "bool images": IMAGES > 0.5,
    "ragged images": [IMAGES[0], IMAGES[1, :2]],
    "dataset": TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(Y)),
    "table dataset": TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
    "unlabelled dataset": TensorDataset(torch.from_numpy(IMAGES)),
    "empty dataset": Items([]),
    "ragged dataset": Items([(IMAGES[0], 0), (IMAGES[1, :2], 1)] * 4),
    "dict dataset": Items([{"image": IMAGES[0]}] * 8),
    "array dataset": Items(list(IMAGES)),
    "string dataset": Items([("a", 0), ("b", 1)] * 4),
    "stream": Stream(),
    "nan dataset": Items([(IMAGES[0] * np.nan, 0), (IMAGES[1], 1)] * 4),
    "none dataset": Items([(IMAGES[0], None)] * 8),
    "loader": torch.utils.data.DataLoader(TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(Y))),
}

LABELS = {
    "none": None,
    "one class": np.zeros(N, int),
    "short": Y[:-1],
    "long": np.r_[Y, Y],
    "empty": [],
    "column": Y[:, None],
    "one-hot": np.eye(2)[Y],
    "nan": np.where(Y, np.nan, 0),
    "inf": np.where(Y, np.inf, 0),
    "continuous": Y + 0.5,
    "floats": Y.astype(float),
    "bools": Y > 0,
    "strings": np.array(["b", "a"])[Y],
    "objects": np.array(["b", "a"], object)[Y],
    "mixed": np.array(["a", 1], object)[Y],
    "with none": np.array(["a", None], object)[Y],
    "negative": -Y,
    "huge": Y * 2**40,
    "uint64": Y.astype(np.uint64),
    "new": Y + 5,
    "a string": "y",
    "a number": 1,
    "dict": {"a": 1},
    "set": {0, 1},
    "generator": iter(Y),
    "masked": np.ma.masked_equal(Y, 0),
    "sparse": sparse.csr_matrix(Y),
    "complex": Y + 1j,
    "datetime": Y.astype("datetime64[s]"),
    "ragged": [[0], [1, 0]],
    "tensor": torch.from_numpy(Y),
    "meta": torch.empty(N, device="meta"),
    "float tensor": torch.from_numpy(Y).float(),
    "series": pd.Series(Y),
    "frame": pd.DataFrame(Y),
    "two columns": pd.DataFrame({"a": Y, "b": Y}),
    "NA": pd.Series(Y, dtype="Int64").mask(Y == 0),
    "category": pd.Series(Y).astype("category"),
    "all different": np.arange(N),
    "surrogates": np.array(["\ud800", "a"])[Y],
    "bytes": np.array([b"b", b"a"])[Y],
    "records": np.zeros(N, [("a", int)]),
    "three axes": Y.reshape(2, 3, 4),
}

SAMPLE_WEIGHTS = {
    "nan": WEIGHTS * np.nan,
    "inf": WEIGHTS * np.inf,
    "negative": -WEIGHTS,
    "one negative": np.r_[-1, WEIGHTS[1:]],
    "zeros": 0 * WEIGHTS,
    "one": np.r_[1, 0 * WEIGHTS[1:]],
    "short": WEIGHTS[:-1],
    "long": np.r_[WEIGHTS, 1],
    "empty": [],
    "column": WEIGHTS[:, None],
    "square": np.eye(N),
    "a number": 2.0,
    "zero": 0,
    "strings": ["a"] * N,
    "string": "balanced",
    "dict": {0: 1, 1: 2},
    "bools": WEIGHTS > 0,
    "complex": WEIGHTS + 1j,
    "objects": WEIGHTS.astype(object),
    "nones": [None] * N,
    "masked": np.ma.masked_equal(WEIGHTS, 1),
    "tensor": torch.ones(N),
    "series": pd.Series(WEIGHTS),
    "huge": WEIGHTS * 1e300,
    "tiny": WEIGHTS * 1e-300,
    "sparse": sparse.csr_matrix(WEIGHTS),
    "datetime": Y.astype("datetime64[s]"),
    "NA": pd.Series([pd.NA] * N),
    "ragged": [[1], [1, 2]],
    "generator": iter(WEIGHTS),
    "object": object(),
}

GRADIENTS = {
    "zeros": np.zeros((N, 3)),
    "huge": X.astype(float) * 1e155,
    "tiny": X.astype(float) * 1e-300,
    "nearly infinite": X.astype(float) * 1e307,
    "factors": LastLayerGradients([(torch.ones(N, 2), torch.ones(N, 2))]),
    "equal": np.ones((N, 3)),
}

# Where to: each entrance calls with good arguments, of which others may replace some


def tiny(**params):
    hidden = {} if "module" in params else {"module__hidden": (4,)}
    defaults = {"module": "mlp", **hidden, "max_epochs": 2, "batch_size": 8, "attack": "fgsm"}
    return RobustClassifier(**{**defaults, "coreset_frac": 0.5, "lr": 0.01, "random_state": 0, **params})


@cache
def fitted(kind="table"):
    return tiny().fit(X if kind == "table" else IMAGES, Y)


@cache
def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 2))


@cache
def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))


@cache
def folder():
    return mkdtemp()


def arguments(called, *extra):
    return [*(name for name in signature(called).parameters if name not in LEFT_OUT), *extra]


LEFT_OUT = {"self", "options", "memory_budget", "line_kw", "cross_kw", "compile"}  # compiling takes a minute


def calling(function, /, *names, **good):
    """An entrance: its arguments, and what calls a function with good ones but for those given."""
    return names or arguments(function), lambda **other: function(**{**good, **other})


def of_fitted(method, kind="table", **good):
    names = arguments(getattr(RobustClassifier, method))
    samples = X if kind == "table" else IMAGES
    return names, lambda **other: getattr(fitted(kind), method)(**{"X": samples, **good, **other})


def fit_parts(**other):
    objects = {"in_batch": InBatchSelection(share=0.5), "averaging": "ema", "selection_attack": "pgd"}
    return tiny(objective="mart", attack="pgd", attack__steps=1, selection_attack__steps=1, **objects, **other).fit(
        X, Y
    )


def fit_samples(fit="fit", /, **given):
    return getattr(tiny(), fit)(**{**({} if isinstance(given.get("X"), Dataset) else {"y": Y}), "X": X, **given})


def fit_images(**given):
    labels = {} if isinstance(given.get("X"), Dataset) else {"y": Y}
    return tiny(module="auto", module__hidden=8, selector=None).fit(**{**labels, "X": IMAGES, **given})


def score_by(attack=None, **given):
    return robust_scorer(attack)(**{"estimator": fitted(), "X": X, "y": Y, **given})


def fit_selector(selector):
    of_fit, of_object = arguments(selector.fit), arguments(selector)
    validation = {"validation": X} if "validation" in of_fit else {}
    size = {"n_select": 4} if "n_select" in of_object else {}

    def fit(**other):
        made = {name: value for name, value in other.items() if name in of_object}
        given = {name: value for name, value in other.items() if name in of_fit}
        return selector(**{**size, **made}).fit(**{"G": X, "y": Y, **validation, **given})

    return [*of_object, *(name for name in of_fit if name not in of_object)], fit


def perturb(make):
    of_call, of_object = ["model", "x", "y", "y_target", "loss", "clip", "generator", "start"], arguments(make)
    brief = {name: 1 for name in ("steps", "restarts", "rounds") if name in of_object}
    x, y = torch.from_numpy(np.stack([IMAGES[:4]] * 3, 1)), torch.from_numpy(Y[:4])

    def call(**other):
        attack = make(**{**brief, **{name: value for name, value in other.items() if name in of_object}})
        given = {name: value for name, value in other.items() if name in of_call}
        return attack.perturb(**{"model": convolutional(), "x": x, "y": y, "clip": (0.0, 1.0), **given})

    return [*of_object, *of_call], call


def schedule(**other):
    return CoresetSchedule(**{"max_epochs": 10, "coreset_frac": 0.5, **other}).expected_speedup()


def report(**other):
    good = {
        "clf": fitted(),
        "X": X,
        "y": Y,
        "attacks": ONE_STEP,
        "check_masking": False,
        "path": os.path.join(folder(), "report.html"),
    }
    return make_robustness_report(**{**good, **other})


ONE_STEP = PGD(eps=0.1, steps=1)
NESTED = [
    *("module__hidden", "optimizer__momentum", "optimizer__weight_decay", "objective__label_smoothing", "attack__eps"),
    *("attack__norm", "attack__step_size", "attack__init", "selector__ridge", "selector__n_select", "averaging__decay"),
    *("in_batch__share", "selection_attack__eps", "iterator_train__num_workers", "iterator_valid__num_workers"),
    *("callbacks__name__parameter", "epochs", "learning_rate", "attack__epsilon", "atack__eps"),
]
ENTRANCES = {
    "RobustClassifier": (arguments(RobustClassifier), lambda **other: tiny(**other).fit(X, Y)),
    "RobustClassifier's parts": (NESTED, fit_parts),
    "fit": (arguments(RobustClassifier.fit), fit_samples),
    "fit, images": (["X", "y"], fit_images),
    "partial_fit": (arguments(RobustClassifier.partial_fit), partial(fit_samples, "partial_fit")),
    "predict": of_fitted("predict"),
    "predict_proba, images": of_fitted("predict_proba", "images"),
    "decision_function": of_fitted("decision_function"),
    "score": of_fitted("score", y=Y),
    "robust_score": of_fitted("robust_score", y=Y),
    "robust_score, images": of_fitted("robust_score", "images", y=Y),
    "perturb": of_fitted("perturb", y=Y),
    "perturb, images": of_fitted("perturb", "images", y=Y),
    "evaluate": (
        arguments(evaluate),
        lambda **other: evaluate(**{"model": fitted(), "X": X, "y": Y, "attacks": ONE_STEP, **other}),
    ),
    "evaluate, module": calling(evaluate, model=linear(), X=X, y=Y, attacks=ONE_STEP, clip=None),
    "robust_accuracy": calling(robust_accuracy, model=linear(), X=X, y=Y, attack=ONE_STEP, clip=None),
    "robust_scorer": (["attack", "estimator", "X", "y", "sample_weight"], score_by),
    "make_robustness_report": (arguments(make_robustness_report), report),
    "TradeoffDisplay": calling(TradeoffDisplay.from_predictions, speedup=[1, 2], robust_error=[0, 1], names=["a", "b"]),
    "TradeoffDisplay, models": (
        ["estimators", "attack", "baseline", "by", "y"],
        lambda **other: TradeoffDisplay.from_estimators(
            **{"estimators": {"a": fitted()}, "X": X, "y": Y, "attack": ONE_STEP, **other}
        ),
    ),
    "RobustnessCurveDisplay": calling(RobustnessCurveDisplay, eps=[0, 1], accuracy=[1, 0]),
    "RobustnessCurveDisplay, models": (
        ["estimators", "attack", "eps", "batch_size", "random_state"],
        lambda **other: RobustnessCurveDisplay.from_estimators(
            **{"estimators": {"a": fitted()}, "X": X, "y": Y, "attack": ONE_STEP, "eps": [0.1], **other}
        ),
    ),
    "PerturbationDisplay": (
        ["estimator", "X", "y", "attack", "n_images", "ax"],
        lambda **other: PerturbationDisplay.from_estimator(
            **{"estimator": fitted("images"), "X": IMAGES, "y": Y, **other}
        ),
    ),
    "PerturbationDisplay, images": calling(
        PerturbationDisplay, X=IMAGES, X_adv=IMAGES, y_true=Y, y_pred=Y, y_pred_adv=Y
    ),
    "CoresetDisplay": (
        ["estimator", "y", "panels", "ax"],
        lambda **other: CoresetDisplay.from_estimator(**{"estimator": fitted(), **other}),
    ),
    "CostDisplay": (
        ["estimator", "ax"],
        lambda **other: CostDisplay.from_estimator(**{"estimator": fitted(), **other}),
    ),
    "CoresetSchedule": (arguments(CoresetSchedule), schedule),
    "AutoAttack": (arguments(AutoAttack), lambda **other: AutoAttack(**other).validate()),  # which takes seconds
    "EMA": (arguments(EMA), lambda **other: tiny(averaging=EMA(**other)).fit(X, Y)),
    "InBatchSelection": (
        arguments(InBatchSelection),
        lambda **other: tiny(in_batch=InBatchSelection(**other)).fit(X, Y),
    ),
    **{selector.__name__: fit_selector(selector) for selector in SELECTORS.values()},
    **{name: perturb(make) for name, make in ATTACKS.items() if name not in ("lpa", "ppgd", "autoattack")},
    **{
        type_.__name__: (
            arguments(type_),
            lambda type_=type_, **other: tiny(objective=type_(**other), attack="pgd", attack__steps=1).fit(X, Y),
        )
        for type_ in OBJECTIVES.values()
        if arguments(type_) and type_.__name__ != "PAT"
    },
}


# How it ends

DATA = {"X": TABLES, "y": LABELS, "classes": LABELS, "sample_weight": SAMPLE_WEIGHTS, "y_train": LABELS}
DATA |= {name: {**TABLES, **GRADIENTS} for name in ("G", "validation")}
DATA |= {"x": TABLES, "start": TABLES, "y_target": LABELS}

LONG = {
    "max_epochs",
    "steps",
    "restarts",
    "rounds",
    "robust_steps",
    "n_jobs",
    "n_images",
    "iterator_train__num_workers",
}
LONG |= {"iterator_valid__num_workers", "verbose"}
"""Arguments that are right in any size and make a case as long: they get small numbers alone."""

OF_DATA = re.compile(
    r"\bX\b|\bG\b|\by\b|validation|Found array|inconsistent numbers of samples|Reshape your data|[Ss]parse|"
    r"Complex data|"
    r"Unknown label type|labels?\b|images?\b|Dataset|samples|features|feature names|target|array"
)
"""How scikit-learn and this library speak of data."""

PATHS = {"path", "state_path"}


@contextmanager
def limited():
    """Raise TimeoutError after `LONGEST` seconds; where Python does not get to that, end the process with its stack."""

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
    """Tell whether a message names an argument; of a part's parameter the name in the part, or the whole."""
    plain = argument.rpartition("__")[2]
    return re.search(rf"\b({re.escape(plain)}|{re.escape(argument)})\b", text) is not None or (
        argument in DATA and OF_DATA.search(text) is not None
    )


def outcome(way_in, argument, value):
    """Say how a case ended, and what is wrong with that."""
    try:
        with limited(), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            way_in(**{argument: value})
        return ("works with a warning" if told else "works"), None
    except (ValueError, TypeError, FloatingPointError) as error:
        text = "\n".join([str(error), *getattr(error, "__notes__", [])])
        if isinstance(error, FloatingPointError | NotFittedError) or names(argument, text):
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
    if argument in LONG:
        return VALUES.filter(lambda value: not isinstance(value, Real) or not value > 3)
    return VALUES


def shown(value):
    return " ".join(repr(value).split()).encode("utf-8", "backslashreplace").decode()[:100]


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a path may be anything, files of any name are written
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_bad_inputs_work_or_are_refused_by_name(entrance, record_property):
    names_, way_in = ENTRANCES[entrance]
    ends, faults = Counter(), {}

    @settings(
        max_examples=TIMES * sum(MANY if name in DATA and entrance not in ATTACKS else FEW for name in names_),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(names_).flatmap(lambda argument: st.tuples(st.just(argument), values(argument))))
    def try_one(case):
        argument, value = case
        end, fault = outcome(way_in, argument, value)
        ends[end] += 1
        if fault:
            faults.setdefault(f"{argument}: {fault[:300]}", f"{argument}={shown(value)}: {fault[:300]}")

    try_one()
    record_property(entrance, dict(ends))
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults.values())


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_entrance_works_with_good_arguments(entrance):
    _, way_in = ENTRANCES[entrance]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        way_in()
