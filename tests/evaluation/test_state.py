"""The file that an evaluation goes on from."""

import os

import numpy as np
import pytest

from sklearn_acs.evaluation.state import ARRAYS, State

KEY = {"model": "of this", "data": "of these"}


def test_a_state_comes_back_as_it_was(tmp_path):
    state = State(2, 3, tmp_path / "state", KEY)
    state.outcomes[:] = [[0, 1, 2], [2, 1, 0]]
    state.sizes[1] = 0.5
    state.own_sizes[1, 2] = 0.3
    state.seconds[1] = 1.5
    state.warnings.append("Übung")
    state.save()
    back = State(2, 3, tmp_path / "state", KEY)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(back, name), getattr(state, name))
        assert getattr(back, name).dtype == getattr(state, name).dtype
    assert back.warnings == ["Übung"]


def test_nothing_is_left_beside_the_file(tmp_path):
    State(1, 1, tmp_path / "state", KEY)
    assert os.listdir(tmp_path) == ["state"]


def test_nothing_is_written_without_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    State(1, 1).save()
    assert os.listdir(tmp_path) == []


def test_another_key_is_refused_and_the_file_left_alone(tmp_path):
    path = tmp_path / "state"
    State(1, 1, path, KEY)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="another evaluation: it differs in model"):
        State(1, 1, path, {**KEY, "model": "other"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not the state of an evaluation"):
        State(1, 1, path, KEY)
    assert path.read_bytes() == content


def test_pickled_objects_are_not_read(tmp_path):
    path = tmp_path / "state"
    with path.open("wb") as file:
        np.savez(file, about=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="not the state of an evaluation"):
        State(1, 1, path, KEY)
