"""What one training step costs with each objective: passes through the network per sample, counted and calculated.

    python examples/benchmarks/step_cost.py

Digits, one step on 1,437 samples with a learning rate of almost zero, so that what Bullet-Train and perceptual training
decide by the model's predictions can be calculated: they look at how many samples it has right. Forwards and backwards
are counted where they happen, in the network being trained. Writes docs/results/step_cost.md.
"""

import sys
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import markdown, write_page

from sklearn_acs import (
    FGSM,
    MART,
    NFGSM,
    PAT,
    PGD,
    TRADES,
    Adversarial,
    BulletTrain,
    FastAT,
    FastLPA,
    InBatchSelection,
    Natural,
    RobustClassifier,
)

EPS, STEPS, SHARE = 0.1, 10, 0.5


class HalfRobust(Callback):
    """Tells Bullet-Train at once what it would learn in the course of training."""

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        net.training_.adversary.attack.robust_share_ = torch.tensor(SHARE)


def sorted_by(clf: RobustClassifier, X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Shares of boundary and of robust samples, as Bullet-Train sees them."""
    bullet = BulletTrain()
    bullet.robust_share_ = torch.tensor(SHARE)
    boundary, robust = bullet.groups(torch.from_numpy(clf.decision_function(X)), torch.from_numpy(y))
    return boundary.double().mean().item(), robust.double().mean().item()


def main() -> None:
    digits = load_digits()
    X, _, y, _ = train_test_split((digits.images / 16).astype(np.float32), digits.target, test_size=0.2, random_state=0)
    n = len(X)
    trained = RobustClassifier("convnet", attack=PGD(EPS), selector=None, max_epochs=10, random_state=0).fit(X, y)
    right = trained.score(X, y)
    pgd, bullet = PGD(EPS, steps=STEPS), BulletTrain(PGD(EPS, steps=STEPS))
    groups = sorted_by(trained, X, y)
    steps = STEPS * groups[0] + bullet.robust_steps * groups[1]  # per sample
    one_of_each = (1.0 + STEPS, 1.0 + STEPS)
    half = ceil(0.5 * n) / n
    # name -> objective, attack, in-batch selection, forwards and backwards per sample by arithmetic
    cases = {
        "PGD-10": (Adversarial(), pgd, None, one_of_each),
        "natural": (Natural(), pgd, None, (1, 1)),
        "TRADES, PGD-10": (TRADES(), pgd, None, (1 + STEPS + 2, STEPS + 2)),  # the clean prediction, once
        "MART, PGD-10": (MART(), pgd, None, (STEPS + 2, STEPS + 2)),
        "Bullet-Train around PGD-10": (
            Adversarial(),
            bullet,
            None,
            (1 + steps + 1, steps + 1),
        ),
        "TRADES, Bullet-Train around PGD-10": (
            TRADES(),
            bullet,
            None,
            (1 + steps + 2, steps + 2),
        ),
        "PAT, Fast-LPA-10, own distance, right samples only": (
            PAT(),
            FastLPA(steps=STEPS),
            None,
            (1 + 2 * STEPS * right + 1, STEPS * right + 1),  # a step looks at its gradient and at how far it leads
        ),
        "single step, random start": (FastAT(guard=None), FGSM(EPS, random_start=True), None, (2, 2)),
        "single step, N-FGSM": (FastAT(guard=None), NFGSM(EPS), None, (2, 2)),
        "single step with GradAlign": (
            FastAT(gradalign=0.2, guard=None),
            FGSM(EPS, random_start=True),
            None,
            (4, 2 + 2 + 1),  # two input gradients, and one of them backwards again
        ),
        "PGD-10, half of the batch, chosen before": (
            Adversarial(),
            pgd,
            InBatchSelection(0.5),
            (1 + half * (STEPS + 1), half * (STEPS + 1)),
        ),
        "PGD-10, half of clean and adversarial samples, chosen after": (
            Adversarial(),
            pgd,
            InBatchSelection(0.5, when="after"),
            (STEPS + 2 + 1, STEPS + 1),
        ),
    }
    lines = []
    for name, (objective, attack, in_batch, (forwards, backwards)) in cases.items():
        clf = RobustClassifier(
            trained.net_.module_, objective=objective, attack=attack, in_batch=in_batch, averaging=None, max_epochs=1
        )
        clf.set_params(attack_ramp=0.0, batch_size=n, lr=1e-12, random_state=0, callbacks=[HalfRobust()])
        cost = clf.fit(X, y).cost_["full"]
        passes = (cost.forwards + cost.backwards) / n / sum(one_of_each)
        counts = cost.forwards / n, forwards, cost.backwards / n, backwards
        lines.append([name, *(f"{count:.3f}" for count in counts), f"{passes:.2f}"])
    titles = ["step", "forwards", "by arithmetic", "backwards", "by arithmetic", "passes, over PGD-10"]
    text = (
        "Samples sent forwards and backwards through the network, per sample of a "
        f"batch. Convnet on digits that has {right:.1%} of its {n:,} training samples right; one step on all of them. "
        f"Bullet-Train takes a share of {SHARE} for robust: {groups[0]:.1%} are near the boundary, {groups[1]:.1%} are "
        f"robust, the others are outliers.\n\n{markdown(titles, lines)}"
    )
    write_page("step_cost", "What a training step costs", text)


if __name__ == "__main__":
    main()
