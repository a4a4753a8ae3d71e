"""Full adversarial training beside the default recipe, with coresets and without, on real images.

    python examples/train_images.py DATA_FOLDER --dataset fashion_mnist
    python examples/train_images.py ~/data --dataset cifar10 --download --n-train 50000 --module resnet18

DATA_FOLDER (or the variable SKLEARN_ACS_DATA) is where torchvision keeps its data sets, or holds the .npz files that
shared.py names, with keys x and y. Prints a table of accuracy, seconds and speed-up, and writes it to
docs/results/NAME.md, with a figure beside it. A run that was cut short goes on where it stopped: the rows of each
setting are kept in docs/results/NAME.jsonl.
"""

from argparse import ArgumentParser

from shared import RESULTS, add_data_arguments, compare_training, load_images, report


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.add_argument("--module", default="auto", help="a name RobustClassifier knows")
    parser.add_argument("--objective", default="adversarial", choices=["adversarial", "trades", "mart"])
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--eps", type=float, help="linf radius (default: 0.1 for fashion_mnist, 8/255 for cifar10)")
    parser.add_argument("--steps", type=int, default=10, help="attack steps in full training")
    parser.add_argument("--coreset-frac", type=float, default=0.5)
    parser.add_argument("--augment", choices=["crop", "flip", "crop-flip"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--name", help="of the result files (default: the data set)")
    args = parser.parse_args()

    data = load_images(args)
    eps = args.eps or {"fashion_mnist": 0.1, "cifar10": 8 / 255}[args.dataset]
    name = args.name or args.dataset
    params = {
        "module": args.module,
        "objective": args.objective,
        "max_epochs": args.epochs,
        "coreset_frac": args.coreset_frac,
        "augment": args.augment,
    }
    setting = (
        f"{args.dataset}, {len(data[0]):,} training and {len(data[2]):,} test images, module {args.module!r}, "
        f"objective {args.objective!r}, augment {args.augment!r}, {args.epochs} epochs, full training with "
        f"PGD-{args.steps}, linf eps {eps:.4g}, coresets of {args.coreset_frac:.0%}"
    )
    rows = compare_training(data, params, eps, args.seeds, setting, RESULTS / f"{name}.jsonl", args.steps)
    report(rows, name, setting)


if __name__ == "__main__":
    main()
