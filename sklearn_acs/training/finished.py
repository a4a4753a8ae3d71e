"""A training that is over has left something, of which another one that is over is made: the same follows from both."""

from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from sklearn_acs.data.formats import DataFormat
from sklearn_acs.models import device_of
from sklearn_acs.training.adversary import Adversary
from sklearn_acs.training.averaging import WeightAverage
from sklearn_acs.training.cost import CostMeter, StepClock
from sklearn_acs.training.course import Course
from sklearn_acs.training.net import AdversarialNet
from sklearn_acs.training.optimizers import load_optimizer
from sklearn_acs.training.precision import set_precision
from sklearn_acs.training.step import Step
from sklearn_acs.training.training import Training
from sklearn_acs.training.weights import Weights, lay_out, load_weights, weights_of

TOLD = (
    *(
        "schedule",
        "seeds",
        "precision",
        "n_given",
        "split_seed",
        "n_planned",
        "epochs_done",
        "coreset_epochs",
        "stop_reason",
    ),
    *("best", "interrupted", "coresets"),
)
"""Fields of a training that tell of it."""


def left_by(training: Training) -> dict[str, Any]:
    """Name what a training that is over has left: weights, what `warm_start` and `partial_fit` go on from, its story.

    Parameters
    ----------
    training : Training
        Has run.

    Returns
    -------
    dict
        What `finished` takes; tensors are those in use.
    """
    net, average, adversary = training.net, training.average, training.adversary
    learned = {name: each.state_dict() for name, each in net.callbacks_ if _is_ours(each)}
    return {
        **{name: getattr(training, name) for name in TOLD},
        "weights": weights_of(training.module),
        "average": None if average is None else average.state_dict(),
        "optimizer": net.optimizer_.state_dict(),
        "scaler": net.step_.scaler.state_dict(),
        "objective": adversary.objective,
        "attack": adversary.attack,
        "attack_state": adversary.attack.state_dict(),
        "in_batch": training.in_batch,
        "averaging": None if average is None else average.averaging,
        "callbacks": learned,
        "history": net.history_,
        "cost": training.meter.cost,
        "course": training.course.state_dict(),
    }


def finished(
    net: AdversarialNet,
    left: dict[str, Any],
    format: DataFormat,
) -> Training:
    """Make a training that is over of what another one has left.

    Parameters
    ----------
    net : AdversarialNet
        As at the beginning of a training, made with the objective and the in-batch selection that are left; its module
        has the weights' names and shapes.
    left : dict
        What `left_by` gave. Where its "optimizer" or "scaler" are None or empty, these begin anew.
    format : DataFormat
        How the samples looked.

    Returns
    -------
    Training
    """
    module, device = set_precision(net.module_, left["precision"]), torch.device(net.device)
    average = None if left["averaging"] is None else WeightAverage(module, left["averaging"])
    _take_up(module, left["weights"])
    if average is not None:
        _take_up(average.module, left["average"]["weights"])
        average.n_steps = left["average"]["n_steps"]
    if left["optimizer"] is not None:
        load_optimizer(net.optimizer_, left["optimizer"])
    scaler = GradScaler(device.type, init_scale=2.0**10, enabled=left["precision"] == "fp16")
    if scaler.is_enabled() and left["scaler"]:
        scaler.load_state_dict(left["scaler"])
    left["attack"].load_state_dict(left["attack_state"])
    adversary = Adversary(left["attack"], left["objective"], format, torch.Generator(device))
    net.step_ = Step(module, adversary, scaler, StepClock(device), left["in_batch"])
    net.history_ = left["history"]
    for name, callback in net.callbacks_:
        if name in left["callbacks"] and _is_ours(callback):
            callback.load_state_dict(left["callbacks"][name])
    meter, course = CostMeter(), Course(inf, getattr(left["schedule"], "max_seconds", inf))
    meter.cost = left["cost"]
    course.load_state_dict(left["course"])
    gone: Any = None
    training = Training(
        net,
        average=average,
        course=course,
        meter=meter,
        **dict.fromkeys(("batches", "randomness", "rows", "progress"), gone),
        **{name: left[name] for name in TOLD},
    )
    training.let_go()
    return training


def _take_up(module: nn.Module, weights: Weights) -> None:
    device = device_of(module)  # where buffers have to be that the module gets as they are
    weights = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in weights.items()}
    lay_out(module, weights)
    load_weights(module, weights)


def _is_ours(callback: Any) -> bool:
    """Tell whether a callback is of this library and has learned something."""
    return type(callback).__module__.startswith("sklearn_acs.") and hasattr(callback, "state_dict")
