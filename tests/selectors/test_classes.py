"""Classes are solved in threads and in batches."""

from threading import Thread

import numpy as np
import pytest
import torch
from joblib import cpu_count
from threadpoolctl import threadpool_info

from sklearn_acs.gradients import as_gradients
from sklearn_acs.selectors._classes import _BLAS, Task, groups, n_threads, solve_on_cpu
from sklearn_acs.selectors._coreset import Coreset


def make_tasks(sizes):
    gradients = as_gradients(np.ones((sum(sizes), 3)))
    members = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return [Task(gradients, rows, len(rows) // 2, np.random.RandomState(0)) for rows in members]


def test_groups_fill_the_memory_given_and_leave_no_class_out():
    tasks = make_tasks([10, 20, 10, 10])
    found = groups(tasks, lambda n, k, width: n * n + k + width, 2 * (400 + 10 + 4))
    assert [len(group) for group in found] == [2, 2]
    assert [task.rows[0] for group in found for task in group] == [0, 10, 30, 40]


def test_a_class_too_large_for_the_memory_is_a_group_of_its_own():
    assert [len(group) for group in groups(make_tasks([3, 90, 3]), lambda n, k, width: n * n, 100)] == [1, 1, 1]


def test_threads_are_as_many_as_asked_for_but_not_more_than_classes():
    tasks = make_tasks([4, 4, 4])
    assert [n_threads(tasks, n_jobs) for n_jobs in (1, 2, 8)] == [1, 2, 3]
    assert n_threads(tasks, None) == min(3, torch.get_num_threads())
    assert n_threads(tasks, -1) == min(3, cpu_count())
    with pytest.raises(ValueError, match="n_jobs == 0"):
        n_threads(tasks, 0)


def test_threads_give_the_same_in_the_same_order_and_leave_the_number_of_torchs_threads():
    def solve(gradients, k, rng, rows):
        assert torch.get_num_threads() == 1
        return Coreset(np.arange(k), np.full(k, 2.0), k, "as asked")

    tasks, before = make_tasks([4, 6, 2]), torch.get_num_threads()
    for one, task in zip(list(solve_on_cpu(tasks, solve, 2)), tasks, strict=True):
        np.testing.assert_array_equal(one.coreset.indices, task.rows[: task.k])
        np.testing.assert_allclose(one.total, len(task.rows))
        np.testing.assert_allclose(one.chosen, 2 * task.k)
    assert torch.get_num_threads() == before


def test_a_later_thread_begins_with_as_many_torch_threads_as_before():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        list(solve_on_cpu(make_tasks([4, 6]), lambda g, k, rng, rows: Coreset(np.arange(k), np.ones(k), k, ""), 2))
        thread = Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert seen == [2]


def test_blas_is_limited_until_the_last_of_several_solvers_ends():
    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before = threads()
    one, other = _BLAS.limited(), _BLAS.limited()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert threads() == {1}
    other.__exit__(None, None, None)
    assert threads() == before
