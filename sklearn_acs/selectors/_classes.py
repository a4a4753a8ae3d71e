"""Selectors solve the classes of a data set in turn, in threads, or in batches on a GPU."""

import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from threadpoolctl import ThreadpoolController
from torch import Tensor

from sklearn_acs.gradients import LastLayerGradients, add_up
from sklearn_acs.selectors._coreset import NOTHING, Coreset


class Task(NamedTuple):
    """Asks a solver to choose k samples of one class."""

    gradients: LastLayerGradients  # of the whole set, in a range where squares do not overflow
    rows: np.ndarray  # of the class
    k: int
    rng: np.random.RandomState
    exponent: int = 0  # the gradients that were given have been divided by 2**exponent

    def of_class(self) -> LastLayerGradients:
        """Take the gradients of the class, in the precision of their arithmetic."""
        whole = len(self.rows) == len(self.gradients)
        gradients = where_float64_is(self.gradients if whole else self.gradients.take(self.rows))
        return gradients.to(gradients.dtype)


class Solved(NamedTuple):
    """Holds the coreset of one class and the sums that its error is measured by."""

    coreset: Coreset  # its indices are rows of the whole set
    chosen: Tensor  # weighted sum of the chosen gradients
    total: Tensor  # sum of all gradients of the class
    rounding: Tensor  # bound on the total's rounding error


def solve_on_cpu(tasks: Sequence[Task], solve: Callable[..., Coreset], n_jobs: int | None) -> Generator[Solved]:
    """Call ``solve(gradients, k, rng, rows)`` for every class, in as many threads as asked for.

    The results come one by one in the order of the tasks: the sums of a thousand classes are too much to keep.
    """
    # BLAS threads slow down the solvers' many small products, and go on spinning between them.
    with _BLAS.limited():
        threads = n_threads(tasks, n_jobs)
        if threads == 1:
            yield from (_solve(task, solve) for task in tasks)
            return
        with _torch_threads(torch.get_num_threads()):  # later threads begin with this number too
            jobs = (delayed(_torch_threads(1)(_solve))(task, solve) for task in tasks)
            yield from Parallel(n_jobs=threads, prefer="threads", batch_size=1, return_as="generator")(jobs)


def n_threads(tasks: Sequence[Task], n_jobs: int | None) -> int:
    """Count the threads that classes are spread over: None is as many as torch uses."""
    asked = torch.get_num_threads() if n_jobs is None else effective_n_jobs(n_jobs)
    return min(asked, len(tasks)) if tasks[0].gradients.device.type == "cpu" else 1


def solve_in_batches(
    tasks: Sequence[Task],
    solve: Callable[[list[LastLayerGradients], list[int], list[np.random.RandomState]], list[Coreset]],
    bytes_needed: Callable[[int, int, int], int],
) -> Generator[Solved]:
    """Call ``solve(problems, budgets, rngs)`` for as many classes at once as the GPU's memory allows.

    ``bytes_needed(n, k, width)`` estimates the memory for choosing k of n rows whose factors have `width` columns.
    """
    for group in groups(tasks, bytes_needed, _free_bytes(tasks[0].gradients.device)):
        problems = [task.of_class() for task in group]
        some = [(problem, task.k, task.rng) for problem, task in zip(problems, group, strict=True) if task.k]
        found = iter(solve(*map(list, zip(*some, strict=True))) if some else [])
        for problem, task in zip(problems, group, strict=True):
            yield _with_sums(next(found) if task.k else NOTHING, problem, task)


def on_gpu(gradients: LastLayerGradients) -> bool:
    """Tell whether the gradients are on a GPU, where batches pay."""
    return gradients.device.type == "cuda"


def groups(tasks: Sequence[Task], bytes_needed: Callable[[int, int, int], int], n_bytes: int) -> list[list[Task]]:
    """Split the classes into consecutive groups that fit into `n_bytes`, each class padded to its group's largest."""
    width = sum(factor.shape[1] for pair in tasks[0].gradients.branches for factor in pair)
    result: list[list[Task]] = [[]]
    for task in tasks:
        group = [*result[-1], task]
        largest = bytes_needed(max(len(t.rows) for t in group), max(t.k for t in group), width)
        if result[-1] and largest * len(group) > n_bytes:
            result.append([])
        result[-1].append(task)
    return result


def where_float64_is(gradients: LastLayerGradients) -> LastLayerGradients:
    """Move gradients from MPS, which has no float64, to the CPU, and leave others where they are."""
    return gradients.to("cpu") if gradients.device.type == "mps" else gradients


def _solve(task: Task, solve: Callable[..., Coreset]) -> Solved:
    problem = task.of_class()
    return _with_sums(NOTHING if task.k == 0 else solve(problem, task.k, task.rng, task.rows), problem, task)


def _with_sums(found: Coreset, problem: LastLayerGradients, task: Task) -> Solved:
    """Add up the gradients of a class and the chosen ones of them, and number these as in the whole set."""
    chosen = problem.take(found.indices).exact_sum(torch.from_numpy(found.weights))
    lengths = add_up(rows.norms().sum() for rows in problem.blocks(torch.float64))
    rounding = len(problem) * torch.finfo(torch.float64).eps * lengths
    return Solved(replace(found, indices=task.rows[found.indices]), chosen, problem.exact_sum(), rounding)


@contextmanager
def _torch_threads(n: int) -> Iterator[None]:
    """Let torch compute with n threads in the calling thread, and then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _OneThread:
    """Keeps NumPy's BLAS to one thread until the last of several solvers ends."""

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
_threadpools = functools.cache(ThreadpoolController)  # looks up the thread pools of the libraries loaded, once


def fits(n_bytes: int, gradients: LastLayerGradients) -> bool:
    """Tell whether a batch may take `n_bytes` on the device of the gradients."""
    return n_bytes <= _free_bytes(gradients.device)


def _free_bytes(device: torch.device) -> int:
    """Count the bytes that a batch may take: half of what is free."""
    return torch.cuda.mem_get_info(device)[0] // 2
