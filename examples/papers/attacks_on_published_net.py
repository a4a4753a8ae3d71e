"""Every evaluation attack on a network that nobody here trained: all must break an ordinary classifier.

    python examples/papers/attacks_on_published_net.py DATA_FOLDER

Attacks the ResNet-18 for CIFAR-10 that comes with pyautoattack, on the first test images. DATA_FOLDER holds
cifar10/test.npz with keys x and y, or is where torchvision keeps its sets. Prints a table and writes it to
docs/results/attacks_on_published_net.md. (LPA and PPGD, which need AlexNet, are in perceptual_attacks.py.)
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import add_folder_arguments, markdown, read_images, write_page

from sklearn_acs import JPEG, PGD, PGD5010, AutoAttack, ReColor, StAdv
from sklearn_acs.attacks import Attack

BATCH = 50
ATTACKS: dict[str, Attack] = {
    "PGD-20 linf 8/255": PGD(steps=20),
    "AutoAttack linf 8/255": AutoAttack(),
    "StAdv 0.05": StAdv(bound=0.05),
    "ReColor 0.06": ReColor(),
    "JPEG 0.25": JPEG(),
    "PGD-50-10 l2 80/255": PGD5010(eps=80 / 255, norm="l2"),
    "StAdv 0.02": StAdv(),
    "JPEG 0.03125": JPEG(bound=0.03125),
}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_folder_arguments(parser)
    parser.add_argument("--n-test", type=int, default=100, help="test images, the first of the set")
    args = parser.parse_args()

    model, x, y = network_and_images(args)
    right = correct(model, x, y)
    lines = [["none", f"{100 * right.float().mean():.1f}", f"{right.sum()} of {len(y)}", ""]]
    for name, attack in ATTACKS.items():
        attack.validate()
        since = perf_counter()
        x_adv = in_batches(partial(attack.perturb, model, clip=(0, 1)), x[right], y[right])
        seconds = perf_counter() - since
        left = correct(model, x_adv, y[right]).sum().item()
        lines.append([name, f"{100 * left / len(y):.1f}", f"{left} of {len(y)}", f"{seconds:.0f}"])
        print(*lines[-1], *getattr(attack, "warnings_", []), flush=True)

    table = markdown(["attack", "accuracy %", "images still right", "seconds"], lines)
    text = (
        f"The ordinary ResNet-18 of pyautoattack on the first {len(y)} test images of CIFAR-10. Each attack has its "
        f"default settings but for the bound in its name.\n\n{table}\n\nOnly images that are right before are "
        "attacked. Of PGD-50-10 and AutoAttack, images that are broken leave."
    )
    write_page("attacks_on_published_net", "Attacks on a published network", text)


def ordinary_resnet18() -> nn.Module:
    """Load the classifier that pyautoattack ships for its own examples; inputs in [0, 1]."""
    from pyautoattack.examples.resnet import ResNet18

    model = ResNet18()
    with as_file(files("pyautoattack") / "examples" / "model_test.pt") as path:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def network_and_images(args: Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    """Load the network, the first `args.n_test` test images (n, 3, 32, 32) in [0, 1], and their labels."""
    model, (images, labels) = ordinary_resnet18(), read_images(args, "cifar10", train=False)
    x = torch.from_numpy(images[: args.n_test]).permute(0, 3, 1, 2).contiguous().float() / 255
    y = torch.from_numpy(labels[: args.n_test]).long()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device), x.to(device), y.to(device)


def in_batches(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([function(*pair) for pair in zip(a.split(BATCH), b.split(BATCH), strict=True)])


@torch.no_grad()
def correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return in_batches(lambda x, y: model(x).argmax(1) == y, x, y)


if __name__ == "__main__":
    main()
