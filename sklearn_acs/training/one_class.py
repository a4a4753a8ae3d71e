"""warn_of_one_class tells where a training has ended at one class for everything."""

import warnings

import numpy as np
import torch
from torch import nn

from sklearn_acs.data.formats import make_data, n_samples, take_samples
from sklearn_acs.data.training_data import TrainingData
from sklearn_acs.models import frozen
from sklearn_acs.models.logits import predicted

N_SAMPLES = 512
"""Training samples whose predictions are looked at, evenly spaced."""

MOST = 0.75
"""Weight of a class, as a share of all, from which a model may well predict nothing else."""


def warn_of_one_class(module: nn.Module, data: TrainingData, device: torch.device, *, stacklevel: int) -> None:
    """Warn if a trained module predicts one class for all samples that it was trained on, while they have others."""
    n = n_samples(data.samples)
    rows = np.linspace(0, n - 1, min(n, N_SAMPLES)).round().astype(int)
    samples = make_data(take_samples(data.samples, rows), data.y[rows], data.format.inputs, data.format.clip, device)
    with frozen(module), torch.no_grad():
        found = torch.cat(
            [predicted(module(x)).cpu() for x, _ in samples.fetch(list(torch.arange(len(rows)).split(128)))]
        )
    first, weight = found[0], data.weight
    if (found != first).any() or weight[data.y == first].sum() >= MOST * weight.sum():
        return
    warnings.warn(
        f"the trained model predicts {data.format.classes[first].item()!r} for all of {len(rows)} training samples that were "
        "looked at. A smaller eps, warm_start=True after a fit with a smaller eps, a smaller lr, more epochs, "
        "or objective='trades' may help",
        UserWarning,
        stacklevel=stacklevel + 1,
    )
