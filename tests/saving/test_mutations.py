"""A thousand mutations of a classifier's file: each is a ValueError, or loads what was saved, and nothing else."""

import json
import os
import resource
import subprocess
from random import Random

import numpy as np
import pytest
from sklearn.datasets import load_iris

from sklearn_acs import Dynamics, RobustClassifier
from sklearn_acs.saving.tensor_file import read_tensors, write_tensors

X, y = load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "clf"
    clf = RobustClassifier(
        "mlp",
        module__hidden=(5,),
        averaging="ema",
        coreset_frac=0.5,
        max_epochs=2,
        callbacks=[Dynamics()],
        random_state=0,
    )
    clf.fit(X, y).save(path)
    return path, clf.decision_function(X)


@pytest.fixture
def nothing_runs(monkeypatch):
    """Fail where something is run, and where memory is taken."""
    for owner, name in ((os, "system"), (os, "popen"), (subprocess, "Popen"), (os, "fork")):
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: pytest.fail("something was run"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def flipped(content, random):
    at = random.randrange(len(content))
    content[at] ^= random.randrange(1, 256)


def cut(content, random):
    del content[random.randrange(len(content)) :]


def cut_out(content, random):
    at = random.randrange(len(content))
    del content[at : at + random.randrange(1, 100)]


def grown(content, random):
    at = random.randrange(len(content) + 1)
    content[at:at] = random.randbytes(random.randrange(1, 100))


def swapped(content, random):
    """Swap the bytes of two places of the header, as names or offsets of two tensors."""
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    del entries["__metadata__"]
    one, other = (
        json.dumps(entries[name]["data_offsets"], separators=(",", ":")).encode()
        for name in random.sample([*entries], 2)
    )
    content[:] = content.replace(one, b"?").replace(other, one).replace(b"?", other)


def huge(content, random):
    content[: random.randrange(1, 9)] = random.randbytes(8)


@pytest.mark.parametrize("seed", range(10))
def test_an_altered_file_is_a_value_error_or_loads_what_was_saved(saved, seed, tmp_path, nothing_runs):
    (path, logits), random, path_of = saved, Random(seed), tmp_path / "folder" / "file"
    path_of.parent.mkdir()
    whole, n_refused = path.read_bytes(), 0
    for i in range(60):
        content = bytearray(whole)
        [flipped, flipped, flipped, cut, cut_out, grown, swapped, huge][i % 8](content, random)
        path_of.write_bytes(content)
        try:
            clf = RobustClassifier.load(path_of)
        except ValueError as error:
            assert "file' " in str(error)
            n_refused += 1
        else:
            np.testing.assert_array_equal(clf.decision_function(X), logits)
    assert n_refused > 50
    assert [*tmp_path.rglob("*")] == [path_of.parent, path_of]


HOSTILE = [
    *(None, True, -1, 0, 2**62, -(2**63), 1e308, "", "os.system", "../x", [], {}, [[]], {"": None}, "x" * 1000),
    *({"$object": "os.system", "fields": {"command": "echo"}}, {"$name": "os.system"}, {"$name": "torch.optim.Adam"}),
    *({"$tensor": "../x"}, {"$tensor": "fitted/left/weights/0.mean"}, {"$int": "f" * 1000}, {"$float": "nan"}),
    *({"$object": "PGD", "fields": {"eps": 2**62, "steps": 2**62}}, {"$not_held": "x"}, {"$numbers": "x"}),
    *({"$tuple": [2**40, 2**40, 2**40]}, {"$bytes": ""}, {"$scalar": "", "dtype": "<U0"}, {"$each": "PGD", "rows": []}),
]


def places(tree):
    """List where something stands in JSON: what it is in, and its key."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [(tree, key) for key, _ in items] + [place for _, value in items for place in places(value)]


@pytest.mark.parametrize("seed", range(10))
def test_a_forged_file_of_a_right_checksum_is_a_value_error_or_a_classifier(saved, seed, tmp_path, nothing_runs):
    random, path = Random(seed), tmp_path / "file"
    for _ in range(50):
        tensors, about = read_tensors(saved[0])
        for _ in range(random.randrange(1, 3)):
            owner, key = random.choice(places(about["content"]))
            owner[key] = random.choice(HOSTILE)
        if random.random() < 0.2:
            one, other = random.sample([*tensors], 2)
            tensors[one], tensors[other] = tensors[other], tensors[one]
        write_tensors(path, tensors, about)
        try:
            clf = RobustClassifier.load(path)
        except ValueError:
            continue
        assert isinstance(clf, RobustClassifier)
    assert [*tmp_path.rglob("*")] == [path]


@pytest.mark.parametrize(
    "params",
    [
        {"module": "wrn-28-10", "module__depth": 4 + 6 * 10**7},
        {"module": "wrn-28-10", "module__width": 10**6},
        {"module": "mlp", "module__hidden": [10**9, 10**9]},
        {"module": "mlp", "module__hidden": 10**12},
        {"module": "resnet50"},
        {"module": {"$name": "wide_resnet"}},
        {"module": "os.system"},
        {"module": {"$name": "one_cycle"}},
        {"optimizer": {"$object": "PGD", "fields": {}}},
        {"callbacks": [{"$object": "PGD", "fields": {}}]},
        {"callbacks": "os.system"},
    ],
    ids=str,
)
def test_a_forged_network_takes_no_memory(saved, params, tmp_path, nothing_runs):
    tensors, about = read_tensors(saved[0])
    about["content"]["parameters"].update(params)
    if "module__depth" in params or "module__width" in params:
        about["content"]["fitted"]["unchanged"].append(next(name for name in params if name != "module"))
    write_tensors(tmp_path / "file", tensors, about)
    with pytest.raises(ValueError, match="/file'"):
        RobustClassifier.load(tmp_path / "file")
