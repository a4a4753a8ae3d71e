"""Bytes of tensors, against sums by hand."""

import numpy as np
import torch
from torch import nn

from sklearn_acs.training.peak import PeakBytes, bytes_of, shares_memory

CPU = torch.device("cpu")


def test_what_lives_at_a_time_is_added_up():
    with PeakBytes() as count:
        x = torch.zeros(100)  # 400
        y = x + 1  # 800
        del x
        z = torch.zeros(25)  # 500
    assert (count.now, count.peak) == (500, 800)
    assert len(y) + len(z) == 125


def test_views_and_what_was_there_before_take_nothing():
    x = torch.zeros(10, 10)
    with PeakBytes() as count:
        x.view(-1)[:5].add_(1)
    assert count.peak == 0


def test_activations_are_counted_until_the_backward_pass_has_used_them():
    module = nn.Sequential(nn.Linear(10, 1000), nn.Tanh(), nn.Linear(1000, 1))
    x = torch.rand(32, 10)
    with PeakBytes() as count:
        loss = module(x).sum()
        kept = count.now
        loss.backward()
        module.zero_grad()
    assert kept == 4 * (32 * 1000 + 1)  # the activations and the loss
    assert count.now == 4 and count.peak > 2 * kept - 100


def test_tensors_of_a_storage_count_once_wherever_they_are():
    x, y = torch.zeros(100), torch.zeros(7, dtype=torch.int8)
    assert bytes_of({"a": [x, x[:3]], "b": (y, None, "text")}, CPU) == 407


def test_an_array_shares_its_memory_with_what_is_read_of_it_unless_that_is_a_copy():
    array = np.zeros((4, 3), dtype=np.float32)
    tensor = torch.from_numpy(array)
    assert shares_memory(tensor, array) and shares_memory(tensor[1:], tensor)
    assert not shares_memory(tensor.clone(), array) and not shares_memory(tensor.clone(), tensor)
    assert not shares_memory(tensor, array.tolist()) and not shares_memory(None, array)
