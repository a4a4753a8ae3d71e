"""A classifier goes into one file, its parameters, network and story, and comes back; no code is in the file."""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from skorch.callbacks import EarlyStopping, EpochScoring, GradientNormClipping
from skorch.utils import to_numpy
from torch import nn

from sklearn_acs._version import __version__
from sklearn_acs.attacks import ATTACKS, Attack
from sklearn_acs.callbacks.dynamics import Dynamics
from sklearn_acs.callbacks.guard import CollapseGuard
from sklearn_acs.callbacks.stability import StabilityTracker
from sklearn_acs.data.augment import Augmentation
from sklearn_acs.data.formats import DataFormat
from sklearn_acs.models import MODELS
from sklearn_acs.network import make_network, module_of, network_params
from sklearn_acs.objectives import OBJECTIVES, Objective
from sklearn_acs.params import make_part, options_of
from sklearn_acs.recipe import default_attack
from sklearn_acs.saving.files import as_path, check_path
from sklearn_acs.saving.record import NotHeld, Record, records
from sklearn_acs.saving.tensor_file import read_tensors, write_tensors
from sklearn_acs.saving.tree import flatten, unflatten
from sklearn_acs.selectors import SELECTORS
from sklearn_acs.training.averaging import AVERAGES, EMA
from sklearn_acs.training.finished import finished, left_by
from sklearn_acs.training.in_batch import InBatchSelection
from sklearn_acs.training.net import find_device
from sklearn_acs.training.precision import compile_forward, may_use_bf16
from sklearn_acs.training.rate import LR_SCHEDULES
from sklearn_acs.training.records import RECORDS
from sklearn_acs.training.seeds import LocalRandomness, Seeds
from sklearn_acs.training.training import Training
from sklearn_acs.training.weights import Weights, misfits

FORMAT = 1
"""Number of the form that files have; one that another version cannot read gets another number."""

PARTS: set[type] = {
    *(type(make()) for table in (ATTACKS, OBJECTIVES, SELECTORS) for make in table.values()),
    *(EMA, InBatchSelection, Augmentation, Dynamics, CollapseGuard, StabilityTracker),
    *(EarlyStopping, EpochScoring, GradientNormClipping),
}

TORCH_OPTIMIZERS = (
    *("Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "LBFGS", "NAdam", "RAdam", "RMSprop"),
    *("Rprop", "SGD", "SparseAdam"),
)


def _random(state: tuple) -> np.random.RandomState:
    source = np.random.RandomState(0)
    source.set_state(state)
    return source


KNOWN: dict[str, Any] = {
    **RECORDS,
    **records(*PARTS, Seeds),
    "RandomState": Record(np.random.RandomState, lambda source: {"state": source.get_state()}, _random),
    **{f"torch.optim.{name}": getattr(torch.optim, name) for name in TORCH_OPTIMIZERS},
    **{made.__name__: made for made in (*MODELS.values(), *LR_SCHEDULES.values()) if made is not None},
    **{used.__name__: used for used in (print, to_numpy)},  # by skorch's callbacks, unless told otherwise
}
"""All that a file may name."""

LEFT_PARTS: dict[str, tuple[dict[str, Any], type]] = {
    "objective": (OBJECTIVES, Objective),
    "in_batch": ({}, InBatchSelection),
    "averaging": (AVERAGES, EMA),
}
"""Parts that a training leaves, with their names and base classes; the attack is another."""


def save_classifier(clf: Any, path: str | os.PathLike) -> None:
    """Write a classifier into a file; see `RobustClassifier.save`."""
    place, now = check_path("path", path), clf.get_params(deep=False)
    folders = {name: os.fspath(value) for name, value in now.items() if isinstance(value, os.PathLike)}
    content: dict[str, Any] = {"parameters": {**now, **folders}, "fitted": None}
    if hasattr(clf, "net_"):
        then = clf._network_params
        changed = {name: value for name, value in then.items() if name not in now or now[name] is not value}
        content["fitted"] = {
            "format": clf._format,
            "changed": changed,  # of what the network was made, as far as parameters have been set since
            "unchanged": [name for name in then if name not in changed],
            "left": left_by(clf.net_.training_),
        }
    left_out: dict[str, str] = {}
    held, tensors = flatten(content, KNOWN, left_out)
    _tell(left_out)
    about = {"holds": "classifier", "format": FORMAT, "sklearn_acs": __version__, "torch": torch.__version__}
    write_tensors(place, tensors, {**about, "content": held})


def load_classifier(cls: type, path: str | os.PathLike, given: Mapping[str, Any]) -> Any:
    """Read a classifier from a file; see `RobustClassifier.load`."""
    place = as_path("path", path)
    name, (tensors, about) = repr(os.fspath(path)), read_tensors(place)
    _check_kind(name, about)
    with _making_sense(name):
        content = unflatten(about["content"], tensors, KNOWN)
        params, fitted = content["parameters"], content["fitted"]
        clf = cls(**params)
    clf.set_params(**given)
    if fitted is None:
        return clf
    with _making_sense(name):
        form, left = fitted["format"], fitted["left"]
        then = {**{each: params[each] for each in fitted["unchanged"]}, **fitted["changed"]}
        if "optimizer" in {each.partition("__")[0] for each in given} and not _is_open(then["optimizer"]):
            left["optimizer"] = None  # another one begins anew
        now = clf.get_params(deep=False)
        then |= network_params({each: now[each] for each in given if each in now})
        _complete(name, form, left, then, now)
        training = _training(name, then, form, left, find_device(now["device"]))
        clf._assign(training, form, then)
    return clf


def _tell(left_out: Mapping[str, str]) -> None:
    """Warn of what a file does not hold, or refuse where it cannot do without."""
    told: dict[str, str] = {}
    for path, what in left_out.items():
        way = path.split("/")[1 if path.startswith("parameters/") else 2 :]
        if path.startswith("fitted/left/") and way[0] not in ("attack", "history", *LEFT_PARTS):
            raise TypeError(f"{'/'.join(way)} is {what}, which a file cannot hold; pickle the classifier")
        end = next((i for i, each in enumerate(way) if each.isdigit()), len(way))
        if what not in told.values():
            told["__".join(way[:end])] = what
    if told:
        listed = ", ".join(f"{name} ({what})" for name, what in told.items())
        warnings.warn(
            f"a file holds no code, and this one leaves out {listed}: give them to load where they are needed, as "
            f"{next(iter(told))}=...",
            stacklevel=4,
        )


def _check_kind(name: str, about: Any) -> None:
    """Refuse a file that holds something else, or is of a version to come."""
    if not isinstance(about, dict) or about.get("holds") != "classifier" or type(about.get("format")) is not int:
        raise ValueError(f"{name} does not hold a classifier")
    if about["format"] > FORMAT:
        raise ValueError(
            f"{name} has the format {about['format']} of sklearn_acs {str(about.get('sklearn_acs'))[:20]}, and this is "
            f"{__version__}, which reads formats up to {FORMAT}: a newer version is needed"
        )


@contextmanager
def _making_sense(name: str) -> Iterator[None]:
    """Turn what a content that makes no sense raises into a ValueError that names the file."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ValueError) and name in str(error):
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{name} cannot be loaded: {kind}{error}") from error


def _complete(name: str, form: DataFormat, left: dict[str, Any], then: dict[str, Any], now: Mapping[str, Any]) -> None:
    """Take what a file does not hold of a training that is over from the parameters given.

    Parameters
    ----------
    name : str
        The file, for errors.
    form : DataFormat
        How the samples looked.
    left : dict
        What the training has left; its parts are completed.
    then : dict of str to object
        What the network was made of; completed, too.
    now : mapping of str to object
        All parameters of the classifier, those given among them.
    """
    for each in ("module", "optimizer"):
        if _is_open(then[each]):
            _check_given(name, each, then[each], now[each])
            then[each] = now[each]
    if _is_open(then["callbacks"]):  # they have done what they do in a training
        then["callbacks"] = [each for each in then["callbacks"] if not _is_open(each)]
        for each in options_of(then, "callbacks"):
            del then[f"callbacks__{each}"]
    for each, (known, base) in LEFT_PARTS.items():
        if _is_open(left[each]):
            options = options_of(now, each)
            _check_given(name, each, left[each], now[each], *options.values())
            left[each] = make_part(each, now[each], known, options, base=base)
    if _is_open(left["attack"]):
        given, options = default_attack(now, left["objective"]), options_of(now, "attack")
        _check_given(name, "attack", left["attack"], given, *options.values())
        attack: Attack = make_part("attack", given, ATTACKS, options, base=Attack)
        left["attack"] = attack.settled(form, init=left["objective"].attack_init)


def _check_given(name: str, parameter: str, then: Any, *now: Any) -> None:
    """Ask for a parameter that the file does not hold and nobody has given."""
    if now[0] is None or _is_open(now):
        what = then.what if isinstance(then, NotHeld) else repr(then)
        raise ValueError(
            f"{name} is of a training with {parameter}={what}, which a file does not hold; give it as {parameter}=..."
        )


def _is_open(value: Any) -> bool:
    """Tell whether something, or a part of it, is not held."""
    if isinstance(value, list | tuple):
        return any(map(_is_open, value))
    inside = value.get_params().values() if hasattr(value, "get_params") and not isinstance(value, type) else ()
    return isinstance(value, NotHeld) or any(isinstance(each, NotHeld) for each in inside)


def _training(
    name: str, params: Mapping[str, Any], form: DataFormat, left: dict[str, Any], device: torch.device
) -> Training:
    """Make the network and the training that is over, by the code that a fit makes them with."""
    module, weights, shape = params["module"], left["weights"], form.inputs.model_shape
    if len(form.classes) < 2 or min(shape) < 1:
        raise ValueError(
            f"{name} describes samples of shape {shape} in {len(form.classes)} classes, which there are not"
        )
    with torch.inference_mode(False), torch.enable_grad(), LocalRandomness(left["seeds"].model, device).in_use():
        if isinstance(module, str) or module in MODELS.values():
            # What a file describes takes memory when it is known to be what the file has weights for, not before.
            if params.get("module__depth", 0) > len(weights):
                raise ValueError(f"{name} describes a network of more layers than it has weights for")
            with torch.device("meta"):
                _check_fit(name, module, module_of(params, form)(), weights)
        net = make_network(params, left["objective"], left["in_batch"], form, device, left["schedule"].n_epochs)
        _check_fit(name, module, net.module_, weights)
        if params["precision"] != "auto":
            left["precision"] = params["precision"]
        elif not may_use_bf16(net.module_, device):  # another device than that of the fit
            left["precision"] = "fp32"
        training = finished(net, left, form)
        if params["compile"]:
            for each in {training.module, training.final_module}:
                compile_forward(each)
        return training


def _check_fit(name: str, given: Any, module: nn.Module, weights: Weights) -> None:
    """Refuse a module that is not the one trained."""
    told = misfits(module, weights)
    if told:
        of = repr(given) if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
        more = f", and {len(told) - 3} more" if len(told) > 3 else ""
        raise ValueError(f"module={of} does not fit the weights in {name}: {'; '.join(told[:3])}{more}")
