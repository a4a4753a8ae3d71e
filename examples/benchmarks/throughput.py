"""How fast are PGD-10 and TRADES-10? Ours in each precision, the loop that published code uses, and a bare loop.

    python examples/benchmarks/throughput.py [DATA_FOLDER]

ResNet-18 at 32x32, batches of 128, crop and flip, linf 8/255, all samples. For each objective and precision, in turns
within one process, each for a few batches: ours; (a) the loop of published code, written here: float32, a DataLoader
that makes a tensor of every image and crops and flips it alone, the attack as TRADES' authors wrote it; (b) the same
arithmetic as ours, in the same precision and on the same kind of batches, in a bare loop. Without a folder the images
are noise, which takes the same time. Writes docs/results/throughput.md.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import add_data_arguments, load_images, markdown, write_page

from sklearn_acs import PGD, TRADES, Adversarial, RobustClassifier
from sklearn_acs.data.augment import AUGMENTS
from sklearn_acs.models import build_model
from sklearn_acs.training.net import AdversarialNet, find_device
from sklearn_acs.training.precision import PRECISIONS

EPS, STEPS, BETA = 8 / 255, 10, 6.0
LR, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
Epoch = Callable[[], float]
"""Trains for an epoch; returns its seconds."""


def model_for(shape: tuple[int, ...], n_classes: int, device: torch.device) -> nn.Module:
    return build_model("resnet18", shape, n_classes, mean=0.5, scale=0.25).to(device)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: torch.device) -> float:
    wait(device)
    begun = perf_counter()
    work()
    wait(device)
    return perf_counter() - begun


class Images(Dataset):
    """Images one by one, each through torchvision's transforms, as torchvision's CIFAR10 hands them out."""

    def __init__(self, X: np.ndarray, y: np.ndarray) -> None:
        self.images = [Image.fromarray(image) for image in X]
        self.y = y.tolist()
        self.transform = transforms.Compose(
            [transforms.RandomCrop(X.shape[1], padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.y[index]


def published(X: np.ndarray, y: np.ndarray, trades: bool, args: Any, device: torch.device) -> Epoch:
    """The training loop of TRADES' authors (github.com/yaodongyu/TRADES), and Madry's objective in the same style.

    Parameters keep their gradients' flags in the attack, the clean prediction is computed anew in each step, and the
    loss is read after every batch.
    """
    model = model_for((3, *X.shape[1:3]), int(y.max()) + 1, device)
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    workers = {"num_workers": args.workers, "pin_memory": True} if device.type == "cuda" else {}
    loader = DataLoader(Images(X, y), args.batch_size, shuffle=True, **workers)
    divergence = nn.KLDivLoss(reduction="sum")

    def attack(x: Tensor, labels: Tensor) -> Tensor:
        model.eval()
        x_adv = x.detach() + (0.001 * torch.randn_like(x) if trades else torch.empty_like(x).uniform_(-EPS, EPS))
        for _ in range(STEPS):
            x_adv.requires_grad_()
            with torch.enable_grad():
                if trades:
                    loss = divergence(F.log_softmax(model(x_adv), dim=1), F.softmax(model(x), dim=1))
                else:
                    loss = F.cross_entropy(model(x_adv), labels)
            gradient = torch.autograd.grad(loss, [x_adv])[0]
            x_adv = x_adv.detach() + 2.5 * EPS / STEPS * torch.sign(gradient.detach())
            x_adv = torch.clamp(torch.min(torch.max(x_adv, x - EPS), x + EPS), 0.0, 1.0)
        model.train()
        return x_adv

    def epoch() -> None:
        for x, labels in loader:
            x, labels = x.to(device), labels.to(device)
            x_adv = attack(x, labels)
            optimizer.zero_grad()
            if trades:
                logits = model(x)
                moved = divergence(F.log_softmax(model(x_adv), dim=1), F.softmax(logits, dim=1)) / len(x)
                loss = F.cross_entropy(logits, labels) + BETA * moved
            else:
                loss = F.cross_entropy(model(x_adv), labels)
            loss.backward()
            optimizer.step()
            loss.item()

    return lambda: timed(epoch, device)


def bare(X: np.ndarray, y: np.ndarray, trades: bool, args: Any, device: torch.device, precision: str) -> Epoch:
    """What ours computes, as one would write it by hand for one precision, and nothing else."""
    images = torch.from_numpy(X).permute(0, 3, 1, 2).contiguous().to(device)
    labels = torch.from_numpy(y).to(device)
    model, dtype = model_for(images.shape[1:], int(y.max()) + 1, device), PRECISIONS[precision]
    if dtype is not None:
        model = model.to(memory_format=torch.channels_last)
    options = {"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "fused": True}
    optimizer = torch.optim.SGD(model.parameters(), LR, **options)
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10, enabled=precision == "fp16")
    augment = AUGMENTS["crop-flip"]
    order, noise = torch.Generator().manual_seed(0), torch.Generator(device).manual_seed(0)

    def forward(x: Tensor) -> Tensor:
        if dtype is not None:
            x = x.contiguous(memory_format=torch.channels_last)
        with nullcontext() if dtype is None else torch.autocast(device.type, dtype):
            logits = model(x)
        return logits.float()

    def attack(x: Tensor, target: Tensor) -> Tensor:
        model.eval().requires_grad_(False)
        low, high = (x - EPS).clamp_(min=0), (x + EPS).clamp_(max=1)
        if trades:
            with torch.no_grad():
                p = forward(x).softmax(1)
            x_adv = x + 0.001 * torch.randn(x.shape, generator=noise, device=device)
        else:
            x_adv = x + EPS * (2 * torch.rand(x.shape, generator=noise, device=device) - 1)
        x_adv.clamp_(low, high)
        for _ in range(STEPS):
            x_adv.requires_grad_()
            logits = forward(x_adv)
            loss = -(p * logits.log_softmax(1)).sum() if trades else F.cross_entropy(logits, target, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x_adv)
            x_adv = x_adv.detach().add_(gradient.sign_(), alpha=2.5 * EPS / STEPS).clamp_(low, high)
        model.requires_grad_(True)
        return x_adv

    def epoch() -> None:
        losses = []
        for index in torch.randperm(len(images), generator=order).to(device).split(args.batch_size):
            x, target = augment(images[index].float().div_(255), noise), labels[index]
            x_adv = attack(x, target)
            model.train()
            optimizer.zero_grad()
            if trades:
                logits = forward(x)
                log_p, log_q = logits.log_softmax(1), forward(x_adv).log_softmax(1)
                moved = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
                loss = F.cross_entropy(logits, target) + BETA * moved
            else:
                loss = F.cross_entropy(forward(x_adv), target)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.detach())
        torch.stack(losses).tolist()

    return lambda: timed(epoch, device)


class Turns(Callback):
    """After each epoch of ours an epoch of each other loop; rows of seconds by name."""

    def __init__(self, others: dict[str, Epoch], device: torch.device) -> None:
        self.others, self.device = others, device
        self.rows: list[dict[str, float]] = []

    def on_epoch_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Start the clock once the device is idle."""
        wait(self.device)
        self.begun = perf_counter()

    def on_epoch_end(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Stop it, and let the others have their turn."""
        wait(self.device)
        row = {"ours": perf_counter() - self.begun}
        self.rows.append(row | {name: epoch() for name, epoch in self.others.items()})
        print("  ".join(f"{name} {seconds:.3f} s" for name, seconds in self.rows[-1].items()), flush=True)


def measure(
    X: np.ndarray, y: np.ndarray, trades: bool, precision: str, args: Any, device: torch.device
) -> list[dict[str, float]]:
    """Seconds of each loop's epochs, without those of the warm-up."""
    others = {
        "published": published(X, y, trades, args, device),
        "bare": bare(X, y, trades, args, device, precision),
    }
    turns = Turns(others, device)
    RobustClassifier(
        "resnet18",
        objective=TRADES(BETA) if trades else Adversarial(),
        attack=PGD(EPS, steps=STEPS),
        attack_ramp=0.0,
        averaging=None,
        max_epochs=args.warmup + args.pairs,
        batch_size=args.batch_size,
        lr=LR,
        lr_schedule="constant",
        augment="crop-flip",
        precision=precision,
        compile=args.compile,
        callbacks=[turns],
        device=device,
        random_state=0,
    ).fit(X, y)
    return turns.rows[args.warmup :]


def pass_flops(shape: tuple[int, ...], n_classes: int) -> tuple[int, int, int]:
    """FLOPs of one sample forwards, backwards to the input alone, and backwards to the parameters."""

    def count(x_grad: bool, parameter_grad: bool) -> int:
        x = torch.rand(2, *shape, requires_grad=x_grad)
        model.requires_grad_(parameter_grad)
        with FlopCounterMode(display=False) as counter:
            logits = model(x)
            if x_grad or parameter_grad:
                logits.sum().backward()
        return counter.get_total_flops() // 2

    model = model_for(shape, n_classes, torch.device("cpu"))
    forward = count(False, False)
    return forward, count(True, False) - forward, count(False, True) - forward


def step_flops(passes: tuple[int, int, int], trades: bool, as_published: bool) -> int:
    """FLOPs of a training step per sample.

    Published code computes TRADES' clean prediction in every attack step, with a backward pass through it that the
    gradient by the input does not need and autograd leaves out; ours computes it once.
    """
    forward, to_input, to_parameters = passes
    attack = STEPS * (forward + to_input)
    if not trades:
        return attack + forward + to_parameters
    return attack + (STEPS if as_published else 1) * forward + 2 * (forward + to_parameters)


def peak(precision: str, device: torch.device) -> float:
    """FLOP/s of large matrix products in a precision, the best of a few."""
    size = 8192 if device.type == "cuda" else 2048
    dtype = PRECISIONS[precision] or torch.float32
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    a @ b
    return max(2 * size**3 / timed(lambda: a @ b, device) for _ in range(5))


def ratio(rows: list[dict[str, float]], over: str) -> str:
    """Median, least and largest of another loop's seconds over ours, pair by pair."""
    values = [row[over] / row["ours"] for row in rows]
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def lines(X: np.ndarray, y: np.ndarray, args: Any, device: torch.device) -> Iterator[list[str]]:
    """A row of the table for each objective and precision."""
    passes = pass_flops((3, *X.shape[1:3]), int(y.max()) + 1)
    peaks = {precision: peak(precision, device) for precision in {*args.precision, "fp32"}}
    for objective in ("PGD-10", "TRADES-10"):
        trades = objective == "TRADES-10"
        flops = {name: step_flops(passes, trades, name == "published") for name in ("ours", "published")}
        for precision in args.precision:
            print(objective, precision, flush=True)
            rows = measure(X, y, trades, precision, args, device)
            rate = {name: len(X) / median(row[name] for row in rows) for name in rows[0]}
            achieved = flops["ours"] * rate["ours"]
            allowed = flops["published"] / flops["ours"] * peaks[precision] / peaks["fp32"]
            cells = [objective, precision, *(f"{rate[name]:,.1f}" for name in ("ours", "published", "bare"))]
            cells += [ratio(rows, "published"), f"{allowed:.2f}", ratio(rows, "bare")]
            cells += [f"{achieved / 1e12:.3f}", f"{achieved / peaks[precision]:.0%}"]
            yield [*cells, f"{flops['published'] * rate['published'] / peaks['fp32']:.0%}"]


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.set_defaults(dataset="cifar10")
    parser.add_argument("--precision", nargs="+", choices=sorted(PRECISIONS), default=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="ours compiled; take a longer --warmup")
    parser.add_argument("--batches", type=int, default=2, help="batches in an epoch, which is what is timed")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=5, help="epochs of each loop after the warm-up")
    parser.add_argument("--warmup", type=int, default=1, help="epochs of each loop that are not counted")
    parser.add_argument("--workers", type=int, default=4, help="of the published loop's DataLoader, on CUDA")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device, n = find_device(args.device), args.batches * args.batch_size
    if args.data_folder is None:
        rng = np.random.default_rng(0)
        X, y, kind = rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8), rng.permutation(n) % 10, "images of noise"
    else:
        args.n_train = n
        X, y, *_ = load_images(args)
        y, kind = y.astype(np.int64), f"images of {args.dataset}"
    titles = ["training", "precision", "ours, samples/s", "(a)", "(b)", "ours over (a)", "by arithmetic"]
    titles += ["ours over (b)", "ours, TFLOP/s", "of peak", "(a), of peak"]
    text = (
        f"ResNet-18, {n:,} {kind}, {X.shape[1]}x{X.shape[2]}, batches of "
        f"{args.batch_size}, crop and flip, linf 8/255, {STEPS} steps, no coreset{', compiled' * args.compile}. Epochs "
        f"of {args.batches} batches in turns, {args.pairs} of each loop after {args.warmup} to warm up: medians of the "
        "rates, and median (least to largest) of neighbouring epochs' ratios. (a) is the loop that published code "
        "uses, in float32: a DataLoader with torchvision's transforms image by image, and the attack as TRADES' "
        "authors wrote it. (b) is our arithmetic in our precision in a bare loop on batches from the device. By "
        "arithmetic: FLOPs of (a) over ours, times the peak in our precision over that in float32. Peak is what large "
        "matrix products reach on this machine. FLOPs are those of convolutions and matrix products, "
        f"counted by torch.\n\n{markdown(titles, lines(X, y, args, device))}"
    )
    write_page("throughput", "Throughput of adversarial training", text, device=str(device))


if __name__ == "__main__":
    main()
