"""Robust accuracy of a linear model whose margins are known."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from sklearn_acs import PGD, RobustClassifier, robust_accuracy, robust_scorer

MARGINS = np.array([-0.3, -0.05, 0.02, 0.1, 0.25, 0.45])
"""Distances of the samples from the boundary, negative on the wrong side."""


def linear():
    """Two classes with the boundary at x = 0.5."""
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model.bias.copy_(torch.tensor([0.5, -0.5]))
    return model


def samples():
    """One sample of each margin in each class."""
    x = np.concatenate([0.5 - MARGINS, 0.5 + MARGINS])[:, None]
    return x, np.repeat([0, 1], len(MARGINS))


class Recorder(PGD):
    """PGD that keeps the samples that it is given."""

    def perturb(self, model, x, y, **options):
        SEEN.append(x.clone())
        return super().perturb(model, x, y, **options)


SEEN = []


@pytest.fixture
def seen():
    SEEN.clear()
    return SEEN


@pytest.mark.parametrize("eps", [0.01, 0.05, 0.2, 0.3, 0.6])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_accuracy_is_the_share_of_margins_above_eps(norm, eps):
    # One feature: the three balls are the same. The box [0, 1] is no obstacle: it reaches beyond the boundary.
    assert robust_accuracy(linear(), *samples(), PGD(eps=eps, norm=norm)) == np.mean(eps < MARGINS)


def test_accuracy_never_exceeds_the_clean_one():
    class Confused(nn.Module):
        """Wrong within 0.02 of the clean samples, and right after every attack."""

        def forward(self, x):
            right = (x * 10 - (x * 10).round()).abs() > 0.2
            return torch.cat([~right, right], 1).double() + 0 * x

    x = np.linspace(0.1, 0.9, 9)[:, None]
    assert robust_accuracy(Confused(), x, np.ones(9, dtype=int), PGD(eps=0.05, init="uniform")) == 0


def test_samples_that_are_wrong_anyway_are_not_attacked(seen):
    x, y = samples()
    robust_accuracy(linear(), x, y, Recorder(eps=0.1))
    right = np.concatenate([MARGINS, MARGINS]) > 0
    np.testing.assert_allclose(torch.cat(seen).numpy(), x[right], rtol=1e-6)


def test_model_that_is_always_wrong_is_not_attacked_at_all(seen):
    x, _ = samples()
    always_wrong = 1 - (x[:, 0] > 0.5)
    assert robust_accuracy(linear(), x, always_wrong, Recorder(eps=0.1)) == 0
    assert not seen


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_batch_size_does_not_matter(batch_size):
    assert robust_accuracy(linear(), *samples(), PGD(eps=0.2), batch_size=batch_size) == 1 / 3


def test_box_is_respected():
    # Without a box, 0.3 reaches the boundary from x = 0.75; a box that ends at 0.6 keeps every sample of class 1 right.
    x, y = np.array([[0.75], [0.8]]), np.array([1, 1])
    assert robust_accuracy(linear(), x, y, PGD(eps=0.31), clip=None) == 0
    assert robust_accuracy(linear(), x, y, PGD(eps=0.31), clip=(0.6, 1.0)) == 1


def test_samples_outside_the_box_are_refused():
    with pytest.raises(ValueError, match="outside clip"):
        robust_accuracy(linear(), [[0.5], [7.0]], [0, 1])


def test_labels_of_another_length_are_refused():
    x, y = samples()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        robust_accuracy(linear(), x, np.concatenate([y, y]))


def test_labels_in_two_columns_are_refused():
    x, y = samples()
    with pytest.raises(ValueError, match="1d array"):
        robust_accuracy(linear(), x, np.stack([y, y], axis=1))


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, np.ndarray.tolist], ids=["array", "tensor", "lists"])
def test_samples_and_labels_may_be_arrays_tensors_or_lists(kind):
    x, y = samples()
    assert robust_accuracy(linear(), kind(x), kind(y), PGD(eps=0.2)) == 1 / 3


def test_images_reach_a_module_channels_first_as_floats():
    shapes = []

    class Look(nn.Module):
        def forward(self, x):
            shapes.append((x.shape[1:], x.dtype, x.detach().max().item()))
            return torch.stack([x.sum((1, 2, 3)), 0 * x.sum((1, 2, 3))], 1)

    x = np.full((4, 5, 6, 3), 255, np.uint8)
    robust_accuracy(Look(), x, np.zeros(4, dtype=int), PGD(eps=0.1, init="zero", steps=1))
    assert shapes[0] == ((3, 5, 6), torch.float32, 1.0)


def test_module_keeps_its_modes():
    model = nn.Sequential(nn.Dropout(0.9), linear()).train()
    model[0].eval()
    robust_accuracy(model, *samples(), PGD(eps=0.2))
    assert [module.training for module in model.modules()] == [True, False, True]


def test_module_is_judged_in_eval_mode():
    model = nn.Sequential(linear(), nn.Dropout(0.9)).train()
    assert robust_accuracy(model, *samples(), PGD(eps=0.2)) == 1 / 3


def test_same_random_state_gives_the_same_number():
    x = np.random.RandomState(0).rand(200, 1)
    y = (x[:, 0] > 0.5).astype(int)
    weak = PGD(eps=0.2, steps=1, step_size=1e-3)
    scores = [robust_accuracy(linear(), x, y, weak, random_state=seed) for seed in (1, 1, 2, 3)]
    assert scores[0] == scores[1]
    assert len(set(scores)) > 1


def test_global_randomness_is_untouched(global_randomness):
    model, (x, y) = linear(), samples()
    before = global_randomness()
    robust_accuracy(model, x, y, PGD(eps=0.2))
    assert global_randomness() == before


def test_attack_may_be_a_name():
    assert robust_accuracy(linear(), *samples(), "fgsm") == np.mean(MARGINS > 8 / 255)


def test_a_name_means_for_a_classifier_what_it_means_for_its_robust_score():
    X, y = load_iris(return_X_y=True)
    X = 100 * X  # 8/255 of these units is nothing, 0.1 standard deviations are the same as before
    clf = RobustClassifier(selector=None, max_epochs=6, random_state=0).fit(X, y)
    expected = clf.robust_score(X, y, attack="pgd")
    assert expected < clf.score(X, y)
    assert robust_accuracy(clf, X, y, "pgd") == expected
    assert robust_scorer("pgd")(clf, X, y) == expected


def test_unknown_attack_is_refused():
    with pytest.raises(ValueError, match="the known names are"):
        robust_accuracy(linear(), *samples(), "magic")


def test_bad_attack_is_refused():
    with pytest.raises(ValueError, match="'steps' parameter of PGD"):
        robust_accuracy(linear(), *samples(), PGD(steps=0))
