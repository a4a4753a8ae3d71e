"""Which samples a model gets right: as they are, under attack, with NaN, and with labels that it does not have."""

import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from sklearn_acs import PGD, RobustClassifier, evaluate, robust_accuracy
from sklearn_acs.attacks.base import Attack
from sklearn_acs.data.labels import UNKNOWN
from sklearn_acs.model import FittedModel, robust_correct
from sklearn_acs.models.logits import predicted


class Spy(Attack):
    """Moves nothing, and keeps the labels that it is given."""

    def __init__(self, seen=None):
        self.seen = seen

    def _attack(self, problem, start):
        self.seen.append(problem.y.tolist())
        return problem.x.clone()


def model():
    made = nn.Linear(1, 2)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        made.bias.copy_(torch.tensor([0.5, -0.5]))
    return made


X, Y = torch.tensor([[0.1], [0.45], [0.55], [0.9]]), torch.tensor([0, 0, 1, 1])


def judge(module, y, attack):
    return robust_correct(module, [(X[:2], y[:2]), (X[2:], y[2:])], attack, (0.0, 1.0), torch.Generator()).tolist()


def test_right_is_right_before_and_after():
    assert judge(model(), Y, PGD(eps=0.2)) == [True, False, False, True]
    assert judge(model(), 1 - Y, PGD(eps=0.2)) == [False] * 4


def test_in_inference_mode_too():
    module = model()
    with torch.inference_mode():
        assert judge(module, Y.clone(), PGD(eps=0.2)) == [True, False, False, True]


def test_labels_that_the_model_does_not_have_are_never_right_and_never_attacked():
    spy = Spy([])
    assert judge(model(), torch.tensor([0, UNKNOWN, UNKNOWN, 1]), spy) == [True, False, False, True]
    assert spy.seen == [[0], [1]]


def test_a_batch_of_unknown_labels_costs_no_attack():
    spy = Spy([])
    assert judge(model(), torch.full((4,), UNKNOWN), spy) == [False] * 4
    assert spy.seen == []


def test_no_prediction_is_the_code_of_an_unknown_label():
    logits = torch.tensor([[torch.nan, 1.0], [0.0, torch.inf], [-torch.inf, -torch.inf]])
    assert predicted(logits).tolist() == [-1, 1, 0]
    assert UNKNOWN not in predicted(logits)


class Nan(nn.Module):
    """NaN for every input, or for those that are attacked."""

    def __init__(self, beyond):
        super().__init__()
        self.beyond = beyond

    def forward(self, x):
        logits = torch.stack([1 - x[:, 0], x[:, 0]], dim=1)
        return torch.where(x[:, :1] > self.beyond, torch.nan, logits)


@pytest.mark.parametrize(("beyond", "right"), [(-1.0, 0.0), (0.6, 0.5)])
def test_nan_logits_are_never_right_here_as_in_evaluate(beyond, right):
    y = torch.zeros(4, dtype=torch.long)
    x = torch.tensor([[0.1], [0.2], [0.9], [0.95]])
    assert robust_accuracy(Nan(beyond), x, y, PGD(eps=0.01)) == right
    assert evaluate(Nan(beyond), x, y, {"pgd": PGD(eps=0.01)})["accuracy"][:2] == [right] * 2


# What a fitted model is made of


def test_a_fitted_model_of_a_module_knows_what_the_samples_and_the_logits_tell():
    fitted = FittedModel.of(model(), X, (0.0, 1.0), seed=3)
    assert fitted.format.classes.tolist() == [0, 1]
    assert fitted.format.inputs.is_table
    assert (fitted.format.clip, fitted.seed, fitted.device) == ((0.0, 1.0), 3, torch.device("cpu"))
    assert torch.equal(fitted.logits(X), model()(X).detach())
    assert fitted.accuracy(X, Y, None) == 1
    assert fitted.accuracy(X, Y, PGD(eps=0.2)) == 0.5
    assert [fitted.accuracy(X, Y, PGD(eps=0.2), row) for row in torch.eye(4)] == [1, 0, 0, 1]


def test_a_fitted_model_perturbs_towards_other_classes_within_the_box():
    x_adv = FittedModel.of(model(), X).perturb(X, Y, PGD(eps=0.2))
    torch.testing.assert_close(x_adv, torch.tensor([[0.3], [0.65], [0.35], [0.7]]))


def test_x_is_not_written_to_by_a_module_that_works_in_place():
    class InPlace(nn.Linear):
        def forward(self, x):
            return super().forward(x if x.requires_grad else x.relu_())

    module = InPlace(3, 2)
    images = torch.linspace(-1, 1, 30).reshape(10, 3)
    before, labels = images.clone(), torch.arange(10) % 2
    robust_accuracy(module, images, labels, PGD(eps=0.1), clip=(-1, 1))
    evaluate(module, images.numpy(), labels, PGD(eps=0.1), clip=(-1, 1))
    assert torch.equal(images, before)


def test_only_models_are_judged():
    with pytest.raises(TypeError, match=r"fitted RobustClassifier, .* or an nn\.Module .*; got int"):
        FittedModel.of(3, X)


def test_a_classifier_gives_its_own_and_an_unfitted_one_says_so():
    clf = RobustClassifier(clip=(0, 1), max_epochs=2)
    with pytest.raises(NotFittedError):
        evaluate(clf, X, Y)
    clf.fit(X.repeat(8, 1), Y.repeat(8))
    assert FittedModel.of(clf, X).module is clf.net_.module_ is clf.model_.module


def test_evaluate_and_robust_accuracy_in_inference_mode():
    attacks = {"weak": PGD(eps=0.04), "strong": PGD(eps=0.2)}
    expected = evaluate(model(), X, Y, attacks, check_masking=True)
    module = model()
    with torch.inference_mode():
        x = X * 1
        found = evaluate(module, x, Y, attacks, check_masking=True)
        assert robust_accuracy(module, x, Y, PGD(eps=0.2)) == 0.5
    assert found["accuracy"] == expected["accuracy"] == [1.0, 1.0, 0.5, 0.5]
    assert found["size"] == expected["size"]
    assert found.masking == expected.masking
