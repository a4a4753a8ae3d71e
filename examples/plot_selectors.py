"""The selectors at work: which gradients they choose, with how much weight, and how close the sum comes.

    python examples/plot_selectors.py [--out FOLDER]

Takes under a minute. Writes selectors_toy.png, gradients of two parameters that can be drawn as they are, and
selectors_digits.png, the last-layer gradients of a small net on scikit-learn's digits; by default to docs/results.
"""

from argparse import ArgumentParser
from pathlib import Path

import matplotlib
import numpy as np
import torch
from shared import RESULTS
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_acs import PGD, RobustClassifier
from sklearn_acs.gradients import LastLayerGradients, batch_factors
from sklearn_acs.models import last_linear
from sklearn_acs.selectors import CRAIG, BaseSelector, Glister, GradMatch, RandomSelector

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.patheffects import withStroke

# As in the other figures of docs/results.
COLORS = {"GRAD-MATCH": "C1", "CRAIG": "C2", "GLISTER": "C4", "random": "C3"}
SEEDS = range(10)

plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False})


def choose(
    name: str, n_select: int, G: LastLayerGradients, validation: LastLayerGradients, seed: int = 0
) -> BaseSelector:
    """A fitted selector; GLISTER is told of samples that are not in G."""
    if name == "GLISTER":
        return Glister(n_select=n_select, random_state=seed).fit(G, validation=validation)
    if name == "random":
        return RandomSelector(n_select=n_select, random_state=seed).fit(G)
    return {"GRAD-MATCH": GradMatch, "CRAIG": CRAIG}[name](n_select=n_select).fit(G)


# Gradients in the plane


def toy_gradients(seed: int, n: int) -> tuple[np.ndarray, LastLayerGradients]:
    """Clusters of points in the plane, and the factors of a logistic regression at zero that has them as gradients.

    Its two logits have opposite gradients. Probabilities are 1/2 there, so that x = 2 v makes v, or -2 v with the
    other label.
    """
    rng = np.random.default_rng(seed)
    centers = np.array([[2.2, 0.5], [0.5, 2.4], [-1.3, 1.2], [1.5, -1.7]])
    cluster = rng.choice(4, size=n, p=[0.5, 0.27, 0.15, 0.08])
    points = centers[cluster] + rng.normal(scale=0.32, size=(n, 2))
    sign = torch.from_numpy(rng.choice([-1.0, 1.0], size=n))[:, None]
    return points, LastLayerGradients([(sign * torch.tensor([0.5, -0.5]), 2 * sign * torch.from_numpy(points))])


def draw_toy(path: Path, n_select: int = 6) -> None:
    points, G = toy_gradients(0, 120)
    _, validation = toy_gradients(1, 60)
    figure, grid = plt.subplots(2, 2, figsize=(6.0, 6.4), layout="constrained", sharex=True, sharey=True)
    for axes, (name, color) in zip(grid.flat, COLORS.items(), strict=True):
        selector = choose(name, n_select, G, validation)
        chosen, weights = points[selector.indices_], selector.weights_.numpy()
        axes.axhline(0, color="0.9", linewidth=0.8, zorder=0)
        axes.axvline(0, color="0.9", linewidth=0.8, zorder=0)
        axes.scatter(*points.T, s=7, color="0.65", linewidths=0, zorder=1)
        axes.scatter(*chosen.T, s=8 * weights, color=color, alpha=0.35, linewidths=0, zorder=2)
        axes.scatter(*chosen.T, s=7, color=color, linewidths=0, zorder=3)
        for x_y, weight in zip(chosen, weights, strict=True) if weights.std() > 1e-6 else ():
            beside = (np.sqrt(8 * weight / np.pi) + 1, 0)
            text = axes.annotate(f"{weight:.0f}", x_y, beside, textcoords="offset points", va="center", fontsize=8)
            text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        arrow(axes, points.mean(0), color="black", width=0.011)
        arrow(axes, weights @ chosen / len(points), color=color, width=0.006)
        axes.set_title(caption(name, selector), color=color)
        axes.set(xlim=(-2.6, 3.6), ylim=(-3.0, 3.6), aspect="equal")
    for axes in grid[:, 0]:
        axes.set_ylabel("gradient, second entry")
    for axes in grid[-1]:
        axes.set_xlabel("gradient, first entry")
    figure.suptitle(
        f"{n_select} of 120 gradients, drawn with area in proportion to their weight.\n"
        "Arrows, over 120: sum of all (black), weighted sum of the chosen (colour)",
        fontsize=9,
    )
    save(figure, path)


def caption(name: str, selector: BaseSelector) -> str:
    return f"{name}: error {selector.approximation_error_:.2g}"


def arrow(axes: Axes, to: np.ndarray, color: str, width: float) -> None:
    axes.quiver(
        *(0, 0, *to),
        angles="xy",
        scale_units="xy",
        scale=1,
        color=color,
        width=width,
        headwidth=4,
        headlength=5,
        zorder=4,
    )


# Gradients of a net


def digits_gradients(clf: RobustClassifier, X: np.ndarray, y: np.ndarray, attack: PGD) -> LastLayerGradients:
    """Last-layer gradients of the adversarial loss, as a selection inside the classifier looks at them."""
    module, criterion = clf.net_.module_.eval(), clf.net_.criterion_
    x = torch.from_numpy(clf.perturb(X, y, attack=attack))[:, None]
    return LastLayerGradients(
        batch_factors(module, last_linear(module, x[:2]), criterion.loss, {"adversarial": x}, torch.from_numpy(y))
    )


def draw_digits(path: Path, n_shown: int = 10) -> BaseSelector:
    X, y = load_digits(return_X_y=True)
    X = (X.reshape(-1, 8, 8) / 16).astype(np.float32)
    X_train, X_rest, y_train, y_rest = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    attack = PGD(eps=0.1, steps=5)
    clf = RobustClassifier(attack=attack, selector=None, max_epochs=4, random_state=0).fit(X_train, y_train)
    G, validation = (digits_gradients(clf, *data, attack) for data in ((X_train, y_train), (X_rest, y_rest)))

    figure = plt.figure(figsize=(7.0, 8.0), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.35, 1])
    show_digits(above, X_train, y_train, {name: choose(name, n_shown, G, validation) for name in COLORS})

    axes = below.subplots()
    n = len(G)
    sizes = [5, 10, 20, 50, 100, 200, 500]
    for name, color in COLORS.items():
        seeds = SEEDS if name == "random" else range(1)
        errors = np.array(
            [[choose(name, k, G, validation, seed).approximation_error_ for k in sizes] for seed in seeds]
        )
        axes.loglog(
            sizes,
            errors.mean(0),
            color=color,
            marker="o",
            markersize=3.5,
            label=name + (f", mean and range of {len(seeds)} draws" if len(seeds) > 1 else ""),
        )
        if len(seeds) > 1:
            axes.fill_between(sizes, errors.min(0), errors.max(0), color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel=f"n_select, of {n:,} gradients", ylabel="approximation error, relative")
    axes.set_xticks(sizes, sizes, minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    save(figure, path)
    return GradMatch(n_select=100, per_class=True).fit(G, y_train)


def show_digits(figure: SubFigure, X: np.ndarray, y: np.ndarray, selectors: dict[str, BaseSelector]) -> None:
    """A row of images for each selector, by class."""
    rows = figure.subfigures(len(selectors), 1)
    for row, (name, selector) in zip(rows, selectors.items(), strict=True):
        row.suptitle(caption(name, selector), color=COLORS[name], x=0.01, ha="left")
        order = np.lexsort((-selector.weights_, y[selector.indices_]))
        indices, weights = selector.indices_[order], selector.weights_[order]
        for axes, i, weight in zip(row.subplots(1, len(indices)), indices, weights, strict=True):
            axes.imshow(X[i], cmap="gray_r", vmin=0, vmax=1)
            axes.set_title(f"{y[i]} \N{MULTIPLICATION SIGN} {weight:.0f}", fontsize=8, pad=3)
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(visible=True, color="0.8")


def save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"written: {path}")


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the figures")
    args = parser.parse_args()
    draw_toy(args.out / "selectors_toy.png")
    selector = draw_digits(args.out / "selectors_digits.png")
    print(f"\n{selector}\n{selector.selection_report()}")


if __name__ == "__main__":
    main()
