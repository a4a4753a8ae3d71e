"""The share of a training's time that the selectors' solvers take.

    python examples/benchmarks/solver_share.py DATA_FOLDER --dataset fashion_mnist

The trainings are those of examples/train_images.py with its defaults, one for each selector and way to select. Prints a
table and writes it to docs/results/solver_share.md.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import add_data_arguments, load_images, write_page

from sklearn_acs import PGD, RobustClassifier
from sklearn_acs.table import Table

COLUMNS = ["selector", "select by", "training s", "selections s", "solver s", "solver %", "error"]


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.add_argument("--selectors", default="gradmatch,craig,glister,score,random")
    parser.add_argument("--select-by", default="batch,class")
    parser.add_argument("--epochs", type=int, default=18)
    args = parser.parse_args()

    X, y, *_ = load_images(args)
    attack = PGD(eps={"fashion_mnist": 0.1, "cifar10": 8 / 255}[args.dataset])
    rows = []
    for select_by in args.select_by.split(","):
        for selector in args.selectors.split(","):
            clf = RobustClassifier(attack=attack, attack_ramp=0.0, averaging=None, max_epochs=args.epochs)
            clf.set_params(selector=selector, select_by=select_by, random_state=0)
            begin = perf_counter()
            clf.fit(X, y)
            seconds, cost = perf_counter() - begin, clf.cost_
            solver = cost["solver"].seconds
            error = clf.coreset_.error if clf.coreset_ else None
            rows.append(
                [selector, select_by, seconds, cost["selection"].seconds, solver, 100 * solver / seconds, error]
            )
            print(Table(COLUMNS, rows[-1:]), flush=True)

    text = (
        f"{args.dataset}, {len(X):,} images, convnet, {args.epochs} epochs of PGD-10, coresets of 50 %, one seed.\n\n"
        f"```\n{Table(COLUMNS, rows)}\n```\n\n"
        '"selections" attack every sample and read its gradient; "solver" is the choice itself.'
    )
    write_page("solver_share", "The solvers' share of training", text)


if __name__ == "__main__":
    main()
