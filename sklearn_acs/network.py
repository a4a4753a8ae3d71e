"""The network of a classifier is made of some of its parameters, for a fit and again from a file."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from sklearn_acs.callbacks.around import callbacks_of
from sklearn_acs.data.formats import DataFormat
from sklearn_acs.models import build_model
from sklearn_acs.objectives import Objective
from sklearn_acs.params import options_of
from sklearn_acs.training.in_batch import InBatchSelection
from sklearn_acs.training.net import AdversarialNet, make_net

OF_NETWORK = (
    *("module", "optimizer", "lr", "precision", "compile", "batch_size", "verbose", "callbacks", "early_stopping"),
    "n_iter_no_change",
)
PARTS = ("module__", "optimizer__", "callbacks__")


def network_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the parameters that a network is made of, those of its parts among them."""
    return {name: value for name, value in params.items() if name in OF_NETWORK or name.startswith(PARTS)}


def module_of(params: Mapping[str, Any], format: DataFormat) -> Callable[[], nn.Module]:
    """Say how the module is made, for samples of that format."""
    given, options = params["module"], options_of(params, "module")
    shape, n_classes = format.inputs.model_shape, len(format.classes)
    return partial(build_model, given, shape, n_classes, mean=format.mean, scale=format.scale, **options)


def make_network(
    params: Mapping[str, Any],
    objective: Objective,
    in_batch: InBatchSelection | None,
    format: DataFormat,
    device: torch.device,
    n_epochs: float,
) -> AdversarialNet:
    """Make the skorch net, with the callbacks that a fit brings around the user's.

    Parameters
    ----------
    params : mapping of str to object
        The classifier's, or the `network_params` of these.
    objective : Objective
        What is minimised.
    in_batch : InBatchSelection or None
        Which samples of a batch are trained on.
    format : DataFormat
        How samples look.
    device : torch.device
        Where the network is.
    n_epochs : float
        Epochs of its training.
    """
    callbacks = callbacks_of(params, objective, in_batch)
    return make_net(module_of(params, format), objective, callbacks, params, device, n_epochs)
