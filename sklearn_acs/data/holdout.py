"""hold_out holds out samples for early stopping and for selectors that need validation samples."""

from math import ceil

import numpy as np

__all__ = ["hold_out"]


def hold_out(labels: np.ndarray, share: float, random_state: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Split the samples into training samples and a stratified share held out.

    Every class keeps one sample for training, and gives in proportion to the number of its others.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Classes as numbers from 0.
    share : float
        Share of the samples to hold out, in (0, 1), rounded up to whole samples.
    random_state : RandomState
        Draws the samples.

    Returns
    -------
    kept, held : ndarray of int
        Indices of the samples, both in ascending order.

    Raises
    ------
    ValueError
        If some class could not keep a sample.
    """
    order = random_state.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    first = np.diff(labels[order], prepend=-1) > 0
    free, n_held = order[~first], ceil(share * len(labels) - 1e-9)
    if n_held > len(free):
        raise ValueError(
            f"validation_fraction={share} holds out {n_held} of {len(labels)} samples, but every class keeps at least "
            f"one to train on, which leaves {len(free)}"
        )
    # Taking evenly spaced samples, sorted by class, from a random start stratifies them.
    at = (np.arange(n_held) * len(free) + random_state.randint(len(free))) // n_held
    held = np.sort(free[at])
    return np.setdiff1d(np.arange(len(labels)), held), held
