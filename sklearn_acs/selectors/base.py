"""BaseSelector gives every coreset selector its `fit`, `transform` and `select`."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from sklearn_acs._compat import Interval, fit_context, safe_indexing
from sklearn_acs.data.labels import read_labels
from sklearn_acs.data.tensors import check_numbers
from sklearn_acs.gradients import LastLayerGradients, as_gradients
from sklearn_acs.selectors._checks import length_of, real_matrix
from sklearn_acs.selectors._classes import Solved, Task, solve_on_cpu
from sklearn_acs.selectors._coreset import ClassSelection, Coreset
from sklearn_acs.table import Table

REMEMBERED = {"losses", "seen"}
"""What a selector may ask for that a training remembers."""


@dataclass(kw_only=True, eq=False, repr=False)
class BaseSelector(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base class of the coreset selectors.

    A subclass is a dataclass too, whose fields are its parameters, perhaps with a `random_state` among them. It
    implements ``_solve(gradients, k, rng, rows) -> Coreset``. If it needs more than gradients, `fit_inputs` names it.
    """

    n_select: int | float = 0.1
    per_class: bool = False
    n_jobs: int | None = None

    _parameter_constraints: ClassVar[dict] = {
        "n_select": [Interval(Integral, 1, None, closed="left"), Interval(Real, 0, 1, closed="right")],
        "per_class": ["boolean"],
        "n_jobs": [Integral, None],
    }

    final_full: ClassVar[float] = 0.0  # share of a training's epochs that are on all data at the end

    @property
    def fit_inputs(self) -> tuple[str, ...]:
        """Names of what the choice depends on, beside the number of samples.

        They are "gradients"; "validation", the gradients of held-out samples; "loss" or "margin", numbers for each
        sample that `fit` takes as `scores`; and what a training remembers: "losses", those that it had last, and
        "seen", which samples earlier coresets had.
        """
        return ("gradients",)

    @property
    def needs_pass(self) -> bool:
        """Whether the choice depends on what only a pass through the network tells; else it is made in every epoch."""
        return bool(set(self.fit_inputs) - REMEMBERED)

    @property
    def groups_by_samples(self) -> bool:
        """Whether `for_groups` may look at the samples' own gradients; else the sums of each group are all it gets."""
        return type(self).for_groups is not BaseSelector.for_groups

    def validate(self) -> None:
        """Check the parameters of a selector that is part of a `RobustClassifier`, before any work.

        Raises
        ------
        ValueError
            A parameter is out of range, or says what a parameter of the classifier says.
        """
        self._validate_params()
        for name, instead in {"n_select": "coreset_frac", "per_class": "select_by"}.items():
            if name in self.get_params() and (value := getattr(self, name)) != getattr(BaseSelector, name):
                raise ValueError(
                    f"selector has {name}={value!r}, which in a RobustClassifier {instead} says: set {instead}, and "
                    f"leave {name} out"
                )

    def keep_rows(self, rows: np.ndarray, n_samples: int) -> None:
        """Cut parameters that hold a value per sample to the samples `rows`; this base class has none.

        Parameters
        ----------
        rows : ndarray of int
            The samples to keep.
        n_samples : int
            How many there are before the cut.
        """

    def for_groups(self, gradients: LastLayerGradients, groups: np.ndarray, **given: Any) -> dict[str, Any]:
        """Convert the arguments of `fit` that describe samples into those that describe groups of samples.

        Parameters
        ----------
        gradients : LastLayerGradients
            One gradient per sample.
        groups : ndarray of int
            Each sample's group, numbered from 0.
        **given : object
            Arguments of `fit` beside gradients and labels.

        Returns
        -------
        given : dict
            The same arguments; those with a value per sample have one per group.
        """
        return given

    def _solve(self, gradients: LastLayerGradients, k: int, rng: np.random.RandomState, rows: np.ndarray) -> Coreset:
        """Choose k of the gradients, which are float32 or float64 and belong to the samples `rows`."""
        raise NotImplementedError

    @fit_context(prefer_skip_nested_validation=True)
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
        return self._fit(G, self._validate_gradients(G, reset=True), y, self._solve_tasks)

    def _fit(self, G: Any, gradients: LastLayerGradients, y: Any, solve_tasks: Callable) -> Self:
        """Choose in the whole set or in each class by `solve_tasks`, and set the fitted attributes.

        `gradients` are the validated G, whose own type says whether results are arrays or tensors.
        """
        n = len(gradients)
        if y is not None and (got := length_of(y)) != n:
            raise ValueError(f"y must have one label for each of the {n} gradients, got {got}.")
        k = resolve_n_select(self.n_select, n)
        labels, members = self._split_by_class(y, n) if self.per_class else ([None], [np.arange(n)])
        budgets = _share_out(k, [len(rows) for rows in members])

        seed = getattr(self, "random_state", None)
        # For None check_random_state gives NumPy's global generator, which is the user's.
        rng = np.random.RandomState() if seed is None else check_random_state(seed)
        scaled, exponent = gradients.scaled()
        tasks = [
            Task(scaled, rows, int(budget), np.random.RandomState(rng.randint(np.iinfo(np.int32).max)), exponent)
            for rows, budget in zip(members, budgets, strict=True)
        ]
        sums: list[Any] = [0, 0, 0]  # of `chosen`, `total` and `rounding`
        coresets, classes = [], []
        with closing(solve_tasks(tasks)) as solved:
            for label, task, (found, *of_class) in zip(labels, tasks, solved, strict=True):
                sums = [one + other for one, other in zip(sums, of_class, strict=True)]
                sizes = len(task.rows), len(found.indices), found.n_matched
                weight, error = float(found.weights.sum()), relative_error(*of_class)
                classes.append(ClassSelection(label, *sizes, weight, error, found.stop_reason))
                coresets.append(found)
        self.coreset_ = _join(coresets, classes, relative_error(*sums))

        support = np.isin(np.arange(n), self.coreset_.indices)
        like = gradients if isinstance(G, Tensor | LastLayerGradients) else None
        self.indices_ = _returned_as(like, self.coreset_.indices)
        self.weights_ = _returned_as(like, self.coreset_.weights)
        self.support_ = _returned_as(like, support)
        self.approximation_error_ = self.coreset_.error
        self.n_matched_ = self.coreset_.n_matched
        self.stop_reason_ = self.coreset_.stop_reason
        self.gradients_ = gradients.take(self.coreset_.indices)
        return self

    def _solve_tasks(self, tasks: list[Task]) -> Generator[Solved]:
        """Solve all classes; selectors that solve several at once on a GPU override this."""
        return solve_on_cpu(tasks, self._solve, self.n_jobs)

    def selection_report(self) -> Table:
        """Tabulate what was chosen, with its weight and error, and why the algorithm stopped.

        Returns
        -------
        table : Table
            A row for each class with ``per_class=True``, and one for all.
        """
        check_is_fitted(self)
        return self.coreset_.report()

    def transform(self, G: Any) -> Any:
        """Compute the inner products of each row's gradient with the gradient of each coreset member.

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
        similarities = gradients.gram(members)
        return similarities if isinstance(G, Tensor | LastLayerGradients) else similarities.cpu().numpy()

    def select(self, *arrays: Any, return_weights: bool = False) -> Any:
        """Take the coreset's rows from arrays that are aligned with the G of `fit`.

        Parameters
        ----------
        *arrays : array, Tensor, DataFrame, list or LastLayerGradients of length n_samples
            What to take the rows of.
        return_weights : bool, default=False
            Whether to add `weights_` as the last item.

        Returns
        -------
        selected : object, or tuple of objects
            A tuple, or its item where there is only one.
        """
        check_is_fitted(self)
        check_consistent_length(self.support_, *arrays)
        rows = self.coreset_.indices
        selected = [a.take(rows) if isinstance(a, LastLayerGradients) else safe_indexing(a, rows) for a in arrays]
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
            array = real_matrix(check_numbers(G, "G"), self)
            validate_data(self, G, reset=reset, skip_check_array=True)
            return as_gradients(array)
        gradients = as_gradients(check_numbers(G, "G") if isinstance(G, Tensor) else G)
        if len(gradients) == 0:
            raise ValueError(f"{type(self).__name__} needs at least one gradient, got shape {gradients.shape}.")
        if not gradients.isfinite():
            raise ValueError("G must be finite, got gradients that contain NaN or infinity.")
        return validate_data(self, gradients, reset=reset, skip_check_array=True)

    def _split_by_class(self, y: Any, n: int) -> tuple[list, list[np.ndarray]]:
        """List the labels in sorted order, and the rows of each."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__}(per_class=True) requires y to be passed, but the target y is None."
            )
        labels = read_labels(y, n)
        classes, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        return list(classes), np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])


def resolve_n_select(n_select: int | float, n: int) -> int:
    """Turn a count or a fraction into a count, 1 to n."""
    if isinstance(n_select, Integral):
        if n_select > n:
            raise ValueError(
                f"n_select must be at most the {n} samples given, or a fraction in (0, 1], got {n_select}."
            )
        return int(n_select)
    return max(1, round(float(n_select) * n))


def _share_out(k: int, sizes: list[int]) -> np.ndarray:
    """Share k out in proportion to `sizes` by largest remainder, with at least 1 each where k suffices."""
    quotas = k * np.array(sizes) / sum(sizes)
    shares = np.floor(quotas + 1e-9).astype(np.int64)
    by_remainder = np.argsort(shares - quotas, kind="stable")
    shares[by_remainder[: k - shares.sum()]] += 1
    while k >= len(sizes) and not shares.all():
        excess = np.where(shares > 1, shares - quotas, -np.inf)
        shares[np.argmax(excess)] -= 1
        shares[np.argmin(shares)] += 1
    return shares


def _join(coresets: list[Coreset], classes: list[ClassSelection], error: float) -> Coreset:
    """Join the coresets of all classes; those of classes that the budget leaves without a row are empty."""
    reasons = [selection.stop_reason for selection in classes if selection.n_selected]
    counts = {reason: reasons.count(reason) for reason in reasons}
    reason = reasons[0]
    if len(counts) > 1:
        reason = "; ".join(f"{reason} ({count} of {len(reasons)} classes)" for reason, count in counts.items())
    if len(reasons) < len(classes):
        reason += f"; the budget leaves {len(classes) - len(reasons)} classes without a row"
    return Coreset(
        indices=np.concatenate([found.indices for found in coresets]),
        weights=np.concatenate([found.weights for found in coresets]),
        n_matched=sum(found.n_matched for found in coresets),
        stop_reason=reason,
        error=error,
        classes=tuple(classes),
    )


def relative_error(approximation: Tensor, target: Tensor, rounding: Tensor | float = 0.0) -> float:
    """Divide the length of the gap by that of the target.

    Where the target is no longer than `rounding`, the error is 0 if the gap is not either, and else infinite.
    """
    gap, length = (approximation - target).norm(), target.norm()
    error = torch.where(length > rounding, gap / length, torch.where(gap > rounding, torch.inf, 0.0))
    return float(error)  # the only number read from the device


def _returned_as(like: LastLayerGradients | None, values: np.ndarray) -> Any:
    """Convert an array to a tensor on the device of `like`, floats in its precision; keep it for None."""
    if like is None:
        return values
    result = torch.from_numpy(values)
    return result.to(like.device, like.dtype if result.is_floating_point() else result.dtype)
