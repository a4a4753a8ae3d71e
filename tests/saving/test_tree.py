"""Trees: what is taken apart is put together as it was, and nothing else can be made."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch

from sklearn_acs import PGD, TRADES
from sklearn_acs.saving.json_text import from_text, to_text
from sklearn_acs.saving.record import NotHeld, records
from sklearn_acs.saving.tree import flatten, unflatten
from sklearn_acs.selectors import ClassSelection
from sklearn_acs.training.cost import Cost
from sklearn_acs.training.history import History
from sklearn_acs.training.records import RECORDS

VALUES = [
    *(None, True, 0, -5, 2**63, -(2**70), 10**4000, 1.0, -0.0, 1e-320, math.inf, -math.inf, math.nan),
    *("", "ü\ud800", b"", b"\0\xff", (), (1, (2,)), [], [[]], {1}, frozenset("a"), torch.Size([2, 3])),
    *({}, {"a": {"b": 1}}, {1: "a", "1": "b", (2, None): "c"}, {"$tensor": "weights"}, {True: 1, None: 2}),
    *([0.5] * 40, [*range(40)], [2**63] * 40, [True] * 40, [1, 2.0] * 20, [math.nan] * 40),
    [{"batches": [{"loss": i / 7, "size": 3}] * 35, "epoch": i, "lr": 0.1} for i in range(4)],
    [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}],
    *(torch.float16, torch.int64, torch.device("cuda:1"), torch.device("cpu")),
]

ARRAYS = [
    np.arange(3),
    np.arange(6.0).reshape(2, 3).T,
    np.arange(6).astype(">i4"),
    np.zeros((0, 2), np.float16),
    np.array(3, np.uint64),
    np.array([1j]),
    np.array([True]),
    np.array(["a", "bcé"]),
    np.array([b"a"]),
    np.array(["2020-01-01", "NaT"], "M8[D]"),
    np.array([], "U3"),
    np.arange(6)[::-2],
    np.arange(2).astype(np.longdouble),
]

SCALARS = [
    *(np.float32(0.1), np.float64(0.1), np.int8(-3), np.bool_(True), np.str_("é"), np.str_(""), np.bytes_(b"a")),
    *(np.complex64(1j), np.longdouble(0.1), np.datetime64("2020-01-01")),
]


def back(value, known=RECORDS):
    held, tensors = flatten(value, known)
    return unflatten(from_text(to_text(held), "it"), tensors, known)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_values_come_back(value):
    assert repr(back(value)) == repr(value)
    assert repr(back({"in": [value]})) == repr({"in": [value]})


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back_in_their_type_and_can_be_written_to(array):
    found = back(array)
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert found.flags.writeable


def test_arrays_of_objects_come_back():
    array = np.array([["a", None], [1, (2,)]], dtype=object)
    found = back(array)
    assert found.dtype == object
    assert found.tolist() == array.tolist()


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: repr(value)[:30])
def test_scalars_of_numpy_stay_such(value):
    found = back([value])[0]
    assert (type(found), found.dtype, found.tobytes()) == (type(value), value.dtype, value.tobytes())


def test_tensors_are_those_given_and_a_dict_of_dicts_is_a_dict():
    weight = torch.nn.Parameter(torch.ones(2))
    found = back(OrderedDict(a={"b": weight}, c=weight))
    assert type(found) is dict
    assert found["a"]["b"] is weight
    assert found["c"] is weight


def test_records_come_back():
    cost = Cost()
    cost["full"].forwards = 7
    rows = [ClassSelection(np.int64(label), 10, 5, 5, 0.1 * label, 0.5, "why") for label in range(50)]
    value = [History([{"epoch": 1}]), cost, (*rows,)]
    found = back(value)
    assert [type(each) for each in found] == [History, Cost, tuple]
    assert repr(found) == repr(value)


def test_many_records_of_a_kind_are_few_things():
    rows = [ClassSelection(label, 10, 5, 5, 0.1, 0.5, "why") for label in range(5000)]
    held, tensors = flatten(rows, RECORDS)
    assert to_text(held).count("{") < 20
    assert len(tensors) == 6


def test_histories_are_few_things():
    history = History({"batches": [{"train_loss": 0.1, "train_batch_size": 9}] * 400, "epoch": i} for i in range(50))
    held, _ = flatten(history, RECORDS)
    assert sum(map(to_text(held).count, "[{:,")) < 2000
    assert back(history) == history


class Mine(PGD):
    """A subclass is another class."""


@dataclass
class Pair:
    one: int
    two: int = 2


class Named(NamedTuple):
    x: int


def function():
    """Known by name where it is."""


def test_only_the_classes_known_are_held():
    for value in (Mine(), Pair(1), Named(3), function, [1, (function,)], np.ma.array([1]), np.array([{function}])):
        with pytest.raises(TypeError, match="cannot be held"):
            flatten(value, records(PGD))
    known = {**records(Mine, Pair, Named), "function": function}
    assert repr(back([Mine(eps=0.1), Pair(1, 3), Named(3)], known)) == repr([Mine(eps=0.1), Pair(1, 3), Named(3)])
    assert back(function, known) is function


def test_what_is_left_out_is_named_and_stays_left_out():
    left_out: dict[str, str] = {}
    value = {"objective": TRADES(attack=Mine()), "schedule": function, "list": [1, lambda: 0], "kept": 1}
    held, tensors = flatten(value, records(TRADES), left_out)
    lambda_name = "test_what_is_left_out_is_named_and_stays_left_out.<locals>.<lambda>"
    assert left_out == {"objective/attack": "an object of Mine", "schedule": "function", "list/1": lambda_name}
    found = unflatten(held, tensors, records(TRADES))
    assert found["objective"].attack == NotHeld("an object of Mine")
    assert found["schedule"] == NotHeld("function")
    again: dict[str, str] = {}
    assert flatten(found, records(TRADES), again)[0] == held
    assert again == left_out


@pytest.mark.parametrize(
    "held",
    [
        {"$object": "os.system", "fields": {"command": "echo"}},
        {"$object": "PGD", "fields": {"no": 1}},
        {"$object": "function", "fields": {}},
        {"$object": ["PGD"], "fields": {}},
        {"$object": "PGD"},
        {"$each": "PGD", "rows": [1]},
        {"$name": "PGD"},
        {"$name": "os.system"},
        {"$eval": "1"},
        {"$tensor": "../x"},
        {"$tensor": []},
        {"$array": "x", "dtype": "O", "shape": [2]},
        {"$array": "x", "dtype": "|V8", "shape": [1]},
        {"$array": "x", "dtype": "<f4", "shape": [3]},
        {"$array": "x", "dtype": "<U0", "shape": [3]},
        {"$array": "x", "dtype": "(99999999,99999)i4", "shape": [2]},
        {"$scalar": "!!", "dtype": "<f8"},
        {"$scalar": "AAAA", "dtype": "<f8"},
        {"$rows": ["a"], "columns": []},
        {"$rows": ["a", "b"], "columns": [[1], [1, 2]]},
        {"$dict": [[]], "values": [1]},
        {"$dict": [1, 2], "values": [1]},
        {"$int": "zz"},
        {"$int": 1},
        {"$dtype": "torch.load"},
        {"$device": "nowhere"},
        {"$bytes": 3},
        {"$objects": [1], "shape": [2]},
        {"$tuple": 3},
        {"$set": [[]]},
        {"$tensor": "x", "more": 1},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_a_value_error(held):
    known = {**records(PGD), "function": function}
    with pytest.raises(ValueError):
        unflatten(held, {"x": torch.ones(2)}, known)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "deeply"),
        ('{"a":' * 100_000, "deeply"),
        ("[" + "{}," * 300_000 + "0]", "more than"),
        ('{"a":1,"a":2}', "twice"),
        ("NaN", "no number"),
        ("[1", "no JSON"),
        ("1" * 5000, "no JSON"),
    ],
)
def test_text_that_is_dangerous_or_ambiguous_is_refused(text, why):
    with pytest.raises(ValueError, match=rf"^it .*{why}"):
        from_text(text, "it")
