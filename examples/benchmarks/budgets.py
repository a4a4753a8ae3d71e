"""Does `max_seconds` end in time? Fits of three sizes of data, alone and beside a process that takes a core.

    python examples/benchmarks/budgets.py DATA_FOLDER

DATA_FOLDER is that of train_images.py. Each fit is a process of its own, as a script's first fit is. Reading the data
counts, importing torch does not. Writes docs/results/budgets.md; rows are kept in budgets.jsonl, where a run that was
cut short goes on.
"""

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import RESULTS, Row, add_data_arguments, add_row, load_images, markdown, read_rows, write_page

from sklearn_acs import RobustClassifier

SIZES = (1_000, 10_000, 50_000)
FITS: dict[str, Row] = {"default": {}, "gradmatch": {"coreset_frac": 0.5}}
BUDGETS = {30.0: ["default", "gradmatch"], 60.0: ["default"]}


@contextmanager
def company(busy: bool):
    """Run a process beside that takes a core, if there should be one."""
    if not busy:
        yield
        return
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def fit(args: Namespace) -> None:
    """Fit once, and print a row."""
    X, y, X_test, y_test = load_images(args)
    params = {"attack__eps": 0.1, "random_state": 0, "max_seconds": args.budget, **FITS[args.fit]}
    begun = perf_counter()
    clf = RobustClassifier(**params).fit(X, y)
    seconds, history = perf_counter() - begun, clf.history_
    row = {
        "seconds": seconds,
        "epochs": len(history),
        "lr_at_end": clf.net_.optimizer_.param_groups[0]["lr"],
        "radius_at_end": history[-1, "radius"],
        "clean": clf.score(X_test, y_test),
        "robust": clf.robust_score(X_test, y_test),
    }
    print(json.dumps(row))


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.set_defaults(n_test=1_000)
    parser.add_argument("--fit", choices=sorted(FITS), help="fit once with this budget, and print a row")
    parser.add_argument("--budget", type=float)
    args = parser.parse_args()
    if args.fit:
        fit(args)
        return
    setting, path = f"{args.dataset}, convnet, linf 0.1, {args.n_test:,} test images", RESULTS / "budgets.jsonl"
    known = {row["method"] for row in read_rows(path, setting)}
    for budget, names in BUDGETS.items():
        for n_train in SIZES:
            for name in names:
                for busy in (False, True):
                    method = f"{name}, {n_train:,} images, {budget:g} s{', beside another' if busy else ''}"
                    if method in known:
                        continue
                    command = [sys.executable, __file__, *([args.data_folder] if args.data_folder else [])]
                    command += ["--dataset", args.dataset, "--n-train", str(n_train), "--n-test", str(args.n_test)]
                    command += ["--fit", name, "--budget", str(budget)]
                    with company(busy):
                        done = subprocess.run(command, capture_output=True, text=True, check=True)
                    about = {"setting": setting, "method": method, "seed": 0, "n_train": n_train, "fit": name}
                    row = {**about, "budget": budget, "busy": busy, **json.loads(done.stdout.splitlines()[-1])}
                    print(f"{method:<50} {row['seconds']:.1f} s, {row['epochs']} epochs", flush=True)
                    add_row(path, row)
    report(read_rows(path, setting), setting)


def report(rows: list[Row], setting: str) -> None:
    """Write the table."""
    titles = ["max_seconds", "images", "fit", "beside another", "seconds", "share %", "epochs", "clean %", "robust %"]
    lines = [
        [
            f"{row['budget']:g}",
            f"{row['n_train']:,}",
            row["fit"],
            "yes" if row["busy"] else "no",
            f"{row['seconds']:.1f}",
            f"{100 * row['seconds'] / row['budget']:.1f}",
            row["epochs"],
            f"{100 * row['clean']:.1f}",
            f"{100 * row['robust']:.1f}",
        ]
        for row in rows
    ]
    shares = [row["seconds"] / row["budget"] for row in rows]
    text = (
        f"{setting}; one seed. Seconds of the whole fit, reading the data included, in a process of its own that runs "
        f"for the first time; shares are between {100 * min(shares):.1f} and {100 * max(shares):.1f} %. At the end the "
        f"learning rate was at most {max(row['lr_at_end'] for row in rows):.2g} of a highest 0.1, and the radius the "
        "full one. Robust accuracy is under PGD-10.\n\n"
    )
    write_page("budgets", "Fits in a given time", text + markdown(titles, lines))


if __name__ == "__main__":
    main()
