"""The races of selector_speed.py: inputs, solvers in turns on the same inputs, and whole sets with their memory."""

import signal
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from shared import Row
from sklearn.base import clone
from sklearn.linear_model import orthogonal_mp_gram
from threadpoolctl import threadpool_limits
from torch import Tensor

from sklearn_acs.gradients import LastLayerGradients, as_gradients
from sklearn_acs.selectors import BaseSelector, Glister, GradMatch
from sklearn_acs.selectors._facility_location import facility_location
from sklearn_acs.selectors._omp import orthogonal_matching_pursuit

THREADS, RUNS, SLOW, SETTLE = 2, 5, 30, 0.5
"""Threads of everyone; timed runs after a warm-up; seconds from which one run is enough; seconds
before each run, in which the threads of the one before stop spinning."""
OURS, OURS_RIDGE, OURS_BARE = "GradMatch(ridge=0)", "GradMatch(ridge=0.1)", "GradMatch(ridge=0), not filled"
CORDS, CORDS_RIDGE, SKLEARN = "cords, lam=0", "cords, lam=0.5", "orthogonal_mp_gram and its Gram matrix"
SKLEARN_SINGLE, COVER = f"{SKLEARN}, float32", "facility_location, as in CRAIG"
APRICOT, APRICOT_COMPILED = "apricot, lazy", "apricot, lazy, compiled once"


def make_gradients(
    n: int, n_classes: int, width: int, seed: int, label: int | None = None, folder: str | None = None
) -> tuple[LastLayerGradients, Tensor]:
    """Gradients as a trained ResNet has them, and the classes: low-rank features, logits that follow from them.

    Parameters
    ----------
    n, n_classes, width, seed : int
        Samples, classes, features, and what the randomness begins with.
    label : int or None
        The class of all samples; None for classes in random order.
    folder : str or None
        Where to write the factors as memory maps in half precision; None keeps them in memory, in single.
    """
    rng = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=rng)
    rank = min(64, width // 2)
    mix, means = draw(rank, width) / rank**0.5, 0.6 * draw(n_classes, width)
    weight = means.T * (0.8 / width**0.5)
    y = torch.randint(n_classes, (n,), generator=rng) if label is None else torch.full((n,), label)
    shapes = {"g": (n, n_classes), "h1": (n, width + 1)}
    if folder is None:
        g, h1 = (torch.empty(shape) for shape in shapes.values())
    else:
        np.save(f"{folder}/y.npy", y)
        g, h1 = (np.lib.format.open_memmap(f"{folder}/{key}.npy", "w+", "f2", shape) for key, shape in shapes.items())
    for start in range(0, n, 4096):
        block = y[start : start + 4096]
        h = (means[block] + draw(len(block), rank) @ mix + 0.1 * draw(len(block), width)).relu_()
        p = (h @ weight).softmax(1)
        p[torch.arange(len(block)), block] -= 1
        g[start : start + 4096], h1[start : start + 4096, :-1], h1[start : start + 4096, -1] = p, h, 1
    return LastLayerGradients([(g, h1)]), y


def one_class(n: int, width: int) -> Tensor:
    """Gradients of one class's samples at its own logit, from which cords selects class by class."""
    ((g, h1),) = make_gradients(n, 10, width, 0, label=3)[0].branches
    return g[:, 3:4] * h1


def mixed(n: int, width: int) -> Tensor:
    return make_gradients(n, 10, width, 0)[0].dense()


def batches(n: int, width: int) -> Tensor:
    """Mean gradients of n batches of 128."""
    return make_gradients(128 * n, 10, width, 0)[0].mean_by(torch.arange(128 * n) // 128)


def race(methods: dict[str, Callable[[], Any]], device: str, cut: float = 0, runs: int = RUNS) -> dict[str, Row]:
    """Run all methods in turns, a warm-up and five times, slow ones once: their median seconds and what they return.

    With `cut`, all but the first are stopped after so many seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in methods}
    found: dict[str, Row] = {}
    for _ in range(1 + runs):
        for name, run in methods.items():
            if max(times[name], default=0) >= SLOW:
                continue
            synchronize(device)
            time.sleep(SETTLE)
            begun, result = time.perf_counter(), None
            try:
                signal.setitimer(signal.ITIMER_REAL, cut if found else 0)
                result = run()
            except TimeoutError:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            synchronize(device)
            times[name].append(time.perf_counter() - begun)
            found[name] = {"result": result, "cut": result is None}
    for name, row in found.items():
        timed = times[name] if len(times[name]) <= runs else times[name][1:]
        row |= {"seconds": median(timed), "runs": len(timed)}
        print(f"  {name:<50} {row['seconds']:9.4f} s", flush=True)
    return found


def stop_run(*_: Any) -> None:
    raise TimeoutError


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def match(work: str, make: Callable[[], Tensor], k: int, names: Sequence[str], args: Namespace) -> Iterator[Row]:
    """Race the OMP solvers of these names: k rows of a matrix whose weighted sum comes close to that of all."""
    X = make().to(args.device)
    b = X.sum(0)

    def ours(ridge: float) -> tuple:
        selector = GradMatch(n_select=k, ridge=ridge, ridge_center="zero", tolerance=1e-6).fit(X)
        return selector.indices_, selector.weights_, selector.n_matched_

    def bare() -> tuple:
        with threadpool_limits(1, "blas"):  # as in fit
            found = orthogonal_matching_pursuit(as_gradients(X).to("cpu", torch.float64), k, tolerance=1e-6)
        return found.indices, found.weights, len(found.indices)

    def cords(lam: float) -> tuple:
        w = args.cords.OrthogonalMP_REG_Parallel_V1(X.T, b, 1e-4, k, True, lam, args.device)
        return w.nonzero()[:, 0], w[w != 0], int((w != 0).sum())

    def sklearns(dtype: torch.dtype) -> tuple:
        A = X.to("cpu", dtype).numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that it stops early, which the table says
            w = orthogonal_mp_gram(A @ A.T, A @ A.sum(0), n_nonzero_coefs=k)
        return np.flatnonzero(w), w[w != 0], np.count_nonzero(w)

    methods = {
        OURS: partial(ours, 0.0),
        OURS_RIDGE: partial(ours, 0.1),
        OURS_BARE: bare,
        CORDS: partial(cords, 0.0),
        CORDS_RIDGE: partial(cords, 0.5),
        SKLEARN: partial(sklearns, torch.float64),
        SKLEARN_SINGLE: partial(sklearns, torch.float32),
    }
    exact = X.double()
    for name, row in race({name: methods[name] for name in names}, args.device, args.cut, args.runs).items():
        if (result := row.pop("result")) is not None:
            w = torch.zeros_like(exact[:, 0])
            w[torch.as_tensor(result[0])] = torch.as_tensor(result[1], dtype=w.dtype, device=w.device)
            row |= {"error": missed(exact, w), "matched": int(result[2])}
            if name in (CORDS, CORDS_RIDGE) and row["matched"] < k:
                others = (w == 0).nonzero()[:, 0].cpu()
                w[others[torch.randperm(len(others))[: k - row["matched"]]]] = 1
                row["filled"] = missed(exact, w)
        yield {"work": f"{work}, {len(X):,} x {X.shape[1]:,}, k {k:,}", "method": name, "k": k, **row}


def missed(X: Tensor, w: Tensor) -> float:
    return float((X.sum(0) - w @ X).norm() / X.sum(0).norm())


def cover(work: str, make: Callable[[], Tensor], k: int, names: Sequence[str], args: Namespace) -> Iterator[Row]:
    """Race facility location of these names on a given matrix of distances, on the CPU."""
    X = make().double()
    d = torch.cdist(X, X).fill_diagonal_(0)
    distances = torch.maximum(d, d.T).float().numpy()  # symmetric to the last bit
    similarity = (distances.max() - distances).astype(np.float64)

    def ours() -> np.ndarray:
        with threadpool_limits(1, "blas"):  # as in fit
            return facility_location(distances.__getitem__, len(X), k)[0]

    def apricots() -> np.ndarray:
        return args.apricot.FacilityLocationSelection(k, metric="precomputed", optimizer="lazy").fit(similarity).ranking

    def compiled() -> np.ndarray:
        with patch.multiple(args.apricot.functions.facilityLocation, **args.compiled):
            return apricots()

    methods = {COVER: ours, APRICOT: apricots, APRICOT_COMPILED: compiled}
    for name, row in race({name: methods[name] for name in names}, "cpu", args.cut, args.runs).items():
        if (picks := row.pop("result")) is not None:
            row |= {"value": float(similarity[picks].max(0).sum()), "matched": len(picks)}
        yield {"work": f"{work}, n {len(X):,}, k {k:,}", "method": name, "k": k, **row}


def whole_set(work: str, spec: Row, selectors: list[BaseSelector], args: Namespace) -> Iterator[Row]:
    """Fit each selector in a process of its own."""
    for selector in selectors:
        with get_context("spawn").Pool(1) as pool:
            row = pool.apply(fit_alone, (selector, spec, args.device, args.runs))
        jobs = f"(n_jobs={selector.n_jobs})" if selector.n_jobs else ""
        yield {"work": work, "method": type(selector).__name__ + jobs, **row}


def fit_alone(selector: BaseSelector, spec: Row, device: str, runs: int) -> Row:
    """Make or open the inputs, then fit: seconds, and what memory that takes."""
    torch.set_num_threads(THREADS)
    n, n_validation = spec["n"], 1000 if isinstance(selector, Glister) else 0
    warm, y_warm = make_gradients(200, 10, 16, 0)
    clone(selector).fit(warm.to(device), y_warm)
    if "folder" in spec:
        g, h1, y = (np.load(f"{spec['folder']}/{key}.npy", mmap_mode="r") for key in ("g", "h1", "y"))
    else:
        gradients, y = make_gradients(n + n_validation, spec["n_classes"], spec["width"], 0)
        ((g, h1),) = gradients.to(device).branches
    gradients, validation = (LastLayerGradients([(g[part], h1[part])]) for part in (slice(n), slice(n, None)))
    run = partial(selector.fit, gradients, y[:n], **({"validation": validation} if n_validation else {}))
    with watch_memory(device) as memory:
        (row,) = race({type(selector).__name__: run}, device, runs=runs).values()
    del row["result"]
    return {**row, **memory, "error": selector.approximation_error_, "matched": selector.n_matched_}


@contextmanager
def watch_memory(device: str) -> Iterator[Row]:
    """The most MB held while the block runs, after it: in all, beyond its beginning, and that of the latter allocated.

    Pages of memory maps count in the first two. On a GPU it is the GPU's memory.
    """
    memory, done = {"anonymous_mb": 0.0}, Event()

    def sample() -> None:
        begun = memory_mb("RssAnon")
        while not done.wait(0.02):
            memory["anonymous_mb"] = max(memory["anonymous_mb"], memory_mb("RssAnon") - begun)

    if (reset := Path("/proc/self/clear_refs")).exists():
        reset.write_text("5")  # forget the peak that making the inputs left
    begun = torch.cuda.memory_allocated() / 2**20 if device == "cuda" else memory_mb("VmRSS")
    thread = Thread(target=sample)
    thread.start()
    try:
        yield memory
    finally:
        done.set()
        thread.join()
    total = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else memory_mb("VmHWM")
    memory |= {"total_mb": total, "peak_mb": total - begun}


def memory_mb(field: str) -> float:
    """What Linux says of this process; elsewhere its peak so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        return getrusage(RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field)) / 2**10
