"""What an evaluation found."""

from collections.abc import Sequence
from html import escape

import numpy as np

from sklearn_acs.evaluation.masking import MaskingCheck
from sklearn_acs.tables import Table

NORMS = ("linf", "l2", "l1")

WITHSTOOD, BROKEN = 1, 2
"""Outcomes of an attack on one sample; 0 is one that was not attacked."""


class Evaluation(Table):
    """Accuracy of one model under several attacks: a table with a row for each, and what became of each sample.

    The rows are "clean", the attacks, and "worst case": the samples that no attack broke. The columns are

    - ``accuracy``: share of all samples that are right as they are and under the attack,
    - ``attacked``: how many were attacked: those that are right as they are,
    - ``success``: share of these that the attack broke,
    - ``linf``, ``l2`` (and ``l1``, with an attack in that norm): mean size of the perturbations that broke a sample,
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
    linf_, l2_, l1_ : ndarray of shape (n_attacks, n)
        Sizes of the perturbations, of those that failed too; NaN where a sample was not attacked.
    warnings : list of str
        What is to be known about single attacks.
    masking : list of MaskingCheck or None
        Signs of masked gradients; None where they were not looked for.

    See Also
    --------
    evaluate : Makes it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_acs.evaluation import Evaluation
    >>> clean, outcomes = np.array([True, True, True, False]), np.array([[1, 2, 1, 0], [2, 2, 1, 0]])
    >>> print(Evaluation(["weak", "strong"], clean, outcomes, np.full((3, 2, 4), 0.1), [0.0, 1.0, 2.0]))
    attack      accuracy  attacked  success  linf   l2  seconds
    clean           0.75         -        -     -    -        0
    weak             0.5         3    0.333   0.1  0.1        1
    strong          0.25         3    0.667   0.1  0.1        2
    worst case      0.25         3    0.667     -    -        3
    """

    def __init__(
        self,
        names: Sequence[str],
        clean: np.ndarray,
        outcomes: np.ndarray,
        sizes: np.ndarray,
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
        self.linf_, self.l2_, self.l1_ = sizes
        self.worst_case_only = worst_case_only
        self.warnings = list(warnings)
        self.masking = None if masking is None else list(masking)

        shown = [sizes[NORMS.index(norm)] for norm in norms]
        rows = [["clean", _mean(clean), None, None, *[None] * len(norms), float(seconds[0])]]
        for i, (name, outcome) in enumerate(zip(names, outcomes, strict=True)):
            broken, attacked = outcome == BROKEN, int((outcome > 0).sum())
            means = [_mean(size[i][broken]) for size in shown]
            accuracy, success = _mean(outcome == WITHSTOOD), _mean(broken[outcome > 0])
            rows.append([name, accuracy, attacked, success, *means, float(seconds[i + 1])])
        lost = clean & ~self.worst_case_
        row = ["worst case", _mean(self.worst_case_), int(clean.sum()), _mean(lost[clean])]
        rows.append([*row, *[None] * len(norms), float(sum(seconds))])
        super().__init__(["attack", "accuracy", "attacked", "success", *norms, "seconds"], rows)

    @property
    def notes(self) -> list[str]:
        """The warnings and the signs of masked gradients that were found, as sentences."""
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
