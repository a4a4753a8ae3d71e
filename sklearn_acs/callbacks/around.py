"""callbacks_of puts what a fit brings itself around the user's callbacks; check_callbacks says which cannot work."""

from collections.abc import Iterator
from typing import Any

from skorch.callbacks import Callback, InputShapeSetter, LoadInitState, LRScheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from sklearn_acs.callbacks.best_state import BestState, score_column
from sklearn_acs.callbacks.guard import CollapseGuard
from sklearn_acs.objectives import Objective
from sklearn_acs.training.in_batch import InBatchSelection

REFUSED: dict[type, str] = {
    LoadInitState: "loads weights, but not how far the training has come that they are from: its schedule would begin "
    "anew. Use warm_start=True, or give a module that has these weights",
    InputShapeSetter: "sets a parameter of skorch's module. Named modules know the shape of X already, and a callable "
    "module is told it",
}
"""Callbacks of skorch that have no place in a fit, and what to do instead."""


def callbacks_of(params: Any, objective: Objective, in_batch: InBatchSelection | None) -> list[Any]:
    """List the callbacks of a fit as skorch takes them: early stopping first, the objective's guard last."""
    callbacks: list[Any] = []
    if params["early_stopping"]:
        callbacks.append(("best_state", BestState(params["n_iter_no_change"])))
    if in_batch is not None:
        callbacks.append(("in_batch", in_batch))
    callbacks += params["callbacks"] or []
    if objective.guard is not None:
        callbacks.append(("collapse_guard", CollapseGuard(objective.guard)))
    return callbacks


def check_callbacks(params: Any, objective: Objective, *, holds_out: bool, one_pass: bool) -> None:
    """Refuse what is no callback, and callbacks that could only fail or do nothing in this fit.

    Parameters
    ----------
    params : mapping of str to object
        The classifier's.
    objective : Objective
        What is minimised.
    holds_out : bool
        Whether samples are held out, which callbacks may score.
    one_pass : bool
        Whether it is a `partial_fit`.

    Raises
    ------
    TypeError
        Something is no skorch callback.
    ValueError
        A callback does not go with the other parameters.
    """
    given = list(_given(params["callbacks"] or []))
    written = [_score_name(each) for _, each in given]
    written += [score_column(objective)] if params["early_stopping"] else []
    strange = any(not kind.__module__.startswith(("skorch.", "sklearn_acs.")) for kind, _ in given)
    for kind, each in given:
        for refused, reason in REFUSED.items():
            if issubclass(kind, refused):
                raise ValueError(f"{kind.__name__} in callbacks {reason}")
        if issubclass(kind, LRScheduler):
            _check_scheduler(each, params["lr_schedule"], one_pass)
        if getattr(each, "on_train", True) is False and not holds_out:
            raise ValueError(
                f"{kind.__name__} in callbacks scores samples held out, and none are; use early_stopping=True, or "
                "on_train=True in the callback"
            )
        monitor = getattr(each, "monitor", None)
        if isinstance(monitor, str) and monitor.startswith("valid_") and not strange:
            if monitor.removesuffix("_best") not in written:
                raise ValueError(
                    f"{kind.__name__} in callbacks has monitor={monitor!r}, which nothing writes into the history: "
                    f"early_stopping=True writes {score_column(objective)!r}, and an EpochScoring its name, each with "
                    "'_best' too"
                )


def _given(callbacks: list[Any]) -> Iterator[tuple[type, Any]]:
    """Give the class of each callback and the callback itself, which may be a class too, as in skorch."""
    for i, item in enumerate(callbacks):
        pair = isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], str)
        each = item[1] if pair else item
        if pair and each is None:  # skorch leaves it out
            continue
        kind = each if isinstance(each, type) else type(each)
        if not issubclass(kind, Callback):
            raise TypeError(
                f"callbacks[{i}] must be a skorch callback, a class of them, or a pair (name, callback); got {item!r}"
            )
        yield kind, each


def _check_scheduler(scheduler: Any, lr_schedule: Any, one_pass: bool) -> None:
    if one_pass:
        raise ValueError("LRScheduler in callbacks is for fit; partial_fit trains at the constant rate lr")
    if lr_schedule != "constant":
        raise ValueError(
            f"LRScheduler in callbacks sets the learning rate, and so does lr_schedule={lr_schedule!r}; use "
            "lr_schedule='constant', which leaves it alone"
        )
    if getattr(scheduler, "step_every", "epoch") == "batch" and scheduler.monitor == "train_loss":
        if scheduler.policy in (ReduceLROnPlateau, "ReduceLROnPlateau"):
            raise ValueError(
                "LRScheduler in callbacks follows the loss of each batch, which is read from the device when the epoch "
                "is over; use step_every='epoch'"
            )


def _score_name(callback: Any) -> str | None:
    """Tell under which name a scoring callback writes into the history."""
    scoring = getattr(callback, "scoring", None)
    return getattr(callback, "name", None) or (
        scoring if isinstance(scoring, str) else getattr(scoring, "__name__", None)
    )
