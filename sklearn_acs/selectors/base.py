"""What all coreset selectors share: one template method, and the result it leaves."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.utils import Tags, _safe_indexing, check_consistent_length, check_random_state
from sklearn.utils._param_validation import Interval, RealNotInt
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from threadpoolctl import ThreadpoolController
from torch import Tensor

from sklearn_acs.gradients import LastLayerGradients, as_gradients, exact_sum
from sklearn_acs.tables import Table


class Part(NamedTuple):
    """What was chosen of one class, or of the whole set."""

    label: Any  # None for the whole set
    n_samples: int
    n_selected: int
    n_matched: int
    weight: float  # the sum of the weights
    error: float
    stop_reason: str


@dataclass(frozen=True, eq=False)
class Coreset:
    """A weighted subset whose gradients stand for those of the whole set.

    Attributes
    ----------
    indices : ndarray of shape (k,)
        The chosen rows, distinct, in the order chosen.
    weights : ndarray of shape (k,)
        ``sum_j weights[j] * G[indices[j]]`` approximates ``sum_i G[i]``.
    n_matched : int
        How many the algorithm chose itself; the rest fills the budget.
    stop_reason : str
        Why it stopped there.
    error : float
        ``||sum_j w_j G_j - sum_i G_i|| / ||sum_i G_i||``; a solver leaves it to `BaseSelector.fit`, which
        measures it for all in the same way.
    parts : tuple of Part
        The same, class by class where classes were chosen from one by one, each with the error of its own sum.
    """

    indices: np.ndarray
    weights: np.ndarray
    n_matched: int
    stop_reason: str
    error: float = np.nan
    parts: tuple[Part, ...] = ()

    def report(self) -> Table:
        """Tell what was chosen: a row for each part, and one for all of them where there are several."""
        rows = list(self.parts)
        if len(rows) != 1:
            n = sum(part.n_samples for part in rows)
            total = float(self.weights.sum())
            rows.append(Part("all", n, len(self.indices), self.n_matched, total, self.error, self.stop_reason))
        columns = ["class", "samples", "selected", "matched", "weight", "error", "why it stopped"]
        return Table(columns, [("all" if part.label is None else str(part.label), *part[1:]) for part in rows])


NOTHING = Coreset(np.empty(0, dtype=np.int64), np.empty(0), 0, "the budget leaves it without a row")


class BaseSelector(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base class of the coreset selectors.

    A subclass has parameters `n_select`, `per_class` and `n_jobs`, perhaps `random_state`, and implements
    ``_solve(gradients, k, rng, rows) -> Coreset``.
    """

    _parameter_constraints: dict = {
        "n_select": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="right")],
        "per_class": ["boolean"],
        "n_jobs": [Integral, None],
    }

    fit_inputs: tuple[str, ...] = ("gradients",)
    """What the choice depends on beside the number of samples: "gradients", or other arguments of `fit` by name."""

    n_select: int | float
    per_class: bool
    n_jobs: int | None

    def _solve(self, gradients: LastLayerGradients, k: int, rng: np.random.RandomState, rows: np.ndarray) -> Coreset:
        """Choose k of the gradients, which are those of the samples `rows`, in float32 or float64."""
        raise NotImplementedError

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, G: Any, y: Any = None) -> Self:
        """Choose the coreset.

        Parameters
        ----------
        G : array-like or Tensor of shape (n_samples, n_features), or LastLayerGradients
            One gradient per sample.
        y : array-like of shape (n_samples,), default=None
            Class labels; used, and needed, with ``per_class=True``.

        Returns
        -------
        self : object
            The fitted selector.
        """
        return self._fit(G, y, self._solve)

    def _fit(self, G: Any, y: Any, solve: Callable[..., Coreset]) -> Self:
        """Choose with `solve`, which has the signature of `_solve`, in the whole set or in each class."""
        gradients = self._validate_gradients(G, reset=True)
        n = len(gradients)
        k = _resolve_n_select(self.n_select, n)
        labels, members = [None], [np.arange(n)]
        if self.per_class:
            labels, members = self._split_by_class(y, n)
        budgets = _share_out(k, [len(rows) for rows in members])

        rng = _own_random_state(getattr(self, "random_state", None))
        classes = [
            (gradients, rows, int(budget), np.random.RandomState(rng.randint(np.iinfo(np.int32).max)))
            for rows, budget in zip(members, budgets, strict=True)
        ]
        solved = self._solve_classes(classes, solve)
        target, approximation = (sum(sums) for sums in zip(*(both for _, both in solved), strict=True))
        parts = [
            Part(
                label,
                len(rows),
                len(found.indices),
                found.n_matched,
                float(found.weights.sum()),
                relative_error(of_chosen, of_all),
                found.stop_reason,
            )
            for label, rows, (found, (of_all, of_chosen)) in zip(labels, members, solved, strict=True)
        ]
        self.coreset_ = _join([found for found, _ in solved], parts, relative_error(approximation, target))

        support = np.zeros(n, dtype=bool)
        support[self.coreset_.indices] = True
        like = gradients if isinstance(G, Tensor | LastLayerGradients) else None
        self.indices_ = _returned_as(like, self.coreset_.indices)
        self.weights_ = _returned_as(like, self.coreset_.weights)
        self.support_ = _returned_as(like, support)
        self.approximation_error_ = self.coreset_.error
        self.n_matched_ = self.coreset_.n_matched
        self.stop_reason_ = self.coreset_.stop_reason
        self.gradients_ = gradients.take(self.coreset_.indices)
        return self

    def _solve_classes(self, classes: list[tuple], solve: Callable[..., Coreset]) -> list[tuple]:
        """Solve for each (gradients of all, rows, budget, rng): the coreset, and both sums of gradients.

        Several classes are spread over `n_jobs` threads.
        """
        n_jobs = torch.get_num_threads() if self.n_jobs is None else effective_n_jobs(self.n_jobs)
        # The many small products of the solvers are slower in threads: those of NumPy's BLAS go on spinning.
        with _threadpools().limit(limits=1, user_api="blas"):
            if len(classes) == 1 or n_jobs == 1 or classes[0][0].device.type != "cpu":
                return [_solve_class(solve, *task) for task in classes]
            jobs = (delayed(_single_threaded)(_solve_class, solve, *task) for task in classes)
            return Parallel(n_jobs=n_jobs, prefer="threads", batch_size=1)(jobs)

    def selection_report(self) -> Table:
        """Tell what was chosen, with how much weight and error, and why the algorithm stopped.

        Returns
        -------
        table : Table
            A row for each class with ``per_class=True``, and one for all; prints well, and has `to_frame`.
        """
        check_is_fitted(self)
        return self.coreset_.report()

    def transform(self, G: Any) -> Any:
        """Inner products of each row's gradient with the gradient of each coreset member.

        Parameters
        ----------
        G : array-like or Tensor of shape (n_samples, n_features), or LastLayerGradients
            One gradient per sample.

        Returns
        -------
        similarities : ndarray or Tensor of shape (n_samples, n_select)
            A tensor for a tensor and for LastLayerGradients.
        """
        check_is_fitted(self)
        gradients = self._validate_gradients(G, reset=False)
        members = self.gradients_.to(gradients.device, gradients.dtype)
        similarities = gradients.cross_gram(members)
        return similarities if isinstance(G, Tensor | LastLayerGradients) else similarities.cpu().numpy()

    def select(self, *arrays: Any, return_weights: bool = False) -> Any:
        """Take the coreset's rows of anything aligned with the G of `fit`.

        Parameters
        ----------
        *arrays : array, Tensor, DataFrame, list or LastLayerGradients of length n_samples
            What to take the rows of.
        return_weights : bool, default=False
            Whether `weights_` follows as the last item.

        Returns
        -------
        selected : object, or tuple of objects
            A tuple unless it would have a single item.
        """
        check_is_fitted(self)
        check_consistent_length(self.support_, *arrays)
        selected = [_take(array, self.coreset_.indices) for array in arrays]
        if return_weights:
            selected.append(self.weights_)
        return selected[0] if len(selected) == 1 else tuple(selected)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.per_class
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        """Number of columns of `transform`, for ClassNamePrefixFeaturesOutMixin."""
        return len(self.indices_)

    def _validate_gradients(self, G: Any, *, reset: bool) -> LastLayerGradients:
        if not isinstance(G, Tensor | LastLayerGradients):
            return as_gradients(validate_data(self, G, reset=reset, dtype=[np.float64, np.float32, np.float16]))
        gradients = as_gradients(G)
        n, width = gradients.shape
        if n == 0:
            raise ValueError(f"{type(self).__name__} needs at least one gradient, got shape {gradients.shape}.")
        if not gradients.isfinite():
            raise ValueError("G must be finite, got gradients that contain NaN or infinity.")
        if reset:
            self.n_features_in_ = width
        elif width != self.n_features_in_:
            raise ValueError(
                f"G has {width} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                "features as input."
            )
        return gradients

    def _split_by_class(self, y: Any, n: int) -> tuple[list, list[np.ndarray]]:
        """The labels in sorted order, and the rows of each."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__}(per_class=True) requires y to be passed, but the target y is None."
            )
        labels = column_or_1d(y.cpu().numpy() if isinstance(y, Tensor) else y, warn=True)
        if len(labels) != n:
            raise ValueError(f"y must have one label for each of the {n} gradients, got {len(labels)}.")
        check_classification_targets(labels)
        classes, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        return list(classes), np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])


def _resolve_n_select(n_select: int | float, n: int) -> int:
    """Turn a count or a fraction into a count, 1 to n."""
    if isinstance(n_select, Integral):
        if n_select > n:
            raise ValueError(
                f"n_select must be at most the {n} samples given, or a fraction in (0, 1], got {n_select}."
            )
        return int(n_select)
    return max(1, round(n_select * n))


def _share_out(k: int, sizes: list[int]) -> np.ndarray:
    """Share k out in proportion to `sizes` by largest remainder; at least 1 each where k suffices."""
    quotas = k * np.array(sizes) / sum(sizes)
    shares = np.floor(quotas + 1e-9).astype(np.int64)
    by_remainder = np.argsort(shares - quotas, kind="stable")
    shares[by_remainder[: k - shares.sum()]] += 1
    while k >= len(sizes) and not shares.all():
        excess = np.where(shares > 1, shares - quotas, -np.inf)
        shares[np.argmax(excess)] -= 1
        shares[np.argmin(shares)] += 1
    return shares


@functools.cache
def _threadpools() -> ThreadpoolController:
    """The thread pools of the libraries that are loaded, looked up once."""
    return ThreadpoolController()


def _solve_class(
    solve: Callable[..., Coreset], gradients: LastLayerGradients, rows: np.ndarray, k: int, rng: np.random.RandomState
) -> tuple[Coreset, tuple[Tensor, Tensor]]:
    """Choose k of `rows`: the coreset in the numbers of the whole set, and the sums of all and of the chosen."""
    part = part_of(gradients, rows)
    return with_sums(NOTHING if k == 0 else solve(part, k, rng, rows), part, rows)


def part_of(gradients: LastLayerGradients, rows: np.ndarray) -> LastLayerGradients:
    """The gradients of some rows, in the precision of their arithmetic."""
    part = gradients if len(rows) == len(gradients) else gradients.take(rows)
    return part.to("cpu" if part.device.type == "mps" else part.device, part.dtype)  # MPS has no float64


def with_sums(found: Coreset, part: LastLayerGradients, rows: np.ndarray) -> tuple[Coreset, tuple[Tensor, Tensor]]:
    """A coreset of `part` in the numbers of the whole set, and the sums of all gradients and of the chosen."""
    chosen = exact_sum(part.take(found.indices), torch.from_numpy(found.weights))
    return replace(found, indices=rows[found.indices]), (exact_sum(part), chosen)


def _single_threaded(function: Callable, *args: Any) -> Any:
    """Call with one thread for torch's own parallelism: the classes are spread over threads already."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of the calling thread
    try:
        return function(*args)
    finally:
        torch.set_num_threads(threads)


def _join(solved: list[Coreset], parts: list[Part], error: float) -> Coreset:
    """One coreset out of those of the classes, some of which the budget may leave without a row."""
    reasons = [part.stop_reason for part in parts if part.n_selected]
    counts = {reason: reasons.count(reason) for reason in reasons}
    reason = reasons[0]
    if len(counts) > 1:
        reason = "; ".join(f"{reason} ({count} of {len(reasons)} classes)" for reason, count in counts.items())
    if len(reasons) < len(parts):
        reason += f"; the budget leaves {len(parts) - len(reasons)} classes without a row"
    return Coreset(
        indices=np.concatenate([found.indices for found in solved]),
        weights=np.concatenate([found.weights for found in solved]),
        n_matched=sum(found.n_matched for found in solved),
        stop_reason=reason,
        error=error,
        parts=tuple(parts),
    )


def relative_error(approximation: Tensor, target: Tensor) -> float:
    """Length of the gap over the length of the target; 0 where both are zero."""
    gap, scale = float((approximation - target).norm()), float(target.norm())
    if gap == 0:
        return 0.0  # also when all gradients are zero
    return gap / scale if scale else np.inf


def _own_random_state(random_state: Any) -> np.random.RandomState:
    """As check_random_state, but None means fresh entropy instead of NumPy's global generator."""
    return np.random.RandomState() if random_state is None else check_random_state(random_state)


def _returned_as(like: LastLayerGradients | None, values: np.ndarray) -> Any:
    """Arrays for arrays; for tensors, tensors on their device, floats in their precision."""
    if like is None:
        return values
    result = torch.from_numpy(values)
    return result.to(like.device, like.dtype if result.is_floating_point() else result.dtype)


def _take(array: Any, indices: np.ndarray) -> Any:
    if isinstance(array, LastLayerGradients):
        return array.take(indices)
    if isinstance(array, Tensor):
        return array[torch.from_numpy(indices).to(array.device)]
    return _safe_indexing(array, indices)
