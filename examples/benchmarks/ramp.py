"""Over which share of training should the radius grow? Accuracy with and without a ramp, on images and tables.

    python examples/benchmarks/ramp.py DATA_FOLDER [--studies STUDY ...]

Studies: digits, tables, fashion_mnist, wrong_labels (30 % of Fashion-MNIST's), cifar10; each with several objectives.
Rows go to docs/results/ramp.jsonl one by one, and a call measures only those that are not there yet.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import RESULTS, Row, add_folder_arguments, by_method, compare, load_images, markdown, spread, write_page

from sklearn_acs import PGD

RAMPS = (0.0, 0.15, 0.3, 0.5)
OBJECTIVES = ("adversarial", "trades", "mart")


class Study:
    """Holds data, and the parameters that its fits have in common, for each objective."""

    def __init__(self, data: tuple, about: str, eps: Any, objectives: tuple = OBJECTIVES, **params: Any) -> None:
        self.data, self.about, self.eps, self.objectives, self.params = data, about, eps, objectives, params

    def candidates(self) -> dict[str, Row]:
        attacks = {
            "PGD-10": PGD(self.eps),
            "one remembered step": PGD(self.eps, steps=1, init="previous", rel_step_size=1.0),
        }
        if self.params.pop("remembered_alone", False):
            del attacks["PGD-10"]
        return {
            f"{objective}, {name}, ramp {ramp:g}": {
                "objective": objective,
                "attack": attack,
                "attack_ramp": ramp,
                "selector": None,
                "averaging": "ema" if attack.remembers else None,
                **self.params,
            }
            for objective in self.objectives
            for name, attack in attacks.items()
            for ramp in RAMPS
        }


def digits(args: Namespace) -> Study:
    X, y = load_digits(return_X_y=True)
    X = (X.reshape(-1, 8, 8) / 16).astype(np.float32)
    return Study(split(X, y), "digits, 1,347 training images, 30 epochs, linf 0.1", 0.1, max_epochs=30)


def tables(args: Namespace) -> Iterator[Study]:
    for load in (load_breast_cancer, load_wine, load_iris):
        X, y = load(return_X_y=True)
        data = split(StandardScaler().fit_transform(X).astype(np.float32), y)
        name = load.__name__.removeprefix("load_")
        yield Study(data, f"{name}, standardised, linf 0.3, 30 epochs", 0.3, max_epochs=30, batch_size=32)


def images(args: Namespace, dataset: str, n_train: int, n_test: int) -> tuple:
    return load_images(Namespace(**{**vars(args), "dataset": dataset, "n_train": n_train, "n_test": n_test}))


def fashion_mnist(args: Namespace) -> Study:
    data = images(args, "fashion_mnist", 10_000, 1_000)
    about = "Fashion-MNIST, 10,000 training images, 15 epochs, linf 0.1"
    return Study(data, about, 0.1, ("adversarial", "trades"), max_epochs=15, remembered_alone=True)


def wrong_labels(args: Namespace) -> Study:
    X, y, *test = images(args, "fashion_mnist", 10_000, 1_000)
    rng = np.random.default_rng(0)
    y = np.where(rng.uniform(size=len(y)) < 0.3, rng.integers(10, size=len(y)), y)
    about = "Fashion-MNIST, 10,000 training images, a random label for 30 % of them, 15 epochs, linf 0.1"
    return Study((X, y, *test), about, 0.1, ("adversarial",), max_epochs=15, remembered_alone=True)


def cifar10(args: Namespace) -> Study:
    data = images(args, "cifar10", 4_000, 500)
    about = "CIFAR-10, 4,000 training images, convnet, 15 epochs, linf 8/255"
    return Study(data, about, 8 / 255, ("adversarial", "trades"), max_epochs=15, remembered_alone=True)


def split(X: np.ndarray, y: np.ndarray) -> tuple:
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    return X_train, y_train, X_test, y_test


STUDIES = {f.__name__: f for f in (digits, tables, wrong_labels, cifar10, fashion_mnist)}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_folder_arguments(parser)
    parser.add_argument("--studies", nargs="*", choices=sorted(STUDIES), default=list(STUDIES))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    for name in args.studies:
        made = STUDIES[name](args)
        for study in [made] if isinstance(made, Study) else made:
            judge = {"robust": PGD(study.eps, steps=20)}
            rows = compare(
                study.candidates(), range(args.seeds), study.data, judge, study.about, RESULTS / "ramp.jsonl"
            )
            parts.append(f"## {study.about}\n\n{table(rows)}")
    text = (
        f"Mean ± standard deviation over {args.seeds} seeds; no coresets; one remembered step, as long as the "
        "radius, with averaged weights. Robust accuracy is under PGD-20. A ramp of 0.3 lets the radius grow over the "
        "first 30 % of training.\n\n"
    )
    write_page("ramp", "A radius that grows", text + "\n\n".join(parts))


def table(rows: list[Row]) -> str:
    """Write a line for each objective and attack: clean and robust accuracy by ramp."""
    cells: dict[str, dict[str, str]] = {}
    for method, mine in by_method(rows):
        name, ramp = method.rsplit(", ramp ", 1)
        clean, robust = ([100 * row[key] for row in mine] for key in ("clean", "robust"))
        cells.setdefault(name, {})[ramp] = f"{spread(clean)} / {spread(robust)}"
    ramps = [f"{ramp:g}" for ramp in RAMPS]
    lines = [[name, *(found[ramp] for ramp in ramps)] for name, found in cells.items()]
    return markdown(["clean / robust %", *(f"ramp {ramp}" for ramp in ramps)], lines)


if __name__ == "__main__":
    main()
