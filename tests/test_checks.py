"""Arguments of functions are checked as parameters of estimators are."""

import inspect
from fractions import Fraction

import numpy as np
import pytest

from sklearn_acs.checks import COUNT, PATH, SEED, check_clip, checked


@checked(n=COUNT, seed=SEED, path=[*PATH, None], bright=["boolean"])
def paint(colour, n=2, *, seed=0, path=None, bright=False):
    """Paint."""
    return colour * n


def test_good_arguments_go_through():
    assert paint("ab") == paint("ab", np.int64(2)) == paint(colour="ab", n=np.uint8(2), bright=np.True_) == "abab"


@pytest.mark.parametrize(
    "wrong",
    [{"n": n} for n in (0, -1, 1.0, "2", True, None, np.nan, Fraction(2), [2])]
    + [{"seed": seed} for seed in (-1, None, 2**63, 0.5, "0", False)]
    + [{"path": 3}, {"path": b"x"}, {"bright": 1}, {"bright": "False"}, {"bright": None}],
    ids=str,
)
def test_a_wrong_argument_is_named_with_its_function_and_its_value(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises((ValueError, TypeError)) as error:
        paint("ab", **wrong)
    assert str(error.value).startswith(f"The '{name}' parameter of paint must be")
    assert str(error.value).endswith(f"Got {value!r} instead.")


def test_an_argument_that_is_none_of_the_functions_is_pythons_own_error():
    with pytest.raises(TypeError, match=r"paint\(\) got an unexpected keyword argument 'm'"):
        paint("ab", m=3)


def test_the_function_keeps_its_name_text_and_signature():
    assert (paint.__name__, paint.__doc__) == ("paint", "Paint.")
    assert list(inspect.signature(paint).parameters) == ["colour", "n", "seed", "path", "bright"]


@pytest.mark.parametrize("clip", [(0, 1), [0.0, 255.0], np.array([-1, 1]), (np.float32(0), 1)])
def test_a_box_is_two_numbers(clip):
    assert check_clip(clip) == tuple(clip)
    assert check_clip(None) is None


@pytest.mark.parametrize("clip", ["auto", 1, (1, 0), (0, 0), (0, np.inf), (np.nan, 1), (0, 1, 2), ("0", "1"), {0, 1}])
def test_another_box_is_refused(clip):
    with pytest.raises(ValueError, match=r"clip=.* must be None or \(low, high\)"):
        check_clip(clip)
