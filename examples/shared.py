"""What the scripts of this folder and of the two below it share: data, fits in turns, tables, figures, pages.

A script in a folder below finds this module by `sys.path.insert(0, str(Path(__file__).parents[1]))`.
"""

import json
import os
import platform
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from threading import Condition
from time import perf_counter
from typing import Any

import numpy as np
import sklearn
import skorch
import torch
from sklearn.base import clone
from skorch.callbacks import Callback

from sklearn_acs import PGD, Attack, CoresetSchedule, RobustClassifier
from sklearn_acs.data import load_cifar10, load_fashion_mnist

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(os.environ.get("SKLEARN_ACS_RESULTS", ROOT / "docs" / "results"))
FULL = "full training"
DEFAULT = "default"
ABOUT = (
    "Full training attacks every sample in every epoch with fresh steps of PGD, without ramp and averaging. The "
    "default takes one remembered step, with a radius that grows over 15 % of training, and averages the weights; "
    "gradmatch, craig and random do so on coresets, random ones drawn anew in every epoch (RS2). Fits of fewer epochs "
    "are cut to about what the default and gradmatch cost."
)

Row = dict[str, Any]
"""What is measured of one fit, or parameters of one."""

Judge = dict[str, Attack] | Callable[[RobustClassifier, np.ndarray, np.ndarray], Row]
"""Attacks by the names of their columns, or ``judge(clf, X_test, y_test)`` that returns columns. One is "robust"."""


# Data

DATASETS = {
    "fashion_mnist": (load_fashion_mnist, ["fashion_own_split_train.npz"], ["fashion_own_split_test.npz"]),
    "cifar10": (load_cifar10, [f"train_{i}.npz" for i in range(1, 6)], ["test.npz"]),
}
"""What loads a data set through torchvision, and the names of its .npz files, for training and for testing."""


def add_folder_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "data_folder",
        nargs="?",
        default=os.environ.get("SKLEARN_ACS_DATA"),
        help="holds DATASET/*.npz with keys x and y, or is torchvision's root (default: $SKLEARN_ACS_DATA)",
    )
    parser.add_argument("--download", action="store_true", help="let torchvision download into DATA_FOLDER")


def add_data_arguments(parser: ArgumentParser) -> None:
    add_folder_arguments(parser)
    parser.add_argument("--dataset", choices=sorted(DATASETS), default="fashion_mnist")
    parser.add_argument("--n-train", type=int, default=10_000, help="training images, a random part of the set")
    parser.add_argument("--n-test", type=int, default=2_000, help="test images, a random part of the set")


def read_images(args: Namespace, dataset: str, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read uint8 images and labels, all for training or all for testing, from .npz files or through torchvision."""
    if args.data_folder is None:
        raise SystemExit("name a data folder, or set SKLEARN_ACS_DATA")
    load, *names = DATASETS[dataset]
    files = [Path(args.data_folder) / dataset / name for name in names[0 if train else 1]]
    if not files[0].exists():
        return load(args.data_folder, train=train, download=args.download)
    arrays = [np.load(file) for file in files]
    return tuple(np.concatenate([array[key] for array in arrays]) for key in ("x", "y"))


def load_images(args: Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read X_train, y_train, X_test, y_test: the same random part for the same numbers of images."""
    parts = []
    for train, n in ((True, args.n_train), (False, args.n_test)):
        X, y = read_images(args, args.dataset, train)
        rows = np.random.default_rng(0).permutation(len(X))[:n]
        parts += [X[rows], y[rows]]
    return tuple(parts)


# Fits in turns: a machine that slows down does so for all of them alike


class Turns:
    """Hands the turn to whichever fit has come least far."""

    def __init__(self, n_fits: int) -> None:
        self.done = dict.fromkeys(range(n_fits), 0.0)  # of the fits that still run: share of the epochs
        self.condition = Condition()

    def wait(self, fit: int) -> None:
        with self.condition:
            self.condition.wait_for(lambda: min(self.done, key=self.done.__getitem__) == fit)

    def advance(self, fit: int, done: float | None) -> None:
        """Note how far a fit has come; None: it has ended."""
        with self.condition:
            if done is None:
                del self.done[fit]
            else:
                self.done[fit] = done
            self.condition.notify_all()


class TakeTurns(Callback):
    """Lets the other fits train after each epoch, and counts the seconds spent waiting."""

    def __init__(self, turns: Turns, fit: int) -> None:
        self.turns, self.fit, self.waited = turns, fit, 0.0

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        begun = perf_counter()
        self.turns.advance(self.fit, len(net.history) / net.max_epochs)
        self.turns.wait(self.fit)
        self.waited += perf_counter() - begun


def fit_in_turns(classifiers: list[RobustClassifier], X: Any, y: Any) -> list[float]:
    """Fit all of them, one epoch at a time, and return the seconds that each fit took by itself."""
    if not classifiers:
        return []
    turns = Turns(len(classifiers))

    def fit(i: int) -> float:
        take_turns = TakeTurns(turns, i)
        turns.wait(i)
        try:
            given = classifiers[i].callbacks or []
            classifiers[i].set_params(callbacks=[*given, take_turns]).fit(X, y)
        finally:
            turns.advance(i, None)
        return classifiers[i].cost_.total.seconds - take_turns.waited

    with ThreadPoolExecutor(len(classifiers)) as pool:
        return list(pool.map(fit, range(len(classifiers))))


# Comparisons


def compare_training(
    data: tuple, params: Row, eps: float, seeds: int, setting: str, path: Path | None = None, steps: int = 10
) -> list[Row]:
    """Compare full training with PGD, the default, coresets with it, and both cut to what the faster one costs."""
    epochs, frac = params["max_epochs"], params.get("coreset_frac", 0.5)
    plain = {**params, "attack": PGD(eps, steps=steps), "attack_ramp": 0.0, "averaging": None, "coreset_frac": None}
    default = {**params, "attack__eps": eps, "coreset_frac": None}
    of_coresets = round(CoresetSchedule(epochs, frac).cost(selection_cost=0.25))  # which is a forward pass of four
    of_default = max(1, round(2 / (steps + 1) * epochs))
    candidates = {
        FULL: plain,
        DEFAULT: default,
        f"{FULL}, {of_default} epochs": {**plain, "max_epochs": of_default},
        **{name: {**default, "selector": name, "coreset_frac": frac} for name in ("gradmatch", "craig", "random")},
        f"{DEFAULT}, {of_coresets} epochs": {**default, "max_epochs": of_coresets},
    }
    return compare(candidates, range(seeds), data, {"robust": PGD(eps, steps=20)}, setting, path)


def compare(
    candidates: dict[str, Row], seeds: Iterable[int], data: tuple, judge: Judge, setting: str, path: Path | None = None
) -> list[Row]:
    """Measure every candidate with every seed, except the rows of the same setting that `path` already has.

    Candidates are parameters of `RobustClassifier`. Those of a seed train in turns, and so under the same conditions.
    """
    rows = []
    for seed in seeds:
        measured = read_rows(path, setting) if path else []
        known = {row["method"]: row for row in measured if row["seed"] == seed}
        new = {
            name: RobustClassifier(random_state=seed, **params)
            for name, params in candidates.items()
            if name not in known
        }
        if new:
            print(f"seed {seed}: training {', '.join(new)}", flush=True)
            # What a process does once, torch's own start among it, is nobody's cost.
            clone(next(iter(new.values()))).set_params(max_epochs=1).fit(data[0][:512], data[1][:512])
        for (name, clf), seconds in zip(new.items(), fit_in_turns(list(new.values()), *data[:2]), strict=True):
            row = known[name] = {"setting": setting, **measure(name, clf, seconds, data, judge)}
            accuracies = f"clean {row['clean']:.3f}  robust {row['robust']:.3f}"
            print(f"seed {seed}  {name:<28} {accuracies}  {row['seconds']:6.1f} s", flush=True)
            if path:
                add_row(path, row)
        rows += [known[name] for name in candidates]
    return rows


def measure(name: str, clf: RobustClassifier, seconds: float, data: tuple, judge: Judge) -> Row:
    """Measure how accurate a fitted classifier is, and list what its fit cost."""
    *_, X_test, y_test = data
    cost = clf.cost_
    if isinstance(judge, dict):
        judged = {key: clf.robust_score(X_test, y_test, attack=attack) for key, attack in judge.items()}
    else:
        judged = judge(clf, X_test, y_test)
    return {
        "method": name,
        "seed": clf.random_state,
        "clean": clf.score(X_test, y_test),
        **judged,
        "seconds": seconds,
        "selection": cost["selection"].seconds,
        "solver": cost["solver"].seconds,
        "passes": cost.total.forwards + cost.total.backwards,
        "error": clf.coreset_.error if clf.coreset_ else None,
    }


def read_rows(path: Path, setting: str) -> list[Row]:
    """Read the rows of that setting, in the order measured; none where there is no file yet."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(json.loads, lines) if row["setting"] == setting]


def add_row(path: Path, row: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


# Tables


def by_method(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Yield each method and its rows, in the order measured."""
    for name in dict.fromkeys(row["method"] for row in rows):
        yield name, [row for row in rows if row["method"] == name]


def markdown(titles: list[str], lines: Iterable[Iterable[Any]]) -> str:
    """Write a Markdown table."""
    head, *body = (f"| {' | '.join(map(str, line))} |" for line in (titles, *lines))
    return "\n".join([head, "|---" * len(titles) + "|", *body])


def table(rows: list[Row]) -> str:
    """Write a line per method: means and standard deviations over the seeds, ratios within a seed."""
    base = {row["seed"]: row for row in rows if row["method"] == FULL}
    judged = [key for key in ("robust", "linf") if key in rows[0]]
    titles = ["method", "clean %", *(f"{key} %" for key in judged), "seconds", "speed-up", "in passes"]
    titles += ["selection s", "solver s", "error"]
    lines = []
    for name, mine in by_method(rows):
        full = [base[row["seed"]] for row in mine]
        ratios = {
            key: [other[key] / row[key] for row, other in zip(mine, full, strict=True)] for key in ("seconds", "passes")
        }
        errors = [row["error"] for row in mine if row["error"] is not None and np.isfinite(row["error"])]
        lines.append(
            [
                name,
                *(spread([100 * row[key] for row in mine]) for key in ("clean", *judged)),
                f"{mean(row['seconds'] for row in mine):.1f}",
                spread(ratios["seconds"], digits=2),
                f"{mean(ratios['passes']):.2f}",
                f"{mean(row['selection'] for row in mine):.2f}",
                f"{mean(row['solver'] for row in mine):.2f}",
                f"{mean(errors):.4f}" if errors else "-",
            ]
        )
    return markdown(titles, lines)


def spread(values: list[float], digits: int = 1) -> str:
    """Write mean and standard deviation."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


def paired(rows: list[Row], method: str, other: str) -> str:
    """Write the difference in robust accuracy of two methods, taken seed by seed, as a sentence."""
    robust = {(row["method"], row["seed"]): 100 * row["robust"] for row in rows}
    gaps = [value - robust[other, seed] for (name, seed), value in robust.items() if name == method]
    return f"{method} minus {other}: {spread(gaps)} points of robust accuracy, seed by seed"


# Pages and figures in docs/results


def report(rows: list[Row], name: str, setting: str) -> None:
    """Print the table of `compare_training` and write its page and figure."""
    others = [row["method"] for row in rows if row["seed"] == rows[0]["seed"]]
    pairs = [(DEFAULT, FULL), *(("gradmatch", other) for other in others if other != "gradmatch")]
    differences = "\n".join(f"- {paired(rows, *pair)}" for pair in pairs)
    text = (
        f"{setting}.\n\n{table(rows)}\n\n{differences}\n\nMean ± standard deviation over the seeds. {ABOUT} "
        "Speed-up is within a seed, over full training, in seconds and in samples through the network. Robust accuracy "
        "is under PGD-20. Error is the coreset's relative error of the summed gradients. All fits of a seed train in "
        "turns, an epoch each, and so under the same conditions."
    )
    figure, axes = new_figure(6.4, 4.0)
    draw_points(axes, rows)
    axes.set(title=name)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    write_page(name, name, text, figure)


def write_page(name: str, title: str, text: str, figure: Any = None, device: str = "auto") -> None:
    """Print a page and write it to `RESULTS`, with its figure; the page says which script made it, and where."""
    script = Path(sys.argv[0]).resolve().relative_to(ROOT)
    page = f"# {title}\n\n{text}\n\nMade by `{script}`. {hardware(device)}\n"
    print(f"\n{page}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    if figure is not None:
        figure.savefig(RESULTS / f"{name}.png", dpi=150)
        page += f"\n![]({name}.png)\n"
    (RESULTS / f"{name}.md").write_text(page)
    print(f"written: {os.path.relpath(RESULTS)}/{name}.md")


def hardware(device: str = "auto") -> str:
    """The machine and the versions that a figure was measured with."""
    on_gpu = device != "cpu" and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"CPU ({platform.machine()})"
    return (
        f"{device}, {torch.get_num_threads()} threads; Python {platform.python_version()}, torch {torch.__version__}, "
        f"scikit-learn {sklearn.__version__}, skorch {skorch.__version__}"
    )


def new_figure(width: float, height: float, lines: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """Make a figure of so many inches, in no window, and its panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(lines, columns)


def draw_points(axes: Any, rows: list[Row]) -> None:
    """Draw robust accuracy over seconds in one panel: a dot per seed, a mark per method's mean."""
    from matplotlib import colormaps

    methods = list(by_method(rows))
    colors = colormaps["tab10" if len(methods) <= 10 else "tab20"].colors
    for number, (name, mine) in enumerate(methods):
        seconds, robust = [row["seconds"] for row in mine], [100 * row["robust"] for row in mine]
        again, place = divmod(number, len(colors))
        axes.scatter(seconds, robust, s=14, alpha=0.5, color=colors[place], linewidths=0)
        axes.scatter(mean(seconds), mean(robust), marker="PDX"[again % 3], s=70, color=colors[place], label=name)
    axes.set(xlim=(0, None), xlabel="training time, seconds", ylabel="robust accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
