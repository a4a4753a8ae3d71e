"""Every objective by default, on coresets and with Bullet-Train, on Fashion-MNIST: accuracy, seconds and speed-up.

    python examples/benchmarks/objectives.py DATA_FOLDER

DATA_FOLDER is that of train_images.py. Each objective is a comparison of its own, with the baselines: full training as
it was published, random subsets, and the default for as long as the coresets took. Fits of a seed train in turns, an
epoch each. Writes docs/results/objectives.md with a figure; rows are kept in objectives.jsonl, where a run that was cut
short goes on.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import (
    ABOUT,
    DEFAULT,
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

from sklearn_acs import FGSM, LPA, PGD, Attack, BulletTrain, CoresetSchedule, FastLPA

EPS, EPS_L2, BOUND = 0.1, 1.5, 0.5
JUDGED_BY_LPA = 500  # test images
BULLET = "Bullet-Train"
PLAIN = {"attack_ramp": 0.0, "averaging": None}


class Group(NamedTuple):
    """Holds the parameters of an objective, the attack of its full training, and the attacks that judge it."""

    params: Row
    full: Attack
    judges: dict[str, Attack]
    with_bullet: bool = False


def groups(steps: int, weights: str | None = None) -> dict[str, Group]:
    """The objectives that are compared. `full` is what they were published with."""
    linf, l2 = PGD(EPS, steps=steps), PGD(EPS_L2, steps=steps, norm="l2")
    judges, in_linf = {"robust": PGD(EPS, steps=20)}, {"attack__eps": EPS}
    pat, fast = FastLPA(BOUND, steps=steps), FGSM(EPS, random_start=True)
    lpa = {"robust": LPA(BOUND, steps=10, weights=weights), "linf": PGD(EPS, steps=20)}
    in_l2 = {"attack__eps": EPS_L2, "attack__norm": "l2"}
    return {
        "adversarial": Group({"objective": "adversarial", **in_linf}, linf, judges),
        "trades": Group({"objective": "trades", **in_linf}, linf, judges, with_bullet=True),
        "mart": Group({"objective": "mart", **in_linf}, linf, judges, with_bullet=True),
        "adversarial, l2": Group(
            {"objective": "adversarial", **in_l2}, l2, {"robust": PGD(EPS_L2, steps=20, norm="l2")}
        ),
        "pat": Group({"objective": "pat", "attack": pat}, pat, lpa),
        "fast": Group({"objective": "fast", "attack": fast}, fast, judges),
    }


def candidates(group: Group, epochs: int) -> dict[str, Row]:
    """The fits that are compared."""
    default = {"max_epochs": epochs, **group.params}
    full = {"max_epochs": epochs, "objective": group.params["objective"], "attack": group.full, **PLAIN}
    same_time = round(CoresetSchedule(epochs, 0.5).cost(selection_cost=0.25))
    found = {
        FULL: full,
        DEFAULT: default,
        "gradmatch": {**default, "coreset_frac": 0.5},
        "random": {**default, "coreset_frac": 0.5, "selector": "random"},
        f"{DEFAULT}, {same_time} epochs": {**default, "max_epochs": same_time},
    }
    if group.with_bullet:
        bullet = {**full, "attack": BulletTrain(group.full)}
        quarter = round(epochs / 4)
        found[BULLET] = bullet
        found[f"{BULLET}, gradmatch"] = {**bullet, "coreset_frac": 0.5}
        found[f"{BULLET}, random"] = {**bullet, "coreset_frac": 0.5, "selector": "random"}
        found[f"{FULL}, {quarter} epochs"] = {**full, "max_epochs": quarter}
    return found


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.set_defaults(n_train=4_000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="attack steps in training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", help="AlexNet's, .npz or .pth, which judges pat; torchvision downloads them else")
    parser.add_argument("--only", nargs="+", default=list(groups(1)), choices=list(groups(1)))
    args = parser.parse_args()

    images, found = load_images(args), {}
    for name in args.only:
        group = groups(args.steps, args.weights)[name]
        data = images if name != "pat" else (*images[:2], *(part[:JUDGED_BY_LPA] for part in images[2:]))
        setting = (
            f"{name}: {args.dataset}, {len(data[0]):,} training and {len(data[2]):,} test images, {args.epochs} "
            f"epochs, full training against {group.full!r}, coresets of 50 %"
        )
        print(setting, flush=True)
        fits = candidates(group, args.epochs)
        found[setting] = compare(fits, range(args.seeds), data, group.judges, setting, RESULTS / "objectives.jsonl")
    report(found)


def report(found: dict[str, list[Row]]) -> None:
    """Write the tables and the figure."""
    sections = []
    for setting, rows in found.items():
        name, _, what = setting.partition(": ")
        pairs = [(DEFAULT, FULL), ("gradmatch", DEFAULT), ("gradmatch", "random")]
        if any(row["method"] == BULLET for row in rows):
            pairs += [(BULLET, FULL), (f"{BULLET}, gradmatch", BULLET), (f"{BULLET}, gradmatch", f"{BULLET}, random")]
        gaps = "\n".join(f"- {paired(rows, method, other)}" for method, other in pairs)
        sections.append(f"## {name}\n\n{what}.\n\n{table(rows)}\n\n{gaps}")
    text = (
        f"Mean ± standard deviation over the seeds. {ABOUT} Here `pat` and `fast` take the same attack by default as "
        "in full training, and Bullet-Train is as full training but for its attack. Speed-up is within a seed, over "
        "full training with the same objective, in seconds and in samples through the network. Robust accuracy is "
        "under PGD-20 in the ball trained for; for `pat` it is under LPA in AlexNet's distance, bound 0.5, 10 steps, "
        "and `linf` is PGD-20 with eps 0.1. One network, the default for images."
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
