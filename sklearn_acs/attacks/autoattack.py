"""AutoAttack runs as its authors publish it, behind the interface of attacks here."""

import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sklearn_acs._compat import StrOptions
from sklearn_acs.attacks.base import POSITIVE
from sklearn_acs.attacks.norm_bounded import NormBoundedAttack
from sklearn_acs.attacks.problem import Problem

CLASSES_NEEDED = {"apgd-ce": 2, "apgd-dlr": 3, "apgd-t": 4, "fab": 2, "fab-t": 3, "square": 2}
"""Fewest classes for which each attack is defined: DLR needs a third logit, and its targeted form a fourth."""

_INSTEAD = {"apgd-t": "apgd-dlr", "fab-t": "fab"}


@dataclass(eq=False, repr=False)
class AutoAttack(NormBoundedAttack):
    """AutoAttack: it runs several attacks without settings, each on the samples that those before it have left.

    The standard version runs APGD on cross-entropy, APGD on the targeted DLR loss, targeted FAB and Square. All of
    it is done by the package ``pyautoattack`` of the authors.

    Parameters
    ----------
    eps : float or None, default=None
        Radius of the ball, in input units; None is 8/255 of the width of the box, in linf. Tables ask for a number.
    norm : {"linf", "l2", "l1"}, default="linf"
        The norm that `eps` bounds.
    unit : {"input"}, default="input"
        What `eps` is counted in: one number for all columns is in units of X.
    version : {"standard", "plus", "rand"}, default="standard"
        "plus" adds untargeted attacks and restarts; "rand" is for models that predict at random.
    attacks : sequence of str or None, default=None
        Some of "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t" and "square", with the settings that `version` gives
        them; None is all of `version`.

    Attributes
    ----------
    attacks_ : list of str
        What ran on the last batch, unless no sample was left before.
    warnings_ : list of str
        What was left out or replaced, and what the package says about the model on all batches so far: that it seems
        to predict at random, returns probabilities, adapts itself, has zero gradients, or that Square, which uses no
        gradients, found what others missed. Empty if all is well.

    See Also
    --------
    PGD : Much cheaper, and for robust models often within a few percent.

    Notes
    -----
    1. Target classes are as many as there are, at most those of the version. With 3 classes "apgd-dlr" runs for
       "apgd-t"; with 2, where DLR is not defined at all, "apgd-ce", "fab" and "square" are what the standard version
       runs. Square is left out for tables, and in l2 and l1 for images of a size that the package cannot tile with
       its squares.
    2. Each of its attacks has its own loss: the one given to `perturb` is ignored, and `start` as well; `y_target` is
       refused.
    3. It searches [0, 1]. Inputs of another box are scaled to it; without a box (``clip=None``) there is an error.
    4. Samples that are misclassified as they are, or that withstand all attacks, come back as they are.
    5. Random numbers are drawn for a batch as a whole, so a sample's result may depend on the others.

    References
    ----------
    Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
    ICML 2020.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs import AutoAttack
    >>> model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)), torch.rand(5, 1, 4, 4)
    >>> attack = AutoAttack(eps=0.5)
    >>> x_adv = attack.perturb(model, x, model(x).argmax(1), clip=(0, 1))
    >>> attack.attacks_
    ['apgd-ce', 'fab', 'square']
    """

    _parameter_constraints: ClassVar[dict] = {
        **NormBoundedAttack._parameter_constraints,
        "eps": [POSITIVE, None],
        "unit": [StrOptions({"input"})],
        "version": [StrOptions({"standard", "plus", "rand"})],
        "attacks": ["array-like", None],
    }
    has_targeted_form = False

    eps: float | None = None
    _: KW_ONLY
    version: str = "standard"
    attacks: Sequence[str] | None = None

    def validate(self) -> None:
        """Raise ValueError when a parameter is out of range; called once before any work."""
        if self.eps is not None and np.ndim(self.eps):
            raise ValueError(f"eps must be one number for AutoAttack, as in AutoAttack(eps=0.1); got {self.eps!r}")
        super().validate()
        known = set(CLASSES_NEEDED)
        if self.attacks is not None and not (np.shape(self.attacks)[:1] > (0,) and set(self.attacks) <= known):
            raise ValueError(f"attacks={self.attacks!r} must be some of {list(CLASSES_NEEDED)}, or None")

    def _attack(self, problem: Problem, start: Tensor | None) -> Tensor:
        from pyautoattack import AutoAttack as Published

        model, x, y, clip, generator = problem.model, problem.x, problem.y, problem.clip, problem.generator
        if clip is None:
            raise ValueError(
                "clip=None: AutoAttack searches in a box, so it needs one. Give clip=(low, high), the smallest and the "
                "largest value of inputs, to RobustClassifier, robust_accuracy or perturb"
            )
        low, width = clip[0], clip[1] - clip[0]

        def logits(z: Tensor) -> Tensor:
            return model(low + width * z.to(x.dtype)).float()

        z = ((x - low) / width).float().clamp(0, 1).contiguous()
        with torch.no_grad():
            n_classes = logits(z[:1]).shape[1]
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
        with _process_left_alone():
            norm, eps = self.norm.capitalize(), self.threat.eps / width
            published: Any = Published(logits, norm=norm, eps=eps, seed=seed, version=self.version, device=x.device)
            log = _Log()
            published.verbose = False
            published.logger = published.apgd.logger = published.apgd_targeted.logger = log
            self._settle(published, n_classes, tuple(x.shape[1:]), log)
            z_adv, _ = published.run_standard_evaluation(z, y, batch_size=len(z))
        self.attacks_ = list(published.attacks_to_run)
        self.warnings_ = list(dict.fromkeys([*getattr(self, "warnings_", []), *log.sentences]))
        return torch.where(z_adv == z, x, (low + width * z_adv.to(x.dtype)).clamp(*clip))

    def _settle(self, published: Any, n_classes: int, shape: tuple[int, ...], log: "_Log") -> None:
        """Keep the attacks that are defined, and the target classes that there are."""
        if n_classes < 2:
            raise ValueError("AutoAttack needs a model of 2 classes or more; this one has 1 logit")
        names: list[str] = []
        for name in published.attacks_to_run if self.attacks is None else self.attacks:
            choices = name, _INSTEAD.get(name, name)
            defined = next((choice for choice in choices if n_classes >= CLASSES_NEEDED[choice]), None)
            if defined == "square" and not _square_fits(shape, self.norm):
                log.warning(f"square is left out: it does not work on samples of shape {shape} in {self.norm}")
            elif defined is None:
                log.warning(f"{name} is left out: it is not defined for {n_classes} classes")
            else:
                names.append(defined)
                if defined != name:
                    log.warning(f"{defined} runs for {name}, which is not defined for {n_classes} classes")
        if not names:
            raise ValueError(f"AutoAttack has nothing to run: {'; '.join(log.sentences)}")
        published.attacks_to_run = list(dict.fromkeys(names))
        for part in (published.apgd_targeted, published.fab):
            part.n_target_classes = min(part.n_target_classes, n_classes - 1)


def _square_fits(shape: tuple[int, ...], norm: str) -> bool:
    """Whether the package's Square attack runs; in l2 and l1 it starts from a tiling of the image, five tiles high."""
    if len(shape) != 3:
        return False
    tile = shape[1] // 5
    first = (shape[1] - 5 * tile) // 2
    return norm == "linf" or tile == 1 or (tile > 1 and all(first + side // tile * tile <= side for side in shape[1:]))


class _Log(logging.Logger):
    """A logger that keeps warnings and hands nothing on.

    Not those on the number of classes: `_settle` has seen to that, and the package warns of 3 whatever runs.
    """

    def __init__(self) -> None:
        super().__init__("pyautoattack", logging.WARNING)
        self.sentences: list[str] = []

    def handle(self, record: logging.LogRecord) -> None:
        if record.funcName != "check_n_classes":
            # Counts are those of one batch and one run: left in, each would be a warning of its own.
            counts = r" See flags_doc\.md for details\.|(?<=there are) \d+| of [\d.]+%(?=\.)"
            self.sentences.append(re.sub(counts, "", record.getMessage()))


@contextmanager
def _process_left_alone() -> Iterator[None]:
    """Undo what the package does to the whole process.

    It seeds torch's global generators, and it looks for models that differentiate by themselves with a trace function
    (a debugger's or a coverage tool's would be gone), counting into a global that nobody ever resets.
    """
    from pyautoattack.checks import funcs

    tracer, on_gpu = sys.gettrace(), torch.cuda.is_initialized()
    funcs.update(dict.fromkeys(funcs, 0))
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_gpu else []):
            yield
    finally:
        sys.settrace(tracer)
        if not on_gpu:
            # Seeds of GPUs that are not in use yet are kept for later: replace the package's.
            torch.cuda.manual_seed_all(torch.initial_seed())
