"""How robust are two classifiers of digits, and how were they trained: every display, and the report of one page.

    python examples/plot_evaluation.py [--out FOLDER]

Takes under two minutes on two CPU cores. Trains one net on everything and one on coresets, attacks both, and writes
evaluation_*.png and evaluation_report.html, by default to docs/results.
"""

from argparse import ArgumentParser
from pathlib import Path

import matplotlib
import numpy as np
from shared import RESULTS
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_acs import (
    PGD,
    AutoAttack,
    CoresetDisplay,
    CostDisplay,
    Dynamics,
    DynamicsDisplay,
    PerturbationDisplay,
    RobustClassifier,
    RobustnessCurveDisplay,
    TradeoffDisplay,
    evaluate,
    make_robustness_report,
)

matplotlib.use("Agg")

import matplotlib.pyplot as plt

EPS = 0.1
SEEDS = range(2)

plt.rcParams.update({"figure.figsize": (7.0, 3.6), "font.size": 9})


def fit(selector: str | None, seed: int, X: np.ndarray, y: np.ndarray) -> RobustClassifier:
    clf = RobustClassifier(
        attack=PGD(eps=EPS),
        attack_ramp=0.0,
        averaging=None,
        selector=selector,
        select_every=3,
        max_epochs=20,
        callbacks=[Dynamics(n_samples=100)],
        random_state=seed,
    )
    return clf.fit(X, y)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the figures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16
    X_train, X, y_train, y = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)

    selectors = {"full training": None, "coresets of half the samples": "gradmatch"}
    runs = {name: [fit(selector, seed, X_train, y_train) for seed in SEEDS] for name, selector in selectors.items()}
    first = {name: classifiers[0] for name, classifiers in runs.items()}
    clf = first["coresets of half the samples"]

    suite = {
        "PGD-20": PGD(eps=EPS, steps=20),
        "PGD-20 l2": PGD(eps=0.6, steps=20, norm="l2"),
        "AutoAttack": AutoAttack(eps=EPS),
    }
    for name, classifier in first.items():
        print(f"{name}\n{evaluate(classifier, X[:100], y[:100], suite, check_masking=True)}\n")

    displays = {
        "curve": RobustnessCurveDisplay.from_estimators(first, X, y),
        "tradeoff": TradeoffDisplay.from_estimators(runs, X, y, attack=suite["PGD-20"], by="passes"),
        "coreset": CoresetDisplay.from_estimator(clf, y_train),
        "dynamics": DynamicsDisplay.from_estimator(clf),
        "perturbation": PerturbationDisplay.from_estimator(clf, X, y, n_images=6),
        "cost": CostDisplay.from_estimator(clf),
    }
    for name, display in displays.items():
        path = args.out / f"evaluation_{name}.png"
        display.figure_.savefig(path, dpi=150)
        print(f"written: {path}")

    path = args.out / "evaluation_report.html"
    make_robustness_report(clf, X, y, path, {"PGD-20": suite["PGD-20"]}, y_train=y_train, title="Digits on coresets")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
