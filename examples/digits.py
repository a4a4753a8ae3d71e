"""Robust digits in a few minutes: full adversarial training beside the default recipe, with coresets and without.

    python examples/digits.py

Uses the 8x8 digits that come with scikit-learn. Prints clean accuracy, robust accuracy (PGD-20), seconds and
speed-up over 3 seeds, and writes digits.md and digits.png to docs/results, or to the folder SKLEARN_ACS_RESULTS.
"""

from argparse import ArgumentParser

from shared import compare_training, report
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--eps", type=float, default=0.1, help="linf radius, in pixels from 0 to 1")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16
    X_train, X_test, y_train, y_test = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)
    setting = (
        f"scikit-learn's digits, {len(X_train):,} training and {len(X_test)} test images, small convnet, {args.epochs} "
        f"epochs, linf eps {args.eps:g}, coresets of 50 %"
    )
    data = X_train, y_train, X_test, y_test
    rows = compare_training(data, {"max_epochs": args.epochs}, args.eps, args.seeds, setting)
    report(rows, "digits", setting)


if __name__ == "__main__":
    main()
