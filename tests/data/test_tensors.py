"""Whatever holds numbers becomes a tensor in one place, with the right numbers, and lets its owner's graph alone."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from torch import nn

from sklearn_acs import PGD, RobustClassifier, evaluate, robust_accuracy
from sklearn_acs.data.tensors import as_tensor, plain_tensor

IMAGES = (load_digits(n_class=2).images / 16).astype(np.float32)[:60]
LABELS = load_digits(n_class=2).target[:60]


def inference(values):
    with torch.inference_mode():
        return torch.tensor(values) * 1


SAME_NUMBERS = {
    "negative strides": lambda a: a[::-1].copy()[::-1],
    "foreign byte order": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "Fortran order": np.asfortranarray,
    "float64": lambda a: a.astype(np.float64),
    "read only": lambda a: np.lib.stride_tricks.as_strided(a, writeable=False),
    "tensor that requires a gradient": lambda a: torch.tensor(a, requires_grad=True),
    "inference tensor": inference,
    "tensor whose sign is a bit": lambda a: torch.complex(torch.zeros(a.shape), -torch.tensor(a)).conj().imag,
    "float64 tensor": lambda a: torch.tensor(a).double(),
}


@pytest.mark.parametrize("form", SAME_NUMBERS)
def test_every_form_of_the_same_images_trains_the_same_model(form):
    given = SAME_NUMBERS[form](IMAGES)
    clf = RobustClassifier(max_epochs=2, attack=PGD(eps=0.1, steps=2), random_state=0)
    expected = clf.fit(IMAGES, LABELS).decision_function(IMAGES)
    np.testing.assert_array_equal(clf.fit(given, LABELS).decision_function(given), expected)
    assert getattr(given, "grad", None) is None


@pytest.mark.parametrize("form", SAME_NUMBERS)
def test_every_form_of_the_same_table_trains_the_same_model(form):
    X, y = load_iris(return_X_y=True)
    X = X.astype(np.float32)
    given = SAME_NUMBERS[form](X)
    clf = RobustClassifier(max_epochs=2, random_state=0)
    expected = clf.fit(X, y).decision_function(X)
    np.testing.assert_array_equal(clf.fit(given, y).decision_function(given), expected)
    assert getattr(given, "grad", None) is None


@pytest.mark.parametrize("shape", [(60, 8, 8), (60, 64)])
def test_bfloat16_holds_the_numbers_that_it_holds(shape):
    given = torch.tensor(IMAGES).reshape(shape).bfloat16()
    clf = RobustClassifier(max_epochs=2, attack=PGD(eps=0.1, steps=2), random_state=0).fit(given, LABELS)
    as_floats = RobustClassifier(max_epochs=2, attack=PGD(eps=0.1, steps=2), random_state=0).fit(given.float(), LABELS)
    np.testing.assert_array_equal(clf.decision_function(given), as_floats.decision_function(given.float()))


@pytest.mark.parametrize("shape", [(60, 8, 8), (60, 64)])
def test_masked_arrays_are_refused(shape):
    masked = np.ma.masked_greater(IMAGES.reshape(shape), 0.9)
    with pytest.raises(ValueError, match="masked array"):
        RobustClassifier(max_epochs=1).fit(masked, LABELS)
    clf = RobustClassifier(max_epochs=1, attack=PGD(eps=0.1, steps=1)).fit(IMAGES.reshape(shape), LABELS)
    for use in (clf.predict, lambda given: clf.robust_score(given, LABELS)):
        with pytest.raises(ValueError, match="masked array"):
            use(masked)
    with pytest.raises(ValueError, match="y is a masked array"):
        clf.fit(IMAGES.reshape(shape), np.ma.masked_equal(LABELS, 1))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_a_module_is_judged_on_integer_and_boolean_tables(dtype):
    table = np.array([[0, 1], [1, 0], [1, 1], [0, 0]]).astype(dtype)
    labels = [1, 0, 1, 0]
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.0, -1.0], [0.0, 1.0]]))
        module.bias.copy_(torch.tensor([0.5, -0.5]))
    assert robust_accuracy(module, table, labels, PGD(eps=0.1)) == 1.0
    assert robust_accuracy(module, table, labels, PGD(eps=0.6)) == 0.0
    assert evaluate(module, table, labels, PGD(eps=0.1))["accuracy"] == [1.0, 1.0, 1.0]


def test_the_users_tensor_gets_no_gradient():
    X = torch.tensor(IMAGES, requires_grad=True)
    clf = RobustClassifier(max_epochs=2, attack=PGD(eps=0.1, steps=2)).fit(X, LABELS)
    clf.robust_score(X, LABELS)
    clf.perturb(X, LABELS)
    assert X.grad is None
    assert X.requires_grad


def test_memory_is_shared_where_it_can_be():
    array = np.arange(6.0)
    assert as_tensor(array).data_ptr() == array.ctypes.data
    assert plain_tensor(np.zeros(3, dtype=np.uint8)).dtype == torch.uint8
    assert plain_tensor([1, 2]).dtype == torch.float32
