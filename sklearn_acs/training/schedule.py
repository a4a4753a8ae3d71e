"""CoresetSchedule calculates which epochs train on all data, which on the coreset, and which select anew."""

from dataclasses import dataclass
from numbers import Integral, Real

FULL, CORESET = "full", "coreset"


@dataclass(frozen=True)
class CoresetSchedule:
    """Calculates the epochs of training on coresets.

    ``round(warmup_frac * max_epochs * coreset_frac)`` epochs on all data come first, which cost as much as
    ``warmup_frac * max_epochs`` epochs on the coreset; the rest of `max_epochs` is trained on the coreset, selected
    at its first epoch and at every `select_every`-th after it. No epoch is empty.

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

    def __post_init__(self) -> None:
        for name, allowed, kind, right in (
            ("max_epochs", "an int of at least 1", Integral, lambda value: value >= 1),
            ("coreset_frac", "a number in (0, 1]", Real, lambda value: 0 < value <= 1),
            ("select_every", "an int of at least 1", Integral, lambda value: value >= 1),
            ("warmup_frac", "a number in [0, 1)", Real, lambda value: 0 <= value < 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool) or not right(value):
                raise ValueError(f"{name} must be {allowed}; got {value!r}")

    @property
    def full_epochs(self) -> int:
        """Epochs on all data."""
        if self.coreset_frac == 1:
            return self.max_epochs
        # The minimum matters for very short trainings alone, where the one coreset epoch is the last there is.
        return min(round(self.warmup_frac * self.max_epochs * self.coreset_frac), self.max_epochs - self.coreset_epochs)

    @property
    def coreset_epochs(self) -> int:
        """Epochs on the coreset."""
        if self.coreset_frac == 1:
            return 0
        return max(1, self.max_epochs - round(self.warmup_frac * self.max_epochs))

    @property
    def n_epochs(self) -> int:
        """Epochs in all."""
        return self.full_epochs + self.coreset_epochs

    @property
    def n_selections(self) -> int:
        """How often a coreset is selected."""
        return -(-self.coreset_epochs // self.select_every)

    def phase(self, epoch: int) -> str:
        """Say whether epoch `epoch`, counted from 0, trains on the "full" data or on the "coreset"."""
        return FULL if epoch < self.full_epochs else CORESET

    def selects(self, epoch: int) -> bool:
        """Say whether epoch `epoch`, counted from 0, begins with a selection."""
        since = epoch - self.full_epochs
        return 0 <= since < self.coreset_epochs and since % self.select_every == 0

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
