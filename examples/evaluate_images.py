"""Train robust classifiers on Fashion-MNIST, on all data and on coresets, and judge them by many attacks.

    python examples/evaluate_images.py DATA_FOLDER

DATA_FOLDER is that of train_images.py. PGD with 20 and 50 steps, AutoAttack, spatial and JPEG attacks, the worst
case over all of them, and the signs of masked gradients. Writes docs/results/evaluation.md.
"""

from argparse import ArgumentParser

from shared import add_data_arguments, load_images, write_page

from sklearn_acs import JPEG, PGD, AutoAttack, RobustClassifier, StAdv, evaluate

EPS = 0.1


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.set_defaults(n_train=4_000, n_test=500)
    parser.add_argument("--epochs", type=int, default=18)
    args = parser.parse_args()
    X, y, X_test, y_test = load_images(args)
    attacks = {
        "PGD-20": PGD(EPS, steps=20),
        "PGD-50-10": PGD(EPS, steps=50, restarts=10, step_size=EPS / 8),
        "AutoAttack": AutoAttack(EPS),
        "AutoAttack, l2 1.5": AutoAttack(1.5, norm="l2"),
        "StAdv": StAdv(),
        "JPEG": JPEG(),
    }
    sections = []
    for name, params in {
        "natural training": {"objective": "natural", "selector": None},
        "PGD-10, all data": {"selector": None},
        "PGD-10, GRAD-MATCH coresets of 50 %": {"selector": "gradmatch"},
    }.items():
        plain = {"attack": PGD(EPS), "attack_ramp": 0.0, "averaging": None}
        clf = RobustClassifier(**plain, max_epochs=args.epochs, random_state=0, **params).fit(X, y)
        result = evaluate(clf, X_test, y_test, attacks, check_masking=True)
        signs = "\n".join(f"- {'flagged' if check.flagged else 'fine'}: {check.reason}" for check in result.masking)
        print(f"{name}\n\n{result}\n", flush=True)
        seconds = f"Trained in {clf.cost_.total.seconds:.0f} seconds."
        sections.append(f"## {name}\n\n{seconds}\n\n```text\n{result}\n```\n\nMasked gradients?\n\n{signs}")
    images = f"{args.dataset}, {len(X):,} training and {len(X_test):,} test images"
    setting = f"{images}, linf {EPS}, {args.epochs} epochs, one seed."
    write_page("evaluation", "Evaluation", "\n\n".join([setting, *sections]))


if __name__ == "__main__":
    main()
