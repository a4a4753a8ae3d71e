"""A matching pursuit takes some steps among a few hundred rows, and then checks them against all rows."""

import numpy as np

POOL = 384  # rows among which the next ones are searched
STEPS = 16  # the most steps before a check


def steps_ahead(n_rows: int) -> int:
    """Return how many steps to look ahead at most: none where the pool would hold most of the rows."""
    return STEPS if n_rows > 4 * POOL else 0


def first_best(scores: np.ndarray, tie: float) -> int | None:
    """Find the lowest index of the highest score, up to rounding; None if all scores are -inf."""
    highest = scores.max(initial=-np.inf)
    if highest == -np.inf:
        return None
    return int((scores >= highest - tie * abs(highest)).argmax())


class Lookahead:
    """Takes steps of a pursuit among its pool alone, the rows that correlate best with the residual at their beginning.

    Parameters
    ----------
    residuals, floor : ndarray of shape (n,)
        Correlations with the residual, and what they have to exceed.
    barred : ndarray of shape (n,)
        True for rows that must not be admitted.
    chosen : ndarray of shape (t, n)
        The members' rows of the Gram matrix.
    weights : ndarray of shape (t,)
        The members' weights.
    """

    def __init__(
        self, residuals: np.ndarray, floor: np.ndarray, barred: np.ndarray, chosen: np.ndarray, weights: np.ndarray
    ) -> None:
        self.residuals, self.weights = residuals, weights
        scores = np.where(barred | (residuals <= floor), -np.inf, residuals)
        pool = np.sort(np.argsort(-scores, kind="stable")[:POOL])
        self.pool = pool[scores[pool] > -np.inf]
        self.scores, self.floor = scores[self.pool], floor[self.pool]
        self.outside = np.setdiff1d(np.flatnonzero(~barred), self.pool, assume_unique=True)
        self.columns = np.empty((len(weights) + STEPS, len(self.pool)), dtype=chosen.dtype)
        self.columns[: len(weights)] = chosen[:, self.pool]
        self.best_scores: list[float] = []
        self.ways: list[np.ndarray] = []

    def best(self, tie: float) -> list[int]:
        """Find the best row of the pool, as a list of one, or of none where no row is left to admit."""
        self.position = first_best(self.scores, tie)
        if self.position is None or self.scores[self.position] <= self.floor[self.position]:
            return []
        return [int(self.pool[self.position])]

    def admit(self, columns: np.ndarray) -> np.ndarray:
        """Admit the row that `best` found, given its row of the Gram matrix, and return its correlation."""
        self.columns[len(self.weights) + len(self.ways)] = columns[0, self.pool]
        self.best_scores.append(float(self.scores[self.position]))
        self.scores[self.position] = -np.inf
        return np.array(self.best_scores[-1:])

    def move(self, way: np.ndarray) -> None:
        """Change the weights by `way`."""
        self.scores -= way.astype(self.columns.dtype) @ self.columns[: len(way)]
        self.ways.append(way)

    def check(self, chosen: np.ndarray, tie: float) -> tuple[int, np.ndarray, np.ndarray]:
        """Count the steps that a search among all rows would take too; return the residuals and weights after these."""
        moved = np.zeros((len(self.ways), len(chosen)))
        for i, way in enumerate(self.ways):
            moved[i:, : len(way)] += way
        residuals = self.residuals - moved.astype(chosen.dtype) @ chosen
        right = 1
        while right < len(self.ways):
            missed = residuals[right - 1, self.outside].max(initial=-np.inf)
            if missed > self.best_scores[right] + tie * abs(self.best_scores[right]):
                break
            right += 1
        t = len(self.weights) + right
        weights = moved[right - 1, :t]
        weights[: len(self.weights)] += self.weights
        return right, residuals[right - 1], weights
