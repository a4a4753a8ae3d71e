"""PGD-50-10: the PGD that coreset papers evaluate with."""

from numpy.typing import ArrayLike

from sklearn_acs.attacks.pgd import PGD


def PGD5010(
    eps: float | ArrayLike | None = None,
    *,
    steps: int = 50,
    step_size: float | None = None,
    norm: str = "linf",
    init: str = "auto",
    restarts: int = 10,
) -> PGD:
    """Make a PGD with 50 steps from each of 10 random starts ("pgd-50-10"), for evaluation.

    Parameters
    ----------
    eps : float, array-like, dict of str to float, or None, default=None
        Radius of the ball, for each feature alike or for each its own; None is 8/255 in linf, fitted to the
        data by a classifier. See `NormBoundedAttack`.
    steps : int, default=50
        Gradient steps of a run.
    step_size : float or None, default=None
        Length of a step; None is as published: ``eps / 8`` for linf, ``eps / 10`` for other norms.
    norm : {"linf", "l2", "l1"}, default="linf"
        The norm that `eps` bounds.
    init : {"auto", "uniform", "normal", "zero"}, default="auto"
        Where a run starts; see `PGD`.
    restarts : int, default=10
        Runs. Samples that are broken leave, so that robust ones alone cost them all.

    Returns
    -------
    PGD

    See Also
    --------
    PGD : The same with other defaults.

    References
    ----------
    Wong, Rice, Kolter, "Fast is better than free: revisiting adversarial training", ICLR 2020.
    Dolatabadi, Erfani, Leckie, "Adversarial coreset selection for efficient robust training", IJCV 2023.

    Examples
    --------
    >>> from sklearn_acs import PGD5010
    >>> PGD5010(eps=0.5, norm="l2")
    PGD(eps=0.5, norm='l2', rel_step_size=0.1, restarts=10, steps=50)
    """
    share = None if step_size is not None else 1 / 8 if norm == "linf" else 1 / 10
    return PGD(eps, steps=steps, step_size=step_size, rel_step_size=share, norm=norm, init=init, restarts=restarts)
