"""The fingerprint that says whose a file is."""

import numpy as np
import torch
from torch import nn

from sklearn_acs import PGD
from sklearn_acs.saving.fingerprint import fingerprint


def things():
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.fill_(1.0), model.bias.fill_(0.0)
    return [
        torch.arange(4.0),
        torch.arange(4.0).reshape(2, 2),
        torch.arange(4),
        torch.arange(4.0).bfloat16(),
        np.arange(4.0),
        np.arange(4, dtype=np.int32),
        model,
        nn.Sequential(model),
        PGD(),
        PGD(eps=0.1),
        PGD(eps=np.array([0.1, 0.2])),
        {"a": 1},
        {"a": "1"},
        [1, [2]],
        [[1], 2],
        None,
        "None",
    ]


def test_fingerprints_tell_things_apart_and_know_them_again():
    found = [fingerprint(thing) for thing in things()]
    assert found == [fingerprint(thing) for thing in things()]
    assert len(set(found)) == len(found)


def test_one_weight_makes_another_fingerprint():
    model = nn.Linear(2, 2)
    before = fingerprint(model)
    with torch.no_grad():
        model.bias[1] += 1e-6
    assert fingerprint(model) != before
