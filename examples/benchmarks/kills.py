"""Kills trainings at random moments, tells whether they end with the same bits, and what checkpoints cost.

    python examples/benchmarks/kills.py DATA_FOLDER [--kills 100]

Fits on some images of Fashion-MNIST are killed by SIGKILL at random moments, half of them with a checkpoint after every
batch, so that many are killed while they write one. Each is called again until it ends, and compared with the same fit
without checkpoints. The cost is that of `checkpoint=` in a fit on 10,000 images that nobody kills.
"""

import json
import os
import pickle
import signal
import sys
from argparse import ArgumentParser
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from time import sleep, time
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import add_data_arguments, load_images, markdown, write_page

from sklearn_acs import PGD, InBatchSelection, RobustClassifier
from sklearn_acs.training import checkpoint as checkpoints

EPS = 0.1
FEW = 800
"""Images of the fits that are killed."""

SETTINGS: dict[str, dict[str, Any]] = {
    "PGD-3, coresets": {"attack": PGD(EPS, steps=3)},
    "TRADES, averaged, early stopping": {
        "objective": "trades",
        "attack": PGD(EPS, steps=2),
        "averaging": "ema",
        "early_stopping": True,
    },
    "one remembered step, augmented": {
        "attack": PGD(EPS, steps=1, init="previous"),
        "augment": "crop",
        "averaging": "ema",
    },
    "hardest half of each batch": {"attack": PGD(EPS, steps=2), "in_batch": InBatchSelection(0.5)},
    "CRAIG, gradients of training": {"attack": PGD(EPS, steps=2), "selector": "craig", "selection_gradients": "last"},
    "streamed, remembered on disk": {"attack": PGD(EPS, steps=1, init="previous"), "streamed": True},
}


class Streamed(torch.utils.data.Dataset):
    """Reads images one by one."""

    def __init__(self, X: np.ndarray, y: np.ndarray) -> None:
        self.X, self.y, self.targets = X, y, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.X[index])[None], int(self.y[index])


def make(streamed: bool = False, **params: Any) -> RobustClassifier:
    defaults = {"module": "convnet", "max_epochs": 4, "select_every": 1, "lr": 0.05, "random_state": 0, "device": "cpu"}
    return RobustClassifier(**{**defaults, **params})


def fit(name: str, X: np.ndarray, y: np.ndarray, **params: Any) -> dict[str, Any]:
    """Fit, and return all that must be the same bits, and the seconds of the longest epoch."""
    setting = SETTINGS[name]
    clf = make(**setting, **params).fit(*((Streamed(X, y), None) if setting.get("streamed") else (X, y)))
    weights = [value.numpy().tobytes() for value in clf.net_.module_.state_dict().values()]
    history = json.dumps([{**row, "seconds": 0} for row in clf.history_])
    coresets = [(epoch, each.indices.tolist(), each.weights.tolist()) for epoch, each in clf.coresets_.items()]
    return {"bits": [weights, history, coresets], "epoch": max(clf.history_[:, "seconds"])}


def in_a_process(path: Path, *given: Any, kill_after: float | None = None, **params: Any) -> tuple[int, float]:
    """Fit in a process that is forked, and perhaps killed; return how it ended, and when it was killed."""
    child = os.fork()
    if child == 0:
        try:
            path.write_bytes(pickle.dumps(fit(*given, **params)))
            os._exit(0)
        finally:
            os._exit(1)
    killed = 0.0
    if kill_after is not None:
        sleep(kill_after)
        killed = time()
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), killed


def kill(name: str, X: np.ndarray, y: np.ndarray, each_batch: bool, random: np.random.Generator) -> dict[str, Any]:
    """Kill a fit again and again until it has ended, and tell what became of it."""
    params: dict[str, Any] = {"checkpoint_seconds": 0 if each_batch else 300}
    with TemporaryDirectory() as folder:
        path, kept, lost = Path(folder) / "result", Path(folder) / "kept", []
        begun = time()
        assert in_a_process(path, name, X, y)[0] == 0
        seconds, whole = time() - begun, pickle.loads(path.read_bytes())
        while True:
            moment = random.uniform(0.02, 1.2) * seconds  # going on takes a part of it
            status, killed = in_a_process(path, name, X, y, kill_after=moment, checkpoint=str(kept), **params)
            if status != -signal.SIGKILL:  # it was faster, or could not go on
                break
            last = max((each.stat().st_mtime for each in kept.glob("*/state.safetensors")), default=0.0)
            lost.append(min(killed - last, moment))
        same = status == 0 and pickle.loads(path.read_bytes())["bits"] == whole["bits"]
    survived = len(lost) - (status != 0)
    return {"kills": len(lost), "survived": survived, "same": same * len(lost), "lost": lost, "epoch": whole["epoch"]}


def cost(X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Measure the seconds of an epoch, and those of its checkpoint."""
    taken: list[float] = []
    keep = checkpoints.Checkpoint.__call__

    def timed(self: Any, training: Any, after: str) -> None:
        begun = time()
        keep(self, training, after)
        taken.append(time() - begun)

    checkpoints.Checkpoint.__call__ = timed
    try:
        with TemporaryDirectory() as folder:
            clf = make(attack=PGD(EPS), selector=None, averaging="ema", max_epochs=2, checkpoint=folder).fit(X, y)
    finally:
        checkpoints.Checkpoint.__call__ = keep
    return mean(clf.history_[1:, "seconds"]), sum(taken) / 2


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add_data_arguments(parser)
    parser.add_argument("--kills", type=int, default=100)
    args = parser.parse_args()
    X, y, *_ = load_images(args)
    torch.set_num_threads(1)
    make(attack=PGD(EPS, steps=1), max_epochs=1).fit(X[:256], y[:256])  # what a process does once
    random, found, n_kills = np.random.default_rng(0), [], 0
    while n_kills < args.kills:
        name, each_batch = (
            list(SETTINGS)[len(found) % len(SETTINGS)],
            bool((len(found) + len(found) // len(SETTINGS)) % 2),
        )
        row = kill(name, X[:FEW], y[:FEW], each_batch, random)
        found.append({"name": name, "kept after": "each batch" if each_batch else "each epoch", **row})
        n_kills += row["kills"]
        print(f"{n_kills:4} kills: {name}, kept after {found[-1]['kept after']}: {row}", flush=True)

    lines = []
    for key in dict.fromkeys((row["name"], row["kept after"]) for row in found):
        rows = [row for row in found if (row["name"], row["kept after"]) == key]
        counts = [sum(row[column] for row in rows) for column in ("kills", "survived", "same")]
        lost = [seconds for row in rows for seconds in row["lost"]]
        worst = f"{mean(lost):.2f} ({max(lost):.2f})" if lost else "-"
        lines.append([*key, *counts, worst, f"{max(row['epoch'] for row in rows):.2f}"])
    total = [sum(row[column] for row in found) for column in ("kills", "survived", "same")]
    lost = [seconds for row in found for seconds in row["lost"]]
    lines.append(["all", "", *total, f"{mean(lost):.2f} ({max(lost):.2f})", ""])
    titles = [
        "training",
        "kept after",
        "killed",
        "survived",
        "bit-equal",
        "lost seconds, mean (most)",
        "seconds an epoch",
    ]
    epoch, taken = cost(X, y)
    text = (
        f"Fits on {FEW:,} images of Fashion-MNIST with the convnet, 4 epochs, one thread, killed by SIGKILL at random "
        f"moments and called again until they end.\n\n{markdown(titles, lines)}\n\nSurvived: the next process went on. "
        "Bit-equal: the fit that was killed ended with the weights, history and coresets of one that was not. Lost "
        "seconds: between the last checkpoint, or the process's beginning, and the kill. Seconds an epoch: of the "
        f"longest, without kills.\n\nCost: an epoch on {len(X):,} images (PGD-10, averaged weights) takes {epoch:.2f} "
        f"s, and its checkpoints {1000 * taken:.0f} ms, {100 * taken / epoch:.2f} %."
    )
    write_page("kills", "Killed trainings", text, device="cpu")


if __name__ == "__main__":
    main()
