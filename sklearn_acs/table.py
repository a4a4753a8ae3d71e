"""Table prints rows under named columns, shows them in notebooks and converts them to a DataFrame."""

from collections.abc import Sequence
from html import escape
from numbers import Integral, Real
from typing import Any

__all__ = ["Table"]


class Table:
    """Holds rows under named columns, and prints them.

    Parameters
    ----------
    columns : sequence of str
        Names of the columns.
    rows : sequence of sequences
        One value for each column. None shows as a dash, 1379.6 as 1,380 and 0.01234 as 0.0123.

    Examples
    --------
    >>> from sklearn_acs.table import Table
    >>> print(Table(["class", "error"], [["cat", 0.01234], ["dog", None]]))
    class   error
    cat    0.0123
    dog         -
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.columns = list(columns)
        self.rows = [list(row) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> list[Any]:
        """Return all values of one column."""
        position = self.columns.index(column)
        return [row[position] for row in self.rows]

    def to_frame(self) -> Any:
        """Convert the table to a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.rows, columns=self.columns)

    def __str__(self) -> str:
        padded = []
        for i, name in enumerate(self.columns):
            values = [row[i] for row in self.rows]
            cells = [name, *map(_shown, values)]
            pad = str.ljust if any(isinstance(value, str) for value in values) else str.rjust
            padded.append([pad(cell, max(map(len, cells))) for cell in cells])
        return "\n".join("  ".join(row).rstrip() for row in zip(*padded, strict=True))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_shown(value))}</td>" for value in row) + "</tr>" for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    if isinstance(value, Integral):
        return f"{value:,}"
    return f"{value:,.0f}" if 999.5 <= abs(float(value)) < 1e9 else f"{value:.3g}"  # and not 1.38e+03
