"""Class weights are scikit-learn's, and count by the samples' own weights."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from sklearn_acs.data.class_weight import class_factors

LABELS = np.array(["b", "a", "b", "c", "b", "c"])
ONES = np.ones(6)


@pytest.mark.parametrize("class_weight", ["balanced", {"a": 3.0, "b": 0.0, "c": 0.5}])
def test_factors_are_those_of_scikit_learn(class_weight):
    factors = class_factors(class_weight, LABELS, ONES, np.unique(LABELS))
    np.testing.assert_allclose(factors, compute_sample_weight(class_weight, LABELS))


def test_balanced_gives_each_class_the_same_weight_in_sum():
    weight = np.array([1.0, 2.0, 0.5, 0.0, 3.0, 4.0])
    weighted = weight * class_factors("balanced", LABELS, weight, np.unique(LABELS))
    np.testing.assert_allclose([weighted[LABELS == label].sum() for label in "abc"], weight.sum() / 3)


def test_a_class_that_has_no_weight_has_no_part_in_the_balance():
    weight = (LABELS != "c").astype(float)
    weighted = weight * class_factors("balanced", LABELS, weight, np.unique(LABELS))
    np.testing.assert_allclose([weighted[LABELS == label].sum() for label in "abc"], [2, 2, 0])


def test_classes_of_earlier_fits_may_be_in_the_mapping():
    factors = class_factors({"z": 9.0, "b": 2.0}, LABELS[:2], ONES[:2], np.array(["a", "b", "z"]))
    assert factors.tolist() == [2, 1]
    with pytest.raises(ValueError, match="are not in class_weight"):
        class_factors({"z": 9.0, "b": 2.0}, LABELS[:2], ONES[:2], np.array(["a", "b"]))
