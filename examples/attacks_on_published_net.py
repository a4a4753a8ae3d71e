"""Every evaluation attack on a network that nobody here trained: all must break an ordinary classifier.

    python examples/attacks_on_published_net.py DATA_FOLDER

Attacks the ResNet-18 for CIFAR-10 that comes with pyautoattack, on the first test images. DATA_FOLDER holds
cifar10/test.npz with keys x and y, or is where torchvision keeps its sets. Prints a table and writes it to
docs/results/attacks_on_published_net.md. (LPA and PPGD, which need AlexNet, are in perceptual_attacks.py.)
"""

import os
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from comparison import RESULTS, hardware
from perceptual_attacks import correct, first_images, in_batches, ordinary_resnet18

from sklearn_acs import JPEG, PGD, PGD5010, AutoAttack, ReColor, StAdv
from sklearn_acs.attacks import Attack

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
    parser.add_argument("data_folder", nargs="?", default=os.environ.get("SKLEARN_ACS_DATA"))
    parser.add_argument("--download", action="store_true", help="let torchvision download CIFAR-10 into DATA_FOLDER")
    parser.add_argument("--n-test", type=int, default=100, help="test images, the first of the set")
    args = parser.parse_args()
    if args.data_folder is None:
        raise SystemExit("name a data folder, or set SKLEARN_ACS_DATA")

    model, (x, y) = ordinary_resnet18(), first_images(Path(args.data_folder), args.n_test, args.download)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, x, y = model.to(device), x.to(device), y.to(device)
    right = correct(model, x, y)
    lines = ["| attack | accuracy % | images still right | seconds |", "|---|---|---|---|"]
    lines.append(f"| none | {100 * right.float().mean():.1f} | {right.sum()} of {len(y)} | |")
    for name, attack in ATTACKS.items():
        attack.validate()
        since = perf_counter()
        x_adv = in_batches(partial(attack.perturb, model, clip=(0, 1)), x[right], y[right])
        seconds = perf_counter() - since
        left = correct(model, x_adv, y[right]).sum().item()
        lines.append(f"| {name} | {100 * left / len(y):.1f} | {left} of {len(y)} | {seconds:.0f} |")
        print(lines[-1], *getattr(attack, "warnings_", []), flush=True)

    table = "\n".join(lines)
    text = (
        f"The ordinary ResNet-18 of pyautoattack on the first {len(y)} test images of CIFAR-10. Each attack has its "
        f"default settings but for the bound in its name.\n\n{table}\n\nOnly images that are right before are "
        "attacked. Of PGD-50-10 and AutoAttack, images that are broken leave."
    )
    print(f"\n{text}\n\n{hardware()}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "attacks_on_published_net.md").write_text(
        f"# Attacks on a published network\n\n{text}\n\nMade by `examples/attacks_on_published_net.py`. {hardware()}\n"
    )
    print("written: docs/results/attacks_on_published_net.md")


if __name__ == "__main__":
    main()
