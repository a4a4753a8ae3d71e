"""ScoreSelector chooses the samples with the largest gradients, the highest losses, the smallest margins."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sklearn_acs._compat import StrOptions, fit_context
from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.selectors._checks import check_per_sample
from sklearn_acs.selectors._classes import solve_on_cpu, where_float64_is
from sklearn_acs.selectors._coreset import Coreset
from sklearn_acs.selectors._cross_entropy import undo_cross_entropy
from sklearn_acs.selectors.base import BaseSelector


@dataclass(kw_only=True, eq=False, repr=False)
class ScoreSelector(BaseSelector):
    """Chooses the samples with the highest or the lowest scores.

    It keeps the `n_select` samples at one end of the ranking, and of equal scores those with the lowest index.

    Parameters
    ----------
    n_select : int or float, default=0.1
        Size of the coreset: a count, or a fraction of the samples in (0, 1].
    per_class : bool, default=False
        Whether to choose in every class of y on its own, in proportion to its size.
    n_jobs : int or None, default=None
        Threads that classes are spread over. None is as many as torch uses, -1 one for each core.
    scores : {"gradient_norm", "loss", "margin"} or array-like of shape (n_samples,), default="gradient_norm"
        What samples are ranked by: the length of their gradient; their loss; the probability of their label minus
        that of the best other class, from -1 (surely wrong) to 1; or numbers of one's own, one for each sample, such
        as ``StabilityTracker.scores_``.
    order : {"highest", "lowest"}, default="highest"
        Which end of the ranking is kept. The hardest samples have the highest losses and the lowest margins.

    Attributes
    ----------
    indices_ : ndarray or Tensor of shape (n_select,)
        The chosen rows, distinct, the most extreme first.
    weights_ : ndarray or Tensor of shape (n_select,)
        ``n_samples / n_select`` each, with `per_class` the ratio of the class: all count alike in training.
    support_ : ndarray or Tensor of shape (n_samples,)
        Boolean mask of the chosen rows.
    approximation_error_ : float
        ``||sum_j w_j G_j - sum_i G_i|| / ||sum_i G_i||`` over the whole set.
    n_matched_ : int
        The size of the coreset.
    stop_reason_ : str
        Why it stopped: the budget is used up.
    coreset_ : Coreset
        All of this in one object.
    gradients_ : LastLayerGradients
        The gradients of the coreset.
    n_features_in_ : int
        Length of one gradient.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only when G has string feature names.

    See Also
    --------
    GradMatch : Matches the sum of the gradients, which the extreme samples by themselves do not.
    StabilityTracker : Learning stability, a score for ``order="lowest"``.

    Notes
    -----
    n samples of C classes and D features take ``O(n (C + D))`` operations for gradient norms, ``O(n C)`` for losses and
    margins that follow from gradients, and ``O(n log n)`` for the ranking; memory is ``O(n)`` numbers beside the
    gradients. On a GPU the scores are computed there, all at once, and ranked on the CPU.

    Selection by scores defines no weights and approximates no sum of gradients: `approximation_error_` says by how
    much the chosen, weighted alike, miss it, which takes ``O(n C D)`` more, as with every selector.

    In a classifier, "loss" is the objective's loss of each sample as it stands, without its sample weight, and
    "margin" that of the objective's last branch, both at the current adversarial examples; an array is aligned with
    the X of its `fit` and costs no pass through the network. With ``select_by="batch"`` a batch scores what its
    samples do on average, so that random batches differ little: ``select_by="class"`` or "sample" says more.

    Standing alone, "loss" and "margin" follow from the gradients of a single branch of cross-entropy, which are
    ``softmax - onehot`` at the logits: exactly as long as these are not weighted, and up to the precision of these
    numbers. Everything else is passed as ``fit(G, scores=...)``.

    References
    ----------
    .. [1] M. Paul, S. Ganguli, G. K. Dziugaite. "Deep Learning on a Data Diet: Finding Important Examples Early in
       Training", NeurIPS 2021. Gradient norms (GraNd).
    .. [2] C. Dong, L. Liu, J. Shang. "Data Quality Matters For Adversarial Training: An Empirical Study", 2021,
       arXiv:2102.07437. Learning stability.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_acs.selectors import ScoreSelector
    >>> G = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0], [0.0, -6.0]])
    >>> ScoreSelector(n_select=2).fit(G).indices_
    array([3, 1])
    >>> ScoreSelector(n_select=2, scores=[0.3, 0.1, 0.4, 0.1], order="lowest").fit(G).indices_
    array([1, 3])
    """

    scores: str | ArrayLike = "gradient_norm"
    order: str = "highest"

    _parameter_constraints: ClassVar[dict] = {
        **BaseSelector._parameter_constraints,
        "scores": [StrOptions({"gradient_norm", "loss", "margin"}), "array-like"],
        "order": [StrOptions({"highest", "lowest"})],
    }

    @property
    def fit_inputs(self) -> tuple[str, ...]:
        """Names of what the scores follow from; none where they are given as numbers."""
        if not isinstance(self.scores, str):
            return ()
        return ("gradients",) if self.scores == "gradient_norm" else (self.scores,)

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, G: Any, y: Any = None, scores: Any = None) -> Self:
        """Choose the coreset.

        Parameters
        ----------
        G : array-like or Tensor of shape (n_samples, n_features), or LastLayerGradients
            One gradient per sample.
        y : array-like of shape (n_samples,), default=None
            Class labels; used, and needed, with ``per_class=True``.
        scores : array-like or Tensor of shape (n_samples,), default=None
            What to rank the samples by, in place of the parameter `scores`.

        Returns
        -------
        self : object
            The fitted selector.

        Raises
        ------
        ValueError
            Scores are not finite or not one for each sample, or do not follow from G.
        """
        gradients = self._validate_gradients(G, reset=True)
        values = self._sample_scores(gradients, scores)
        ranks = -values if self.order == "highest" else values

        def solve(gradients: LastLayerGradients, k: int, rng: np.random.RandomState, rows: np.ndarray) -> Coreset:
            picks = np.argsort(ranks[rows], kind="stable")[:k]
            return Coreset(picks, np.full(k, len(rows) / k), k, f"the {self.order} scores use all of the budget")

        return self._fit(G, gradients, y, lambda tasks: solve_on_cpu(tasks, solve, self.n_jobs))

    def keep_rows(self, rows: np.ndarray, n_samples: int) -> None:
        """Cut an array `scores` to the samples `rows`, and leave a name of scores as it is.

        Parameters
        ----------
        rows : ndarray of int
            The samples to keep.
        n_samples : int
            How many there are before the cut.
        """
        if not isinstance(self.scores, str):
            self.scores = check_per_sample(self.scores, n_samples, "scores")[rows]

    def for_groups(self, gradients: LastLayerGradients, groups: np.ndarray, **given: Any) -> dict[str, Any]:
        """Score each group by the mean of its samples' scores."""
        scores = self._sample_scores(gradients, given.get("scores"))
        return {**given, "scores": np.bincount(groups, scores) / np.bincount(groups)}

    def _sample_scores(self, gradients: LastLayerGradients, scores: Any) -> np.ndarray:
        """Take the scores given to `fit`, else those of the parameter, else compute them from the gradients."""
        if scores is None and not isinstance(self.scores, str):
            scores = self.scores
        if scores is None:
            return scores_of(gradients, str(self.scores))
        return check_per_sample(scores, len(gradients), "scores")


def scores_of(gradients: LastLayerGradients, score: str) -> np.ndarray:
    """Compute the `score` of each sample from its gradient, in float64, a block of gradients at a time."""
    gradients = where_float64_is(gradients)
    if score == "gradient_norm":
        found = [block.norms() for block in gradients.scaled()[0].blocks(torch.float64)]
    else:
        found = [_score_of_cross_entropy(block, score) for block in gradients.blocks()]
    return torch.cat(found).cpu().numpy()


def margins(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Subtract the probability of the best other class from that of the label, shape (n,)."""
    label = labels[:, None]
    return probabilities.gather(1, label)[:, 0] - probabilities.scatter(1, label, -torch.inf).amax(1)


def _score_of_cross_entropy(gradients: LastLayerGradients, score: str) -> Tensor:
    """Compute each sample's loss or margin from its gradient at the logits, ``softmax - onehot``."""
    try:
        labels, probabilities = undo_cross_entropy(gradients, torch.float64)
    except ValueError:
        raise ValueError(
            f"scores={score!r} does not follow from G, which is not the single-branch LastLayerGradients of an "
            f"unweighted cross-entropy: pass the {score} of each sample as fit(G, scores=...)."
        ) from None
    if score == "margin":
        return margins(probabilities, labels)
    at_label = probabilities.gather(1, labels[:, None])[:, 0]
    return -at_label.clamp(min=torch.finfo(torch.float32).eps).log()
