"""Which `select_by`, `ridge`, `warmup_frac` and `select_every` are best? One factor changed at a time.

    python examples/choose_defaults.py DATA_FOLDER

Fashion-MNIST, 10,000 training images, small convnet, PGD-10 linf eps 0.1, coreset of 50 %, 3 seeds. What a run costs
is counted in passes through the network, so that several processes may share the work:
``--part 0/2`` and ``--part 1/2`` measure every other run, into the same file of rows; a call without --part measures
what is missing and writes the table.
"""

from argparse import ArgumentParser
from functools import partial
from pathlib import Path

import torch
from comparison import compare, hardware, spread
from image_data import add_data_arguments, load_images

from sklearn_acs import PGD, RobustClassifier

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def candidates(epochs: int, eps: float) -> dict:
    base = {"select_by": "class", "max_epochs": epochs, "attack": PGD(eps=eps), "select_every": 20}
    changes = {
        "full": {"selector": None},
        "full, half the epochs": {"selector": None, "max_epochs": epochs // 2},
        "random, by class": {"selector": "random"},
        "random, by class, every epoch": {"selector": "random", "select_every": 1},
        **{f"gradmatch, by {by}": {"select_by": by} for by in ("sample", "class", "batch")},
        **{f"craig, by {by}": {"selector": "craig", "select_by": by} for by in ("sample", "class", "batch")},
        **{f"gradmatch, ridge {r:g}": {"selector__ridge": r} for r in (0.1, 1.0)},
        **{f"gradmatch, warmup {w:g}": {"warmup_frac": w} for w in (0.25, 0.75)},
        **{f"gradmatch, every {t}": {"select_every": t} for t in (3, 5)},
    }
    return {
        name: partial(make, **{**base, "selector": "gradmatch", **change}) for name, change in changes.items()
    }


def make(seed: int, **params) -> RobustClassifier:
    return RobustClassifier(random_state=seed, **params)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", default="0/1", help="measure every N-th run only, as I/N")
    args = parser.parse_args()
    data = load_images(args)
    part, parts = map(int, args.part.split("/"))
    if parts > 1:
        torch.set_num_threads(1)
    runs = list(candidates(args.epochs, args.eps).items())[part::parts]
    # Each process writes its own rows; the last call reads them all.
    files = [RESULTS / f"choose_defaults_{i}.jsonl" for i in range(2)]
    rows = compare(dict(runs), range(args.seeds), data, PGD(eps=args.eps, steps=20), files[part])
    if parts > 1:
        return
    rows = [row for file in files if file.exists() for row in compare({}, [], data, PGD(), file)]
    lines = ["| run | clean % | robust % | passes, millions | coreset error |", "|---|---|---|---|---|"]
    for name in candidates(args.epochs, args.eps):
        mine = [row for row in rows if row["method"] == name]
        errors = [row["error"] for row in mine if row["error"] == row["error"] and row["error"] is not None]
        lines.append(
            f"| {name} | {spread([100 * row['clean'] for row in mine])} | {spread([100 * row['robust'] for row in mine])} "
            f"| {mine[0]['passes'] / 1e6:.2f} | {f'{sum(errors) / len(errors):.3f}' if errors else '-'} |"
        )
    text = "\n".join(lines)
    print(text)
    (RESULTS / "choose_defaults.md").write_text(
        f"# Choice of defaults\n\n{args.dataset}, {args.n_train:,} training images, {args.epochs} epochs, PGD-10 linf eps "
        f"{args.eps:g}, coreset 50 %, {args.seeds} seeds (mean ± standard deviation); {args.n_test:,} test images, "
        f"PGD-20. Where a row does not say otherwise: by class, ridge 0.01, warmup_frac 0.5, a selection every 20 "
        f"epochs. Made by `examples/choose_defaults.py`.\n\n{hardware()}\n\n{text}\n"
    )


if __name__ == "__main__":
    main()
