"""Every objective on all data, on coresets and with Bullet-Train, on Fashion-MNIST: accuracy, seconds and speed-up.

    python examples/benchmarks/objectives.py DATA_FOLDER

DATA_FOLDER is that of train_images.py. Each objective is a comparison of its own, with the baselines: adaptive random
subsets, and full training for as long as the coresets took. Fits of a seed train in turns, an epoch each. Writes
docs/results/objectives.md with a figure; rows are kept in objectives.jsonl, where a run that was cut short goes on.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import (
    FULL,
    RESULTS,
    Row,
    add_data_arguments,
    compare,
    draw_points,
    load_images,
    new_figure,
    paired,
    table,
    write_page,
)

from sklearn_acs import FGSM, LPA, MART, PAT, PGD, TRADES, Adversarial, BulletTrain, CoresetSchedule, FastAT, FastLPA

EPS, EPS_L2, BOUND = 0.1, 1.5, 0.5
JUDGED_BY_LPA = 500  # test images
BOTH = "gradmatch and Bullet-Train"
MORE = f"{BOTH}, gamma 1"


def groups(steps: int, weights: str | None = None) -> dict[str, tuple[Row, dict[str, Any]]]:
    """Parameters of each objective, and the attacks that judge it."""
    linf, l2 = PGD(EPS, steps=steps), PGD(EPS_L2, steps=steps, norm="l2")
    judge = {"robust": PGD(EPS, steps=20)}
    return {
        "adversarial": ({"objective": Adversarial(), "attack": linf}, judge),
        "trades": ({"objective": TRADES(), "attack": linf}, judge),
        "mart": ({"objective": MART(), "attack": linf}, judge),
        "adversarial, l2": ({"objective": Adversarial(), "attack": l2}, {"robust": PGD(EPS_L2, steps=20, norm="l2")}),
        "pat": (
            {"objective": PAT(), "attack": FastLPA(BOUND, steps=steps)},
            {"robust": LPA(BOUND, steps=10, weights=weights), "linf": PGD(EPS, steps=20)},
        ),
        "fast": ({"objective": FastAT(), "attack": FGSM(EPS, random_start=True)}, judge),
    }


def candidates(params: Row, with_bullet: bool) -> dict[str, Row]:
    """The fits that are compared."""
    epochs, frac = params["max_epochs"], params["coreset_frac"]
    same_time = round(CoresetSchedule(epochs, frac).cost())
    full = {**params, "selector": None}
    found = {
        FULL: full,
        "gradmatch": {**params, "selector": "gradmatch"},
        "random": {**params, "selector": "random"},
        f"full training, {same_time} epochs": {**full, "max_epochs": same_time},
    }
    if with_bullet:
        bullet = BulletTrain(params["attack"])
        found["Bullet-Train"] = {**full, "attack": bullet}
        found[BOTH] = {**params, "selector": "gradmatch", "attack": bullet}
        found[MORE] = {**params, "selector": "gradmatch", "attack": BulletTrain(params["attack"], gamma=1.0)}
        found["random and Bullet-Train"] = {**params, "selector": "random", "attack": bullet}
        quarter = round(epochs / 4)
        found[f"full training, {quarter} epochs"] = {**full, "max_epochs": quarter}
    return found


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.set_defaults(n_train=4_000)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--steps", type=int, default=10, help="attack steps in training")
    parser.add_argument("--coreset-frac", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", help="AlexNet's, .npz or .pth, which judges pat; torchvision downloads them else")
    parser.add_argument("--only", nargs="+", default=list(groups(1)), choices=list(groups(1)))
    args = parser.parse_args()

    images, found = load_images(args), {}
    for name in args.only:
        params, judges = groups(args.steps, args.weights)[name]
        data = images if name != "pat" else (*images[:2], *(part[:JUDGED_BY_LPA] for part in images[2:]))
        params = {**params, "max_epochs": args.epochs, "coreset_frac": args.coreset_frac}
        setting = (
            f"{name}: {args.dataset}, {len(data[0]):,} training and {len(data[2]):,} test images, {args.epochs} epochs "
            f"against {params['attack']!r}, coresets of {args.coreset_frac:.0%}"
        )
        fits = candidates(params, with_bullet=name in ("trades", "mart"))
        print(setting, flush=True)
        found[setting] = compare(fits, range(args.seeds), data, judges, setting, RESULTS / "objectives.jsonl")
    report(found)


def report(found: dict[str, list[Row]]) -> None:
    """Write the tables and the figure."""
    sections = []
    for setting, rows in found.items():
        name, _, what = setting.partition(": ")
        others = {"gradmatch": [FULL, "random"], BOTH: [FULL, "Bullet-Train", "random and Bullet-Train"], MORE: [FULL]}
        ours = [method for method in dict.fromkeys(row["method"] for row in rows) if method in others]
        gaps = "\n".join(f"- {paired(rows, method, other)}" for method in ours for other in others[method])
        sections.append(f"## {name}\n\n{what}.\n\n{table(rows)}\n\n{gaps}")
    text = (
        "Mean ± standard deviation over the seeds; speed-up is within a seed, over full training "
        "with the same objective, in seconds and in samples through the network. Robust accuracy is under PGD-20 in "
        "the ball trained for; for `pat` it is under LPA in AlexNet's distance, bound 0.5, 10 steps, and `linf` is "
        "PGD-20 with eps 0.1. Random subsets are adaptive: drawn anew at each selection. One network, the default for "
        "images."
    )
    columns = min(3, len(found))
    lines = -(-len(found) // columns)
    figure, _ = new_figure(4.2 * columns, 3.4 * lines, lines, columns)
    for axes in figure.axes[len(found) :]:
        axes.remove()
    for axes, (setting, rows) in zip(figure.axes, found.items(), strict=True):
        draw_points(axes, rows)
        axes.set(title=setting.partition(": ")[0])
        axes.legend(frameon=False, fontsize=6)
    write_page("objectives", "Objectives", "\n\n".join([text, *sections]), figure)


if __name__ == "__main__":
    main()
