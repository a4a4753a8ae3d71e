"""History has what is known of each epoch: skorch's, which also converts to a DataFrame."""

from typing import Any

from skorch.history import History as SkorchHistory


class History(SkorchHistory):
    """Is skorch's history, with `to_frame`.

    Examples
    --------
    >>> from sklearn_acs.training.history import History
    >>> history = History([{"batches": [], "epoch": 1, "train_loss": 0.5}, {"batches": [], "epoch": 2}])
    >>> history[:, "train_loss"]
    [0.5]
    >>> history.to_frame()
       epoch  train_loss
    0      1         0.5
    1      2         NaN
    """

    def to_frame(self) -> Any:
        """Convert to a pandas DataFrame: one row an epoch, one column for all that is known of it but its batches."""
        import pandas

        return pandas.DataFrame([{key: value for key, value in row.items() if key != "batches"} for row in self])
