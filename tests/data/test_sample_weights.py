"""Weights are read in one way, whoever asks for them."""

import numpy as np
import pandas as pd
import pytest
import torch

from sklearn_acs.data.sample_weights import read_sample_weight


@pytest.mark.parametrize(
    "given", [[0, 1, 2.5], np.array([0, 1, 2.5], dtype=np.float16), torch.tensor([0, 1, 2.5]), pd.Series([0, 1, 2.5])]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_become_floats(given, dtype):
    weight = read_sample_weight(given, 3, dtype)
    assert (weight.tolist(), weight.dtype) == ([0, 1, 2.5], dtype)


def test_none_means_ones_and_a_number_the_same_for_all():
    assert read_sample_weight(None, 2).tolist() == [1, 1]
    assert read_sample_weight(0.5, 2).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "given",
    [[1], [1, np.nan], [1, np.inf], [1, -1], [0, 0], 0, np.nan, [[1, 1]], ["a", "b"], [None, 1], [1j, 1], "balanced"],
)
def test_other_weights_are_refused_by_name(given):
    with pytest.raises(ValueError, match="sample_weight must be 2 finite numbers, none below 0 and not all 0"):
        read_sample_weight(given, 2)
