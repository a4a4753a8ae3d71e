"""Trainings that are killed at random moments go on, and end with the same bits.

A server that has imported torch once is started beside the tests; it forks a process for each fit, which kills itself.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.utils.data import Dataset

from sklearn_acs import PGD, BulletTrain, CollapseGuard, InBatchSelection, RobustClassifier, StabilityTracker
from sklearn_acs.training.training import Training

DIGITS = load_digits(n_class=3)
X, y = (DIGITS.images / 16).astype(np.float32)[:128], DIGITS.target[:128]

REMEMBERING = PGD(eps=0.15, steps=1, init="previous")


class Streamed(Dataset):
    """Reads images one by one."""

    def __len__(self):
        return len(y)

    def __getitem__(self, index):
        return X[index][None], int(y[index])


class Noisy(Streamed):
    """Draws from torch's global generator, as augmenting Datasets do."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return torch.from_numpy(image).add(0.05 * torch.rand(image.shape)).clamp(0, 1), label


def dropout(shape, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 3))


CONFIGURATIONS = {
    "gradmatch": {},
    "trades, averaged": {"objective": "trades", "averaging": "ema", "selector": "craig"},
    "mart, dropout": {"objective": "mart", "module": dropout, "optimizer": "adam"},
    "fast, guarded": {"objective": "fast", "attack": None},
    "remembered steps, augmented": {"attack": REMEMBERING, "augment": "crop-flip"},
    "bullet": {"attack": BulletTrain(PGD(eps=0.15, steps=2)), "attack_ramp": 0.5},
    "adaptive in-batch selection": {"in_batch": InBatchSelection("adaptive"), "selection_gradients": "fresh"},
    "in-batch selection after the attack, tracked": {
        "in_batch": InBatchSelection(0.5, when="after"),
        "callbacks": [StabilityTracker(), CollapseGuard()],
    },
    "gradients of training": {"selection_gradients": "last"},
    "infobatch": {"selector": "infobatch"},
    "early stopping, glister": {"early_stopping": True, "selector": "glister"},
    "float16": {"precision": "fp16", "batch_size": 64, "max_epochs": 4},
    "streamed": {"data": Streamed, "selector": None, "max_epochs": 4},
    "streamed, remembered on disk": {"data": Streamed, "attack": REMEMBERING, "averaging": "ema"},
    "streamed, drawing": {"data": Noisy, "max_epochs": 4},
    "streamed by a worker": {"data": Streamed, "iterator_train__num_workers": 1, "max_epochs": 2, "selector": None},
}


def make(data=None, **params):
    defaults = {"max_epochs": 6, "batch_size": 32, "attack": PGD(eps=0.15, steps=2), "random_state": 0}
    return RobustClassifier(**{**defaults, "select_every": 2, "device": "cpu", **params})


def fit(name, **params):
    """Fit a configuration; return all that must be the same."""
    options = CONFIGURATIONS[name]
    clf = make(**options, **params)
    clf.fit(*((options["data"](), None) if "data" in options else (X, y)))
    modules = clf.net_.raw_module_, clf.net_.module_
    trackers = [each for _, each in clf.net_.callbacks_ if isinstance(each, StabilityTracker)]
    return {
        "weights": [net.numpy() for module in modules for net in module.state_dict().values()],
        "history": [{**row, "seconds": 0} for row in clf.history_],
        "coresets": {epoch: (each.indices, each.weights, each.stop_reason) for epoch, each in clf.coresets_.items()},
        "attributes": (clf.best_epoch_, clf.best_validation_score_, clf.stop_reason_, clf.interrupted_),
        "passes": [(clf.cost_[each].forwards, clf.cost_[each].backwards) for each in ("full", "coreset", "selection")],
        "tracked": [(each.times_seen_, each.times_wrong_) for each in trackers],
    }  # fmt: skip


GRID = {"coreset_frac": [0.3, 0.6], "selector": ["random", "craig"]}


def search(**params):
    """Search a grid of 12 fits, and its refit; return all but the times."""
    found = GridSearchCV(make(max_epochs=4, **params), GRID, cv=3).fit(X, y)
    results = {key: value for key, value in found.cv_results_.items() if "time" not in key}
    return {**results, "best": found.best_params_}


# The server


def serve():
    """Fork a process for each line: a task, whose result goes to a file unless the process kills itself before."""
    torch.set_num_threads(1)
    make(max_epochs=2).fit(X, y)  # what a process does once takes longer than these fits
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                run(**task)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run(what, args, params, path, after_steps=None, delay=0.0, with_signal=signal.SIGKILL):
    """Run a task; send the process a signal so many seconds after it began a step, counted from 0."""
    steps, step = [], Training.step

    def counted(self, batch):
        steps.append(batch)
        if len(steps) - 1 == after_steps:
            Timer(delay, os.kill, (os.getpid(), with_signal)).start()
        return step(self, batch)

    Training.step = counted
    result = {"fit": fit, "search": search}[what](*args, **params)
    Path(path).write_bytes(pickle.dumps({"result": result, "steps": len(steps)}))


if __name__ == "__main__":
    serve()


class Server:
    def __init__(self):
        command = [sys.executable, "-W", "ignore", __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # whose threads no fork has
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, what, *args, path, **options):
        """Run a task; return how its process ended."""
        params = options.pop("params", {})
        task = {"what": what, "args": args, "params": params, "path": str(path), **options}
        print(json.dumps(task), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.process.stdin.close()
    server.process.stdout.close()
    server.process.wait()


def read(path):
    return pickle.loads(path.read_bytes())


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_fit_that_is_killed_goes_on_and_ends_with_the_same_bits(name, server, tmp_path):
    assert server("fit", name, path=tmp_path / "whole") == 0
    whole, random = read(tmp_path / "whole"), np.random.default_rng(len(name))
    seconds = 0 if random.random() < 0.5 else 300
    options = {
        "params": {"checkpoint": str(tmp_path / "kept"), "checkpoint_seconds": seconds},
        "path": tmp_path / "rest",
    }
    done = []
    for last in (whole["steps"] - 1, whole["steps"] // 2):
        moment = {"after_steps": int(random.integers(last)), "delay": random.uniform(0, 0.01)}
        done.append(server("fit", name, **options, **moment))
    assert done[0] == -signal.SIGKILL
    assert server("fit", name, **options) == 0
    rest = read(tmp_path / "rest")
    np.testing.assert_equal(rest["result"], whole["result"])
    assert rest["steps"] < whole["steps"] or done[1] == 0 or seconds


def test_a_search_that_is_killed_five_times_ends_with_the_same_results(server, tmp_path):
    assert server("search", path=tmp_path / "whole") == 0
    whole, random = read(tmp_path / "whole"), np.random.default_rng(0)
    task = {"params": {"checkpoint": str(tmp_path / "kept")}, "path": tmp_path / "rest"}
    for _ in range(5):
        moment = {"after_steps": int(random.integers(5, 14)), "delay": random.uniform(0, 0.01)}
        assert server("search", **task, **moment) == -signal.SIGKILL
    assert server("search", **task) == 0
    rest = read(tmp_path / "rest")
    np.testing.assert_equal(rest["result"], whole["result"])
    assert rest["steps"] < whole["steps"] - 30


def test_a_fit_that_is_terminated_loses_no_step(server, tmp_path):
    assert server("fit", "gradmatch", path=tmp_path / "whole") == 0
    whole, options = (
        read(tmp_path / "whole"),
        {"params": {"checkpoint": str(tmp_path / "kept")}, "path": tmp_path / "rest"},
    )
    ended = server("fit", "gradmatch", **options, after_steps=5, with_signal=signal.SIGTERM)
    assert ended == -signal.SIGTERM
    assert server("fit", "gradmatch", **options) == 0
    rest = read(tmp_path / "rest")
    np.testing.assert_equal(rest["result"], whole["result"])
    assert whole["steps"] - 8 < rest["steps"] <= whole["steps"] - 6
