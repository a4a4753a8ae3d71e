"""What the example scripts share: fit the same problem in several ways, print and draw one table of it."""

import json
import platform
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import sklearn
import skorch
import torch
from turns import fit_in_turns

from sklearn_acs import PGD, Attack, CoresetSchedule, RobustClassifier

Row = dict[str, Any]
Attacks = dict[str, Attack]
"""The attacks that judge a classifier, by the name of their column: "robust", and perhaps "linf"."""

Judge = Callable[[RobustClassifier, np.ndarray, np.ndarray], dict[str, float]]
"""``judge(clf, X_test, y_test)``: accuracies under attack by their names, "robust" among them."""

RESULTS = Path(__file__).parent.parent / "docs" / "results"

FULL = "full training"


def make(seed: int, **params: Any) -> RobustClassifier:
    return RobustClassifier(random_state=seed, **params)


def compare_training(
    data: tuple, params: Row, attack: PGD, seeds: int, setting: str, rows_path: Path | None = None
) -> list[Row]:
    """Full training, each selector, and full training cut to the time that coreset training takes."""
    epochs, frac = params["max_epochs"], params.get("coreset_frac", 0.5)
    same_time = round(CoresetSchedule(epochs, frac).cost())
    candidates = {
        FULL: partial(make, **{**params, "selector": None}),
        **{name: partial(make, **{**params, "selector": name}) for name in ("gradmatch", "craig", "random")},
        f"full training, {same_time} epochs": partial(make, **{**params, "selector": None, "max_epochs": same_time}),
    }
    return compare(candidates, range(seeds), data, {"robust": attack}, setting, rows_path)


def judge_by(attacks: Attacks) -> Judge:
    """Each attack by itself."""
    return lambda clf, X, y: {key: clf.robust_score(X, y, attack=attack) for key, attack in attacks.items()}


def measure(name: str, clf: RobustClassifier, seconds: float, data: tuple, judge: Judge) -> Row:
    """How good a fitted classifier is, and how dear it was."""
    *_, X_test, y_test = data
    cost = clf.cost_
    return {
        "method": name,
        "seed": clf.random_state,
        "clean": clf.score(X_test, y_test),
        **judge(clf, X_test, y_test),
        "seconds": seconds,
        "selection": cost["selection"].seconds,
        "solver": cost["solver"].seconds,
        "passes": cost.total.forwards + cost.total.backwards,
        "cost_in_epochs": clf.schedule_.cost(0.0 if clf.selector == "random" else 1.0),
        "error": clf.coreset_.error if clf.coreset_ else None,
    }


def compare(
    candidates: dict[str, Callable[[int], RobustClassifier]],
    seeds: Iterable[int],
    data: tuple,
    attacks: Attacks | Judge,
    setting: str,
    rows_path: Path | None = None,
) -> list[Row]:
    """Measure every candidate with every seed, but for rows of the same setting that `rows_path` has already.

    The candidates of a seed train in turns, an epoch each, and so under the same conditions.
    """
    judge = judge_by(attacks) if isinstance(attacks, dict) else attacks
    rows = []
    for seed in seeds:
        known = (
            {row["method"]: row for row in read_rows(rows_path, setting) if row["seed"] == seed} if rows_path else {}
        )
        new = {name: make_one(seed) for name, make_one in candidates.items() if name not in known}
        if new:
            print(f"seed {seed}: training {', '.join(new)}", flush=True)
            # What a process does once, torch's own start among it, is nobody's cost.
            next(iter(candidates.values()))(seed).set_params(max_epochs=1).fit(data[0][:512], data[1][:512])
        for (name, clf), seconds in zip(new.items(), fit_in_turns(list(new.values()), *data[:2]), strict=True):
            row = known[name] = {"setting": setting, **measure(name, clf, seconds, data, judge)}
            accuracies = f"clean {row['clean']:.3f}  robust {row['robust']:.3f}"
            print(f"seed {seed}  {name:<28} {accuracies}  {row['seconds']:6.1f} s", flush=True)
            if rows_path:
                rows_path.parent.mkdir(parents=True, exist_ok=True)
                with rows_path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        rows += [known[name] for name in candidates]
    return rows


def read_rows(path: Path, setting: str) -> list[Row]:
    """Rows of that setting, in the order measured; none where there is no file yet."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(json.loads, lines) if row["setting"] == setting]


def table(rows: list[Row]) -> str:
    """A Markdown table, one line per method: means and standard deviations over the seeds, ratios within a seed."""
    base = {row["seed"]: row for row in rows if row["method"] == FULL}
    judged = [key for key in ("robust", "linf") if key in rows[0]]
    titles = ["method", "clean %", *(f"{key} %" for key in judged), "seconds", "speed-up", "in passes", "expected"]
    titles += ["selection s", "solver s", "error"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        expected = mean(base[row["seed"]]["cost_in_epochs"] / row["cost_in_epochs"] for row in mine)
        errors = [row["error"] for row in mine if row["error"] is not None and np.isfinite(row["error"])]
        cells = [
            name,
            spread([100 * row["clean"] for row in mine]),
            *(spread([100 * row[key] for row in mine]) for key in judged),
            f"{mean(row['seconds'] for row in mine):.1f}",
            spread([base[row["seed"]]["seconds"] / row["seconds"] for row in mine], digits=2),
            f"{mean(base[row['seed']]['passes'] / row['passes'] for row in mine):.2f}",
            f"{expected:.2f}",
            f"{mean(row['selection'] for row in mine):.2f}",
            f"{mean(row['solver'] for row in mine):.2f}",
            f"{mean(errors):.4f}" if errors else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float], digits: int = 1) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


def paired(rows: list[Row], method: str, other: str) -> str:
    """The difference in robust accuracy of two methods, seed by seed, in words."""
    robust = {
        name: {row["seed"]: 100 * row["robust"] for row in rows if row["method"] == name} for name in (method, other)
    }
    gaps = [robust[method][seed] - robust[other][seed] for seed in robust[method]]
    return f"{method} minus {other}: {spread(gaps)} points of robust accuracy, seed by seed"


def report(rows: list[Row], name: str, setting: str, made_by: str) -> None:
    """Print the table and write it, with a figure, to docs/results."""
    others = [row["method"] for row in rows if row["seed"] == rows[0]["seed"]]
    differences = "\n".join(f"- {paired(rows, 'gradmatch', other)}" for other in others if other != "gradmatch")
    text = f"{setting}.\n\n{table(rows)}\n\n{differences}"
    print(f"\n{text}\n\n{hardware()}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(
        f"# {name}\n\n{text}\n\nMean ± standard deviation over the seeds. Speed-up is within a seed, over full "
        "training, in seconds and in samples through the network; expected is `schedule_.expected_speedup()`: "
        "a selection costs 1 epoch, and 0 for random, which attacks nothing. Robust accuracy is under PGD-20. Error is "
        "the coreset's relative error of the summed gradients. All fits of a seed train in turns, an epoch "
        f"each, and so under the same conditions.\n\nMade by `{made_by}`. {hardware()}\n\n![]({name}.png)\n"
    )
    draw(rows, name, RESULTS / f"{name}.png")
    print(f"written: docs/results/{name}.md and {name}.png")


def hardware(device: str = "auto") -> str:
    """The machine and the versions that a figure was measured with."""
    on_gpu = device != "cpu" and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"CPU ({platform.machine()})"
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
    draw_points(axes, rows)
    axes.set(xlabel="training time, seconds", ylabel="robust accuracy, %", title=title)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_points(axes: Any, rows: list[Row]) -> None:
    """Robust accuracy over seconds in one panel."""
    from matplotlib import colormaps

    names = list(dict.fromkeys(row["method"] for row in rows))
    colors = colormaps["tab10" if len(names) <= 10 else "tab20"].colors
    for number, name in enumerate(names):
        mine = [row for row in rows if row["method"] == name]
        seconds, robust = [row["seconds"] for row in mine], [100 * row["robust"] for row in mine]
        again, place = divmod(number, len(colors))
        axes.scatter(seconds, robust, s=14, alpha=0.5, color=colors[place], linewidths=0)
        axes.scatter(mean(seconds), mean(robust), marker="PDX"[again % 3], s=70, color=colors[place], label=name)
    axes.set(xlim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
