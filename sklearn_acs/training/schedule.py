"""CoresetSchedule calculates which epochs train on all data, which on the coreset, and which select anew."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from numbers import Integral, Real
from typing import Any

from sklearn_acs.params import numpy_values
from sklearn_acs.selectors.base import BaseSelector

FULL, CORESET = "full", "coreset"

DEFAULT_EPOCHS = 30
"""Epochs, unless told otherwise or timed."""

DEFAULT_FRAC = 0.5
"""Share of the samples in a coreset, unless told otherwise."""


@dataclass(frozen=True)
class CoresetSchedule:
    """Calculates the epochs of training on coresets.

    ``round(warmup_frac * max_epochs * coreset_frac)`` epochs on all data come first, which cost as much as
    ``warmup_frac * max_epochs`` epochs on the coreset. The rest of `max_epochs` is trained on the coreset, selected
    at its first epoch and at every `select_every`-th after it, but for ``round(final_full * max_epochs)`` epochs at the
    end, which are on all data again. No epoch is empty.

    Parameters
    ----------
    max_epochs : int
        Length of the ordinary training that is sped up, in epochs.
    coreset_frac : float
        Share of the samples in the coreset, in (0, 1]; 1 trains on everything and never selects.
    select_every : int, default=20
        Coreset epochs between two selections.
    warmup_frac : float, default=0.5
        Share of `max_epochs` that the warm start on all data stands for, in [0, 1) (kappa in the paper).
    final_full : float, default=0.0
        Share of `max_epochs` on all data at the end, in [0, 1); less than what `warmup_frac` leaves.

    Raises
    ------
    ValueError
        One of them is something else.

    See Also
    --------
    RobustClassifier : Trains by this schedule.

    Notes
    -----
    1. The published code trained on nothing between the warm start and ``warmup_frac * max_epochs``, and, where
       that was no multiple of `select_every`, on a random subset after it. Here the first coreset epoch selects.

    References
    ----------
    Dolatabadi, Erfani, Leckie, "l-inf-Robustness and Beyond: Unleashing Efficient Adversarial Training",
    ECCV 2022, Algorithm 1.

    Examples
    --------
    >>> from sklearn_acs import CoresetSchedule
    >>> schedule = CoresetSchedule(max_epochs=120, coreset_frac=0.5, select_every=20, warmup_frac=0.5)
    >>> schedule.full_epochs, schedule.coreset_epochs, schedule.n_selections
    (30, 60, 3)
    >>> round(schedule.expected_speedup(), 2)
    1.9
    """

    max_epochs: int
    coreset_frac: float
    select_every: int = 20
    warmup_frac: float = 0.5
    final_full: float = 0.0

    def __post_init__(self) -> None:
        self.__dict__.update(numpy_values(vars(self)))  # whose small integers wrap
        for name, allowed, kind, right in (
            ("max_epochs", "an int of at least 1", Integral, lambda value: value >= 1),
            ("coreset_frac", "a number in (0, 1]", Real, lambda value: 0 < value <= 1),
            ("select_every", "an int of at least 1", Integral, lambda value: value >= 1),
            ("warmup_frac", "a number in [0, 1)", Real, lambda value: 0 <= value < 1),
            ("final_full", "a number in [0, 1 - warmup_frac)", Real, lambda value: 0 <= value < 1 - self.warmup_frac),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool) or not right(value):
                raise ValueError(f"{name} must be {allowed}; got {value!r}")

    @property
    def full_epochs(self) -> int:
        """Epochs on all data."""
        return self.warmup_epochs + self.final_epochs

    @property
    def warmup_epochs(self) -> int:
        """Epochs on all data before the coreset's."""
        if self.coreset_frac == 1:
            return self.max_epochs - self.final_epochs
        # The minimum matters for very short trainings alone, where the one coreset epoch is the last there is.
        rest = self.max_epochs - self.coreset_epochs - self.final_epochs
        return min(round(self.warmup_frac * self.max_epochs * self.coreset_frac), rest)

    @property
    def final_epochs(self) -> int:
        """Epochs on all data after the coreset's."""
        return min(round(self.final_full * self.max_epochs), self.max_epochs - 1)

    @property
    def coreset_epochs(self) -> int:
        """Epochs on the coreset."""
        if self.coreset_frac == 1:
            return 0
        return max(1, self.max_epochs - round(self.warmup_frac * self.max_epochs) - self.final_epochs)

    @property
    def n_epochs(self) -> int:
        """Epochs in all."""
        return self.full_epochs + self.coreset_epochs

    @property
    def n_selections(self) -> int:
        """How often a coreset is selected."""
        return -(-self.coreset_epochs // self.select_every)

    def n_steps(self, n_batches: int, per_coreset: int, since: int = 0) -> int:
        """Count the steps from epoch `since` on, `n_batches` in one on all data, `per_coreset` on the coreset."""
        phases = [self.phase(epoch) for epoch in range(since, self.n_epochs)]
        return phases.count(FULL) * n_batches + phases.count(CORESET) * per_coreset

    def phase(self, epoch: int, progress: float = 0.0) -> str:
        """Say whether epoch `epoch`, counted from 0, trains on the "full" data or on the "coreset".

        The share of the training that is done matters to a `TimedSchedule` alone.
        """
        return CORESET if 0 <= epoch - self.warmup_epochs < self.coreset_epochs else FULL

    def selects(self, epoch: int) -> bool:
        """Say whether epoch `epoch`, counted from 0, begins with a selection."""
        since = epoch - self.warmup_epochs
        return 0 <= since < self.coreset_epochs and since % self.select_every == 0

    def phase_at(self, progress: float) -> str:
        """Say the same of the epoch that begins when a share of the cost is spent, as epochs of any number have it."""
        warmup, final = self.warmup_frac * self.coreset_frac, self.final_full
        total = warmup + (1 - self.warmup_frac - final) * self.coreset_frac + final
        on_coreset = self.coreset_frac < 1 and warmup <= progress * total < total - final
        return CORESET if on_coreset else FULL

    def cost(self, selection_cost: float = 1.0) -> float:
        """Calculate the cost in epochs on all data, of which a selection costs `selection_cost`."""
        return self.full_epochs + self.coreset_frac * self.coreset_epochs + selection_cost * self.n_selections

    def expected_speedup(self, selection_cost: float = 1.0) -> float:
        """Calculate how many times faster this is than `max_epochs` epochs on all data.

        Parameters
        ----------
        selection_cost : float, default=1.0
            Cost of a selection in epochs on all data. It attacks every sample but updates nothing, so 0.9 to 1 with
            a PGD-10 attack, before the solver's own time.
        """
        return self.max_epochs / self.cost(selection_cost)


@dataclass(frozen=True)
class TimedSchedule:
    """Lets a training that ends in time go through the phases of a `CoresetSchedule` in the same shares of its cost.

    How many epochs there are is what comes of the time.

    Parameters
    ----------
    planned : CoresetSchedule
        The phases, and the most epochs.
    max_seconds : float
        Seconds that a fit may take.
    endless : bool, default=False
        Whether time alone ends it, and no number of epochs.

    See Also
    --------
    CoresetSchedule : The same without a clock.
    """

    planned: CoresetSchedule
    max_seconds: float
    endless: bool = False

    @property
    def coreset_frac(self) -> float:
        """Share of the samples in a coreset."""
        return self.planned.coreset_frac

    @property
    def select_every(self) -> int:
        """Coreset epochs between two selections."""
        return self.planned.select_every

    @property
    def n_epochs(self) -> float:
        """Epochs at most, inf where time alone ends them."""
        return inf if self.endless else self.planned.n_epochs

    @property
    def n_selections(self) -> int:
        """More than 0 where there are coresets."""
        return self.planned.n_selections

    def n_steps(self, n_batches: int, per_coreset: int, since: int = 0) -> float:
        """Count the steps at most; see `CoresetSchedule.n_steps`."""
        return inf if self.endless else self.planned.n_steps(n_batches, per_coreset, since)

    def phase(self, epoch: int, progress: float) -> str:
        """Say whether an epoch that begins at this share of the training is on the "full" data or on the "coreset"."""
        return self.planned.phase_at(progress)

    def selects(self, epoch: int) -> bool:
        """Say whether epoch `epoch` may begin with a selection, which only its time tells."""
        return self.n_selections > 0


def schedule_of(params: Mapping[str, Any], selector: BaseSelector | None) -> CoresetSchedule | TimedSchedule:
    """Make the schedule of the epochs, by their number or by the time that they may take."""
    endless, max_seconds = params["max_epochs"] is None, params["max_seconds"]
    planned = coreset_schedule(params, selector, DEFAULT_EPOCHS if endless else params["max_epochs"])
    return planned if max_seconds is None else TimedSchedule(planned, max_seconds, endless)


def coreset_schedule(params: Mapping[str, Any], selector: BaseSelector | None, epochs: int) -> CoresetSchedule:
    """Make the schedule of so many epochs; a selector that chooses without a pass does so in each of the coreset."""
    frac, final = params["coreset_frac"], params["final_full"]
    if selector is None:
        return CoresetSchedule(epochs, 1.0)
    expected = getattr(selector, "expected_frac", None)
    if expected is not None and frac is not None:
        raise ValueError(
            f"coreset_frac={frac!r} and selector={selector!r} both say how much is trained on; leave coreset_frac out"
        )
    return CoresetSchedule(
        epochs,
        expected or (DEFAULT_FRAC if frac is None else frac),
        params["select_every"] if selector.needs_pass else 1,
        params["warmup_frac"],
        selector.final_full if final is None else final,
    )
