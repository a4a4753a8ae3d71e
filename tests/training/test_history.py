"""The history is skorch's in every respect, and converts to a DataFrame."""

import pickle
from copy import copy, deepcopy

import numpy as np
import pytest
import skorch
from sklearn.base import clone
from sklearn.datasets import load_iris

from sklearn_acs import RobustClassifier
from sklearn_acs.training.history import History

X, y = load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def clf():
    return RobustClassifier(objective="natural", selector="gradmatch", max_epochs=4, random_state=0).fit(X, y)


def test_a_row_of_the_frame_is_an_epoch_and_a_column_what_is_known_of_epochs(clf):
    frame = clf.history_.to_frame()
    assert list(frame["phase"]) == ["full", "coreset", "coreset"]
    assert list(frame["train_loss"]) == clf.history_[:, "train_loss"]
    assert list(frame.columns) == [name for name in clf.history_[-1] if name != "batches"]
    assert list(frame["epoch"]) == [1, 2, 3]
    assert np.isnan(frame["approximation_error"][0]) and frame["approximation_error"][1] >= 0


def test_a_column_of_one_epoch_alone_is_empty_elsewhere():
    frame = History([{"batches": [], "epoch": 1}, {"batches": [], "epoch": 2, "score": 0.5}]).to_frame()
    assert frame["score"].isna().tolist() == [True, False]


def test_a_history_of_no_epoch_is_a_frame_of_no_row():
    assert len(History().to_frame()) == 0


def test_it_is_skorchs_history_after_copies_pickles_and_files(clf, tmp_path):
    history = clf.history_
    history.to_file(tmp_path / "history.json")
    for same in (
        *(copy(history), deepcopy(history), pickle.loads(pickle.dumps(history))),
        *(History.from_file(tmp_path / "history.json"), pickle.loads(pickle.dumps(clf)).history_, clf.net_.history),
    ):
        assert type(same) is History and isinstance(same, skorch.history.History)
        assert same == history and same.to_frame().equals(history.to_frame())


def test_slices_are_those_of_skorch(clf):
    theirs = skorch.history.History(clf.history_)
    for key in (-1, slice(1, None), (-1, "phase"), (slice(None), ("epoch", "lr")), (0, "batches", -1, "train_loss")):
        assert clf.history_[key] == theirs[key] and type(clf.history_[key]) is type(theirs[key])


def test_a_history_that_skorch_loads_has_it_too(clf, tmp_path):
    net = pickle.loads(pickle.dumps(clf.net_))
    net.save_params(f_history=tmp_path / "history.json")
    net.load_params(f_history=tmp_path / "history.json")
    assert type(net.history_) is History and net.history == clf.history_


def test_partial_fit_goes_on_with_the_same_kind(clf):
    online = clone(clf).partial_fit(X, y)
    first = online.history_
    online.partial_fit(X, y)
    assert list(online.history_.to_frame()["epoch"]) == [1, 2] and len(first) == 1
