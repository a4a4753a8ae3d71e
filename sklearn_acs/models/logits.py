"""What a module puts out: its predictions, logits of the right shape, and the layer that makes them."""

from functools import partial

import torch
from torch import Tensor, nn

from sklearn_acs.models.freezing import frozen


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
    >>> from sklearn_acs.models.logits import predicted
    >>> predicted(torch.tensor([[0.0, 2.0, 1.0], [5.0, torch.nan, 1.0]]))
    tensor([ 1, -1])
    """
    return torch.where(logits.isnan().any(1), -1, logits.argmax(1))


def check_logits(module: nn.Module, example: Tensor, n_classes: int) -> None:
    """Raise ValueError for a module that does not make logits of shape (batch, n_classes) of a batch."""
    with frozen(module), torch.no_grad():
        logits = module(example)
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (len(example), n_classes):
        raise ValueError(
            f"module must give logits of shape (batch, n_classes) = {(len(example), n_classes)}; it gave {shape}"
        )


def last_linear(module: nn.Module, example: Tensor) -> nn.Linear:
    """Find the linear layer whose output is the module's output.

    Gradient-based selectors need only its input and the loss's gradient at its output.

    Parameters
    ----------
    module : nn.Module
        A classifier. Each of its submodules keeps its train or eval mode.
    example : Tensor
        A batch, on the module's device.

    Returns
    -------
    nn.Linear
        The layer, a submodule of `module`.

    Raises
    ------
    ValueError
        If the module does not end in a linear layer.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.models import last_linear, mlp
    >>> last_linear(mlp((4,), 3), torch.zeros(2, 4))
    Linear(in_features=128, out_features=3, bias=True)
    """
    outputs: dict[str, Tensor] = {}  # in the order in which the layers ran

    def record(name: str, _layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.pop(name, None)
        outputs[name] = output.clone()  # what follows may work in place

    layers = {name: child for name, child in module.named_modules() if isinstance(child, nn.Linear)}
    hooks = [layer.register_forward_hook(partial(record, name)) for name, layer in layers.items()]
    try:
        with frozen(module), torch.no_grad():
            logits = module(example)
    finally:
        for hook in hooks:
            hook.remove()

    for name, output in reversed(outputs.items()):
        if isinstance(logits, Tensor) and torch.equal(output.to(logits.dtype), logits):
            return layers[name]
    found = "no nn.Linear ran"
    if outputs:
        found = f"the last nn.Linear that ran, {next(reversed(outputs))!r}, gave something else than the module"
    raise ValueError(
        "selectors that use gradients need a module whose output is that of its last nn.Linear; in "
        f"{type(module).__name__}, {found}. End the module in nn.Linear that outputs the logits, without softmax, or "
        "use selector='random', or None"
    )
