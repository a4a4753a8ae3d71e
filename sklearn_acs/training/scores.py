"""Losses and margins of all samples at their current adversarial examples: what `ScoreSelector` ranks by."""

import torch
from torch import Tensor

from sklearn_acs.attacks.base import frozen
from sklearn_acs.selectors.score import margins
from sklearn_acs.training.net import AdversarialNet


@torch.no_grad()
def sample_scores(net: AdversarialNet, score: str) -> Tensor:
    """The "loss" or the "margin" of every sample, shape (n,), in order.

    Attacked and forwarded batch by batch as for `last_layer_gradients`, in eval mode and without augmentation. The
    loss is the objective's, without sample weights; the margin is that of its last branch, the only one forwarded.
    """
    found = []
    for batch in net.run_.batches.everything():
        inputs = net.branch_inputs(batch, net.run_.selecting)
        if score == "margin":
            inputs = dict([inputs.popitem()])
        with frozen(net.module_):
            logits = {branch: net.module_(x).float() for branch, x in inputs.items()}
        if score == "margin":
            found.append(margins(next(iter(logits.values())).softmax(1), batch.y))
        else:
            found.append(net.criterion_.loss(logits, batch.y))
        net.run_.progress.advance(len(batch.y))
    return torch.cat(found)
