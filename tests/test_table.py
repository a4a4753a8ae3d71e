"""Tables print, show in notebooks and convert to DataFrames."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from sklearn_acs.selectors import GradMatch, RandomSelector
from sklearn_acs.table import Table


@pytest.fixture
def table():
    return Table(("class", "n", "error"), [("cat", 12, 0.0123456), ("a<b & c", 7, None), ("x", 12345, 1e-9)])


def test_prints_words_to_the_left_numbers_to_the_right_and_no_trailing_blanks(table):
    assert str(table).split("\n") == [
        "class         n   error",
        "cat          12  0.0123",
        "a<b & c       7       -",
        "x        12,345   1e-09",
    ]
    assert repr(table) == str(table)


def test_a_column_of_words_at_the_end_leaves_no_trailing_blanks():
    assert str(Table(["n", "why"], [[1, "x"], [2, "longer"]])) == "n  why\n1  x\n2  longer"


def test_numbers_of_numpy_print_like_pythons():
    values = [0.123456, 3, np.inf, np.nan]
    ours = Table(["value"], [[value] for value in values])
    theirs = Table(["value"], [[np.float64(v) if isinstance(v, float) else np.int64(v)] for v in values])
    assert str(ours) == str(theirs) == "value\n0.123\n    3\n  inf\n  nan"


@pytest.mark.parametrize(
    "value, shown",
    [
        (7, "7"),
        (1797, "1,797"),
        (-12345, "-12,345"),
        (999.4, "999"),
        (999.5, "1,000"),
        (1379.6, "1,380"),
        (-50000.0, "-50,000"),
        (1.5e9, "1.5e+09"),
        (1.0, "1"),
        (0.01234, "0.0123"),
        (np.float32(1379.6), "1,380"),
        (np.int64(60000), "60,000"),
        (-np.inf, "-inf"),
        (True, "True"),
        ("1797", "1797"),
    ],
)
def test_thousands_are_grouped_and_fractions_have_three_digits(value, shown):
    assert str(Table(["value"], [[value]])).split() == ["value", shown]


def test_without_rows_the_head_alone_is_left():
    table = Table(["class", "n"], [])
    assert (str(table), len(table), table["n"]) == ("class  n", 0, [])
    assert list(table.to_frame().columns) == ["class", "n"]


def test_columns_by_name_and_length(table):
    assert len(table) == 3
    assert table["n"] == [12, 7, 12345]
    with pytest.raises(ValueError, match="size"):
        table["size"]


def test_to_frame_keeps_names_and_values(table):
    frame = table.to_frame()
    assert list(frame.columns) == table.columns
    assert frame["class"].tolist() == table["class"] and frame["n"].tolist() == table["n"]
    assert frame["n"].dtype == np.int64
    np.testing.assert_array_equal(frame["error"], [0.0123456, np.nan, 1e-9])


def test_html_shows_the_same_and_escapes_it():
    html = Table(["<n>", "name"], [[1, "<b>"], [None, "a & b"]])._repr_html_()
    assert html == (
        "<table><thead><tr><th>&lt;n&gt;</th><th>name</th></tr></thead><tbody>"
        "<tr><td>1</td><td>&lt;b&gt;</td></tr><tr><td>-</td><td>a &amp; b</td></tr></tbody></table>"
    )


# The report of a selection


G = np.random.default_rng(0).normal(size=(40, 6)) + 0.2
Y = np.repeat(["<low>", "mid", "top"], [20, 12, 8])
COLUMNS = ["class", "samples", "selected", "matched", "weight", "error", "why it stopped"]


def test_the_report_of_the_whole_set_is_one_row():
    selector = GradMatch(n_select=10, ridge=0.0).fit(G)
    report = selector.selection_report()
    expected = [
        "all",
        40,
        10,
        selector.n_matched_,
        selector.weights_.sum(),
        selector.approximation_error_,
        selector.stop_reason_,
    ]
    assert report.columns == COLUMNS
    assert [report[column] for column in COLUMNS] == [[value] for value in expected]
    assert selector.n_matched_ < 10  # of rank 6
    assert report["why it stopped"][0] in str(report)


def test_the_report_of_classes_has_a_row_for_each_with_its_own_error_and_one_for_all():
    selector = RandomSelector(n_select=10, per_class=True, random_state=0).fit(G, Y)
    frame = selector.selection_report().to_frame()
    assert frame["class"].tolist() == ["<low>", "mid", "top", "all"]
    assert frame["samples"].tolist() == [20, 12, 8, 40]
    assert frame["selected"].tolist() == frame["matched"].tolist() == [5, 3, 2, 10]
    np.testing.assert_allclose(frame["weight"], [20, 12, 8, 40])
    for label, error in zip(frame["class"][:3], frame["error"], strict=False):
        rows, mine = label == Y, selector.indices_[Y[selector.indices_] == label]
        total = G[rows].sum(0)
        gap = rows.sum() / len(mine) * G[mine].sum(0) - total
        assert error == pytest.approx(np.linalg.norm(gap) / np.linalg.norm(total))
    assert frame["error"].iloc[-1] == selector.approximation_error_
    assert "&lt;low&gt;" in selector.selection_report()._repr_html_()


def test_a_single_class_has_one_row_with_its_name():
    report = RandomSelector(n_select=4, per_class=True).fit(G, np.full(40, 7)).selection_report()
    assert (len(report), report["class"]) == (1, ["7"])


def test_the_report_of_tensors_holds_plain_numbers():
    of_array, of_tensor = (GradMatch(n_select=10).fit(form).selection_report() for form in (G, torch.from_numpy(G)))
    assert str(of_array) == str(of_tensor)
    assert all(type(value) in (str, int, float) for row in of_tensor.rows for value in row)


def test_the_report_needs_a_fit():
    with pytest.raises(NotFittedError):
        GradMatch().selection_report()
