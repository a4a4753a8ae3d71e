"""A module's forward pass runs in half precision, compiled, or both, and nothing outside the module notices."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import count
from statistics import median
from time import perf_counter
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Names of precisions, each with the type in which convolutions and matrix products are done."""

_ROOM = 2.0**4
"""Largest gradient, sample by sample, with which an attack's backward pass in float16 begins at the logits: a
gradient may then shrink a million times, or grow a thousand times, on its way to the input."""

_numbers = count()


def settle_precision(params: Mapping[str, Any], module: nn.Module, example: Tensor, n_samples: int, before: Any) -> str:
    """Let a module compute in the precision that a classifier's parameters ask for, and tell which that is.

    Parameters
    ----------
    params : mapping of str to object
        The classifier's.
    module : nn.Module
        What is trained.
    example : Tensor of shape (n_few, ...)
        Samples, of which a batch is made.
    n_samples : int
        How many there are.
    before : Training or None
        What this training goes on from, whose precision "auto" keeps.
    """
    asked, n_in_batch = params["precision"], min(n_samples, params["batch_size"])
    if asked == "auto" and before is not None:
        asked = before.precision
    x = example[torch.arange(n_in_batch, device=example.device) % len(example)]
    precision = find_precision(asked, module, x, params["verbose"])
    set_precision(module, precision)
    return precision


def find_precision(precision: str, module: nn.Module, x: Tensor, verbose: int = 0) -> str:
    """Tell what "auto" means for a module: the precision in which it is faster; any other name stays as it is.

    Where bfloat16 may pay (see `may_use_bf16`), a batch is timed in it and in float32. The choice then depends on what
    else the machine does at the time.

    Parameters
    ----------
    precision : {"fp32", "bf16", "fp16", "auto"}
        What is asked for.
    module : nn.Module
        From inputs to logits; left as it is.
    x : Tensor of shape (batch, ...)
        A batch of training, on the module's device.
    verbose : int, default=0
        1 prints what was chosen, and why.

    Returns
    -------
    {"fp32", "bf16", "fp16"}
    """
    if precision != "auto":
        return precision
    if not may_use_bf16(module, x.device):
        return "fp32"
    seconds = time_precisions(module, x)
    chosen = fastest(seconds)
    if verbose:
        times = ", ".join(f"{median(times) * 1000:.3g} ms in {name}" for name, times in seconds.items())
        tqdm.write(f"precision='auto' is {chosen}: a batch takes {times}", file=sys.stderr)
    return chosen


def may_use_bf16(module: nn.Module, device: torch.device) -> bool:
    """Tell whether bfloat16 may be faster: on CUDA devices that have it, and on CPUs that have it for convolutions.

    A small fully connected network gains nothing on a CPU (AVX512-BF16, AMX).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    convolves = any(isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) for part in module.modules())
    return convolves and device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def time_precisions(module: nn.Module, x: Tensor, repeats: int = 5) -> dict[str, list[float]]:
    """Measure the seconds of a forward and a backward pass in "fp32" and in "bf16", on copies of a module.

    The two take turns, after one pass each that does not count, so that a load of the machine meets both.

    Parameters
    ----------
    module : nn.Module
        From inputs to logits.
    x : Tensor of shape (batch, ...)
        Inputs.
    repeats : int, default=5
        Passes of each; after 2 seconds 3 are enough.
    """
    copies = {name: set_precision(deepcopy(module).eval(), name) for name in ("fp32", "bf16")}
    seconds: dict[str, list[float]] = {name: [] for name in copies}
    begun = perf_counter()
    with torch.random.fork_rng([x.device] if x.is_cuda else []):  # a module of one's own may draw in eval mode, too
        for repeat in range(repeats + 1):
            for name, copy in copies.items():
                since = perf_counter()
                copy(x.detach().clone().requires_grad_()).logsumexp(1).sum().backward()
                if x.is_cuda:
                    torch.cuda.synchronize(x.device)
                seconds[name] += [perf_counter() - since] if repeat else []
            if repeat >= 3 and perf_counter() - begun > 2:
                break
    return seconds


def fastest(seconds: Mapping[str, Sequence[float]]) -> str:
    """Take the precision of the smallest median; the first named where they are equal."""
    return min(seconds, key=lambda name: median(seconds[name]))


def set_precision(module: nn.Module, precision: str) -> nn.Module:
    """Let a module compute in a precision, "fp32", "bf16" or "fp16", from float32 inputs to float32 logits.

    Weights, buffers and `state_dict` stay what they are, and so do the layers' names: what changes is the module's
    `forward`, which copies and pickles go on having. "fp32" takes that back, but not the memory format (note 1).

    Parameters
    ----------
    module : nn.Module
        From inputs to logits; changed in place.
    precision : {"fp32", "bf16", "fp16"}
        The type in which convolutions and matrix products are done.

    Returns
    -------
    nn.Module
        The module.

    Notes
    -----
    1. Convolution weights get the channels-last format, where half precision is faster in it: on GPUs, and on CPUs
       with AMX. Float32 on a CPU is slower with it and keeps the ordinary one.
    2. Weights are cast anew in every forward pass. Copies in half precision, kept for all steps of an attack, would
       save 2 % of its time at the usual batch of 128 (ResNet-18, CPU with AMX).

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.models import mlp
    >>> from sklearn_acs.training.precision import set_precision
    >>> set_precision(mlp((4,), 3), "bf16")(torch.zeros(2, 4)).dtype
    torch.float32
    """
    before = vars(module).get("forward")
    if isinstance(before, Forward):
        del vars(module)["forward"]
    dtype = PRECISIONS[precision]
    if dtype is not None:
        vars(module)["forward"] = Forward(module, dtype)
        module.to(memory_format=torch.channels_last)
    if isinstance(before, Forward) and before.compiled is not None:
        compile_forward(module)
    return module


def compile_forward(module: nn.Module) -> None:
    """Let a module's forward pass be compiled when it first runs; its copies and pickles are not."""
    if not isinstance(vars(module).get("forward"), Forward):
        vars(module)["forward"] = Forward(module, None)
    vars(module)["forward"].compile()


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Run a module as it is written: what `torch.compile` makes has no second derivatives."""
    forward = vars(module).get("forward")
    if not isinstance(forward, Forward):
        yield
        return
    compiled, forward.compiled = forward.compiled, None
    try:
        yield
    finally:
        forward.compiled = compiled


class Forward:
    """Runs a module's `forward` in half precision, compiled, or both, from the module's own `__dict__`.

    Hooks on the module itself run outside of it, in float32. While a layer inside has hooks, of a selection or of a
    perceptual attack, the module runs uncompiled: compiled code would pass them by.

    Parameters
    ----------
    module : nn.Module
        The module.
    dtype : torch.dtype or None
        Type of autocast; None is none.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        self.module, self.dtype = module, dtype
        self.inner: Callable[[Tensor], Tensor] = module.forward
        self.compiled: Callable[[Tensor], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "compiled": None}

    def __call__(self, x: Tensor) -> Tensor:
        """Compute logits in float32."""
        hooked = any(part._forward_hooks or part._forward_pre_hooks for part in list(self.module.modules())[1:])
        run = self._run_compiled if self.compiled is not None and not hooked else self._run
        if self.dtype is not torch.float16 or hooked or not self._is_attacked(x):
            return run(x)
        scale: list[Tensor] = []
        return _Lift.apply(run(_Lower.apply(x, scale)), scale)

    def compile(self) -> None:
        """Compile at the next call."""
        # The compiler counts versions by a function's code, and gives up after 8: each module gets one of its own.
        name = f"forward_{next(_numbers)}"
        code = Forward._run.__code__.replace(co_name=name, co_qualname=name)
        own = FunctionType(code, Forward._run.__globals__, name).__get__(self)
        self.compiled = torch.compile(own)

    def _run(self, x: Tensor) -> Tensor:
        if self.dtype is None:
            return self.inner(x)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, self.dtype):
            logits = self.inner(x)
        return logits.float()

    def _run_compiled(self, x: Tensor) -> Tensor:
        assert self.compiled is not None
        from torch._dynamo.exc import TorchDynamoException

        try:
            with warnings.catch_warnings():  # the compiler looks at the gradient of x, be x a leaf or not
                warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
                return self.compiled(x)
        except TorchDynamoException as error:
            needed = "Triton" if x.device.type == "cuda" else "a C++ compiler"
            raise RuntimeError(
                f"compile=True could not compile {type(self.module).__name__} for {x.device.type}, which takes "
                f"{needed} and a module that torch.compile understands; use compile=False. "
                f"{type(error).__name__}: {error}"
            ) from error

    def _is_attacked(self, x: Tensor) -> bool:
        """Tell whether gradients are taken with respect to the input alone, sample by sample."""
        if not (x.requires_grad and torch.is_grad_enabled()) or self.module.training:
            return False
        return not any(parameter.requires_grad for parameter in self.module.parameters())


class _Lift(torch.autograd.Function):
    """Is the identity, scales each sample's gradient to about `_ROOM`, and notes the factors, powers of 2."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, scale: list[Tensor]) -> Tensor:
        ctx.scale = scale
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        largest = gradient.abs().amax(1, keepdim=True)
        factor = (_ROOM / largest).log2().floor().clamp(max=100).exp2()
        ctx.scale[:] = [torch.where(largest > 0, factor, 1.0)]
        return gradient * ctx.scale[0], None


class _Lower(torch.autograd.Function):
    """Is the identity, and takes `_Lift`'s factors out of the gradient again, in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: list[Tensor]) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient / ctx.scale[0].view(-1, *[1] * (gradient.ndim - 1)), None
