"""ResNet-18 on CIFAR-10, trained robustly in every way this library knows: accuracy over seconds.

    python examples/papers/cifar10.py DATA_FOLDER --budget 540
    python examples/papers/cifar10.py DATA_FOLDER --tiny

DATA_FOLDER holds cifar10/*.npz with keys x and y, or is where torchvision keeps its sets. linf 8/255, PGD-10 and
TRADES: full training, half of it, adaptive random subsets and coresets of 50 and 30 %, the same with Bullet-Train,
single-step training, and one remembered step. All predict with averaged weights; the last weights are judged too.

Each fit is one row in docs/results/cifar10.jsonl, and rows that are there are not measured again: `--budget` ends the
run before the first fit, or the first judgement of one, that would not be done within so many seconds, by what others
took, and the next run goes on there. A fit that is not judged yet waits in cifar10_unjudged.pkl.
`--only PATTERN` measures fits whose name has it. Writes docs/results/cifar10.md with a figure from the rows there are;
`--name` calls them otherwise. `--tiny` is the same on a few hundred images with few epochs and steps, for a CPU.
"""

import pickle
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import (
    RESULTS,
    Row,
    add_data_arguments,
    add_row,
    by_method,
    draw_points,
    load_images,
    markdown,
    new_figure,
    read_rows,
    spread,
    write_page,
)

from sklearn_acs import FGSM, NFGSM, PGD, PGD5010, AutoAttack, BulletTrain, FastAT, RobustClassifier, evaluate
from sklearn_acs.training.optimizers import OPTIMIZERS

FULL = "full"


def fits(args: Namespace) -> dict[str, Row]:
    """Parameters of each fit, by name: "objective: what is done to be faster"."""
    everything: Row = {"selector": None}
    # One-step fits choose coresets with one pass, and so choose more often.
    often = {"select_every": max(1, args.epochs // 10)}
    found: dict[str, Row] = {}
    eps = args.eps / 255
    for name in ("pgd", "trades"):
        many = PGD(eps, steps=args.steps)
        once = PGD(eps, steps=1, init="previous", rel_step_size=1.0)
        base: Row = {"objective": "trades" if name == "trades" else "adversarial", "attack": many}
        remembered = {**base, "attack": once}
        mine: dict[str, Row] = {
            FULL: {**base, **everything},
            "full, half the epochs": {**base, **everything, "max_epochs": args.epochs // 2},
        }
        for frac in (0.5, 0.3):
            for selector in ("random", "gradmatch", "craig", "glister"):
                part = {**base, "selector": selector, "coreset_frac": frac}
                mine[f"{selector} {frac}"] = part
                mine[f"{selector} {frac}, Bullet-Train"] = {**part, "attack": BulletTrain(many)}
            for selector in ("random", "gradmatch"):
                mine[f"one remembered step, {selector} {frac}"] = {
                    **remembered,
                    **often,
                    "selector": selector,
                    "coreset_frac": frac,
                }
        mine["one remembered step"] = {**remembered, **everything}
        if name == "pgd":
            for step, attack in (("FGSM-RS", FGSM(eps, random_start=True)), ("N-FGSM", NFGSM(eps))):
                single: Row = {"objective": FastAT(), "attack": attack}
                mine[step] = {**single, **everything}
                mine[f"{step}, gradmatch 0.5"] = {**single, **often, "selector": "gradmatch"}
        found |= {f"{name}: {what}": params for what, params in mine.items()}
    return found


def fit(params: Row, data: tuple, seed: int, args: Namespace) -> RobustClassifier:
    """Train in one of the ways."""
    common: Row = {
        "module": args.module,
        "max_epochs": args.epochs,
        "optimizer": args.optimizer,
        "lr": args.lr,
        "batch_size": args.batch_size,
        "augment": "crop-flip",
        "averaging": "ema",
        "attack_ramp": 0.0,
        "precision": args.precision,
        "random_state": seed,
    }
    return RobustClassifier(**{**common, **params}).fit(*data[:2])


def judge(name: str, clf: RobustClassifier, data: tuple, args: Namespace) -> Row:
    """Judge the averaged and the last weights."""
    begun = perf_counter()
    X_test, y_test = (part[: args.n_pgd] for part in data[2:])
    strong = {"pgd": PGD5010(args.eps / 255, steps=args.judge_steps, restarts=args.restarts)}
    averaged, last = (evaluate(model, X_test, y_test, strong) for model in (clf, clf.net_.raw_module_))
    some = slice(args.n_autoattack)
    autoattack = (
        clf.robust_score(X_test[some], y_test[some], attack=AutoAttack(args.eps / 255)) if args.n_autoattack else None
    )
    cost = clf.cost_
    return {
        "method": name,
        "seed": clf.random_state,
        "clean": averaged["accuracy"][0],
        "robust": averaged["accuracy"][1],
        "clean_last": last["accuracy"][0],
        "robust_last": last["accuracy"][1],
        "autoattack": autoattack,
        "seconds": cost.total.seconds,
        "parts": {key: round(value, 2) for key, value in cost.step_seconds.items()},
        "selection": cost["selection"].seconds,
        "solver": cost["solver"].seconds,
        "passes": cost.total.forwards + cost.total.backwards,
        "judged_in": perf_counter() - begun,
    }


def expected_seconds(params: Row, rows: list[Row], args: Namespace, n_train: int) -> float:
    """How long a fit will take, by its passes and the slowest rate measured; 0 where nothing is measured."""
    if not rows:
        return 0.0
    attack = params["attack"]
    steps = attack.attack.steps if isinstance(attack, BulletTrain) else attack.steps
    frac = 1.0 if params["selector"] is None else params.get("coreset_frac", 0.5)
    epochs = params.get("max_epochs", args.epochs) * (1 + frac) / 2 + (2 if frac < 1 else 0)
    passes = 2 * (steps + 2) * epochs * n_train
    return passes * max(row["seconds"] / row["passes"] for row in rows)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.set_defaults(dataset="cifar10", n_train=50_000, n_test=10_000)
    parser.add_argument("--tiny", action="store_true", help="a few minutes on a CPU")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds to stop after")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the fits' names")
    parser.add_argument("--module", default="resnet18")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--eps", type=float, default=8, help="radius in linf, in 255ths")
    parser.add_argument("--steps", type=int, default=10, help="attack steps in training")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--optimizer", default="sgd", help="adam for a convnet, with batches of 32 for few images")
    parser.add_argument("--lr", type=float, help="the optimiser's own by default")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--n-pgd", type=int, default=10_000, help="test images for PGD-50-10")
    parser.add_argument("--judge-steps", type=int, default=50)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--n-autoattack", type=int, default=1_000, help="test images for AutoAttack")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--name", help="of the result files")
    args = parser.parse_args()
    if args.tiny:
        args.n_train, args.n_test, args.n_pgd, args.n_autoattack = 400, 100, 50, 0
        args.epochs, args.steps, args.judge_steps, args.restarts = 4, 3, 10, 1
        args.module, args.optimizer = "convnet", "adam"
    since, data = perf_counter(), load_images(args)
    # What a process does once, torch's own start among it, is nobody's cost.
    warm_up = {"module": args.module, "precision": args.precision, "averaging": "ema", "augment": "crop-flip"}
    RobustClassifier(**warm_up, attack__steps=1, max_epochs=2, random_state=0).fit(data[0][:256], data[1][:256])
    rate = args.lr or OPTIMIZERS[args.optimizer][1]
    setting = (
        f"CIFAR-10, {args.n_train:,} training images, {args.module}, {args.epochs} epochs, PGD-{args.steps} and "
        f"TRADES, linf {args.eps:g}/255, batches of {args.batch_size}, {args.optimizer}, lr {rate}, precision "
        f"{args.precision}; judged by PGD-{args.judge_steps}-{args.restarts} on {args.n_pgd:,} test images, by "
        f"AutoAttack on {args.n_autoattack:,}"
    )
    name = args.name or ("cifar10_tiny" if args.tiny else "cifar10")
    path, waiting = RESULTS / f"{name}.jsonl", RESULTS / f"{name}_unjudged.pkl"

    def too_late_for(what: str, seconds: float) -> bool:
        if perf_counter() - since + seconds <= args.budget:
            return False
        print(f"the budget ends here; {what} is next")
        return True

    for seed in args.seeds:
        for method, params in fits(args).items():
            rows = read_rows(path, setting)
            done = any(row["method"] == method and row["seed"] == seed for row in rows)
            if done or not any(part in method for part in args.only):
                continue
            kept = pickle.loads(waiting.read_bytes()) if waiting.exists() else None
            if kept is None or kept[:3] != (setting, method, seed):
                if too_late_for(method, expected_seconds(params, rows, args, args.n_train)):
                    return report(setting, path, name)
                kept = setting, method, seed, fit(params, data, seed, args)
                waiting.write_bytes(pickle.dumps(kept))
            if too_late_for(f"judging {method}", max((row["judged_in"] for row in rows), default=0.0)):
                return report(setting, path, name)
            row = {"setting": setting, **judge(method, kept[3], data, args)}
            print(f"{method:<42} robust {row['robust']:.3f}  {row['seconds']:7.1f} s", flush=True)
            add_row(path, row)
            waiting.unlink()
    return report(setting, path, name)


def report(setting: str, path: Path, name: str) -> None:
    """Write the table and the figure from the rows measured."""
    rows = read_rows(path, setting)
    if not rows:
        return
    titles = ["fit", "seeds", "clean %", "PGD %", "last weights %", "AutoAttack %", "seconds", "speed-up", "in passes"]
    titles += ["attack s", "update s", "data s", "selection s", "solver s"]
    sections = []
    for objective in ("pgd", "trades"):
        mine = [row for row in rows if row["method"].startswith(objective)]
        if not mine:
            continue
        full = {row["seed"]: row for row in mine if row["method"] == f"{objective}: {FULL}"}
        lines = [line(method.partition(": ")[2], rows_of_it, full) for method, rows_of_it in by_method(mine)]
        sections.append(f"## {objective}\n\n{markdown(titles, lines)}")
    explained = (
        "All fits predict with averaged weights; `last weights` is the same fit without. Speed-up is over full "
        "training of the same seed, in seconds and in samples through the network. Fits run one after the other."
    )
    figure, _ = new_figure(6.4 * len(sections), 4.2, columns=len(sections))
    for axes, objective in zip(figure.axes, ("pgd", "trades"), strict=False):
        draw_points(axes, [row for row in rows if row["method"].startswith(objective)])
        axes.set(title=objective)
        axes.legend(frameon=False, fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    write_page(name, name, "\n\n".join([f"{setting}.", *sections, explained]), figure)


def line(what: str, rows: list[Row], full: dict[int, Row]) -> list[Any]:
    """One fit's line of the table."""
    pairs = [(row, full[row["seed"]]) for row in rows if row["seed"] in full]
    judged = [100 * row["autoattack"] for row in rows if row["autoattack"] is not None]
    cells: list[Any] = [what, len(rows)]
    cells += [spread([100 * row[key] for row in rows]) for key in ("clean", "robust", "robust_last")]
    cells += [spread(judged) if judged else "-", f"{mean(row['seconds'] for row in rows):.1f}"]
    for key in ("seconds", "passes"):
        cells.append(f"{mean(other[key] / row[key] for row, other in pairs):.2f}" if pairs else "-")
    cells += [f"{mean(row['parts'][part] for row in rows):.1f}" for part in ("attack", "update", "data")]
    return cells + [f"{mean(row[key] for row in rows):.1f}" for key in ("selection", "solver")]


if __name__ == "__main__":
    main()
