"""What a model predicts."""

import torch
from torch import Tensor


def predicted(logits: Tensor) -> Tensor:
    """Predict the class of the largest logit; -1, which is never right, where a logit is NaN.

    Parameters
    ----------
    logits : Tensor of shape (batch, C)
        Logits. Their argmax would take NaN for the largest.

    Returns
    -------
    Tensor of shape (batch,)

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.attacks.judging import predicted
    >>> predicted(torch.tensor([[0.0, 2.0, 1.0], [5.0, torch.nan, 1.0]]))
    tensor([ 1, -1])
    """
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1))
