"""How near `estimate_cost` comes to what fits take: passes, seconds, and memory.

    python examples/benchmarks/estimates.py DATA_FOLDER

DATA_FOLDER is that of train_images.py. For each fit the estimate is made first, then the fit, in a process of their
own; the load that the machine has from other processes meets both, but not alike. On a GPU memory is compared with what
torch has allocated at most. Writes docs/results/estimates.md; rows are kept in estimates.jsonl, where a run that was
cut short goes on. `--only DATA FIT` measures one fit and prints it.
"""

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import RESULTS, Row, add_data_arguments, add_row, load_images, markdown, read_rows, write_page

from sklearn_acs import PGD, InBatchSelection, RobustClassifier
from sklearn_acs.training.cost import PHASES

TEN, ONE = PGD(0.1), PGD(0.1, steps=1, init="previous")

FITS: dict[str, Row] = {
    "natural": {"objective": "natural", "selector": None},
    "PGD-10": {"attack": TEN, "selector": None},
    "one remembered step, averaging": {"attack": ONE, "selector": None, "averaging": "ema"},
    "TRADES": {"objective": "trades", "attack": TEN, "selector": None},
    "gradmatch": {"attack": TEN, "selector": "gradmatch"},
    "gradmatch, one remembered step": {"attack": ONE, "selector": "gradmatch", "select_every": 5},
    "gradmatch by class": {"attack": TEN, "selector": "gradmatch", "select_by": "class"},
    "craig by class": {"attack": TEN, "selector": "craig", "select_by": "class"},
    "glister": {"attack": TEN, "selector": "glister"},
    "in-batch, hardest half": {"attack": TEN, "selector": None, "in_batch": InBatchSelection(share=0.5)},
    "early stopping, one remembered step": {"attack": ONE, "selector": None, "early_stopping": True},
    "20 seconds": {"attack": ONE, "selector": None, "max_epochs": None, "max_seconds": 20.0},
}


def data_of(name: str, args: Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a data set."""
    if name == "digits":
        images, labels = load_digits(return_X_y=True)
        return (images / 16).reshape(-1, 8, 8).astype(np.float32), labels
    X, y, *_ = load_images(args)
    return X, y


def measure(data: str, fit: str, args: Namespace) -> Row:
    """Estimate a fit, train it, and note what each says."""
    X, y = data_of(data, args)
    clf = RobustClassifier(**{"max_epochs": args.epochs, "random_state": 0, **FITS[fit]})
    RobustClassifier(max_epochs=1).fit(X[:256], y[:256])  # what a process does once is nobody's cost
    begun = perf_counter()
    estimate = clf.estimate_cost(X, y)
    took = perf_counter() - begun
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    cost = clf.fit(X, y).cost_
    return {
        "data": data,
        "fit": fit,
        "took": took,
        "epochs": [estimate.n_epochs, len(clf.history_)],
        "passes": [each.total.forwards + each.total.backwards for each in (estimate, cost)],
        "seconds": [each.total.seconds for each in (estimate, cost)],
        "phases": {phase: [estimate[phase].seconds, cost[phase].seconds] for phase in PHASES},
        "memory": [max(estimate.memory.values()), torch.cuda.max_memory_allocated() - before if on_gpu else None],
    }


def in_own_process(data: str, fit: str, arguments: list[str]) -> Row:
    """Measure in a process of its own, whose memory tells of nothing else."""
    command = [sys.executable, __file__, *arguments, "--only", data, fit]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[Row]) -> str:
    """A line per fit: what it took, and the estimate over that."""

    def ratio(estimated: float, measured: float | None) -> str:
        return f"{estimated / measured:.2f}" if measured else "-"

    titles = ["data", "fit", "epochs", "estimated", "passes", "estimate / fit", "seconds", "estimate / fit"]
    titles += ["largest phase", "estimate / fit", "megabytes", "estimate / fit", "seconds of the estimate"]
    lines: list[list[Any]] = []
    for row in rows:
        largest = max(row["phases"], key=lambda phase: row["phases"][phase][1])
        lines.append(
            [
                *(row["data"], row["fit"], row["epochs"][1], f"{row['epochs'][0]:.3g}"),
                *(f"{row['passes'][1]:,}", f"{row['passes'][0] / row['passes'][1]:.3f}"),
                *(f"{row['seconds'][1]:.1f}", ratio(*row["seconds"])),
                *(largest, ratio(*row["phases"][largest])),
                *(f"{row['memory'][0] / 1e6:.1f}", ratio(*row["memory"]), f"{row['took']:.1f}"),
            ]
        )
    return markdown(titles, lines)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.set_defaults(n_train=4_000, n_test=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", nargs=2, metavar=("DATA", "FIT"), help="measure this one alone")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(*args.only, args)))
        return
    setting, path = f"{args.dataset}, {args.n_train:,} images, {args.epochs} epochs", RESULTS / "estimates.jsonl"
    for data in ("digits", args.dataset):
        for fit in FITS:
            if (data, fit) not in [(row["data"], row["fit"]) for row in read_rows(path, setting)]:
                add_row(path, {"setting": setting, **in_own_process(data, fit, sys.argv[1:])})
                print(f"{data}: {fit}", flush=True)
    rows = read_rows(path, setting)
    within = sum(abs(np.log(row["seconds"][0] / row["seconds"][1])) < np.log(1.2) for row in rows)
    text = (
        f"scikit-learn's digits, 1,797 images, and {setting}; convnet.\n\n{table(rows)}\n\n"
        "Epochs, passes (samples forwards and backwards) and seconds are those of the fit, each with the estimate that "
        "`estimate_cost` made before it, or that over the fit's; then the same of the seconds of the phase that took "
        f"most, and the megabytes that it is said to need at most. {within} of {len(rows)} fits are estimated within "
        "20 % in seconds. Passes differ where early stopping spares the attack on samples that are predicted wrongly, "
        "where coresets of batches are a little larger or smaller, and where time decides how many epochs there are. "
        "Each row is measured in a process of its own."
    )
    write_page("estimates", "What a fit will cost, before it", text)


if __name__ == "__main__":
    main()
