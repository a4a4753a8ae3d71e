"""An Evaluation holds what attacks found: a table, and what became of each sample."""

from collections.abc import Sequence
from html import escape

import numpy as np

from sklearn_acs.evaluation.masking import MaskingCheck
from sklearn_acs.table import Table

NORMS = ("linf", "l2", "l1")

WITHSTOOD, BROKEN = 1, 2
"""Outcomes of an attack on one sample; 0 is one that was not attacked."""


class Evaluation(Table):
    """Tells the accuracy of one model under several attacks: a row for each, and what became of each sample.

    The rows are "clean", the attacks, and "worst case": the samples that no attack broke. The columns are

    - ``accuracy``: share of all samples that are right as they are and under the attack,
    - ``attacked``: how many were attacked: those that are right as they are,
    - ``success``: share of these that the attack broke,
    - ``size``: mean size of the perturbations that broke a sample, in the metric that bounds the attack,
    - ``metric``: which that is, see the notes,
    - ``linf``, ``l2`` (and ``l1``, with an attack in that norm): mean size of the same in these norms, in input units,
    - ``seconds``.

    Parameters
    ----------
    names : sequence of str
        Names of the attacks.
    clean : ndarray of bool, of shape (n,)
        Which samples are classified rightly as they are.
    outcomes : ndarray of int8, of shape (n_attacks, n)
        0 where a sample was not attacked, 1 where it withstood, 2 where it was broken.
    sizes : ndarray of shape (3, n_attacks, n)
        Sizes of the perturbations in linf, l2 and l1; NaN where a sample was not attacked.
    own_sizes : ndarray of shape (n_attacks, n)
        The same in each attack's own metric; NaN for an attack that has none, too.
    metrics : sequence of str or None
        The name of that metric for each attack.
    seconds : sequence of float
        For the clean pass and for each attack.
    norms : sequence of str, default=("linf", "l2")
        The norms that have a column.
    worst_case_only : bool, default=False
        Whether samples broken by one attack were spared by the later ones.
    warnings : sequence of str, default=()
        What is to be known about single attacks.
    masking : sequence of MaskingCheck or None, default=None
        Signs of masked gradients; None where they were not looked for.

    Attributes
    ----------
    attacks_ : list of str
        Names of the attacks.
    clean_ : ndarray of bool, of shape (n,)
        Which samples are classified rightly as they are.
    attacked_, correct_ : ndarray of bool, of shape (n_attacks, n)
        Which samples were attacked, and which are right as they are and under the attack.
    worst_case_ : ndarray of bool, of shape (n,)
        Which samples are right as they are and under every attack.
    size_, linf_, l2_, l1_ : ndarray of shape (n_attacks, n)
        Sizes of the perturbations, of those that failed too, in each attack's own metric and in three norms; NaN where
        a sample was not attacked.
    metrics_ : list of str or None
        The metric of each attack.
    warnings : list of str
        What is to be known about single attacks.
    masking : list of MaskingCheck or None
        Signs of masked gradients; None where they were not looked for.

    See Also
    --------
    evaluate : Makes it.

    Notes
    -----
    Sizes in an attack's own metric are in the units of its bound. The metrics are

    - "linf", "l2" and "l1" of PGD and AutoAttack, in input units,
    - "linf/eps" where `eps` is an array: the largest change of a feature in units of its own `eps`, so that 1 is the
      bound; attacks on tables that are given by name have such a one, in a share of each standard deviation,
    - "flow" of StAdv: the largest shift of a pixel, in units of half the image's width and height,
    - "colour" of ReColor: the largest change of a component, in units of the grid over colours,
    - "jpeg" of JPEG: the largest change of a coefficient, in units of half its quantisation step,
    - "lpips-alex", "lpips-squeeze", "lpips-self" and "lpips-own" of LPA, PPGD and FastLPA: the distance in the
      activations of AlexNet, SqueezeNet, the model itself, or another module.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_acs.evaluation import Evaluation
    >>> clean, outcomes = np.array([True, True, True, False]), np.array([[1, 2, 1, 0], [2, 2, 1, 0]])
    >>> sizes, flows = np.full((3, 2, 4), 0.1), np.full((2, 4), 0.05)
    >>> print(Evaluation(["weak", "strong"], clean, outcomes, sizes, flows, ["flow", "flow"], [0.0, 1.0, 2.0]))
    attack      accuracy  attacked  success  size  metric  linf   l2  seconds
    clean           0.75         -        -     -  -          -    -        0
    weak             0.5         3    0.333  0.05  flow     0.1  0.1        1
    strong          0.25         3    0.667  0.05  flow     0.1  0.1        2
    worst case      0.25         3    0.667     -  -          -    -        3
    """

    def __init__(
        self,
        names: Sequence[str],
        clean: np.ndarray,
        outcomes: np.ndarray,
        sizes: np.ndarray,
        own_sizes: np.ndarray,
        metrics: Sequence[str | None],
        seconds: Sequence[float],
        *,
        norms: Sequence[str] = NORMS[:2],
        worst_case_only: bool = False,
        warnings: Sequence[str] = (),
        masking: Sequence[MaskingCheck] | None = None,
    ) -> None:
        self.attacks_ = list(names)
        self.clean_ = clean
        self.attacked_, self.correct_ = outcomes > 0, outcomes == WITHSTOOD
        self.worst_case_ = clean & self.correct_.all(0)
        self.size_, (self.linf_, self.l2_, self.l1_) = own_sizes, sizes
        self.metrics_ = list(metrics)
        self.worst_case_only = worst_case_only
        self.warnings = list(warnings)
        self.masking = None if masking is None else list(masking)

        shown = [sizes[NORMS.index(norm)] for norm in norms]
        unsized = [None] * (2 + len(norms))
        rows = [["clean", _mean(clean), None, None, *unsized, float(seconds[0])]]
        for i, (name, outcome) in enumerate(zip(names, outcomes, strict=True)):
            broken, attacked = outcome == BROKEN, int((outcome > 0).sum())
            own = None if self.metrics_[i] is None else _mean(self.size_[i][broken])
            means = [_mean(size[i][broken]) for size in shown]
            accuracy, success = _mean(outcome == WITHSTOOD), _mean(broken[outcome > 0])
            rows.append([name, accuracy, attacked, success, own, self.metrics_[i], *means, float(seconds[i + 1])])
        lost = clean & ~self.worst_case_
        row = ["worst case", _mean(self.worst_case_), int(clean.sum()), _mean(lost[clean])]
        rows.append([*row, *unsized, float(sum(seconds))])
        super().__init__(["attack", "accuracy", "attacked", "success", "size", "metric", *norms, "seconds"], rows)

    @property
    def notes(self) -> list[str]:
        """Put the warnings and the signs of masked gradients that were found into sentences."""
        notes = list(self.warnings)
        if self.masking is not None:
            found = [
                f"Sign of masked gradients ({check.name}): {check.reason}" for check in self.masking if check.flagged
            ]
            notes += found or [f"None of {len(self.masking)} signs of masked gradients was found."]
        return notes

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return super()._repr_html_() + notes


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
