"""What people reported of training: each situation, with the right outcome."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import (
    BatchScoring,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    Freezer,
    InputShapeSetter,
    LoadInitState,
    LRScheduler,
    MlflowLogger,
    ProgressBar,
    TensorBoard,
    Unfreezer,
)
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import Dataset, TensorDataset

from sklearn_acs import PGD, CoresetSchedule, Dynamics, RobustClassifier, StabilityTracker
from sklearn_acs.training.memory import PerturbationMemory

X = (load_digits(n_class=3).images / 16).astype(np.float32)[:96]
y = load_digits(n_class=3).target[:96]
SMALL = {"attack": PGD(eps=0.1, steps=1), "coreset_frac": 0.5, "max_epochs": 4, "batch_size": 32, "random_state": 0}


def net_of(*inner):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *inner, nn.ReLU(), nn.Linear(16, 3))


def fitted(*, X=X, y=y, given=None, **params):
    return RobustClassifier(**{**SMALL, **params}).fit(X, y, **(given or {}))


def weights(clf):
    return torch.cat([value.flatten().double() for value in clf.net_.module_.state_dict().values()])


# One class for everything


def test_training_that_ends_at_one_class_for_everything():
    with pytest.warns(UserWarning, match=r"predicts \d for all of 96 training samples.*smaller eps.*more epochs"):
        clf = RobustClassifier(attack=PGD(eps=0.45), selector=None, max_epochs=12, batch_size=32, random_state=0)
        clf.fit(X, y)
    assert len(np.unique(clf.predict(X))) == 1
    assert clf.cost_["checks"].forwards == 0


def test_training_that_learns_says_nothing_and_neither_does_one_on_labels_nearly_all_alike():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = RobustClassifier(attack=PGD(eps=0.1), selector=None, max_epochs=12, batch_size=32, random_state=0)
        assert clf.fit(X, y).score(X, y) > 0.9
        rare = np.arange(96) < 5
        assert len(np.unique(clf.set_params(attack=PGD(eps=0.45)).fit(X, rare).predict(X))) == 1
        RobustClassifier(**SMALL).partial_fit(X, y)


# Threads


@pytest.mark.parametrize("layers", [[], [nn.Dropout(0.3)]], ids=["no random layers", "dropout"])
def test_fits_in_threads_are_those_of_one_thread_and_leave_the_global_generator(layers):
    def fit(seed):
        return weights(fitted(module=lambda *given: net_of(*layers), random_state=seed, early_stopping=True))

    alone = [fit(seed) for seed in range(6)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(fit, range(6)))
    assert all(torch.equal(one, other) for one, other in zip(alone, threaded, strict=True))
    assert torch.equal(before, torch.get_rng_state())


class Noisy(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return torch.from_numpy(X[i][None] * 0.9) + 0.1 * torch.rand(1, 8, 8), y[i]


def test_a_dataset_that_draws_in_threads_and_under_callbacks_that_look_at_it():
    def fit(callbacks):
        return weights(fitted(X=Noisy(), y=None, callbacks=callbacks, random_state=1, max_epochs=2))

    alone = fit([])
    assert torch.equal(alone, fit([Dynamics()]))
    before = torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        assert all(torch.equal(alone, each) for each in pool.map(lambda i: fit([]), range(3)))
    assert torch.equal(before, torch.get_rng_state())


def test_a_layer_that_begins_to_draw_in_a_later_epoch():
    class Late(nn.Module):
        passes = 0

        def forward(self, x):
            self.passes += self.training and torch.is_grad_enabled()  # not when it is tried out
            return x * (0.9 + 0.1 * torch.rand(())) if self.passes > 6 and self.training else x

    one = weights(fitted(module=lambda *given: net_of(Late()), selector=None))
    torch.rand(5)
    before = torch.get_rng_state()
    assert torch.equal(one, weights(fitted(module=lambda *given: net_of(Late()), selector=None)))
    assert torch.equal(before, torch.get_rng_state())


# skorch's callbacks


class Detached(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1)).detach() + 0.0


@pytest.mark.parametrize(
    "params", [{"callbacks": [Freezer("*")]}, {"module": lambda shape, n: Detached(64, n), "objective": "natural"}]
)
def test_nothing_to_train(params):
    with pytest.raises(ValueError, match=r"module=\w+ have no gradient.*callbacks have frozen"):
        fitted(selector=None, **params)


@pytest.mark.parametrize("step_every", ["epoch", "batch"])
def test_a_scheduler_from_skorch_beside_a_constant_rate(step_every):
    steps = LRScheduler(StepLR, step_size=1 if step_every == "epoch" else 3, gamma=0.5, step_every=step_every)
    clf = fitted(callbacks=[steps], lr_schedule="constant", lr=0.4, selector=None)
    assert clf.history_[:, "lr"] == pytest.approx([0.4, 0.2, 0.1, 0.05])


@pytest.mark.parametrize("callbacks", [[LRScheduler], [("rate", LRScheduler(StepLR, step_size=1))]])
def test_two_plans_of_the_rate_at_once(callbacks):
    with pytest.raises(ValueError, match=r"LRScheduler in callbacks .*lr_schedule='one-cycle'.*'constant'"):
        fitted(callbacks=callbacks)
    with pytest.raises(ValueError, match="LRScheduler in callbacks is for fit"):
        RobustClassifier(callbacks=callbacks, lr_schedule="constant").partial_fit(X, y)


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (LoadInitState(Checkpoint()), "LoadInitState in callbacks .*warm_start=True"),
        (InputShapeSetter(), "InputShapeSetter in callbacks"),
        (EpochScoring("accuracy"), "EpochScoring in callbacks scores samples held out.*early_stopping=True"),
        (BatchScoring("accuracy"), "BatchScoring in callbacks scores samples held out"),
        (Checkpoint(), "Checkpoint in callbacks has monitor='valid_loss_best', which nothing writes"),
        (Checkpoint(monitor="valid_robust_best"), "monitor='valid_robust_best', which nothing writes"),
        (EarlyStopping(), "EarlyStopping in callbacks has monitor='valid_loss'"),
        (LRScheduler("ReduceLROnPlateau", step_every="batch"), "use step_every='epoch'"),
    ],
)
def test_callbacks_that_could_only_fail_are_refused_before_any_work(callback, words):
    class Unread(Dataset):
        def __len__(self):
            raise AssertionError("was read")

    with pytest.raises(ValueError, match=words):
        fitted(X=Unread(), y=None, callbacks=[callback], lr_schedule="constant")


@pytest.mark.parametrize("callback", [None, "progress", Dataset, ("name", 3), RobustClassifier()])
def test_what_is_no_callback(callback):
    with pytest.raises(TypeError, match=r"callbacks\[1\] must be a skorch callback"):
        fitted(callbacks=[Dynamics(), callback])


def test_a_callback_of_ones_own_may_write_what_another_monitors():
    class Writes(StabilityTracker):
        def on_epoch_end(self, net, **kwargs):
            super().on_epoch_end(net, **kwargs)
            net.history.record("valid_mine", -float(len(net.history)))

    stop = EarlyStopping("valid_mine", lower_is_better=False, patience=2)
    assert len(fitted(callbacks=[Writes(), stop]).history_) == 3


def test_a_callback_as_a_class(capsys):
    clf = fitted(callbacks=[ProgressBar], callbacks__ProgressBar__postfix_keys=["train_batch_size"])
    assert isinstance(dict(clf.net_.callbacks_)["ProgressBar"], ProgressBar)


def test_checkpoint_of_the_best_robust_accuracy(tmp_path):
    save = Checkpoint(monitor="valid_robust_best", dirname=str(tmp_path))
    clf = fitted(early_stopping=True, averaging=None, callbacks=[save])
    saved = torch.load(tmp_path / "params.pt")
    assert clf.history_[:, "valid_robust_best"].count(True) >= 1
    assert all(torch.equal(saved[name], value) for name, value in clf.net_.module_.state_dict().items())
    assert {"params.pt", "optimizer.pt", "history.json"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("scoring", [EpochScoring, BatchScoring])
def test_scores_of_samples_held_out(scoring):
    given = {"X_val": X[:40], "y_val": y[:40]}
    score = scoring("accuracy", lower_is_better=False, name="held_out")
    last = Checkpoint(monitor="held_out_best", f_params=None, f_optimizer=None, f_criterion=None, f_history=None)
    clf = fitted(early_stopping=True, n_iter_no_change=None, callbacks=[score, last, StabilityTracker()], given=given)
    assert clf.history_[clf.best_epoch_ - 1, "held_out"] == pytest.approx(clf.score(X[:40], y[:40]))
    assert clf.history_[0, "event_cp"] is True
    without = fitted(early_stopping=True, n_iter_no_change=None, given=given)
    assert torch.equal(weights(clf), weights(without))


def test_scores_of_the_training_samples():
    score = EpochScoring("accuracy", lower_is_better=False, on_train=True)
    assert all(0 <= value <= 1 for value in fitted(callbacks=[score]).history_[:, "accuracy"])


def test_early_stopping_by_skorch():
    stop = EarlyStopping("train_loss", patience=1, threshold=10, load_best=True)
    clf = fitted(callbacks=[stop], selector=None)
    assert (len(clf.history_), clf.stop_reason_) == (2, "a callback raised KeyboardInterrupt")


def test_a_progress_bar_by_skorch(capsys):
    fitted(callbacks=[ProgressBar(detect_notebook=False)])
    assert "/3 [" in capsys.readouterr().err


def test_layers_frozen_and_unfrozen_amid_training():
    module = net_of()

    def fit(**options):
        callbacks = [("freeze", Freezer("1.*")), ("thaw", Unfreezer("1.*", at=3))]
        seen = []

        class Watch(StabilityTracker):
            def on_epoch_begin(self, net, **kwargs):
                super().on_epoch_begin(net, **kwargs)
                seen.append(net.module_[1].weight.detach().clone())

        clf = fitted(module=module, callbacks=[*callbacks, Watch()], selector=None, lr=0.01, **options)
        assert torch.equal(seen[0], seen[2])
        assert not torch.equal(seen[2], seen[3])
        return clf

    torch.testing.assert_close(weights(fit()), weights(fit(optimizer__fused=False)))


def test_tensorboard_draws_the_numbers_of_the_history(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    fitted(callbacks=[TensorBoard(SummaryWriter(tmp_path), keys_ignored="lr")])
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"Loss/train_loss", "coreset_size", "radius", "seconds", "approximation_error"} == set(
        events.Tags()["scalars"]
    )
    assert [event.value for event in events.Scalars("coreset_size")] == [96, 48, 48]


def test_mlflow_logs_the_numbers_of_the_history(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mlflow's own
        client = MlflowClient(tmp_path.as_uri())
        run = client.create_run(client.create_experiment("digits"))
        fitted(callbacks=[MlflowLogger(run, client, create_artifact=False)])
        logged = client.get_metric_history(run.info.run_id, "approximation_error")
        sizes = client.get_metric_history(run.info.run_id, "coreset_size")
    assert [metric.step for metric in logged] == [2, 3]
    assert [metric.value for metric in sizes] == [96, 48, 48]
    assert "phase" not in client.get_run(run.info.run_id).data.metrics


# Memory on disk


def test_a_disk_too_small_for_remembered_perturbations(monkeypatch):
    monkeypatch.setattr("os.posix_fallocate", lambda *given: (_ for _ in ()).throw(OSError(28, "No space left")))
    data = TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(y))
    with pytest.raises(OSError, match=r"need 6,144 bytes in .*: No space left.*TMPDIR"):
        fitted(X=data, y=None, attack=PGD(eps=0.1, steps=1, init="previous"))
    assert PerturbationMemory(PGD().threat, (5, 3), torch.device("cpu")).on_disk is False


# Parameters


@pytest.mark.parametrize("name", ["max_epochs", "coreset_frac", "select_every", "warmup_frac", "final_full"])
@pytest.mark.parametrize("value", ["3", {}, [1]])
def test_schedules_of_what_is_no_number(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        CoresetSchedule(**{"max_epochs": 3, "coreset_frac": 0.5, name: value})
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        fitted(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("early_stopping", "False"),
        ("warm_start", 1),
        ("compile", "no"),
        ("verbose", "yes"),
        ("callbacks", (Dynamics(),)),
        ("class_weight", "even"),
    ],
)
def test_switches_of_another_type(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        fitted(**{name: value})


def test_an_apple_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(ValueError, match="device='mps' is not there"):
        fitted(device="mps")


@pytest.mark.filterwarnings("ignore:the trained model predicts")  # of so few samples
@pytest.mark.parametrize(
    ("params", "n"),
    [({"batch_size": 1}, 20), ({"coreset_frac": 0.01, "select_by": "sample"}, 20)],
)
def test_batchnorm_on_one_sample(params, n):
    with pytest.raises(ValueError, match=r"batch of one sample.*batch_size of 2 or more"):
        fitted(X=X[:n], y=y[:n], module=net_of(nn.BatchNorm1d(16)), **params)
    fitted(X=X[:n], y=y[:n], module=net_of(), **params)
    images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    fitted(X=X[:n], y=y[:n], module=images, **params)  # has many values of one sample


def test_batchnorm_on_a_last_batch_of_one_sample_and_on_a_single_sample():
    module = net_of(nn.BatchNorm1d(16))
    fitted(X=X[:33], y=y[:33], module=module, selector=None)
    with pytest.raises(ValueError, match="batch of one sample"):
        RobustClassifier(module, **SMALL).partial_fit(X[:1], y[:1], classes=[0, 1, 2])


# Labels, weights, validation samples


def test_a_label_that_partial_fit_has_not_been_told_of():
    clf = RobustClassifier(**SMALL).partial_fit(X, y)
    with pytest.raises(ValueError, match=r"label 3, which is none of the classes.*classes="):
        clf.partial_fit(X, y + 1)


@pytest.mark.parametrize("class_weight", ["balanced", {"a": 2.0, "b": 0.5, "c": 1.0}, {"b": 0.5}])
def test_class_weights_multiply_sample_weights(class_weight):
    names = np.array(["a", "b", "c"])[y]
    own = np.random.default_rng(0).uniform(0.5, 2, 96)
    if class_weight == "balanced":
        factors = (own.sum() / 3 / np.bincount(y, own))[y]
    else:
        factors = np.array([class_weight.get(name, 1.0) for name in names])
    weighted = fitted(y=names, class_weight=class_weight, given={"sample_weight": own})
    multiplied = fitted(y=names, given={"sample_weight": own * factors})
    torch.testing.assert_close(weights(weighted), weights(multiplied))
    assert not torch.equal(weights(weighted), weights(fitted(y=names, given={"sample_weight": own})))


def test_class_weights_of_zero_leave_a_class_out():
    assert fitted(class_weight={0: 0.0, 1: 1.0, 2: 1.0}).classes_.tolist() == [1, 2]


def test_class_weights_that_cannot_be_used():
    for class_weight, words in (
        ({7: 1.0}, "are not in class_weight"),
        ({0: -1.0}, "finite weights of 0 or more"),
        ({0: float("nan")}, "finite weights of 0 or more"),
    ):
        with pytest.raises(ValueError, match=words):
            fitted(class_weight=class_weight)
    with pytest.raises(ValueError, match=r"class_weight='balanced' is for fit.*dict"):
        RobustClassifier(class_weight="balanced", **SMALL).partial_fit(X, y)
    RobustClassifier(class_weight={1: 2.0}, **SMALL).partial_fit(X, y)


def test_validation_samples_of_ones_own_for_early_stopping():
    data = TensorDataset(torch.from_numpy(X[:40])[:, None], torch.from_numpy(y[:40]))
    clf = fitted(X=X[:, None], early_stopping=True, given={"X_val": X[:40, None], "y_val": y[:40]})
    assert clf.best_validation_score_ == clf.history_[clf.best_epoch_ - 1, "valid_robust"]
    streamed = fitted(X=X[:, None], early_stopping=True, given={"X_val": data})
    assert streamed.best_validation_score_ == clf.best_validation_score_
    plain = fitted(X=X[:, None])  # all samples are trained on
    torch.testing.assert_close(clf.history_[0, "train_loss"], plain.history_[0, "train_loss"], rtol=0, atol=0)
    heavy = fitted(
        X=X[:, None],
        early_stopping=True,
        given={"X_val": X[:40, None], "y_val": y[:40], "sample_weight_val": (y[:40] == 0) + 0.0},
    )
    assert heavy.best_validation_score_ in {k / (y[:40] == 0).sum() for k in range(41)}


def test_validation_samples_of_ones_own_for_a_selector():
    one = fitted(selector="glister", given={"X_val": X[y == 0], "y_val": y[y == 0]})
    other = fitted(selector="glister", given={"X_val": X[y == 1], "y_val": y[y == 1]})
    assert one.coreset_.indices.tolist() != other.coreset_.indices.tolist()
    with pytest.raises(ValueError, match=r"^X_val and y_val are for early_stopping=True and for selectors"):
        fitted(given={"X_val": X, "y_val": y})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"X_val": X}, "X_val is provided, but y_val was not"),
        ({"y_val": y}, "X_val was not provided"),
        ({"X_val": X, "y_val": y + 1}, "^X_val, y_val.*label 3"),
        ({"X_val": X[:, :4], "y_val": y}, r"^X_val, y_val.*shape \(4, 8\)"),
        ({"X_val": X * 300, "y_val": y}, "^X_val, y_val.*outside clip"),
        ({"X_val": X, "y_val": y[:5]}, "^X_val, y_val.*inconsistent"),
        ({"X_val": X, "y_val": y, "sample_weight_val": -np.ones(96)}, "^X_val, y_val.*[Nn]egative"),
    ],
)
def test_validation_samples_that_cannot_be_used(given, words):
    with pytest.raises(ValueError, match=words):
        fitted(early_stopping=True, given=given)
