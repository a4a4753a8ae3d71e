"""warn_of_one_class tells where a training has ended at one class for everything."""

import warnings

import numpy as np
import torch

from sklearn_acs.data.training_data import TrainingData
from sklearn_acs.model import PREDICT_BATCH
from sklearn_acs.models import frozen
from sklearn_acs.models.logits import predicted
from sklearn_acs.training.net import AdversarialNet

N_SAMPLES = 512
"""Training samples whose predictions are looked at, evenly spaced."""

FEW = 30
"""Steps of the optimiser in which no model is expected to learn."""

MOST = 0.75
"""Weight of a class, as a share of all, from which a model may well predict nothing else."""


def warn_of_one_class(net: AdversarialNet, data: TrainingData, *, stacklevel: int) -> None:
    """Warn if a trained net predicts one class for all samples that it was trained on, while they have others.

    After `FEW` steps or less it says nothing: then training has hardly begun.
    """
    if sum(row["train_batch_count"] for row in net.history) <= FEW:
        return
    module, device = net.module_, torch.device(net.device)
    n = len(data.y)
    some = data.take(np.linspace(0, n - 1, min(n, N_SAMPLES)).round().astype(int))
    batches = some.on(device).fetch(list(torch.arange(len(some.y)).split(PREDICT_BATCH)))
    with frozen(module), torch.no_grad():
        found = torch.cat([predicted(module(x)).cpu() for x, _ in batches])
    first, weight = found[0], data.weight
    if (found != first).any() or weight[data.y == first].sum() >= MOST * weight.sum():
        return
    warnings.warn(
        f"the trained model predicts {data.format.classes.tolist()[first]!r} for all of {len(some.y)} training samples "
        "looked at. A radius that grows (attack_ramp=0.15), a smaller eps, a smaller lr, more epochs, or "
        "objective='trades' may help",
        UserWarning,
        stacklevel=stacklevel + 1,
    )
