"""RECORDS are the classes of which a training's state has objects, as files know them."""

from typing import Any

from sklearn_acs.data.formats import DataFormat, InputFormat
from sklearn_acs.saving.record import Record, records
from sklearn_acs.selectors import ClassSelection, Coreset
from sklearn_acs.training.cost import Cost, PhaseCost
from sklearn_acs.training.history import History
from sklearn_acs.training.schedule import CoresetSchedule, TimedSchedule
from sklearn_acs.training.state import Best


def _fields_of_cost(cost: Cost) -> dict[str, Any]:
    return {"phases": dict(cost), "step_seconds": cost.step_seconds}


def _cost(phases: dict[str, PhaseCost], step_seconds: dict[str, float]) -> Cost:
    cost = Cost()
    cost._phases.update(phases)
    cost.step_seconds.update(step_seconds)
    return cost


RECORDS: dict[str, Record] = {
    **records(Best, ClassSelection, Coreset, CoresetSchedule, DataFormat, InputFormat, PhaseCost, TimedSchedule),
    "Cost": Record(Cost, _fields_of_cost, _cost),
    "History": Record(History, lambda history: {"rows": list(history)}, lambda rows: History(rows)),
}
"""By name; `flatten` and `unflatten` take it."""
