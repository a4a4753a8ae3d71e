"""Fits are kept in a folder: known again when they are over, gone on with when they are not."""

import errno
import json
import os
import signal
import threading
import warnings
from pathlib import Path
from shutil import rmtree
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from skorch.callbacks import Callback, EpochScoring
from torch import nn
from torch.utils.data import Dataset

from sklearn_acs import PGD, RobustClassifier, StabilityTracker
from sklearn_acs.training import checkpoint as checkpoints
from sklearn_acs.training.place import Place
from sklearn_acs.training.selection import Selection
from sklearn_acs.training.training import Training

DIGITS = load_digits(n_class=3)
X, y = (DIGITS.images / 16).astype(np.float32)[:96], DIGITS.target[:96]
EPOCHS = 4


def make(kept=None, **params) -> RobustClassifier:
    defaults = {"max_epochs": EPOCHS, "batch_size": 32, "attack": PGD(eps=0.15, steps=1), "random_state": 0}
    return RobustClassifier(**{**defaults, "selector": None, "checkpoint": kept, **params})


class Killed(BaseException):
    """Ends a training as SIGKILL does: nobody handles it."""


@pytest.fixture
def killed(monkeypatch):
    """Return what fits a classifier until a step, counted from 0, and drops it there."""

    def fit(clf, *data, step=7):
        steps, taken = Training.step, []

        def die(self, batch):
            taken.append(batch)
            if len(taken) > step:
                raise Killed
            return steps(self, batch)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Training, "step", die)
            clf.fit(*(data or (X, y)))

    return fit


@pytest.fixture
def steps(monkeypatch):
    """Return a list that grows with every step of a training."""
    taken, step = [], Training.step
    monkeypatch.setattr(Training, "step", lambda self, batch: (taken.append(batch), step(self, batch))[1])
    return taken


def same(one, other) -> bool:
    states = [clf.net_.module_.state_dict() for clf in (one, other)]
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def n_places(folder) -> int:
    return sum(each.is_dir() for each in Path(folder).iterdir())


# Known again


def test_a_fit_that_is_over_is_known_again(tmp_path, steps):
    params = {"early_stopping": True, "averaging": "ema", "selector": "gradmatch", "select_every": 1}
    first, plain = make(tmp_path, **params).fit(X, y), make(**params).fit(X, y)
    n_steps = len(steps)
    again = make(str(tmp_path), verbose=0, checkpoint_seconds=5, **params).fit(X, y)
    assert len(steps) == n_steps
    assert same(first, plain) and same(again, plain)
    assert list(again.history_) == list(first.history_)
    names = {name for name in vars(first) if name.endswith("_") and not name.startswith("_")}
    assert names == {name for name in vars(again) if name.endswith("_") and not name.startswith("_")}
    assert (again.best_epoch_, again.best_validation_score_) == (first.best_epoch_, first.best_validation_score_)
    assert {phase: (each.forwards, each.backwards) for phase, each in again.cost_.items() if phase != "checks"} == {
        phase: (each.forwards, each.backwards) for phase, each in first.cost_.items() if phase != "checks"
    }
    assert again.coresets_.keys() == first.coresets_.keys()
    np.testing.assert_array_equal(again.predict_proba(X), first.predict_proba(X))
    assert again.robust_score(X, y) == first.robust_score(X, y)


def test_what_has_no_say_in_the_result_is_no_other_fit(tmp_path, steps):
    make(tmp_path).fit(X, y)
    n_steps = len(steps)
    make(tmp_path, verbose=0, warm_start=True, checkpoint_seconds=9, max_epochs=np.int64(EPOCHS)).fit(
        X.copy(), y.tolist()
    )
    assert len(steps) == n_steps


@pytest.mark.parametrize(
    ("params", "data"),
    [
        ({"random_state": 1}, {}),
        ({"lr": 0.05}, {}),
        ({"attack": PGD(eps=0.15, steps=2)}, {}),
        ({"attack__eps": 0.1}, {}),
        ({}, {"X": np.where(np.arange(X.size).reshape(X.shape) == 40, 0.25, X)}),
        ({}, {"y": np.roll(y, 1)}),
        ({}, {"sample_weight": np.linspace(1, 2, len(X))}),
        ({"early_stopping": True}, {}),
    ],
)
def test_another_fit_has_a_place_of_its_own(tmp_path, steps, params, data):
    make(tmp_path).fit(X, y)
    n_steps = len(steps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(tmp_path, **params).fit(**{"X": X, "y": y, **data})
    assert len(steps) > n_steps
    assert n_places(tmp_path) == 2


def test_other_validation_samples_are_another_fit(tmp_path, steps):
    for i in range(3):
        make(tmp_path, early_stopping=True).fit(X, y, X_val=X[: 40 + 5 * (i % 2)], y_val=y[: 40 + 5 * (i % 2)])
    assert n_places(tmp_path) == 2
    assert len(steps) == 2 * EPOCHS * 3


def test_modules_of_other_weights_or_structure_are_other_fits(tmp_path):
    torch.manual_seed(0)
    modules = [nn.Sequential(nn.Flatten(), nn.Linear(64, 3)) for _ in range(2)]
    modules += [nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 3))]
    for module in [*modules, *modules]:
        make(tmp_path, module=module).fit(X, y)
    assert n_places(tmp_path) == 3


def test_a_place_holds_json_and_tensors_alone(tmp_path):
    make(tmp_path, selector="gradmatch").fit(X, y)
    (place,) = (each for each in tmp_path.iterdir() if each.is_dir())
    assert {each.name for each in place.iterdir()} == {"fit.json", "lock", "state.safetensors"}
    assert json.loads((place / "fit.json").read_text())["finished"]
    assert (place / "state.safetensors").read_bytes()[8:9] == b"{"


# Going on


def test_a_fit_goes_on_where_it_was_killed(tmp_path, killed, steps):
    clf = make(tmp_path)
    killed(clf, step=7)
    assert len(clf.history_) == 2
    taken = len(steps)
    rest = make(tmp_path).fit(X, y)
    assert len(steps) - taken == EPOCHS * 3 - 6
    assert same(rest, make().fit(X, y))


def test_within_an_epoch_it_goes_on_at_the_batch_after_so_many_seconds(tmp_path, killed, steps):
    killed(make(tmp_path, checkpoint_seconds=0), step=7)
    taken = len(steps)
    rest = make(tmp_path).fit(X, y)
    assert len(steps) - taken == EPOCHS * 3 - 7
    assert same(rest, make().fit(X, y))


def test_a_selection_that_is_done_is_not_done_again(tmp_path, killed):
    params = {"selector": "craig", "warmup_frac": 0.0, "select_every": 2}
    killed(make(tmp_path, **params), step=0)
    rest, plain = make(tmp_path, **params).fit(X, y), make(**params).fit(X, y)
    assert rest.cost_["selection"].forwards == plain.cost_["selection"].forwards
    assert rest.coresets_.keys() == plain.coresets_.keys()
    assert same(rest, plain)


def test_progress_tells_from_where_a_fit_goes_on(tmp_path, killed, capsys):
    killed(make(tmp_path, checkpoint_seconds=0), step=4)
    make(tmp_path, verbose=1).fit(X, y)
    assert f"goes on after batch 1 of epoch 2, from {str(tmp_path)!r}" in capsys.readouterr().out
    make(tmp_path, verbose=1).fit(X, y)
    assert "nothing is trained" in capsys.readouterr().out


def test_a_longer_fit_with_warm_start_goes_on_from_one_that_is_over(tmp_path, steps):
    short = make(tmp_path, warm_start=True).fit(X, y)
    expected = clone(short).set_params(checkpoint=None).fit(X, y).set_params(max_epochs=6).fit(X, y)
    taken = len(steps)
    longer = make(tmp_path, warm_start=True, max_epochs=6).fit(X, y)
    assert len(steps) - taken == 6 * 3
    assert same(longer, expected)
    again = make(tmp_path, warm_start=True, max_epochs=6).fit(X, y)
    assert len(steps) - taken == 6 * 3
    assert same(again, expected)
    short.set_params(max_epochs=6).fit(X, y)  # in one process it is the same fit
    assert len(steps) - taken == 6 * 3


def test_without_warm_start_a_longer_fit_begins_anew(tmp_path):
    make(tmp_path).fit(X, y)
    assert same(make(tmp_path, max_epochs=6).fit(X, y), make(max_epochs=6).fit(X, y))


def test_the_seconds_before_count(tmp_path, killed, monkeypatch):
    clf = make(tmp_path, max_seconds=1000.0, max_epochs=3)
    killed(clf, step=4)
    clock = checkpoints.perf_counter
    monkeypatch.setattr("sklearn_acs.training.course.perf_counter", lambda: clock() + 2000)
    rest = make(tmp_path, max_seconds=1000.0, max_epochs=3).fit(X, y)
    assert len(rest.history_) == 3
    state = checkpoints.read_tensors(next(tmp_path.glob("*/state.safetensors")))[1]["state"]
    assert 0 < state["course"]["seconds"] < 1000


def test_a_tracker_knows_all_runs(tmp_path, killed):
    tracker, plain = StabilityTracker(), StabilityTracker()
    for seed in range(2):
        make(callbacks=[plain], random_state=seed).fit(X, y)
    make(tmp_path, callbacks=[tracker]).fit(X, y)
    killed(make(tmp_path, callbacks=[tracker], random_state=1))
    tracker = StabilityTracker()
    for seed in range(2):
        make(tmp_path, callbacks=[tracker], random_state=seed).fit(X, y)
    np.testing.assert_array_equal(tracker.times_wrong_, plain.times_wrong_)


def test_partial_fit_is_not_kept(tmp_path):
    clf = make(tmp_path / "none").partial_fit(X, y)
    assert not (tmp_path / "none").exists()
    assert len(clf.history_) == 1


# What is not known again


def test_without_an_int_random_state_a_fit_only_goes_on_where_it_was_killed(tmp_path, killed, steps):
    for state in (None, np.random.RandomState(0)):
        with pytest.warns(UserWarning, match="gives other draws every time.*begins anew"):
            killed(make(tmp_path, random_state=state))
        taken = len(steps)
        with pytest.warns(UserWarning, match="goes on with one that was killed after epoch 2"):
            make(tmp_path, random_state=state, early_stopping=False).fit(X, y)
        assert len(steps) - taken == EPOCHS * 3 - 6
        assert n_places(tmp_path) == 0
        with pytest.warns(UserWarning, match="begins anew"):
            make(tmp_path, random_state=state).fit(X, y)


def test_such_a_fit_holds_out_the_same_samples(tmp_path, killed):
    held = []

    class Look(Callback):
        def on_train_begin(self, net, **kwargs):
            held.append(net.training_.rows.tolist())

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    with pytest.warns(UserWarning, match="begins anew"):
        killed(make(tmp_path, random_state=None, early_stopping=True, callbacks=[Look()]))
    with pytest.warns(UserWarning, match="goes on"):
        make(tmp_path, random_state=None, early_stopping=True, callbacks=[Look()]).fit(X, y)
    assert held[0] == held[1]


def test_a_function_without_source_is_not_taken_for_the_same(tmp_path, steps):
    for _ in range(2):
        with pytest.warns(UserWarning, match="<lambda> has no source.*begins anew"):
            make(tmp_path, lr_schedule=eval("lambda progress: 1 - progress")).fit(X, y)
    assert len(steps) == 2 * EPOCHS * 3


def falling(progress):
    return SLOPE * (1 - progress)


SLOPE = 1.0


def test_a_function_with_other_source_is_told_of_and_trained_anew(tmp_path, steps, monkeypatch):
    make(tmp_path, lr_schedule=falling).fit(X, y)
    make(tmp_path, lr_schedule=falling).fit(X, y)
    assert len(steps) == EPOCHS * 3
    monkeypatch.setattr("test_checkpoint.SLOPE" if __name__ == "test_checkpoint" else f"{__name__}.SLOPE", 0.5)
    with pytest.warns(UserWarning, match="this fit with another source of falling: it is trained anew"):
        make(tmp_path, lr_schedule=falling).fit(X, y)
    assert len(steps) == 2 * EPOCHS * 3


def test_another_version_is_told_of_and_trained_anew(tmp_path, steps, monkeypatch):
    make(tmp_path).fit(X, y)
    monkeypatch.setattr("sklearn_acs.training.keeping.__version__", "99.0")
    with pytest.warns(UserWarning, match="another version of sklearn_acs: it is trained anew"):
        make(tmp_path).fit(X, y)
    make(tmp_path).fit(X, y)
    assert len(steps) == 2 * EPOCHS * 3


def test_a_module_made_without_a_seed_is_told_of(tmp_path, killed):
    killed(make(tmp_path, module=nn.Sequential(nn.Flatten(), nn.Linear(64, 3))))
    with pytest.warns(UserWarning, match="other initial weights: a module that is made without a seed"):
        make(tmp_path, module=nn.Sequential(nn.Flatten(), nn.Linear(64, 3))).fit(X, y)


def test_callbacks_without_a_state_are_told_of(tmp_path):
    class Own(Callback):
        pass

    with pytest.warns(UserWarning, match=r"callbacks \['Own'\] have no state_dict"):
        make(tmp_path, callbacks=[Own()]).fit(X, y)
    with pytest.warns(UserWarning, match="valid_acc"):
        scoring = EpochScoring(lambda net, X, y: 0.5, name="valid_acc", use_caching=False)
        make(tmp_path, callbacks=[("valid_acc", scoring)], early_stopping=True).fit(X, y)


class Drawing(Dataset):
    def __len__(self):
        return len(y)

    def __getitem__(self, index):
        return np.clip(X[index][None] + np.float32(0.01) * np.random.rand(), 0, 1).astype(np.float32), int(y[index])


def test_a_dataset_that_draws_from_a_global_generator_is_told_of(tmp_path):
    state = np.random.get_state()
    with pytest.warns(UserWarning) as told:
        make(tmp_path, max_epochs=2).fit(Drawing())
    np.random.set_state(state)
    texts = [str(each.message) for each in told]
    assert any("draw from NumPy's global generator, which is not kept" in text for text in texts)
    assert any("not known again" in text for text in texts)


# Refusals


def test_a_folder_that_cannot_be_used_is_refused_before_any_work(tmp_path, monkeypatch, steps):
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "sklearn_acs_checkpoints.json").write_text('{"format":99}')
    for name, told in (("file", "is a file"), ("other", "holds other things"), ("later", "later version")):
        with pytest.raises(ValueError, match=rf"checkpoint=.*{name}.* {told}"):
            make(tmp_path / name).fit(X, y)
    with pytest.raises(OSError, match=r"checkpoint=.* cannot be written: Not a directory"):
        make(tmp_path / "file" / "inner").fit(X, y)

    def refuse(*given):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(PermissionError, match=r"checkpoint=.* cannot be written: Permission denied"):
        make(tmp_path / "new").fit(X, y)
    assert steps == []


def test_a_path_that_no_system_has_is_refused_by_name(steps):
    with pytest.raises(ValueError, match=r"checkpoint='a\\x00b' names no folder"):
        make("a\0b").fit(X, y)
    with pytest.raises(OSError, match=r"checkpoint='n+' cannot be written: File name too long"):
        make("n" * 300).fit(X, y)
    assert steps == []


def test_a_tilde_is_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    make(Path("~/runs"), max_epochs=1).fit(X, y)
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]


class AfterTwo(Callback):
    """Does something after the second epoch."""

    def __init__(self, does=None):
        self.does = does

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            self.does()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_a_relative_folder_stays_the_same_when_the_process_goes_to_another(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    make("runs", callbacks=[AfterTwo(lambda: os.chdir("other"))]).fit(X, y)
    assert '"finished":true' in next((tmp_path / "runs").glob("*/fit.json")).read_text()
    assert not any((tmp_path / "other").iterdir())


def test_a_folder_that_is_deleted_meanwhile_is_told_of_and_the_training_goes_on(tmp_path):
    folder = tmp_path / "runs"
    with pytest.warns(UserWarning, match=r"could not be written \(No such file or directory\): the training goes on"):
        clf = make(folder, callbacks=[AfterTwo(lambda: rmtree(folder))]).fit(X, y)
    assert same(clf, make().fit(X, y))
    assert not folder.exists()


def test_too_little_room_is_refused_before_any_work(tmp_path, monkeypatch, steps):
    monkeypatch.setattr(checkpoints, "free_bytes", lambda folder: 1000)
    with pytest.raises(OSError, match=r"needs [\d,]+ bytes for two checkpoints, and the disk has 1,000 left") as told:
        make(tmp_path).fit(X, y)
    assert told.value.errno == errno.ENOSPC
    assert steps == []


def test_a_disk_that_fills_while_training_is_told_of_and_keeps_the_last_checkpoint(tmp_path, monkeypatch, killed):
    write, written = checkpoints.write_tensors, []

    def fill(*given):
        written.append(given)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*given)

    monkeypatch.setattr(checkpoints, "write_tensors", fill)
    with pytest.warns(UserWarning, match=r"could not be written \(No space left on device\): the one before is kept"):
        clf = make(tmp_path).fit(X, y)
    assert same(clf, make().fit(X, y))
    monkeypatch.setattr(checkpoints, "write_tensors", write)
    seen = []
    monkeypatch.setattr(
        Training, "run", lambda self, keep, run=Training.run: (seen.append(self.epochs_done), run(self, keep))[1]
    )
    assert same(make(tmp_path).fit(X, y), clf)
    assert seen == [2]


def test_a_checkpoint_that_was_altered_is_refused(tmp_path, killed):
    killed(make(tmp_path))
    (state,) = tmp_path.glob("*/state.safetensors")
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    with pytest.raises(ValueError, match=r"altered.*; delete its folder to train anew"):
        make(tmp_path).fit(X, y)
    state.unlink()
    assert same(make(tmp_path).fit(X, y), make().fit(X, y))


@pytest.mark.parametrize("text", ["", '{"parts":', "[1]", '{"other":1}'])
def test_a_description_that_was_altered_is_refused_with_what_to_do(tmp_path, text):
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "fit.json").write_text(text)
    with pytest.raises(ValueError, match=r"fit\.json' describes no fit .*: delete its folder to train that fit anew"):
        Place(folder).fit()


def test_what_was_half_written_is_cleared_away(tmp_path, killed):
    killed(make(tmp_path))
    (state,) = tmp_path.glob("*/state.safetensors")
    state.with_name("state-0.part").write_bytes(b"half")
    make(tmp_path).fit(X, y)
    assert not list(tmp_path.glob("*/*.part"))


def test_a_second_fit_in_the_same_place_waits_for_the_first(tmp_path, steps):
    begun, go = threading.Event(), threading.Event()

    class Hold(Callback):
        def on_epoch_begin(self, net, **kwargs):
            begun.set()
            go.wait(60)

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    first = make(tmp_path, callbacks=[("hold", Hold())])
    thread = threading.Thread(target=first.fit, args=(X, y))
    thread.start()
    assert begun.wait(60)
    threading.Timer(0.3, go.set).start()
    with pytest.warns(UserWarning, match="trains this fit in .*: it is waited for"):
        second = make(tmp_path, callbacks=[("hold", Hold())]).fit(X, y)
    thread.join()
    assert same(first, second)
    assert len(steps) == EPOCHS * 3


def test_a_place_that_is_deleted_while_it_is_waited_for_is_made_anew(tmp_path):
    holder, waiting = Place(tmp_path / "place"), Place(tmp_path / "place")
    holder.take(wait=True)
    threading.Timer(0.2, holder.remove).start()
    with pytest.warns(UserWarning, match="it is waited for"):
        assert waiting.take(wait=True)
    waiting.close()
    assert waiting.folder.is_dir()


# Signals


class Press(Callback):
    """Sends the process a signal when a batch of an epoch ends."""

    def __init__(self, signum, epoch=2):
        self.signum, self.epoch = signum, epoch

    def on_batch_end(self, net, training=True, **kwargs):
        if training and len(net.history) == self.epoch and len(net.history[-1]["batches"]) == 2:
            signal.raise_signal(self.signum)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_ctrl_c_keeps_the_batch_and_is_raised_again(tmp_path, steps):
    clf = make(tmp_path, callbacks=[Press(signal.SIGINT)])
    with pytest.warns(UserWarning, match="interrupted in epoch 2 of 4"), pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert clf.interrupted_ and len(clf.history_) == 1
    assert len(steps) == 3 + 2
    rest = make(tmp_path, callbacks=[Press(signal.SIGINT)]).fit(X, y)
    assert len(steps) == EPOCHS * 3
    assert same(rest, make().fit(X, y))


def test_sigterm_keeps_the_batch_and_then_has_its_usual_effect(tmp_path, steps):
    calls, before = [], signal.getsignal(signal.SIGTERM)

    def usual(signum, frame):
        calls.append(len(steps))
        raise SystemExit(3)

    signal.signal(signal.SIGTERM, usual)
    try:
        with pytest.raises(SystemExit):
            make(tmp_path, callbacks=[Press(signal.SIGTERM)]).fit(X, y)
        assert signal.getsignal(signal.SIGTERM) is usual
        assert calls == [3 + 2]
        assert same(make(tmp_path, callbacks=[Press(signal.SIGTERM)]).fit(X, y), make().fit(X, y))
        calls.clear()
        make(callbacks=[Press(signal.SIGTERM, epoch=9)]).fit(X, y)
        assert signal.getsignal(signal.SIGTERM) is usual
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_goes_on_lets_the_training_go_on(tmp_path):
    calls, before = [], signal.signal(signal.SIGTERM, lambda *given: calls.append(given[0]))
    try:
        clf = make(tmp_path, callbacks=[Press(signal.SIGTERM)]).fit(X, y)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert calls == [signal.SIGTERM]
    assert len(clf.history_) == EPOCHS


def test_amid_a_selection_a_signal_takes_effect_at_once(tmp_path, monkeypatch, steps):
    def select(*given):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError

    before = signal.signal(signal.SIGTERM, lambda *given: (_ for _ in ()).throw(SystemExit(3)))
    try:
        monkeypatch.setattr(Selection, "select", select)
        with pytest.raises(SystemExit):
            make(tmp_path, selector="craig").fit(X, y)
    finally:
        signal.signal(signal.SIGTERM, before)
    monkeypatch.undo()
    assert same(make(tmp_path, selector="craig").fit(X, y), make(selector="craig").fit(X, y))


# Many fits


def test_two_hundred_fits_leave_no_more_files_and_descriptors_than_one(tmp_path):
    def descriptors():
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    make(tmp_path, max_epochs=1).fit(X, y)
    before, files = descriptors(), len([*tmp_path.rglob("*")])
    for i in range(200):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make(tmp_path, max_epochs=1, random_state=None if i % 2 else 0).fit(X[:32], y[:32])
    assert descriptors() == before
    assert len([*tmp_path.rglob("*")]) == files + 4  # the place of the fit on fewer samples
    assert not checkpoints.Place.__init__.__globals__["HELD"]


def test_a_memory_on_disk_that_has_no_room_is_refused_before_any_work(tmp_path, monkeypatch, steps):
    class Streamed(Dataset):
        def __len__(self):
            return len(y)

        def __getitem__(self, index):
            return X[index][None], int(y[index])

    monkeypatch.setattr("sklearn_acs.training.journal.disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(OSError, match=r"remembered perturbations need 6,144 bytes .*Give checkpoint= a larger place"):
        make(tmp_path, attack=PGD(eps=0.1, steps=1, init="previous")).fit(Streamed())
    assert steps == []
    assert not list(tmp_path.glob("*/memory*"))
