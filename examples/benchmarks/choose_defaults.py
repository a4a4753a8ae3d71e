"""Which `select_by`, `ridge`, `warmup_frac` and `select_every` are best? One factor changed at a time.

    python examples/benchmarks/choose_defaults.py DATA_FOLDER

Fashion-MNIST, 10,000 training images, small convnet, PGD-10 linf eps 0.1, coreset of 50 %, 3 seeds. What a run costs
is counted in passes through the network, so that several processes may share the work:
``--part 0/2`` and ``--part 1/2`` measure every other run. All add rows to docs/results/choose_defaults.jsonl; a call
without --part measures what is missing there and writes the table.
"""

import sys
from argparse import ArgumentParser
from math import isfinite
from pathlib import Path
from statistics import mean

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import RESULTS, Row, add_data_arguments, by_method, compare, load_images, markdown, spread, write_page

from sklearn_acs import PGD


def candidates(epochs: int, eps: float) -> dict[str, Row]:
    base = {"select_by": "class", "max_epochs": epochs, "attack": PGD(eps=eps), "select_every": 20}
    changes = {
        "full": {"selector": None},
        "full, time-matched": {"selector": None, "max_epochs": round(9 / 16 * epochs)},
        "random, by class": {"selector": "random"},
        "craig, by class": {"selector": "craig"},
        **{f"gradmatch, by {by}": {"select_by": by} for by in ("class", "sample", "batch")},
        **{f"gradmatch, ridge {ridge:g}": {"selector__ridge": ridge} for ridge in (0.01, 1.0)},
        "gradmatch, ridge 0.01 to zero": {"selector__ridge": 0.01, "selector__ridge_center": "zero"},
        **{f"gradmatch, warmup {warmup:g}": {"warmup_frac": warmup} for warmup in (0.25, 0.75)},
        **{f"gradmatch, every {every}": {"select_every": every} for every in (2, 4)},
    }
    return {name: {**base, "selector": "gradmatch", **change} for name, change in changes.items()}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", help="measure only every N-th run, on one thread and without a table, as I/N")
    args = parser.parse_args()
    data = load_images(args)
    runs = candidates(args.epochs, args.eps)
    setting = (
        f"{args.dataset}, {args.n_train:,} training and {args.n_test:,} test images, {args.epochs} epochs, PGD-10 linf "
        f"eps {args.eps:g}, coresets of 50 %"
    )
    attacks, rows_path = {"robust": PGD(eps=args.eps, steps=20)}, RESULTS / "choose_defaults.jsonl"
    if args.part:
        part, parts = map(int, args.part.split("/"))
        torch.set_num_threads(1)
        runs = dict(list(runs.items())[part::parts])
        compare(runs, range(args.seeds), data, attacks, setting, rows_path)
    else:
        report(compare(runs, range(args.seeds), data, attacks, setting, rows_path), setting)


def report(rows: list[Row], setting: str) -> None:
    """Print and write the table of the rows."""
    lines = []
    for name, mine in by_method(rows):
        errors = [row["error"] for row in mine if row["error"] is not None and isfinite(row["error"])]
        cells = [
            name,
            spread([100 * row["clean"] for row in mine]),
            spread([100 * row["robust"] for row in mine]),
            f"{mine[0]['passes'] / 1e6:.2f}",
            f"{mean(errors):.4f}" if errors else "-",
        ]
        lines.append(cells)
    table = markdown(["run", "clean %", "robust %", "passes, millions", "coreset error"], lines)
    seeds = len({row["seed"] for row in rows})
    text = (
        f"{setting}; PGD-20; mean ± standard deviation over {seeds} seeds. Where a row says "
        "nothing else: by class, ridge 0.1 towards uniform weights, warmup_frac 0.5, a selection every 20 epochs.\n\n"
        f"{table}"
    )
    write_page("choose_defaults", "Choice of defaults", text)


if __name__ == "__main__":
    main()
