"""What does the library cost on top of PyTorch? Whole training epochs against a loop written by hand.

    python examples/benchmarks/loop_overhead.py DATA_FOLDER

Fashion-MNIST, small convnet, batches of 128, PGD-10 linf eps 0.1, float32, all samples (no coreset). Epochs of one
`RobustClassifier.fit` and of the bare loop alternate in one process: same weights to begin with, same tensors, same
order of the samples, same random starts, so that both do the same arithmetic and report nearly the same losses.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import add_data_arguments, load_images, markdown, write_page

from sklearn_acs import PGD, RobustClassifier
from sklearn_acs.models import build_model
from sklearn_acs.training.cost import CostMeter
from sklearn_acs.training.net import AdversarialNet

EPS, STEPS, BETA = 0.1, 10, 6.0
BATCH_SIZE, LR, MOMENTUM, WEIGHT_DECAY = 128, 0.05, 0.9, 5e-4
SAME_LOSS = 0.05
"""Relative difference of the first epochs' losses, which rounding alone brings about, that is accepted."""


class BareLoop:
    """Adversarial training and TRADES as one would write them by hand, and nothing else."""

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, trades: bool, order: torch.Generator, noise: torch.Generator
    ) -> None:
        self.model, self.x, self.y, self.trades, self.order, self.noise = model, x, y, trades, order, noise
        self.weight = torch.ones(len(x))
        self.optimizer = torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def epoch(self) -> float:
        """Train for one epoch; returns its mean loss."""
        losses = []
        for index in torch.randperm(len(self.x), generator=self.order).split(BATCH_SIZE):
            x, y, weight = self.x[index].float().div_(255), self.y[index], self.weight[index]
            x_adv = self.attack(x, y)
            self.model.train()
            if self.trades:
                logits = self.model(x)
                log_p, log_q = logits.log_softmax(1), self.model(x_adv).log_softmax(1)
                moved = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
                loss = (weight * (F.cross_entropy(logits, y, reduction="none") + BETA * moved)).mean()
            else:
                loss = (weight * F.cross_entropy(self.model(x_adv), y, reduction="none")).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach() * len(y))
        return torch.stack(losses).sum().item() / len(self.x)

    def attack(self, x: Tensor, y: Tensor) -> Tensor:
        """PGD with respect to the input alone."""
        self.model.eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        low, high = (x - EPS).clamp_(min=0), (x + EPS).clamp_(max=1)
        if self.trades:
            with torch.no_grad():
                p = self.model(x).softmax(1)
            x_adv = x + 0.001 * torch.randn(x.shape, generator=self.noise)
        else:
            x_adv = x + EPS * (2 * torch.rand(x.shape, generator=self.noise) - 1)
        x_adv.clamp_(low, high)
        for _ in range(STEPS):
            x_adv.requires_grad_()
            logits = self.model(x_adv)
            if self.trades:
                loss = F.kl_div(logits.log_softmax(1), p, reduction="sum")
            else:
                loss = F.cross_entropy(logits, y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x_adv)
            x_adv = x_adv.detach().add_(gradient.sign_(), alpha=2.5 * EPS / STEPS).clamp_(low, high)
        for parameter in self.model.parameters():
            parameter.requires_grad_(True)
        return x_adv


class Alternate(Callback):
    """After each epoch of ours one of the bare loop; notes the seconds, the CPU seconds and the loss of both.

    A callback's `on_epoch_end` runs after the epoch's seconds were taken, so that ours do not contain the other's.
    """

    def __init__(self, trades: bool) -> None:
        self.trades = trades
        self.rows: list[dict[str, float]] = []

    def on_train_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Give the bare loop the weights, the data and the randomness that ours begins with."""
        batches, generator = net.training_.batches, net.step_.adversary.generator
        x, y = batches.data[:]
        model = build_model("convnet", tuple(x.shape[1:]), int(y.max()) + 1, mean=0.0, scale=1.0)
        model.load_state_dict(net.module_.state_dict())
        order, noise = (torch.Generator().set_state(g.get_state()) for g in (batches.generator, generator))
        self.bare = BareLoop(model, x, y, self.trades, order, noise)

    def on_epoch_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Look at the CPU's clock."""
        self.begun = process_time()

    def on_epoch_end(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Take the bare loop's turn, and check in the first one that both do the same."""
        end = process_time()
        epoch = net.history[-1]
        row = {"ours": epoch["seconds"], "ours_cpu": end - self.begun, "ours_loss": epoch["train_loss"]}
        if self.rows:
            row |= self.time_bare()
        else:
            counted = CostMeter("full")
            with counted.watching(self.bare.model):
                row |= self.time_bare()
            check_same(net.training_.meter, counted, row)
        self.rows.append(row)
        print("  ".join(f"{key} {value:.4f}" for key, value in row.items()), flush=True)

    def time_bare(self) -> dict[str, float]:
        """Train the bare loop for an epoch."""
        begun, begun_cpu = perf_counter(), process_time()
        loss = self.bare.epoch()
        return {"bare": perf_counter() - begun, "bare_cpu": process_time() - begun_cpu, "bare_loss": loss}


def check_same(ours: CostMeter, bare: CostMeter, row: dict[str, float]) -> None:
    """Stop unless both epochs made the same passes through the network and ended with the same mean loss."""
    a, b = ours.cost["full"], bare.cost["full"]
    if (a.forwards, a.backwards) != (b.forwards, b.backwards):
        raise SystemExit(f"not the same arithmetic: ours {a}, bare {b}")
    if abs(row["ours_loss"] / row["bare_loss"] - 1) > SAME_LOSS:
        raise SystemExit(f"not the same arithmetic: losses {row['ours_loss']} and {row['bare_loss']}")


def compare_loops(objective: str, X: Any, y: Any, pairs: int) -> tuple[list[dict[str, float]], RobustClassifier]:
    """One fit of a warm-up epoch and `pairs` more, each with its bare epoch; the warm-up is left out."""
    alternate = Alternate(objective == "trades")
    clf = RobustClassifier(
        "convnet",
        objective=objective,
        attack=PGD(eps=EPS, steps=STEPS),
        attack_ramp=0.0,
        averaging=None,
        max_epochs=1 + pairs,
        batch_size=BATCH_SIZE,
        lr=LR,
        lr_schedule="constant",
        callbacks=[alternate],
        device="cpu",
        random_state=0,
    )
    clf.fit(X, y)
    return alternate.rows[1:], clf


def ratios(rows: Sequence[dict[str, float]], key: str = "") -> str:
    """Median, least and largest ratio of ours to bare."""
    values = [row[f"ours{key}"] / row[f"bare{key}"] for row in rows]
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    add_data_arguments(parser)
    parser.add_argument("--pairs", type=int, default=9, help="epochs of each after the warm-up")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    X, y, *_ = load_images(args)
    titles = ["objective", "ours / bare, seconds", "ours / bare, CPU seconds", "ours, s", "bare, s", "loss, ours"]
    titles += ["loss, bare", "passes a second, ours", "bare", "set-up of the fit, s"]
    lines = []
    for objective in ("adversarial", "trades"):
        print(objective)
        rows, clf = compare_loops(objective, X, y, args.pairs)
        ours, bare = (median(row[who] for row in rows) for who in ("ours", "bare"))
        passes = (clf.cost_.total.forwards + clf.cost_.total.backwards) / clf.max_epochs
        cells = [objective, ratios(rows), ratios(rows, "_cpu"), f"{ours:.2f}", f"{bare:.2f}"]
        cells += [f"{rows[-1][key]:.4f}" for key in ("ours_loss", "bare_loss")]
        cells += [f"{passes / ours:,.0f}", f"{passes / bare:,.0f}", f"{clf.cost_['setup'].seconds:.2f}"]
        lines.append(cells)
    text = (
        f"{args.dataset}, {args.n_train:,} training images, convnet, batches of "
        f"{BATCH_SIZE}, PGD-{STEPS} linf eps {EPS:g}, float32, no coreset. {args.pairs} epochs of "
        "`RobustClassifier.fit` and of a loop written by hand, in turns, after one of each to warm up: median (least "
        "to largest) ratio of neighbouring epochs, medians of the seconds, and the last epoch's losses. A pass is one "
        "sample once forwards or once backwards through the network. The set-up happens once in a fit."
        f"\n\n{markdown(titles, lines)}"
    )
    write_page("loop_overhead", "Overhead of the training loop", text, device="cpu")


if __name__ == "__main__":
    main()
