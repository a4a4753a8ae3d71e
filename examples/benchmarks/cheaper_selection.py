"""Cheaper selections, and half precision, against the exact way: error of the coreset, robust accuracy, seconds.

    python examples/benchmarks/cheaper_selection.py DATA_FOLDER

DATA_FOLDER is that of train_images.py. Coresets chosen by the gradients of a full PGD-10 attack, of an attack with
fewer steps, and of training itself, next to adaptive random subsets; each coreset is also judged by exact gradients,
which is not counted in its seconds. The last fit is full training in bfloat16. Fits of a seed train in turns, an epoch
each. Writes docs/results/cheaper_selection.md; rows are kept in cheaper_selection.jsonl.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from skorch.callbacks import Callback

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import (
    FULL,
    RESULTS,
    Row,
    add_data_arguments,
    by_method,
    compare,
    load_images,
    markdown,
    spread,
    write_page,
)

from sklearn_acs import PGD, RobustClassifier
from sklearn_acs.models import last_linear
from sklearn_acs.selectors.base import relative_error
from sklearn_acs.training.adversary import Adversary
from sklearn_acs.training.passes import last_layer_gradients

EPS = 0.1


class ExactErrors(Callback):
    """Relative error of each coreset by the gradients of a full attack on every sample, for "checks" to pay."""

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.errors_: list[float] = []

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        training = net.training_
        if not training.schedule.selects(training.epochs_done):
            return
        with training.meter.aside("checks"):
            coreset, generator = training.selection.last, torch.Generator(net.device).manual_seed(0)
            exact = Adversary(PGD(EPS), training.adversary.objective, training.adversary.format, generator)
            layer = last_linear(net.module_, training.batches.data[0][0][None])
            found = last_layer_gradients(net.module_, layer, training.batches, exact)
            weights = torch.zeros(len(found), dtype=torch.float64)
            weights[coreset.indices] = torch.as_tensor(coreset.weights, dtype=torch.float64)
            self.errors_.append(relative_error(found.exact_sum(weights), found.exact_sum()))


def candidates(params: Row) -> dict[str, Row]:
    """The fits that are compared."""
    chosen = {**params, "callbacks": [("exact_errors", ExactErrors)]}
    return {
        FULL: {**params, "selector": None},
        "exact": chosen,
        "3 steps": {**chosen, "selection_attack": PGD(EPS, steps=3)},
        "1 step": {**chosen, "selection_attack": PGD(EPS, steps=1)},
        "of training": {**chosen, "selection_gradients": "last"},
        "random": {**chosen, "selector": "random"},
        "full training, bf16": {**params, "selector": None, "precision": "bf16"},
    }


def judge(clf: RobustClassifier, X: Any, y: Any) -> Row:
    """Robust accuracy, and the mean exact error of the coresets."""
    callbacks, cost = dict(clf.net_.callbacks_), clf.cost_
    errors = callbacks["exact_errors"].errors_ if "exact_errors" in callbacks else []
    return {
        "robust": clf.robust_score(X, y, attack=PGD(EPS, steps=20)),
        "exact_error": mean(errors) if errors else None,
        "checks": cost["checks"].seconds,
        "selection_passes": cost["selection"].forwards + cost["selection"].backwards,
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.set_defaults(n_train=4_000, n_test=1_000)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    data = load_images(args)
    setting = (
        f"{args.dataset}, {len(data[0]):,} training and {len(data[2]):,} test images, {args.epochs} epochs, PGD-10 "
        f"linf {EPS}, GRAD-MATCH coresets of 50 %, a selection every 4 epochs"
    )
    params: Row = {"attack": PGD(EPS), "max_epochs": args.epochs, "coreset_frac": 0.5, "select_every": 4}
    params |= {"attack_ramp": 0.0, "averaging": None}
    rows = compare(candidates(params), range(args.seeds), data, judge, setting, RESULTS / "cheaper_selection.jsonl")
    report(rows, setting)


def report(rows: list[Row], setting: str) -> None:
    """Print the table and write it."""
    full = {row["seed"]: row for row in rows if row["method"] == FULL}
    titles = ["gradients", "robust %", "against full", "error by exact gradients", "selection passes", "selection s"]
    titles += ["seconds", "speed-up"]
    lines = []
    for name, mine in by_method(rows):
        errors = [row["exact_error"] for row in mine if row["exact_error"] is not None]
        cells = [
            name,
            spread([100 * row["robust"] for row in mine]),
            spread([100 * (row["robust"] - full[row["seed"]]["robust"]) for row in mine]),
            spread(errors, digits=3) if errors else "-",
            f"{mean(row['selection_passes'] for row in mine):,.0f}",
            f"{mean(row['selection'] for row in mine):.2f}",
            f"{mean(row['seconds'] - row['checks'] for row in mine):.1f}",
            spread([full[row["seed"]]["seconds"] / (row["seconds"] - row["checks"]) for row in mine], digits=2),
        ]
        lines.append(cells)
    text = (
        f"{setting}; {len(full)} seeds.\n\n{markdown(titles, lines)}\n\n"
        "Mean ± standard deviation over the seeds; robust accuracy is under PGD-20, and the difference and the "
        "speed-up to full training are taken seed by seed. Each coreset's error is measured by gradients of a fresh "
        "PGD-10 attack on every sample, whose time is left out. "
        '`of training` is `selection_gradients="last"`; the last row has nothing to do with selections: full training '
        'with `precision="bf16"`.'
    )
    write_page("cheaper_selection", "Cheaper selections", text)


if __name__ == "__main__":
    main()
