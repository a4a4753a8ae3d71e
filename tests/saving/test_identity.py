"""An identity is the same for what would give the same, and another one for anything else."""

import functools
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_acs import PGD, BulletTrain, GradMatch, StabilityTracker
from sklearn_acs.saving.identity import Identity


def of(*values, **options):
    return Identity().of(*values, **options)


def double(x):
    return 2 * x


class Scale:
    def __init__(self, factor):
        self.factor = factor


def net(seed=0, rate=0.5):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 4), nn.Dropout(rate))


VALUES = {
    "numbers": (1, 1.0, True, 2, "1", b"1", None, 1j),
    "arrays": (np.zeros(3), np.zeros(3, np.float32), np.zeros((3, 1)), np.ones(3), torch.zeros(3), [0.0, 0.0, 0.0]),
    "containers": ([1, [2]], [[1], 2], (1, 2), [1, 2], {1, 2}, {1: 2}, {2: 1}, []),
    "objects": (Scale(1), Scale(2), Scale([1]), types.SimpleNamespace(factor=1)),
    "estimators": (PGD(), PGD(steps=3), BulletTrain(PGD()), BulletTrain(PGD(steps=3)), GradMatch(), StabilityTracker()),
    "functions": (double, of, functools.partial(double, 1), functools.partial(double, 2), len, np.sum),
    "lambdas": (lambda x: x + 1, lambda x: x + 2, lambda x: x - 1, lambda x, y=1: x + 1),
    "modules": (net(), net(1), net(rate=0.1), nn.Sequential(*net(), nn.Identity()), nn.Linear, nn.Conv2d),
    "types": (torch.float32, torch.float64, torch.device("cpu"), Scale, int),
}


@pytest.mark.parametrize("kind", VALUES)
def test_different_values_have_different_identities(kind):
    found = [of(value) for value in VALUES[kind]]
    assert len(set(found)) == len(found)
    assert found == [of(value) for value in VALUES[kind]]


def test_what_is_nested_counts():
    assert of({"a": [Scale(PGD(steps=2))]}) != of({"a": [Scale(PGD(steps=3))]})
    assert of([1], [2]) != of([1, 2], [])


def test_numpys_numbers_are_numbers():
    assert of(np.float64(0.5), np.int32(3), np.bool_(True), np.str_("a")) == of(0.5, 3, True, "a")


def test_layout_in_memory_is_no_content():
    array = np.arange(12.0).reshape(3, 4)
    assert of(array) == of(np.asfortranarray(array)) == of(np.repeat(array, 2, 0)[::2])


def test_weights_of_modules_may_be_left_out():
    assert of(net(0), weights=False) == of(net(1), weights=False)
    assert of(net(), weights=False) != of(net(rate=0.1), weights=False)


def test_what_refers_to_itself_ends():
    ring = [1]
    ring.append(ring)
    thing = Scale(1)
    thing.me = thing
    assert of(ring) == of(ring)
    assert of(thing) == of(thing)


def test_closures_and_defaults_count():
    def made(factor):
        def inner(x, y=factor):
            return factor * x

        return inner

    assert of(made(1)) != of(made(2))
    assert of(made(1)) == of(made(1))


def test_sources_of_ones_own_code_are_read_with_what_they_name_and_not_the_librarys():
    def outer(x):
        return double(x) + helper.sum(x)

    helper = np
    told = Identity()
    told.of(outer, PGD(), Scale(1), nn.Linear)
    names = {name.rpartition(".")[2] for name in told.sources}
    assert names == {"outer", "double", "Scale"}
    assert told.doubts == []


def test_what_cannot_be_known_again_is_doubted():
    namespace = {}
    exec("def typed(x):\n    return x", namespace)
    cases = [
        (namespace["typed"], "typed has no source"),
        (np.random.default_rng(0), "goes on drawing"),
        (torch.Generator(), "goes on drawing"),
        (np.random.RandomState(0), "goes on drawing"),
    ]
    for value, match in cases:
        told = Identity()
        told.of({"nested": [value]})
        assert match in told.doubts[0]


def test_it_is_the_same_in_another_process():
    code = (
        "import numpy as np; from sklearn_acs import PGD; from sklearn_acs.saving.identity import Identity; "
        "print(Identity().of({'a': {'x', 'y', 'z'}}, PGD(), np.arange(3), len))"
    )
    found = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert found == {of({"a": {"x", "y", "z"}}, PGD(), np.arange(3), len) + "\n"}
