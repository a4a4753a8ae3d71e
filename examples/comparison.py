"""What the example scripts share: fit the same problem in several ways, print and draw one table of it."""

import json
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import sklearn
import skorch
import torch

from sklearn_acs import PGD, CoresetSchedule, RobustClassifier

Row = dict[str, float | str | int | None]


def measure(name: str, clf: RobustClassifier, data: tuple, attack: PGD) -> Row:
    """Fit a classifier on (X_train, y_train, X_test, y_test) and say how good and how dear it was."""
    X_train, y_train, X_test, y_test = data
    clf.fit(X_train, y_train)
    cost = clf.cost_
    params = clf.get_params()
    frac = 1.0 if clf.selector is None else clf.coreset_frac
    schedule = CoresetSchedule(clf.max_epochs, frac, clf.select_every, clf.warmup_frac)
    return {
        "method": name,
        "seed": params["random_state"],
        "clean": clf.score(X_test, y_test),
        "robust": clf.robust_score(X_test, y_test, attack=attack),
        "seconds": cost.total.seconds,
        "selection": cost["selection"].seconds,
        "solver": cost["solver"].seconds,
        "passes": cost.total.forwards + cost.total.backwards,
        "cost_in_epochs": schedule.cost(0.0 if clf.selector == "random" else 1.0),
        "error": clf.coreset_.error if clf.coreset_ else None,
    }


def compare(
    candidates: dict[str, Callable[[int], RobustClassifier]],
    seeds: Iterable[int],
    data: tuple,
    attack: PGD,
    rows_path: Path | None = None,
) -> list[Row]:
    """Measure every candidate with every seed; rows already in `rows_path` are not measured again."""
    rows: list[Row] = []
    if rows_path and rows_path.exists():
        rows = [json.loads(line) for line in rows_path.read_text().splitlines()]
    done = {(row["method"], row["seed"]) for row in rows}
    for seed in seeds:
        for name, make in candidates.items():
            if (name, seed) in done:
                continue
            row = measure(name, make(seed), data, attack)
            rows.append(row)
            print(
                f"seed {seed}  {name:<28} clean {row['clean']:.3f}  robust {row['robust']:.3f}  {row['seconds']:6.1f} s",
                flush=True,
            )
            if rows_path:
                rows_path.parent.mkdir(parents=True, exist_ok=True)
                with rows_path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    return rows


def table(rows: list[Row], baseline: str) -> str:
    """A Markdown table, one line per method: means and standard deviations over the seeds, ratios within a seed."""
    base = {row["seed"]: row for row in rows if row["method"] == baseline}
    lines = [
        "| method | clean % | robust % | seconds | speed-up | expected | selection + solver, s | coreset error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        speedup = [base[row["seed"]]["seconds"] / row["seconds"] for row in mine]
        expected = mean(base[row["seed"]]["cost_in_epochs"] / row["cost_in_epochs"] for row in mine)
        errors = [row["error"] for row in mine if row["error"] is not None and np.isfinite(row["error"])]
        lines.append(
            f"| {name} | {spread([100 * row['clean'] for row in mine])} | {spread([100 * row['robust'] for row in mine])} "
            f"| {mean(row['seconds'] for row in mine):.1f} | {mean(speedup):.2f} | {expected:.2f} "
            f"| {mean(row['selection'] for row in mine):.1f} + {mean(row['solver'] for row in mine):.2f} "
            f"| {f'{mean(errors):.3f}' if errors else '-'} |"
        )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def hardware() -> str:
    """The machine and the versions that a figure was measured with."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    return (
        f"{device}, {torch.get_num_threads()} threads; Python {platform.python_version()}, torch {torch.__version__}, "
        f"scikit-learn {sklearn.__version__}, skorch {skorch.__version__}"
    )


def draw(rows: list[Row], title: str, path: Path) -> None:
    """Robust accuracy over seconds: one dot per seed, one cross per method's mean."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for color, name in enumerate(dict.fromkeys(row["method"] for row in rows)):
        mine = [row for row in rows if row["method"] == name]
        seconds, robust = [row["seconds"] for row in mine], [100 * row["robust"] for row in mine]
        axes.scatter(seconds, robust, s=14, alpha=0.5, color=f"C{color}", linewidths=0)
        axes.scatter(mean(seconds), mean(robust), marker="P", s=70, color=f"C{color}", label=name)
    axes.set(xlabel="training time, seconds", ylabel="robust accuracy, %", title=title, xlim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
