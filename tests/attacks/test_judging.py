"""Which samples a model gets right: as they are, under attack, with NaN, and with labels that it does not have."""

import pytest
import torch
from torch import nn

from sklearn_acs import PGD, evaluate, robust_accuracy
from sklearn_acs.attacks.base import Attack
from sklearn_acs.data.labels import UNKNOWN
from sklearn_acs.model import robust_correct
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
