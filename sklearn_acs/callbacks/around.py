"""callbacks_of puts what a fit brings itself around the user's callbacks, and refuses those that cannot work in it."""

from collections.abc import Mapping
from typing import Any

from skorch.callbacks import LRScheduler

from sklearn_acs.callbacks.best_state import BestState
from sklearn_acs.callbacks.guard import CollapseGuard
from sklearn_acs.objectives import Objective
from sklearn_acs.training.in_batch import InBatchSelection


def callbacks_of(params: Mapping[str, Any], objective: Objective, in_batch: InBatchSelection | None) -> list[Any]:
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


def check_callbacks(params: Mapping[str, Any], lr_schedule: Any) -> None:
    """Raise ValueError for a callback of the user that does not go with a parameter."""
    callbacks = params["callbacks"] or []
    planned = any(isinstance(each[1] if isinstance(each, tuple) else each, LRScheduler) for each in callbacks)
    if planned and lr_schedule != "constant":
        raise ValueError(
            f"callbacks has an LRScheduler, and lr_schedule={lr_schedule!r} sets the learning rate too; use "
            "lr_schedule='constant', which leaves it alone"
        )
