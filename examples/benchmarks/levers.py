"""The default recipe beside full training with PGD-10, and every lever in it, alone and left out.

    python examples/benchmarks/levers.py DATA_FOLDER

DATA_FOLDER is that of train_images.py. All fits of a seed train in turns, an epoch each. They are judged by PGD with 50
steps, raising cross-entropy and then the margin, and some images by AutoAttack: gradients that are masked show as a gap
between the first and the others. Writes docs/results/levers.md with a figure; rows are kept in
levers.jsonl, where a run that was cut short goes on. `--seed 1` adds one seed, so that two can run side by side.
"""

import sys
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import (
    FULL,
    RESULTS,
    Row,
    add_data_arguments,
    by_method,
    compare,
    draw_points,
    load_images,
    markdown,
    new_figure,
    read_rows,
    spread,
    write_page,
)

from sklearn_acs import FGSM, NFGSM, PGD, AutoAttack, CoresetSchedule, FastAT, RobustClassifier, evaluate
from sklearn_acs.attacks.problem import margin_loss

EPS = 0.1
RECIPE = "default"


class MarginPGD(PGD):
    """PGD that raises the margin by which another class wins."""

    def default_loss(self, logits: Tensor, y: Tensor, clean_logits: Tensor | None = None) -> Tensor:
        """The margin."""
        return margin_loss(logits, y)


def candidates(epochs: int) -> dict[str, Row]:
    """The fits that are compared."""
    plain = {"attack": PGD(EPS), "attack_ramp": 0.0, "averaging": None}
    recipe, coresets = {"attack__eps": EPS}, {"attack__eps": EPS, "coreset_frac": 0.5}
    single = {**plain, "objective": FastAT()}
    cost = CoresetSchedule(epochs, 0.5).cost(selection_cost=0.25)
    fits: dict[str, Row] = {
        FULL: plain,
        "averaging and ramp": {"attack": PGD(EPS)},
        "FGSM-RS": {**single, "attack": FGSM(EPS, random_start=True)},
        "N-FGSM": {**single, "attack": NFGSM(EPS)},
        RECIPE: recipe,
        f"{RECIPE}, no averaging": {**recipe, "averaging": None},
        f"{RECIPE}, no ramp": {**recipe, "attack_ramp": 0.0},
        f"{RECIPE}, gradmatch": coresets,
        f"{RECIPE}, gradmatch, every {epochs // 6} epochs": {**coresets, "select_every": epochs // 6},
        f"{RECIPE}, random": {**coresets, "selector": "random"},
        f"{RECIPE}, infobatch": {**recipe, "selector": "infobatch"},
        f"{RECIPE}, {round(cost)} epochs": {**recipe, "max_epochs": round(cost)},
        f"{FULL}, {epochs // 9} epochs": {**plain, "max_epochs": epochs // 9},
    }
    return {name: {"max_epochs": epochs, **params} for name, params in fits.items()}


def judge(clf: RobustClassifier, X: np.ndarray, y: np.ndarray, n_autoattack: int) -> dict[str, Any]:
    """Accuracies under PGD, in the worst case over PGD with two losses, and of some images under AutoAttack."""
    attacks = {"pgd": PGD(EPS, steps=50), "margin": MarginPGD(EPS, steps=50)}
    result = evaluate(clf, X, y, attacks, worst_case_only=True)
    some = slice(n_autoattack)
    return {
        "pgd": float(result.correct_[0].mean()),
        "robust": float(result.worst_case_.mean()),
        "robust_some": float(result.worst_case_[some].mean()),
        "autoattack": clf.robust_score(X[some], y[some], attack=AutoAttack(EPS)),
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.set_defaults(n_test=1_000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--n-autoattack", type=int, default=50, help="images that AutoAttack judges")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, help="measure this one alone, and write no table")
    args = parser.parse_args()
    data = load_images(args)
    setting = (
        f"{args.dataset}, {len(data[0]):,} training and {len(data[2]):,} test images ({args.n_autoattack} for "
        f"AutoAttack), convnet, {args.epochs} epochs, linf {EPS}"
    )
    seeds = range(args.seeds) if args.seed is None else [args.seed]
    name = "levers" if args.epochs == parser.get_default("epochs") else f"levers_{args.epochs}_epochs"
    judge_some = partial(judge, n_autoattack=args.n_autoattack)
    compare(candidates(args.epochs), seeds, data, judge_some, setting, RESULTS / f"{name}.jsonl")
    if args.seed is None:
        report(setting, name, args.epochs)


def table(rows: list[Row]) -> str:
    """A line per fit; ratios, and points lost, are within a seed."""
    base = {row["seed"]: row for row in rows if row["method"] == FULL}
    titles = ["fit", "clean %", "PGD-50 %", "worst case %", "points lost", "the same on some %", "AutoAttack %"]
    titles += ["seconds", "speed-up", "in passes"]
    lines = []
    for name, mine in by_method(rows):
        pairs = [(row, base[row["seed"]]) for row in mine]
        cells = [
            name,
            *(spread([100 * row[key] for row in mine]) for key in ("clean", "pgd", "robust")),
            spread([100 * (other["robust"] - row["robust"]) for row, other in pairs]),
            *(f"{mean(100 * row[key] for row in mine):.1f}" for key in ("robust_some", "autoattack")),
            f"{mean(row['seconds'] for row in mine):.1f}",
            spread([other["seconds"] / row["seconds"] for row, other in pairs], digits=2),
            f"{mean(other['passes'] / row['passes'] for row, other in pairs):.2f}",
        ]
        lines.append(cells)
    return markdown(titles, lines)


def report(setting: str, name: str, epochs: int) -> None:
    """Write the table and the figure from the rows measured."""
    rows = read_rows(RESULTS / f"{name}.jsonl", setting)
    text = (
        f"{setting}; {len({row['seed'] for row in rows})} seeds.\n\n{table(rows)}\n\n"
        'Mean ± standard deviation over the seeds. "default" is `RobustClassifier(attack__eps=0.1)`: one remembered '
        "step, averaged weights, a radius that grows over the first 15 % of training; full training, FGSM-RS and "
        "N-FGSM are without averaging and ramp. The worst case is over PGD with 50 steps that "
        "raises cross-entropy, then the margin; points lost are against full training with PGD-10 of the same seed. "
        "The last accuracies are of the first test images: the worst case, and AutoAttack beside it. Speed-up is in "
        "seconds, and in samples through the network. Coresets are of 50 % with a warm-up of 50 %, chosen by the "
        f"gradients at the remembered perturbations, once or every {epochs // 6} epochs; random ones are drawn anew in "
        "every epoch (RS2). All fits of a seed train in turns, an epoch each."
    )
    figure, axes = new_figure(7.2, 4.0)
    draw_points(axes, rows)
    axes.set_xlim(min(row["seconds"] for row in rows) / 1.5, 1.5 * max(row["seconds"] for row in rows))
    axes.set(ylabel="robust accuracy, worst case, %", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    write_page(name, "Every lever alone and together", text, figure)


if __name__ == "__main__":
    main()
