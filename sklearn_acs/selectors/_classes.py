"""Choosing class by class: one after the other, spread over threads, or as batches on a GPU."""

import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed
from threadpoolctl import ThreadpoolController
from torch import Tensor

from sklearn_acs.gradients import LastLayerGradients, exact_sum
from sklearn_acs.selectors._coreset import NOTHING, Coreset


class Task(NamedTuple):
    """Choose k of the rows of one class."""

    gradients: LastLayerGradients  # of the whole set
    rows: np.ndarray
    k: int
    rng: np.random.RandomState


class Solved(NamedTuple):
    """The coreset of a class in the numbers of the whole set, and the sums of all its gradients and of the chosen."""

    coreset: Coreset
    chosen: Tensor
    total: Tensor
    rounding: Tensor  # how far it may have taken the total from the true one


def solve_on_cpu(tasks: Sequence[Task], solve: Callable[..., Coreset], n_jobs: int | None) -> Generator[Solved]:
    """Call ``solve(gradients, k, rng, rows)`` for every class, several classes in as many threads as asked for.

    One result after the other, in the order of the tasks: a thousand classes' sums of gradients are too much to keep.
    """
    # The solvers' many small products are slower in threads of their own, and those of NumPy's BLAS go on spinning.
    with _BLAS.limited():
        threads = n_threads(tasks, n_jobs)
        if threads == 1:
            yield from (_solve(task, solve) for task in tasks)
            return
        torchs = torch.get_num_threads()
        try:
            jobs = (delayed(_single_threaded)(_solve, task, solve) for task in tasks)
            yield from Parallel(n_jobs=threads, prefer="threads", batch_size=1, return_as="generator")(jobs)
        finally:
            torch.set_num_threads(torchs)  # which is also what later threads begin with


def n_threads(tasks: Sequence[Task], n_jobs: int | None) -> int:
    """Threads that classes are spread over: None is as many as torch uses."""
    if n_jobs == 0:
        raise ValueError(
            "n_jobs must be None, a number of threads, or negative to count from the number of cores; got 0."
        )
    asked = torch.get_num_threads() if n_jobs is None else n_jobs if n_jobs > 0 else max(1, cpu_count() + 1 + n_jobs)
    return min(asked, len(tasks)) if tasks[0].gradients.device.type == "cpu" else 1


def solve_in_batches(
    tasks: Sequence[Task],
    solve: Callable[[list[LastLayerGradients], list[int], list[np.random.RandomState]], list[Coreset]],
    bytes_needed: Callable[[int, int, int], int],
) -> Generator[Solved]:
    """Call ``solve(problems, budgets, rngs)`` for as many classes at once as the GPU's memory allows.

    `bytes_needed` tells what a class of n rows takes of which k are chosen, given the width of its factors.
    """
    for group in groups(tasks, bytes_needed, _free_bytes(tasks[0].gradients.device)):
        parts = [part_of(task) for task in group]
        some = [(part, task.k, task.rng) for part, task in zip(parts, group, strict=True) if task.k]
        found = iter(solve(*map(list, zip(*some, strict=True))) if some else [])
        for part, task in zip(parts, group, strict=True):
            yield _with_sums(next(found) if task.k else NOTHING, part, task)


def on_gpu(gradients: LastLayerGradients) -> bool:
    """Whether the gradients are where batches pay."""
    return gradients.device.type == "cuda"


def groups(tasks: Sequence[Task], bytes_needed: Callable[[int, int, int], int], n_bytes: int) -> list[list[Task]]:
    """Split classes into consecutive groups, each as large as fits when all are padded to its largest."""
    width = sum(factor.shape[1] for pair in tasks[0].gradients.branches for factor in pair)
    result: list[list[Task]] = [[]]
    for task in tasks:
        group = [*result[-1], task]
        largest = bytes_needed(max(len(t.rows) for t in group), max(t.k for t in group), width)
        if result[-1] and largest * len(group) > n_bytes:
            result.append([])
        result[-1].append(task)
    return result


def part_of(task: Task) -> LastLayerGradients:
    """The gradients of a class, in the precision of their arithmetic."""
    gradients = task.gradients
    part = gradients if len(task.rows) == len(gradients) else gradients.take(task.rows)
    return where_float64_is(part).to(part.dtype)


def where_float64_is(gradients: LastLayerGradients) -> LastLayerGradients:
    """The gradients where they are, but those on MPS, which has no float64, on the CPU."""
    return gradients.to("cpu") if gradients.device.type == "mps" else gradients


def _solve(task: Task, solve: Callable[..., Coreset]) -> Solved:
    part = part_of(task)
    return _with_sums(NOTHING if task.k == 0 else solve(part, task.k, task.rng, task.rows), part, task)


def _with_sums(found: Coreset, part: LastLayerGradients, task: Task) -> Solved:
    chosen = exact_sum(part.take(found.indices), torch.from_numpy(found.weights))
    return Solved(replace(found, indices=task.rows[found.indices]), chosen, *_exact_total(part))


def _exact_total(gradients: LastLayerGradients) -> tuple[Tensor, Tensor]:
    """Add up all rows in float64: the sum, and how far rounding may have taken it from the true one."""
    total = torch.zeros(gradients.shape[1], dtype=torch.float64, device=gradients.device)
    lengths = torch.zeros((), dtype=torch.float64, device=gradients.device)
    for block in gradients.blocks(torch.float64):
        total += block.sum()
        lengths += block.norms().sum()
    rounding = len(gradients) * torch.finfo(torch.float64).eps * lengths
    return total, rounding.nan_to_num(posinf=0.0)  # lengths beyond what squares can hold


def _single_threaded(function: Callable, *args: Any) -> Any:
    """Call with one thread for torch's own parallelism."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of the calling thread
    try:
        return function(*args)
    finally:
        torch.set_num_threads(threads)


class _OneThread:
    """Keeps NumPy's BLAS to one thread as long as any solver runs, whichever of several ends first."""

    def __init__(self) -> None:
        self._lock, self._users = Lock(), 0

    @contextmanager
    def limited(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._limiter = _threadpools().limit(limits=1, user_api="blas")
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._limiter.restore_original_limits()


_BLAS = _OneThread()


@functools.cache
def _threadpools() -> ThreadpoolController:
    """The thread pools of the libraries that are loaded, looked up once."""
    return ThreadpoolController()


def fits(n_bytes: int, gradients: LastLayerGradients) -> bool:
    """Whether a batch may take so many bytes on the device of the gradients."""
    return n_bytes <= _free_bytes(gradients.device)


def _free_bytes(device: torch.device) -> int:
    """Memory that a batch of classes may take: half of what is free."""
    return torch.cuda.mem_get_info(device)[0] // 2
