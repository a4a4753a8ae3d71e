"""Models are built by name, standardise their inputs in a layer, and end in the layer that `last_linear` finds."""

from sklearn_acs.models.building import MODELS, Standardize, build_model, standardized
from sklearn_acs.models.freezing import frozen
from sklearn_acs.models.logits import (
    LogitsOf,
    are_probabilities,
    check_logits,
    device_of,
    giving_logits,
    last_linear,
    predicted,
)
from sklearn_acs.models.resnets import PreActBlock, preact_resnet18, resnet18, resnet50, wide_resnet
from sklearn_acs.models.shapes import Shape
from sklearn_acs.models.small import convnet, mlp

__all__ = [
    "MODELS",
    "LogitsOf",
    "PreActBlock",
    "Shape",
    "Standardize",
    "are_probabilities",
    "build_model",
    "check_logits",
    "convnet",
    "device_of",
    "frozen",
    "giving_logits",
    "last_linear",
    "mlp",
    "preact_resnet18",
    "predicted",
    "resnet18",
    "resnet50",
    "standardized",
    "wide_resnet",
]
