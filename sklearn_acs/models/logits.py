"""What a module puts out: its predictions, logits of the right shape, and the layer that makes them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_acs.models.freezing import frozen, rehearsing


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


def device_of(module: nn.Module) -> torch.device:
    """Tell where a module is: where its first parameter or buffer is, and on the CPU without any."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))


class LogitsOf(nn.Module):
    """Takes the logits out of all that a module returns, such as a dict, or a tuple with the auxiliary heads'.

    Parameters
    ----------
    module : nn.Module
        Returns, for a batch, a tensor; a dict, or an object, with the logits called "logits"; or a tuple, or dict, in
        which they are the first tensor of shape (batch, n_classes).
    n_classes : int or None, default=None
        None is any number from two on; a tuple must then hold matrices of one width alone.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.models import LogitsOf
    >>> class Two(torch.nn.Linear):
    ...     def forward(self, x):
    ...         return {"features": x, "logits": super().forward(x)}
    >>> LogitsOf(Two(4, 3))(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(self, module: nn.Module, n_classes: int | None = None) -> None:
        super().__init__()
        self.module, self.n_classes = module, n_classes

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits of a batch."""
        return _find_logits(self.module(x), self.n_classes)


def giving_logits(
    module: nn.Module, example: Tensor, n_classes: int | None = None, *, trains: bool = False, name: str = "module"
) -> nn.Module:
    """Try a module out, and reduce it to its logits where it returns more.

    Parameters
    ----------
    module : nn.Module
        Is left as it was found: modes, buffers, and what its random layers draw next.
    example : Tensor
        A batch, which goes to the module's device.
    n_classes : int or None, default=None
        Number of logits; None is any from two on.
    trains : bool, default=False
        Whether it will be trained, and must give logits in train mode too, where modules may return more.
    name : str, default="module"
        What errors call it.

    Returns
    -------
    nn.Module
        The module itself, or a `LogitsOf` it.

    Raises
    ------
    ValueError
        The module cannot be run on the batch, or gives no logits.
    """
    outputs, example, name = [], example.to(device_of(module)), f"{name}={type(module).__name__}"
    for training in (False, True)[: 1 + trains]:
        try:
            with rehearsing(module):
                module.train(training)
                outputs.append(module(example))
        except Exception as error:
            kind, mode = str(example.dtype).removeprefix("torch."), "train" if training else "eval"
            raise ValueError(
                f"{name} fails on {kind} samples of shape {tuple(example.shape[1:])} in {mode} mode, "
                f"{type(error).__name__}: {error}"
            ) from error
    for output in outputs:
        _check_shape(_find_logits(output, n_classes, name), len(example), n_classes, name)
    return module if all(isinstance(output, Tensor) for output in outputs) else LogitsOf(module, n_classes)


def check_logits(module: nn.Module, example: Tensor, n_classes: int) -> None:
    """Raise ValueError for a module that does not make logits of shape (batch, n_classes), but, say, probabilities."""
    with frozen(module), torch.no_grad():
        logits = module(example)
    _check_shape(logits, len(example), n_classes)
    if are_probabilities(logits):
        raise ValueError(
            "module must give logits, and its outputs are probabilities, positive numbers that add up to 1 for each "
            "sample. Remove the softmax at its end: the loss takes logits, and `predict_proba` gives probabilities"
        )


def are_probabilities(outputs: Tensor) -> bool:
    """Tell whether the outputs (batch, C) are at least 0 and add up to 1 for each sample, and are not just 0 and 1."""
    shares = (outputs >= 0).all() and ((outputs.sum(1) - 1).abs() < 1e-3).all()
    return bool(shares and (outputs != outputs.round()).any())


def _find_logits(output: Any, n_classes: int | None, name: str = "module") -> Tensor:
    """Take the logits out of what a module returned; see `LogitsOf`."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        parts = [output["logits"]] if "logits" in output else list(output.values())
    elif hasattr(output, "logits"):
        parts = [output.logits]
    else:
        parts = list(output) if isinstance(output, tuple | list) else []
    fitting = [part for part in parts if isinstance(part, Tensor) and part.ndim == 2]
    fitting = [part for part in fitting if part.shape[1] == (n_classes or part.shape[1])]
    if len({part.shape[1] for part in fitting}) == 1:
        return fitting[0]
    kinds = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
    raise ValueError(
        f"{name} must give logits of shape (batch, {n_classes or 'n_classes'}), alone, called 'logits', or in a tuple "
        f"as the only ones of their width; it gave {type(output).__name__} {kinds or ''}"
    )


def _check_shape(logits: Tensor, n: int, n_classes: int | None, name: str = "module") -> None:
    shape = tuple(logits.shape)
    if n_classes is not None and shape != (n, n_classes):
        raise ValueError(f"{name} must give logits of shape (batch, n_classes) = {(n, n_classes)}; it gave {shape}")
    if len(shape) != 2 or shape[0] != n or shape[1] < 2:
        raise ValueError(f"{name} must give logits of shape (batch, C) for C >= 2 classes; {n} samples gave {shape}")


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
