"""A report tells on one page how robust a classifier is and how it was trained."""

import os
import platform
import re
import warnings
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from importlib.metadata import version
from io import BytesIO
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from sklearn_acs._compat import safe_indexing
from sklearn_acs.attacks import Attack
from sklearn_acs.checks import PATH, checked
from sklearn_acs.evaluation import Evaluation, evaluate
from sklearn_acs.evaluation.evaluating import Attacks
from sklearn_acs.inspection._axes import encoded, fitted, pyplot
from sklearn_acs.inspection.coreset_display import CoresetDisplay
from sklearn_acs.inspection.cost_display import CostDisplay
from sklearn_acs.inspection.dynamics_display import DynamicsDisplay
from sklearn_acs.inspection.perturbation_display import PerturbationDisplay
from sklearn_acs.inspection.robustness_curve_display import RobustnessCurveDisplay
from sklearn_acs.model import last_step
from sklearn_acs.saving.files import check_path, write_file
from sklearn_acs.table import Table

CURVE_SAMPLES = 500
"""Samples that the curve over radii is drawn from, at most."""

PACKAGES = ("scikit-learn", "skorch", "numpy")

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 760px; margin: 2em auto; padding: 0 1em; color: #222;
  background: #fff; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin: 2em 0 0.5em; border-bottom: 1px solid #ddd; }
h1, p, td:first-child { overflow-wrap: anywhere; } h2 { break-after: avoid; } tr, img { break-inside: avoid; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25em 0.9em 0.25em 0; text-align: right; border-bottom: 1px solid #eee; }
th:first-child, td:first-child { text-align: left; } td { vertical-align: top; }
.wide td:first-child { min-width: 6em; } .words th, .words td { text-align: left; }
.words td:not(:last-child) { white-space: nowrap; } .words td:last-child { overflow-wrap: anywhere; }
.reasons th:last-child, .reasons td:last-child { text-align: left; min-width: 14em; }
.reasons td:first-child { min-width: 0; overflow-wrap: normal; }
img { display: block; max-width: 100%; } .found { color: #b00020; font-weight: 600; }
@media (max-width: 560px) {
  .words thead { display: none; } .words tr { display: block; padding: 0.4em 0; border-bottom: 1px solid #eee; }
  .words td { display: block; padding: 0; border: 0; } .words td:first-child { font-weight: 600; }
}
"""


@checked(path=PATH, title=[str])
def make_robustness_report(
    clf: Any,
    X: Any,
    y: ArrayLike | Tensor | None,
    path: str | os.PathLike,
    attacks: Attacks = "quick",
    *,
    y_train: ArrayLike | None = None,
    title: str = "Robustness report",
    **options: Any,
) -> Evaluation:
    """Evaluate a classifier and write all that is known about it into one HTML file.

    The page holds the evaluation, signs of masked gradients, accuracy over radii, examples, what the fit cost, its
    coresets and dynamics, the parameters, and versions. It needs nothing from elsewhere: pictures are inside, and there
    is no script.

    Parameters
    ----------
    clf : RobustClassifier
        A fitted classifier, perhaps at the end of a Pipeline.
    X : array-like, DataFrame, Tensor or torch Dataset
        Samples that it was not fitted on.
    y : array-like of shape (n,) or None
        Their labels; None for a Dataset.
    path : str or Path
        The file to write. Where the disk is full by then, there is a warning, and the result is returned all the same.
    attacks : str, Attack, list or dict, default="quick"
        A suite or attacks, as in `evaluate`.
    y_train : array-like or None, default=None
        The labels of the fit, for the classes of its coresets.
    title : str, default="Robustness report"
        Heading of the page.
    **options
        Further parameters of `evaluate`; masked gradients are looked for unless ``check_masking=False``.

    Returns
    -------
    Evaluation
        The table on the page.

    Raises
    ------
    OSError
        `path` cannot be written; said before any work.

    See Also
    --------
    evaluate : The table alone.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_acs import RobustClassifier, make_robustness_report
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = RobustClassifier(max_epochs=4, random_state=0).fit(X[::2], y[::2])
    >>> with TemporaryDirectory() as folder:
    ...     result = make_robustness_report(clf, X[1::2], y[1::2], Path(folder) / "report.html")
    >>> result["attack"]
    ['clean', 'PGD-20', 'worst case']
    """
    clf, X = last_step(clf, X)
    clf, plt, place = fitted(clf, "clf"), pyplot("make_robustness_report"), check_path("path", path)
    coresets = CoresetDisplay.of(clf, y_train, called="y_train") if clf.coresets_ else None
    result = evaluate(clf, X, y, attacks, **{"check_masking": True, **options})
    with plt.style.context("default"), plt.rc_context({"figure.figsize": (7.0, 3.4), "font.size": 9}):
        sections = [*_findings(result), *_pictures(plt, clf, X, y, coresets), *_training(clf)]
    body = "".join(f"<section><h2>{escape(heading)}</h2>{content}</section>\n" for heading, content in sections)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}</body></html>\n"
    )
    try:
        write_file(place, encoded(page))
    except OSError as error:
        warnings.warn(f"path={os.fspath(path)!r} could not be written, the result is returned: {error}", stacklevel=2)
    return result


def _findings(result: Evaluation) -> Iterator[tuple[str, str]]:
    about = f"{len(result.clean_):,} samples. Attacked are those that are right as they are; accuracy is of all."
    if result.worst_case_only:
        about += " Samples that one attack broke are spared by the next: accuracy is under it and all before it."
    warnings = "".join(f"<p>{escape(warning)}</p>" for warning in result.warnings)
    yield "Accuracy under attack", f'<p>{about}</p><div class="wide">{Table._repr_html_(result)}</div>{warnings}'
    if result.masking is not None:
        rows = [[check.name, "found" if check.flagged else "not found", check.reason] for check in result.masking]
        signs = _words(["sign", "", "what was measured"], rows)
        yield "Signs of masked gradients", signs.replace("<td>found</td>", '<td class="found">found</td>')


def _pictures(plt: Any, clf: Any, X: Any, y: Any, coresets: Any) -> Iterator[tuple[str, str]]:
    """Put every display into the page as an image."""
    for heading, display in _displays(clf, X, y, coresets):
        file = BytesIO()
        display.figure_.savefig(file, format="png", dpi=150)
        plt.close(display.figure_)
        data = b64encode(file.getvalue()).decode()
        yield heading, f'<img alt="{escape(heading)}" src="data:image/png;base64,{data}">'


def _displays(clf: Any, X: Any, y: Any, coresets: Any) -> Iterator[tuple[str, Any]]:
    """Draw every display that there is data for."""
    attack = clf.attack_.for_evaluation()
    if not isinstance(X, Dataset):
        if attack.threat is not None:
            part = [safe_indexing(values, slice(CURVE_SAMPLES)) for values in (X, y)]
            name = _without_radius(attack)
            yield "Accuracy over the radius", RobustnessCurveDisplay.from_estimator(clf, *part, name=name)
        if not clf.input_format_.is_table:
            yield "Examples", PerturbationDisplay.from_estimator(clf, X, y, n_images=min(6, len(X)))
    yield "What the fit cost", CostDisplay.from_estimator(clf)
    if coresets is not None:
        yield "Coresets", coresets.plot()
    if any("robust" in row for row in clf.history_):
        yield "Dynamics of the fit", DynamicsDisplay.from_estimator(clf)


def _training(clf: Any) -> Iterator[tuple[str, str]]:
    phases = {**clf.cost_, "total": clf.cost_.total}
    rows = [[name, cost.forwards, cost.backwards, cost.seconds] for name, cost in phases.items()]
    table = Table(["phase", "forwards", "backwards", "seconds"], rows)
    yield "Cost by phase", f'<div class="wide">{table._repr_html_()}</div>'
    if clf.coresets_:
        report = clf.selection_report()
        # Its epochs count from 0, those of the pictures on this page from 1.
        selections = Table(report.columns, [[epoch + 1, *row] for epoch, *row in report.rows])
        yield "Selections", f'<div class="wide reasons">{selections._repr_html_()}</div>'
    parameters = {**clf.get_params(deep=False), "attack_": clf.attack_, "clip_": clf.clip_}
    shown = [[name, re.sub(" at 0x[0-9a-f]+", "", repr(value))] for name, value in parameters.items()]
    yield "Parameters", _words(["parameter", "value"], shown)
    versions = [["sklearn_acs", version("sklearn_acs")], ["torch", str(torch.__version__)]]
    versions += [[name, version(name)] for name in PACKAGES]
    device = torch.cuda.get_device_name(clf.net_.device) if str(clf.net_.device).startswith("cuda") else clf.net_.device
    versions += [["Python", platform.python_version()], ["system", platform.platform()], ["device", str(device)]]
    yield "Versions", _words(["what", "version"], versions)


def _without_radius(attack: Attack) -> str:
    """Name an attack whose radius is what changes."""
    steps = getattr(attack, "steps", 1)
    return f"{type(attack).__name__}, {steps} step{'s' if steps > 1 else ''}"


def _words(columns: list[str], rows: list[list[str]]) -> str:
    return Table(columns, rows)._repr_html_().replace("<table>", '<table class="words">', 1)
