"""LPA and PPGD on a network that nobody here trained: both must break an ordinary classifier almost everywhere.

    python examples/papers/perceptual_attacks.py DATA_FOLDER
    python examples/papers/perceptual_attacks.py DATA_FOLDER --weights DATA_FOLDER/lpips_backbones

Attacks the ResNet-18 for CIFAR-10 that comes with pyautoattack, on the first test images, within a distance in
AlexNet's activations. DATA_FOLDER holds cifar10/test.npz with keys x and y, or is where torchvision keeps its sets.
torchvision downloads AlexNet, unless --weights names a folder with alexnet_features_torchvision.npz. Prints a table and
writes it to docs/results/perceptual_attacks.md.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from time import perf_counter

from attacks_on_published_net import correct, in_batches, network_and_images
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import add_folder_arguments, markdown, write_page

from sklearn_acs import LPA, PPGD

ALEXNET = "alexnet_features_torchvision.npz"
TITLES = ["attack", "clean %", "under attack %", "images still right", "seconds", "mean distance", "largest distance"]


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_folder_arguments(parser)
    parser.add_argument("--weights", type=Path, help=f"folder with {ALEXNET} (default: let torchvision download)")
    parser.add_argument("--n-test", type=int, default=200, help="test images, the first of the set")
    parser.add_argument("--bound", type=float, default=0.5, help="largest distance")
    parser.add_argument("--steps", type=int, default=40, help="of each attack, for LPA in each of its 5 rounds")
    args = parser.parse_args()

    model, x, y = network_and_images(args)
    weights = args.weights / ALEXNET if args.weights else None
    lines = []
    for attack in (PPGD, LPA):
        lines.append(measure(attack(args.bound, steps=args.steps, weights=weights), model, x, y))
        print(*lines[-1], flush=True)

    text = (
        f"The ordinary ResNet-18 of pyautoattack on the first {len(y)} test images of CIFAR-10; distance at most "
        f"{args.bound:g} in AlexNet's activations, {args.steps} steps.\n\n{markdown(TITLES, lines)}\n\n"
        "Distances are those of the images that were right before the attack; the others are not attacked. LPA leaves "
        "an image as soon as it is misclassified within the bound, PPGD once that is so by a margin of 1 in the logits."
    )
    write_page("perceptual_attacks", "Perceptual attacks", text)


def measure(attack: LPA | PPGD, model: nn.Module, x: Tensor, y: Tensor) -> list[str]:
    """One line of the table."""
    attack.validate()
    right = correct(model, x, y)
    since = perf_counter()
    x_adv = in_batches(lambda x, y: attack.perturb(model, x, y, clip=(0, 1)), x, y)
    seconds = perf_counter() - since
    distance = in_batches(lambda x, x_adv: attack.measure(model, x, x_adv, clip=(0, 1)), x[right], x_adv[right])
    left = right & correct(model, x_adv, y)
    return [
        type(attack).__name__,
        f"{100 * right.float().mean():.1f}",
        f"{100 * left.float().mean():.1f}",
        f"{left.sum()} of {len(y)}",
        f"{seconds:.0f}",
        f"{distance.mean():.3f}",
        f"{distance.max():.4f}",
    ]


if __name__ == "__main__":
    main()
