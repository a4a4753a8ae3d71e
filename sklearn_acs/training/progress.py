"""Progress shows one bar for a whole fit: the phase, the last loss, and the time left."""

from tqdm import tqdm

from sklearn_acs.training.schedule import CORESET, CoresetSchedule, TimedSchedule


class Progress:
    """Shows a bar over the samples that a fit will attack, selections included.

    Parameters
    ----------
    schedule : CoresetSchedule
        The epochs of the fit.
    n_samples : int
        Samples in the data set.
    n_select : int
        Samples in a coreset.
    selection_cost : float
        Samples that a selection attacks, as a share of `n_samples`.
    enabled : bool
        Whether anything is shown.
    """

    def __init__(
        self,
        schedule: CoresetSchedule | TimedSchedule,
        n_samples: int,
        n_select: int,
        selection_cost: float,
        enabled: bool,
    ) -> None:
        self._of, total = "", None  # time tells how many epochs there will be
        if isinstance(schedule, CoresetSchedule):
            selected = int(schedule.n_selections * selection_cost * n_samples)
            total = schedule.full_epochs * n_samples + schedule.coreset_epochs * n_select + selected
            self._of = f"/{schedule.n_epochs}"
        self.done = 0
        self._bar = tqdm(total=total, disable=not enabled, unit="sample", unit_scale=True)

    def enter(self, phase: str, epoch: int, loss: float | None = None) -> None:
        """Show that `phase` of epoch `epoch`, counted from 0, begins, and the last epoch's loss."""
        what = {CORESET: "on the coreset", "full": "on all data"}.get(phase, phase)
        self._bar.set_description(f"epoch {epoch + 1}{self._of} {what}")
        if loss is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}")

    def advance(self, samples: int) -> None:
        """Count samples that are done."""
        self.done += samples
        self._bar.update(samples)

    def say(self, sentence: str) -> None:
        """Show a line above the bar."""
        if not self._bar.disable:
            self._bar.write(sentence)

    def state_dict(self) -> dict[str, int]:
        """Count what is done."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin where another bar has come."""
        self.done = self._bar.initial = self._bar.n = state["done"]
        self._bar.refresh()

    def close(self, reason: str | None) -> None:
        """End the bar as it stands, and show why training ended early."""
        if reason is not None:
            self._bar.set_description(f"stopped: {reason}")
        self._bar.close()
