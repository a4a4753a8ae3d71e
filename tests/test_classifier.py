"""RobustClassifier from end to end: it resists attacks, in every shape of input, and says what it cost."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from sklearn_acs import PGD, TRADES, CoresetSchedule, Natural, RobustClassifier
from sklearn_acs.objectives import Objective


@pytest.fixture(scope="module")
def digits():
    data = load_digits(n_class=4)
    return (data.images / 16).astype(np.float32), data.target


def quick(**params) -> RobustClassifier:
    settings = {"max_epochs": 8, "batch_size": 32, "attack": PGD(eps=0.15, steps=4), "random_state": 0}
    return RobustClassifier(**{**settings, "coreset_frac": 0.5, **params})


class TwoBranches(Objective):
    """A user's own objective."""

    branches = ("clean", "adversarial")

    def loss(self, logits, y):
        cross_entropy = nn.functional.cross_entropy
        return sum(cross_entropy(logits[branch], y, reduction="none") for branch in self.branches) / 2


# What it is for


def test_adversarial_training_on_coresets_resists_what_natural_training_does_not(digits):
    X, y = digits
    attack = PGD(eps=0.15, steps=10)
    robust = quick(max_epochs=16).fit(X[::2], y[::2])
    natural = quick(max_epochs=16, objective="natural").fit(X[::2], y[::2])
    assert robust.score(X[1::2], y[1::2]) > 0.95
    assert robust.robust_score(X[1::2], y[1::2], attack) > natural.robust_score(X[1::2], y[1::2], attack) + 0.05


@pytest.mark.parametrize("selector", ["gradmatch", "craig", "glister", "random", "score"])
def test_a_users_own_objective_trains_with_every_selector(digits, selector):
    clf = quick(objective=TwoBranches(), selector=selector).fit(*digits)
    losses = clf.history_[:, "train_loss"]
    assert losses[-1] < losses[0] / 2
    assert clf.coreset_ is not None
    assert clf.robust_score(*digits) > 0.6


@pytest.mark.parametrize("objective", ["natural", "adversarial", "trades"])
@pytest.mark.parametrize("select_by", ["sample", "class", "batch"])
def test_every_objective_trains_by_sample_class_and_batch(digits, objective, select_by):
    clf = quick(objective=objective, select_by=select_by, batch_size=32).fit(*digits)
    losses = clf.history_[:, "train_loss"]
    assert losses[-1] < losses[0]
    assert clf.score(*digits) > 0.7


def test_trades_beta_trades_clean_for_robust(digits):
    little, much = (quick(objective=TRADES(beta=beta)).fit(*digits) for beta in (0.0, 20.0))
    gap = [clf.score(*digits) - clf.robust_score(*digits) for clf in (little, much)]
    assert gap[1] < gap[0]


# Predictions


def test_predictions_agree_with_each_other(digits):
    X, y = digits
    clf = quick().fit(X, y)
    logits = clf.decision_function(X)
    assert logits.shape == (len(X), 4)
    np.testing.assert_allclose(clf.predict_proba(X).sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[logits.argmax(1)])
    assert clf.score(X, y) == (clf.predict(X) == y).mean()


def test_two_classes_have_one_decision_value(digits):
    X, y = digits[0][digits[1] < 2], digits[1][digits[1] < 2]
    clf = quick().fit(X, y)
    assert clf.decision_function(X).shape == (len(X),)
    np.testing.assert_array_equal(clf.predict(X), (clf.decision_function(X) > 0).astype(int))


def test_perturb_stays_in_ball_and_box_and_is_what_robust_score_counts(digits):
    X, y = digits
    clf = quick().fit(X, y)
    X_adv = clf.perturb(X, y)
    assert X_adv.shape == X.shape
    assert X_adv.dtype == np.float32
    assert np.abs(X_adv - X).max() <= 0.15 + 1e-6
    assert X_adv.min() >= 0
    assert X_adv.max() <= 1
    # Another draw of starts, since robust_score leaves out what is wrong already: close, not equal.
    assert abs(clf.score(X_adv, y) - clf.robust_score(X, y)) < 0.03


def test_robust_score_weighs_samples_and_is_repeatable(digits):
    X, y = digits
    clf = quick().fit(X, y)
    assert clf.robust_score(X, y) == clf.robust_score(X, y)
    only_first = np.zeros(len(X))
    only_first[0] = 1
    assert clf.robust_score(X, y, sample_weight=only_first) in (0.0, 1.0)


# Shapes of input


def layouts(images):
    grey = (images * 255).round().astype(np.uint8)
    return {
        "uint8 (n, H, W)": grey,
        "float (n, H, W)": grey / np.float32(255),
        "float64 (n, H, W)": grey / 255,
        "(n, 1, H, W)": grey[:, None],
        "(n, H, W, 1)": grey[..., None],
        "tensor uint8": torch.from_numpy(grey),
        "tensor float (n, 1, H, W)": torch.from_numpy(grey[:, None] / np.float32(255)),
        "lists": (grey / 255).tolist(),
    }


@pytest.mark.parametrize("layout", layouts(np.zeros((1, 2, 2))))
def test_every_layout_of_the_same_images_trains_the_same_model(digits, layout):
    images, y = digits[0][:200], digits[1][:200]
    X = layouts(images)[layout]
    clf = quick(max_epochs=3).fit(X, y)
    reference = quick(max_epochs=3).fit(layouts(images)["uint8 (n, H, W)"], y)
    np.testing.assert_allclose(clf.decision_function(X), reference.decision_function(images), atol=2e-2)
    X_adv = clf.perturb(X, y)
    assert type(X_adv) is (torch.Tensor if isinstance(X, torch.Tensor) else np.ndarray)
    assert tuple(X_adv.shape) == np.shape(X)


def test_colour_images_and_named_models_train():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = (rng.random((40, 12, 12, 3)) * 0.5 + 0.5 * y[:, None, None, None]).astype(np.float32)
    for name in ("resnet18", "preact_resnet18"):
        clf = quick(module=name, max_epochs=12, batch_size=10, attack=PGD(steps=1), augment="crop-flip", lr=0.01).fit(
            X, y
        )
        assert clf.score(X, y) > 0.9
        assert clf.input_format_.model_shape == (3, 12, 12)


@pytest.mark.filterwarnings("ignore:the trained model predicts")  # three hidden units may all be dead
def test_a_module_or_a_factory_of_ones_own_is_used_as_it_is(digits):
    X, y = digits

    def factory(input_shape, n_classes, width=8):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(np.prod(input_shape), width), nn.ReLU(), nn.Linear(width, n_classes)
        )

    module = factory((1, 8, 8), 4)
    before = module[1].weight.clone()
    clf = quick(module=module).fit(X, y)
    assert torch.equal(module[1].weight, before)  # the user's module is copied
    assert [type(m) for m in clf.net_.module_] == [type(m) for m in module]
    assert quick(module=factory, module__width=3).fit(X, y).net_.module_[1].out_features == 3


@pytest.mark.parametrize("params", [{"attack": "pgd"}, {"attack": "fgsm"}, {"objective": Natural(attack="pgd")}])
def test_an_attack_by_name_has_the_radius_of_a_table(params):
    X, y = load_iris(return_X_y=True)
    clf = RobustClassifier(max_epochs=2, random_state=0, **params).fit(X, y)
    np.testing.assert_allclose(clf.attack_.eps, 0.1 * X.std(0), rtol=1e-5)
    assert clf.robust_score(X, y, "pgd") == clf.robust_score(X, y, PGD(eps=0.1 * X.std(0)))


def test_uint8_rows_of_a_dataset_are_numbers_and_not_pixels():
    X, y = load_iris(return_X_y=True)
    X = (10 * X).astype(np.uint8)
    streamed = quick(attack=None).fit(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)))
    np.testing.assert_allclose(
        streamed.decision_function(X), quick(attack=None).fit(X, y).decision_function(X), atol=1e-4
    )


def test_labels_of_a_subset_come_from_the_data_set_it_is_part_of(digits):
    X, y = digits

    class Labelled(TensorDataset):
        targets = torch.from_numpy(y)

        def __getitem__(self, i):
            return super().__getitem__(i)[0], None  # the label is in `targets` alone

    whole = Labelled(torch.from_numpy(X), torch.from_numpy(y))
    clf = quick(max_epochs=2).fit(torch.utils.data.Subset(whole, range(0, 200, 2)))
    np.testing.assert_array_equal(
        clf.decision_function(X), quick(max_epochs=2).fit(X[:200:2], y[:200:2]).decision_function(X)
    )


def test_adam_has_a_learning_rate_of_its_own(digits):
    clf = quick(optimizer="adam", max_epochs=16).fit(*digits)
    assert clf.score(*digits) > 0.9
    assert clf.net_.lr == 2e-3


def test_a_table_is_attacked_in_standard_deviations_of_each_feature():
    X, y = load_iris(return_X_y=True)
    clf = RobustClassifier(max_epochs=2, random_state=0).fit(X * [1, 10, 100, 1000], y)
    np.testing.assert_allclose(clf.attack_.eps, 0.1 * (X * [1, 10, 100, 1000]).std(0), rtol=1e-5)
    assert RobustClassifier(max_epochs=2, attack__eps=0.5, random_state=0).fit(X, y).attack_.eps == 0.5


class Counted(Dataset):
    """Digits made anew at every access, counting how many are alive at once."""

    def __init__(self, images, labels):
        self.images, self.labels_list, self.alive, self.most = images, labels.tolist(), 0, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        sample = _Sample(torch.from_numpy(self.images[i])[None].clone())
        sample.owner = self
        self.alive += 1
        self.most = max(self.most, self.alive)
        return sample, self.labels_list[i]


class _Sample(torch.Tensor):
    owner: Counted

    def __del__(self):
        if hasattr(self, "owner"):
            self.owner.alive -= 1


def test_a_dataset_is_streamed_and_never_held_in_memory(digits):
    X, y = digits
    data = Counted(X, y)
    clf = quick(batch_size=16).fit(data)
    # 512 samples are looked at together for shape, mean and range; after that it is a batch at a time.
    first_look, data.most = data.most, 0
    assert first_look <= 513
    clf = quick(batch_size=16, warm_start=True).fit(data)
    assert clf.score(data) > 0.8
    assert clf.score(data) == clf.score(X[:, None], y)
    assert clf.robust_score(data) <= clf.score(data)
    assert data.alive == 0


def test_a_dataset_and_the_arrays_in_it_train_the_same_model(digits):
    X, y = digits[0][:300], digits[1][:300]
    streamed = quick(max_epochs=3).fit(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)))
    held = quick(max_epochs=3).fit(X, y)
    np.testing.assert_allclose(streamed.decision_function(X), held.decision_function(X), atol=1e-5)


# Fits that go on


def test_partial_fit_continues_and_needs_all_classes_once(digits):
    X, y = digits
    clf = quick()
    clf.partial_fit(X[y < 2], y[y < 2], classes=[0, 1, 2, 3])
    for _ in range(12):
        clf.partial_fit(X, y)
    assert clf.score(X, y) > 0.9
    assert len(clf.history_) == 13
    assert clf.coreset_ is None


def test_warm_start_begins_where_the_last_fit_ended(digits):
    X, y = digits
    clf = quick(warm_start=True).fit(X, y)
    first = clf.history_[-1, "train_loss"]
    clf.fit(X, y)
    assert clf.history_[0, "train_loss"] < 2 * first < quick().fit(X, y).history_[0, "train_loss"]


def test_every_warm_start_draws_afresh(digits):
    clf = quick(warm_start=True, selector="random", max_epochs=2)
    drawn = [tuple(clf.fit(*digits).coreset_.indices) for _ in range(4)]
    assert len(set(drawn)) == 4
    again = quick(warm_start=True, selector="random", max_epochs=2)
    assert [tuple(again.fit(*digits).coreset_.indices) for _ in range(4)] == drawn


def test_samples_of_weight_zero_are_left_out(digits):
    X, y = digits
    weight = (np.arange(len(X)) % 3 > 0).astype(float)
    weighted = quick().fit(X, y, sample_weight=weight)
    without = quick().fit(X[weight > 0], y[weight > 0])
    np.testing.assert_array_equal(weighted.decision_function(X), without.decision_function(X))


def test_sample_weight_changes_what_is_learned_and_its_scale_does_not(digits):
    X, y = digits
    weight = np.where(y == 0, 20.0, 0.05)
    weighted, scaled = (quick(selector=None).fit(X, y, sample_weight=w) for w in (weight, 7 * weight))
    np.testing.assert_allclose(weighted.decision_function(X), scaled.decision_function(X), rtol=1e-3, atol=1e-3)
    assert (weighted.predict(X) == 0).mean() > 1.5 * (y == 0).mean()


# What it cost, and what happened


def test_cost_counts_every_pass_and_every_second(digits):
    X, y = digits
    n = len(X)
    clf = quick(max_epochs=8, select_every=2, select_by="class", attack=PGD(eps=0.15, steps=4)).fit(X, y)
    schedule = CoresetSchedule(8, 0.5, 2, 0.5)
    k = round(0.5 * n)
    cost = clf.cost_
    assert cost["full"].forwards == cost["full"].backwards == schedule.full_epochs * n * (4 + 1)
    assert cost["coreset"].forwards == cost["coreset"].backwards == schedule.coreset_epochs * k * (4 + 1)
    assert cost["selection"].forwards == schedule.n_selections * n * (4 + 1)
    assert cost["selection"].backwards == schedule.n_selections * n * 4
    assert cost["solver"].forwards == 0
    assert cost["solver"].seconds > 0
    assert cost.total.seconds == pytest.approx(sum(clf.history_[:, "seconds"]) + cost["setup"].seconds, rel=0.05)


def test_trades_looks_at_the_clean_samples_once_per_batch(digits):
    X, y = digits
    clf = quick(objective="trades", selector=None, max_epochs=2).fit(X, y)
    # 4 attack steps, one clean forward for them, then clean and adversarial in training
    assert clf.cost_["full"].forwards == 2 * len(X) * (4 + 1 + 2)
    assert clf.cost_["full"].backwards == 2 * len(X) * (4 + 2)


def test_adaptive_random_draws_afresh_and_costs_no_attack(digits):
    seen = []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(net.training_.batches.indices.tolist())

    clf = quick(selector="random", select_every=1, callbacks=[Watch()]).fit(*digits)
    coresets = [tuple(sorted(rows)) for rows in seen if len(rows) < len(digits[0])]
    assert len(coresets) == 4
    assert len(set(coresets)) == 4
    assert clf.cost_["selection"].forwards == 0


def test_history_has_one_row_per_epoch(digits):
    clf = quick(select_by="class").fit(*digits)
    rows = clf.history_[:, ("epoch", "phase", "train_loss", "coreset_size", "approximation_error", "seconds", "lr")]
    assert [row[1] for row in rows] == ["full"] * 2 + ["coreset"] * 4
    assert [row[3] for row in rows] == [len(digits[0])] * 2 + [round(len(digits[0]) / 2)] * 4
    assert [row[4] is None for row in rows] == [True] * 2 + [False] * 4
    assert all(row[5] > 0 for row in rows)


def test_progress_names_phase_and_loss(digits, capsys):
    quick(verbose=1).fit(*digits)
    shown = capsys.readouterr().err
    for text in ("epoch 1/6 on all data", "selecting", "epoch 6/6 on the coreset", "loss="):
        assert text in shown
    quick(verbose=0).fit(*digits)
    assert capsys.readouterr() == ("", "")


# Randomness


def test_same_random_state_gives_the_same_bits_and_global_generators_are_untouched(digits):
    X, y = digits
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for selector in ("gradmatch", "random", "craig"):
        first, second = (quick(selector=selector, max_epochs=4).fit(X, y) for _ in range(2))
        np.testing.assert_array_equal(first.decision_function(X), second.decision_function(X))
        np.testing.assert_array_equal(first.perturb(X, y), second.perturb(X, y))
    different = quick(selector="craig", max_epochs=4, random_state=1).fit(X, y)
    assert not np.array_equal(first.decision_function(X), different.decision_function(X))
    quick(max_epochs=1, random_state=None).fit(X, y)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_two_processes_give_the_same_bits():
    script = (
        "import torch; torch.set_num_threads(1)\n"
        "from sklearn.datasets import load_iris\n"
        "from sklearn_acs import RobustClassifier\n"
        "X, y = load_iris(return_X_y=True)\n"
        "clf = RobustClassifier(max_epochs=3, random_state=3).fit(X, y)\n"
        "print(clf.decision_function(X).tobytes().hex(), clf.perturb(X, y).tobytes().hex())\n"
    )
    outputs = [subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout for _ in "ab"]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 1000


def test_dropout_of_a_users_module_is_repeatable_too(digits):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 4))
    first, second = (quick(module=module, max_epochs=3).fit(*digits) for _ in range(2))
    np.testing.assert_array_equal(first.decision_function(digits[0]), second.decision_function(digits[0]))


@pytest.mark.parametrize("select_by", ["batch", "class"])
def test_selection_report_has_a_row_for_each_selection(select_by):
    X, y = load_digits(return_X_y=True)
    clf = RobustClassifier(attack="fgsm", coreset_frac=0.5, max_epochs=8, select_every=2, select_by=select_by)
    clf.set_params(random_state=0)
    clf.fit(X[:200], y[:200])
    report = clf.selection_report()
    assert report["epoch"] == list(clf.coresets_) == [2, 4]
    assert report["samples"] == [200, 200]
    assert report["selected"] == [len(clf.coreset_.indices)] * 2
    assert report["error"][-1] == clf.coreset_.error == clf.coreset_.report()["error"][-1]
    assert all(matched <= selected for matched, selected in zip(report["matched"], report["selected"], strict=True))
