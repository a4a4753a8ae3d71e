"""Which settings are the best defaults? Every comparison behind one, a study each.

    python examples/benchmarks/choose_defaults.py DATA_FOLDER [--studies STUDY ...]

DATA_FOLDER is that of train_images.py. Studies: rate and wrong_labels (Fashion-MNIST), cifar10, digits, tables,
coresets (what is selected by, how often, how many samples). What attacks, averaging and coresets bring is measured by
levers.py, and over which share of training the radius should grow by ramp.py. Rows go to
docs/results/choose_defaults.jsonl one by one, and a call measures only those that are not there yet.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import RESULTS, Row, add_folder_arguments, by_method, compare, load_images, markdown, spread, write_page

from sklearn_acs import PGD


class Study(NamedTuple):
    """Holds data, parameters that all fits of a study have, and those in which they differ."""

    about: str
    data: tuple
    eps: float
    params: Row
    fits: dict[str, Row]


DEFAULT = "default"

RECIPES: dict[str, Row] = {
    DEFAULT: {},
    "no ramp": {"attack_ramp": 0.0},
    "no averaging": {"averaging": None},
    "two remembered steps": {"attack__steps": 2},
    "PGD-10": {"attack": "pgd"},
}
"""The default beside what it would be with one part changed."""

RATES: dict[str, Row] = {DEFAULT: {}, **{f"lr {lr:g}": {"lr": lr} for lr in (0.025, 0.05, 0.2)}}

CORESETS: dict[str, Row] = {
    "all data": {"coreset_frac": None},
    "all data, time-matched": {"coreset_frac": None, "max_epochs": 9},
    "random": {"selector": "random"},
    "craig": {"selector": "craig"},
    "gradmatch": {},
    **{f"gradmatch, by {by}": {"select_by": by} for by in ("class", "sample")},
    **{f"gradmatch, ridge {ridge:g}": {"selector__ridge": ridge} for ridge in (0.01, 1.0)},
    **{f"gradmatch, warmup {warmup:g}": {"warmup_frac": warmup} for warmup in (0.25, 0.75)},
    **{f"gradmatch, every {every}": {"select_every": every} for every in (2, 4)},
    **{f"gradmatch, {frac:.0%}": {"coreset_frac": frac} for frac in (0.3, 0.7)},
}


def images(args: Namespace, dataset: str, n_train: int, n_test: int = 1_000) -> tuple:
    return load_images(Namespace(**{**vars(args), "dataset": dataset, "n_train": n_train, "n_test": n_test}))


def split(X: np.ndarray, y: np.ndarray) -> tuple:
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    return X_train, y_train, X_test, y_test


def rate(args: Namespace) -> Iterator[Study]:
    about = "Fashion-MNIST, 10,000 training images, 16 epochs, linf 0.1"
    yield Study(about, images(args, "fashion_mnist", 10_000), 0.1, {"max_epochs": 16}, RATES)


def wrong_labels(args: Namespace) -> Iterator[Study]:
    X, y, *test = images(args, "fashion_mnist", 10_000)
    rng = np.random.default_rng(0)
    y = np.where(rng.uniform(size=len(y)) < 0.3, rng.integers(10, size=len(y)), y)
    about = "Fashion-MNIST, 10,000 training images, a random label for 30 % of them, 30 epochs, linf 0.1"
    fits = {name: RECIPES[name] for name in (DEFAULT, "no ramp")}
    yield Study(about, (X, y, *test), 0.1, {"max_epochs": 30}, fits)


def cifar10(args: Namespace) -> Iterator[Study]:
    about = "CIFAR-10, 4,000 training images, convnet, 15 epochs, linf 8/255; 500 test images"
    yield Study(about, images(args, "cifar10", 4_000, 500), 8 / 255, {"max_epochs": 15}, {**RECIPES, **RATES})


def digits(args: Namespace) -> Iterator[Study]:
    X, y = load_digits(return_X_y=True)
    X = (X.reshape(-1, 8, 8) / 16).astype(np.float32)
    yield Study("digits, 1,347 training images, 30 epochs, linf 0.1", split(X, y), 0.1, {}, {**RECIPES, **RATES})


def tables(args: Namespace) -> Iterator[Study]:
    for load in (load_breast_cancer, load_wine, load_iris):
        X, y = load(return_X_y=True)
        data, name = split(StandardScaler().fit_transform(X).astype(np.float32), y), load.__name__.removeprefix("load_")
        about = f"{name}, standardised, 30 epochs of batches of 32, linf 0.3"
        yield Study(about, data, 0.3, {"batch_size": 32}, {**RECIPES, **RATES})


def coresets(args: Namespace) -> Iterator[Study]:
    about = "Fashion-MNIST, 10,000 training images, 16 epochs, linf 0.1, coresets of 50 % unless said otherwise"
    params = {"max_epochs": 16, "coreset_frac": 0.5}
    yield Study(about, images(args, "fashion_mnist", 10_000), 0.1, params, CORESETS)


STUDIES = {study.__name__: study for study in (cifar10, wrong_labels, digits, tables, rate, coresets)}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_folder_arguments(parser)
    parser.add_argument("--studies", nargs="*", choices=sorted(STUDIES), default=list(STUDIES))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    for name in args.studies:
        for about, data, eps, params, fits in STUDIES[name](args):
            known = {each: {**params, "attack__eps": eps, **given} for each, given in fits.items()}
            judge = {"robust": PGD(eps, steps=20)}
            rows = compare(known, range(args.seeds), data, judge, about, RESULTS / "choose_defaults.jsonl")
            parts.append(f"## {about}\n\n{table(rows)}")
    text = (
        f"Mean ± standard deviation over {args.seeds} seeds; robust accuracy is under PGD-20, on 1,000 test images "
        "unless said otherwise; passes are samples through the network, forwards and backwards. The default takes one "
        "remembered step, with a ramp over 15 % of training and averaged weights; other rows change what they name.\n\n"
    )
    write_page("choose_defaults", "Choice of defaults", text + "\n\n".join(parts))


def table(rows: list[Row]) -> str:
    """Write a line for each fit."""
    lines = []
    for name, mine in by_method(rows):
        errors = [row["error"] for row in mine if row["error"] is not None and np.isfinite(row["error"])]
        lines.append(
            [
                name,
                *(spread([100 * row[key] for row in mine]) for key in ("clean", "robust")),
                f"{mean(row['passes'] for row in mine) / 1e6:.3f}",
                f"{mean(row['seconds'] for row in mine):.1f}",
                f"{mean(errors):.4f}" if errors else "-",
            ]
        )
    return markdown(["fit", "clean %", "robust %", "passes, millions", "seconds", "coreset error"], lines)


if __name__ == "__main__":
    main()
