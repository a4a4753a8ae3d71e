"""Remembered perturbations: exact under augmentation, precise in 8 bits, and worth many steps."""

import errno
import os
import pickle
from tempfile import TemporaryFile, gettempdir
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import Callback
from torch.utils.data import TensorDataset

from sklearn_acs import PGD, BulletTrain, FastLPA, RobustClassifier, robust_accuracy
from sklearn_acs.attacks.balls import BALLS
from sklearn_acs.data.augment import AUGMENTS
from sklearn_acs.data.batches import Batch
from sklearn_acs.training.memory import LEVELS, PerturbationMemory, reserve

X = (load_digits(n_class=4).images / 16).astype(np.float32)[:240]
y = load_digits(n_class=4).target[:240]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_batch(n=20, shape=(2, 8, 6), view=None, rows=None):
    x = torch.rand(n, *shape, generator=seeded(1))
    rows = torch.arange(n) if rows is None else rows
    return Batch(x if view is None else view.see(x), torch.zeros(n, dtype=torch.long), torch.ones(n), rows, view)


def make_memory(batch, **options):
    shape = (len(batch.rows), *batch.x.shape[1:])
    return PerturbationMemory(PGD().threat, shape, torch.device("cpu"), **options)


def inside(ball, seed=2):
    return ball.start("uniform", seeded(seed))


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("on_disk", [False, True])
def test_what_was_kept_is_the_next_start_within_eight_bits(norm, on_disk):
    batch = make_batch()
    ball = BALLS[norm](batch.x, 0.3, (0.0, 1.0))
    memory, delta = make_memory(batch, on_disk=on_disk), inside(ball)
    memory.keep(batch, ball, delta)
    start = memory.start(batch, ball, torch.full_like(delta, torch.nan))
    largest = delta.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)
    assert ((start - delta).abs() <= 0.51 * largest / LEVELS + 1e-6).all()
    assert memory._levels.dtype == torch.int8


def test_a_radius_for_each_feature_keeps_its_own_precision():
    """Also that of features which may not move at all."""
    batch = make_batch(shape=(3,))
    ball = BALLS["linf"](batch.x, torch.tensor([1e-3, 0.0, 100.0]), None)
    memory, delta = make_memory(batch), inside(ball)
    memory.keep(batch, ball, delta)
    start = memory.start(batch, ball, torch.full_like(delta, torch.nan))
    assert ((start - delta).abs() <= torch.tensor([1e-3, 0.0, 100.0]) / LEVELS).all()


@pytest.mark.parametrize("name", AUGMENTS)
def test_a_known_perturbation_goes_through_augmentation_and_back(name):
    """A value that no other pixel has stands at every pixel: where it is seen it moves along, and it comes home."""
    x = torch.zeros(30, 1, 8, 6)
    known = torch.arange(1.0, x.numel() + 1).reshape(x.shape)
    view = AUGMENTS[name].draw(x, seeded())
    seen = view.see(known)
    assert torch.equal(view.put_back(seen, known), known)
    back = view.put_back(seen, torch.zeros_like(known))
    assert torch.equal(back[back != 0], known[back != 0])
    assert (seen != 0).sum() == (back != 0).sum() > 0  # whatever was seen is home again
    changed = view.put_back(seen + 1000, known)
    np.testing.assert_array_equal((changed != known).numpy(), (back != 0).numpy())


@pytest.mark.parametrize("name", ["crop-flip", "cutout", "crop-flip-cutout"])
def test_memory_is_kept_in_the_frame_of_the_sample_as_it_is(name):
    whole = make_batch()
    seen = make_batch(view=AUGMENTS[name].draw(whole.x, seeded(3)))
    memory = make_memory(whole)
    ball = BALLS["linf"](whole.x, 0.5, None)
    first = 0.5 * torch.randint(-LEVELS, LEVELS + 1, whole.x.shape, generator=seeded(4)) / LEVELS
    first.flatten(1)[:, 0] = 0.5  # so that a step of memory is a step of this grid
    memory.keep(whole, ball, first)
    fresh = torch.full_like(first, torch.nan)
    torch.testing.assert_close(memory.start(seen, ball, fresh), seen.view.see(first))

    second = torch.where(seen.view.see(torch.ones_like(first)) == 1, -seen.view.see(first), 0.25)
    memory.keep(seen, ball, second)
    was_seen = seen.view.put_back(seen.view.see(torch.ones_like(first)), torch.zeros_like(first)) == 1
    torch.testing.assert_close(memory.start(whole, ball, fresh), torch.where(was_seen, -first, first))


def test_samples_that_are_not_known_start_afresh():
    batch = make_batch()
    ball = BALLS["linf"](batch.x, 0.1, None)
    memory, delta, fresh = make_memory(batch), inside(ball), inside(ball, 5)
    some = batch._replace(x=batch.x[:5], rows=torch.tensor([3, 1, 7, 9, 2]))
    memory.keep(some, BALLS["linf"](some.x, 0.1, None), delta[:5])
    assert memory.knows(batch.rows).nonzero().flatten().tolist() == [1, 2, 3, 7, 9]
    start = memory.start(batch, ball, fresh)
    torch.testing.assert_close(start[[3, 1, 7, 9, 2]], delta[:5], atol=0.1 / LEVELS, rtol=0)
    others = [0, 4, 5, 6, 8, *range(10, 20)]
    assert torch.equal(start[others], fresh[others])


def test_a_perturbation_of_zero_is_no_start():
    batch = make_batch()
    ball = BALLS["l2"](batch.x, 0.1, None)
    memory, fresh = make_memory(batch), inside(ball)
    memory.keep(batch, ball, torch.zeros_like(fresh))
    torch.testing.assert_close(memory.start(batch, ball, fresh), fresh)


def test_what_was_not_renewed_for_too_long_is_forgotten():
    batch = make_batch()
    ball = BALLS["linf"](batch.x, 0.1, None)
    memory = make_memory(batch, max_age=2)
    memory.keep(batch, ball, inside(ball))
    memory.epoch = 2
    assert memory.knows(batch.rows).all()
    memory.epoch = 3
    assert not memory.knows(batch.rows).any()
    assert torch.equal(memory.start(batch, ball, inside(ball, 7)), inside(ball, 7))


def test_nothing_of_a_forgotten_perturbation_comes_back_when_a_part_of_it_is_renewed():
    batch = make_batch()
    ball = BALLS["linf"](batch.x, 0.1, None)
    memory = make_memory(batch, max_age=1)
    memory.keep(batch, ball, torch.full_like(batch.x, 0.1))
    memory.epoch = 9
    view = AUGMENTS["crop"].draw(batch.x, seeded(3))
    seen = make_batch(view=view)
    memory.keep(seen, BALLS["linf"](seen.x, 0.1, None), torch.full_like(seen.x, -0.1))
    expected = view.put_back(torch.full_like(seen.x, -0.1), torch.zeros_like(seen.x))
    torch.testing.assert_close(memory.recall(batch, ball), expected)


def test_a_perturbation_of_zero_is_recalled_as_it_is():
    batch = make_batch()
    ball = BALLS["linf"](batch.x, 0.1, None)
    memory, delta = make_memory(batch), inside(ball)
    delta[::2] = 0
    memory.keep(batch, ball, delta)
    torch.testing.assert_close(memory.recall(batch, ball), delta, atol=0.1 / LEVELS, rtol=0)


class Watch(Callback):
    """Keeps the memory of a training, and each epoch's passes."""

    def on_epoch_end(self, net, **kwargs):
        self.memory = net.step_.adversary.memory


def fit(**params):
    watch = Watch()
    settings = {"attack": PGD(0.15, steps=1, init="previous"), "max_epochs": 8, "batch_size": 40, "random_state": 0}
    settings |= {"averaging": None, "attack_ramp": 0.0, "coreset_frac": 0.5}
    clf = RobustClassifier(**{"callbacks": [watch], **settings, **params}).fit(X, y)
    return clf, getattr(watch, "memory", None)


@pytest.mark.parametrize("norm, eps", [("linf", 0.15), ("l2", 1.0)])
@pytest.mark.parametrize("objective", ["adversarial", "trades", "mart"])
def test_remembered_steps_add_up_to_a_strong_attack(objective, norm, eps):
    """Perturbations that grew over the epochs raise the loss more than the same steps from fresh starts."""
    attack = PGD(eps, steps=1, init="previous", norm=norm)
    clf, memory = fit(objective=objective, attack=attack, selector=None, max_epochs=15)
    x, labels = torch.tensor(X)[:, None], torch.tensor(y)
    batch = Batch(x, labels, torch.ones(len(x)), torch.arange(len(x)))
    ball = BALLS[norm](x, eps, (0.0, 1.0))
    start = memory.start(batch, ball, torch.zeros_like(x))
    module = clf.net_.module_.eval()
    remembered = attack.perturb(module, x, labels, clip=(0, 1), start=start)
    fresh = attack.perturb(module, x, labels, clip=(0, 1))

    def loss(x_adv):
        return torch.nn.functional.cross_entropy(module(x_adv), labels).item()

    assert loss(remembered) > loss(fresh) > loss(x)


@pytest.mark.filterwarnings("ignore:the trained model predicts")  # of digits cropped and cut out it learns little
@pytest.mark.parametrize("augment", [None, "crop-flip-cutout"])
@pytest.mark.parametrize("selector", [None, "gradmatch", "score", "glister"])
def test_training_is_the_same_bits_twice(selector, augment):
    first, second = (fit(selector=selector, augment=augment)[0] for _ in range(2))
    np.testing.assert_array_equal(first.decision_function(X), second.decision_function(X))


def test_a_dataset_keeps_its_memory_on_disk_and_learns_the_same():
    in_memory, _ = fit()
    watch = Watch()
    streamed = RobustClassifier(**{**in_memory.get_params(deep=False), "callbacks": [watch]})
    streamed.fit(TensorDataset(torch.tensor(X)[:, None], torch.tensor(y)))
    np.testing.assert_allclose(streamed.decision_function(X[:, None]), in_memory.decision_function(X), atol=1e-4)
    assert watch.memory.on_disk


def test_a_selection_reads_the_memory_with_one_forward_pass():
    for objective, forwards in (("adversarial", 1), ("trades", 2)):
        clf, _ = fit(objective=objective)
        assert clf.cost_["selection"].forwards == forwards * len(X)
        assert clf.cost_["selection"].backwards == 0


def test_a_selection_before_all_is_known_attacks():
    clf, _ = fit(warmup_frac=0.0)
    assert clf.cost_["selection"].backwards == len(X)


def test_a_selection_attack_of_ones_own_is_what_selections_cost():
    for attack, steps in ((PGD(0.15, steps=3), 3), (PGD(0.15, steps=2, init="previous"), 2), ("fgsm", 1)):
        for training in (PGD(0.15, steps=1, init="previous"), PGD(0.15, steps=2)):
            clf, _ = fit(attack=training, selection_attack=attack)
            assert clf.cost_["selection"].backwards == steps * len(X)
    with pytest.warns(UserWarning, match="selection_attack within eps=0.1 in linf"):
        clf, _ = fit(attack=PGD(0.15, steps=5), selection_attack__eps=0.1, selection_attack="fgsm")
    assert clf.cost_["selection"].backwards == len(X)


def test_held_out_samples_are_attacked_in_earnest():
    """They are never trained on, so that nothing is remembered of them."""
    clf, _ = fit(selector="glister", validation_fraction=0.25)
    assert clf.cost_["selection"].backwards == 10 * len(X) // 4


def test_bullet_train_around_a_remembering_attack():
    clf, memory = fit(attack=BulletTrain(PGD(0.15, steps=1, init="previous")))
    assert memory.knows(torch.arange(len(X))).all()
    assert clf.robust_score(X, y) > 0.5


def test_robustness_is_measured_with_many_steps():
    assert (
        PGD(0.2, steps=1, init="previous", norm="l2").for_evaluation().get_params() == PGD(0.2, norm="l2").get_params()
    )
    assert PGD(0.2, steps=30, init="previous").for_evaluation().steps == 30


def test_a_table_with_its_own_radii():
    clf = RobustClassifier(attack="pgd", attack__init="previous", attack__steps=1, max_epochs=15, random_state=0)
    clf.fit(X.reshape(-1, 64), y)
    assert clf.score(X.reshape(-1, 64), y) > clf.robust_score(X.reshape(-1, 64), y) > 0.8


def test_nothing_of_it_is_pickled():
    clf, _ = fit(callbacks=None)
    assert len(pickle.dumps(clf)) < len(pickle.dumps(fit(attack=PGD(0.15), callbacks=None)[0])) + 1_000


def test_where_nothing_can_be_remembered():
    with pytest.raises(ValueError, match=r"augment=.* is not known; use one of \['crop'"):
        fit(augment=lambda x, generator: x)
    with pytest.raises(ValueError, match="partial_fit sees each sample once"):
        RobustClassifier(attack=PGD(init="previous")).partial_fit(X, y)
    with pytest.raises(ValueError, match="selection_attack=None has no parameters"):
        fit(selection_attack__steps=2)


def test_a_selection_attack_in_another_ball_leaves_training_what_it_knows():
    class Sizes(Callback):
        """Mean size of what is remembered as epochs end, and after the selections that follow."""

        sizes = []

        def on_epoch_end(self, net, **kwargs):
            self.sizes.append(net.step_.adversary.memory._largest.mean().item())

    sizes = Sizes()
    other = PGD(1.0, norm="l2", init="previous", steps=3)
    with pytest.warns(UserWarning, match="selection_attack within eps=1 in l2"):
        fit(selection_attack=other, callbacks=[sizes], select_every=1)
    assert min(sizes.sizes) > 0.9  # in radii of the ball of training


def test_held_out_samples_are_attacked_in_earnest_by_a_selection_attack_that_remembers():
    other = PGD(0.15, steps=2, init="previous")
    clf, _ = fit(selector="glister", validation_fraction=0.25, selection_attack=other)
    assert clf.cost_["selection"].backwards == 2 * len(X) * 3 // 4 + 10 * len(X) // 4


def test_a_selection_attack_remembers_by_itself():
    class Last(Callback):
        """Which samples the selections remember, and what the training steps do."""

        def on_train_end(self, net, **kwargs):
            memory = net.training_.selection.adversary.memory
            self.known = None if memory is None else memory.knows(torch.arange(len(X)))
            self.training = net.step_.adversary.memory

    last = Last()
    fit(attack=PGD(0.15), selection_attack=PGD(0.15, steps=1, init="previous"), callbacks=[last])
    assert last.known.all()
    assert last.training is None


def test_the_age_is_that_of_the_attack_inside_bullet_train():
    _, memory = fit(attack=BulletTrain(PGD(0.15, steps=1, init="previous", max_age=2)))
    assert memory.max_age == 2


def test_what_is_remembered_of_something_else_is_refused():
    class Strange(FastLPA):
        remembers = True

    with pytest.raises(ValueError, match="has no ball that they are in"):
        fit(attack=Strange(0.15))


def test_an_attack_that_remembers_measures_with_many_steps_also_when_it_is_named():
    clf, _ = fit(selector=None, max_epochs=4)
    one_step, ten = PGD(0.15, steps=1, init="previous", restarts=2), PGD(0.15, restarts=2)
    assert one_step.for_evaluation().get_params() == ten.get_params()
    assert clf.robust_score(X, y, attack=one_step) == clf.robust_score(X, y, attack=ten)
    np.testing.assert_array_equal(clf.perturb(X, y, attack=one_step), clf.perturb(X, y, attack=ten))
    module = clf.net_.module_
    assert robust_accuracy(module, X, y, one_step) == robust_accuracy(module, X, y, ten)


@pytest.mark.parametrize("name", ["fgsm", "n-fgsm", "pgd"])
def test_a_selection_attack_by_name_is_in_the_ball_trained_against(name):
    class Keep(Callback):
        def on_train_end(self, net, **kwargs):
            self.attack = net.training_.selection.adversary.attack

    keep = Keep()
    fit(attack=PGD(1.2, norm="l2", steps=2), selection_attack=name, callbacks=[keep])
    assert (keep.attack.eps, keep.attack.norm) == (1.2, "l2")
    with pytest.warns(UserWarning, match="selection_attack within eps=0.5 in linf"):
        fit(attack=PGD(1.2, norm="l2", steps=2), selection_attack=name, selection_attack__eps=0.5, callbacks=[keep])
    assert keep.attack.eps == 0.5


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(monkeypatch):
    monkeypatch.setattr("sklearn_acs.training.journal.disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(OSError, match=r"need 15 bytes in .* left .* Let the variable TMPDIR"):
        PerturbationMemory(PGD().threat, (5, 3), torch.device("cpu"), on_disk=True)


def test_the_map_on_disk_has_its_bytes_from_the_beginning(monkeypatch):
    def reserved():
        with TemporaryFile() as file:
            reserve(file, 3_000_000, gettempdir(), "")
            return os.fstat(file.fileno()).st_blocks * 512

    def unable(*given):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    assert reserved() >= 3_000_000
    monkeypatch.setattr(os, "posix_fallocate", unable)
    assert reserved() >= 3_000_000
    monkeypatch.delattr(os, "posix_fallocate")
    assert reserved() >= 3_000_000


def test_a_full_disk_is_told_before_anything_is_written_to_the_map(monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"need 15 bytes in .*No space left"):
        PerturbationMemory(PGD().threat, (5, 3), torch.device("cpu"), on_disk=True)
