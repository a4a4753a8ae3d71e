"""LPA and PPGD on a network that nobody here trained: both must break an ordinary classifier almost everywhere.

    python examples/perceptual_attacks.py DATA_FOLDER
    python examples/perceptual_attacks.py DATA_FOLDER --weights DATA_FOLDER/lpips_backbones

Attacks the ResNet-18 for CIFAR-10 that comes with pyautoattack, on the first test images, within a distance in
AlexNet's activations. DATA_FOLDER holds cifar10/test.npz with keys x and y, or is where torchvision keeps its sets.
torchvision downloads AlexNet, unless --weights names a folder with alexnet_features_torchvision.npz. Prints a table and
writes it to docs/results/perceptual_attacks.md.
"""

import os
from argparse import ArgumentParser
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from comparison import RESULTS, hardware
from image_data import FILES
from torch import Tensor, nn

from sklearn_acs import LPA, PPGD
from sklearn_acs.data import load_cifar10

ALEXNET = "alexnet_features_torchvision.npz"
BATCH = 50


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("data_folder", nargs="?", default=os.environ.get("SKLEARN_ACS_DATA"))
    parser.add_argument("--weights", type=Path, help=f"folder with {ALEXNET} (default: let torchvision download)")
    parser.add_argument("--download", action="store_true", help="let torchvision download CIFAR-10 into DATA_FOLDER")
    parser.add_argument("--n-test", type=int, default=200, help="test images, the first of the set")
    parser.add_argument("--bound", type=float, default=0.5, help="largest distance")
    parser.add_argument("--steps", type=int, default=40, help="of each attack, for LPA in each of its 5 rounds")
    args = parser.parse_args()
    if args.data_folder is None:
        raise SystemExit("name a data folder, or set SKLEARN_ACS_DATA")

    model, (x, y) = ordinary_resnet18(), first_images(Path(args.data_folder), args.n_test, args.download)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, x, y = model.to(device), x.to(device), y.to(device)
    weights = args.weights / ALEXNET if args.weights else None
    lines = [
        "| attack | clean % | under attack % | images still right | seconds | mean distance | largest distance |",
        "|---|---|---|---|---|---|---|",
    ]
    for attack in (
        PPGD(args.bound, steps=args.steps, weights=weights),
        LPA(args.bound, steps=args.steps, weights=weights),
    ):
        lines.append(measure(attack, model, x, y))
        print(lines[-1], flush=True)

    table = "\n".join(lines)
    text = (
        f"The ordinary ResNet-18 of pyautoattack on the first {len(y)} test images of CIFAR-10; distance at most "
        f"{args.bound:g} in AlexNet's activations, {args.steps} steps.\n\n{table}\n\n"
        "Distances are those of the images that were right before the attack; the others are not attacked. LPA leaves "
        "an image as soon as it is misclassified within the bound, PPGD once that is so by a margin of 1 in the logits."
    )
    print(f"\n{text}\n\n{hardware()}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "perceptual_attacks.md").write_text(
        f"# Perceptual attacks\n\n{text}\n\nMade by `examples/perceptual_attacks.py`. {hardware()}\n"
    )
    print("written: docs/results/perceptual_attacks.md")


def measure(attack: LPA | PPGD, model: nn.Module, x: Tensor, y: Tensor) -> str:
    """One line of the table."""
    attack.validate()
    right = correct(model, x, y)
    since = perf_counter()
    x_adv = in_batches(lambda x, y: attack.perturb(model, x, y, clip=(0, 1)), x, y)
    seconds = perf_counter() - since
    distance = in_batches(lambda x, x_adv: attack.measure(model, x, x_adv, clip=(0, 1)), x[right], x_adv[right])
    left = right & correct(model, x_adv, y)
    cells = [
        type(attack).__name__,
        f"{100 * right.float().mean():.1f}",
        f"{100 * left.float().mean():.1f}",
        f"{left.sum()} of {len(y)}",
        f"{seconds:.0f}",
        f"{distance.mean():.3f}",
        f"{distance.max():.4f}",
    ]
    return f"| {' | '.join(cells)} |"


def ordinary_resnet18() -> nn.Module:
    """The classifier that pyautoattack ships for its own examples; inputs in [0, 1]."""
    from pyautoattack.examples.resnet import ResNet18

    model = ResNet18()
    with as_file(files("pyautoattack") / "examples" / "model_test.pt") as path:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def first_images(folder: Path, n: int, download: bool) -> tuple[Tensor, Tensor]:
    """The first test images (n, 3, 32, 32) in [0, 1], and their labels."""
    path = folder / "cifar10" / FILES["cifar10"][1][0]
    if path.exists():
        with np.load(path) as arrays:
            images, labels = arrays["x"], arrays["y"]
    else:
        images, labels = load_cifar10(folder, train=False, download=download)
    x = torch.from_numpy(images[:n]).permute(0, 3, 1, 2).contiguous().float() / 255
    return x, torch.from_numpy(labels[:n]).long()


def in_batches(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([function(*pair) for pair in zip(a.split(BATCH), b.split(BATCH), strict=True)])


@torch.no_grad()
def correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return in_batches(lambda x, y: model(x).argmax(1) == y, x, y)


if __name__ == "__main__":
    main()
