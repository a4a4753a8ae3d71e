"""Fashion-MNIST and CIFAR-10 from a folder of .npz files, or through torchvision for who has the internet."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np

from sklearn_acs.data import load_cifar10, load_fashion_mnist

FILES = {
    "fashion_mnist": (["fashion_own_split_train.npz"], ["fashion_own_split_test.npz"]),
    "cifar10": ([f"train_{i}.npz" for i in range(1, 6)], ["test.npz"]),
}
LOADERS = {"fashion_mnist": load_fashion_mnist, "cifar10": load_cifar10}


def add_data_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "data_folder",
        nargs="?",
        default=os.environ.get("SKLEARN_ACS_DATA"),
        help="holds DATASET/*.npz with keys x and y, or is torchvision's root (default: $SKLEARN_ACS_DATA)",
    )
    parser.add_argument("--dataset", choices=sorted(FILES), default="fashion_mnist")
    parser.add_argument("--download", action="store_true", help="let torchvision download into DATA_FOLDER")
    parser.add_argument("--n-train", type=int, default=10_000, help="training images, a random part of the set")
    parser.add_argument("--n-test", type=int, default=2_000, help="test images")


def load_images(args: Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """X_train, y_train, X_test, y_test: uint8 images, the same random part for the same numbers."""
    if args.data_folder is None:
        raise SystemExit("name a data folder, or set SKLEARN_ACS_DATA")
    parts = []
    for train, files, n in zip((True, False), FILES[args.dataset], (args.n_train, args.n_test), strict=True):
        folder = Path(args.data_folder) / args.dataset
        if folder.is_dir() and (folder / files[0]).exists():
            arrays = [np.load(folder / file) for file in files]
            X, y = (np.concatenate([a[key] for a in arrays]) for key in ("x", "y"))
        else:
            X, y = LOADERS[args.dataset](args.data_folder, train=train, download=args.download)
        rows = np.random.default_rng(0).permutation(len(X))[:n]
        parts += [X[rows], y[rows]]
    return tuple(parts)
