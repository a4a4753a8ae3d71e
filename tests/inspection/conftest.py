"""One classifier that all displays look at, and no figure left open."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris

from sklearn_acs import PGD, Dynamics, RobustClassifier

NAMES = np.array(["<b>zero</b>", "one & only", "two", "three"])


@pytest.fixture(autouse=True)
def figures_closed():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def digits():
    digits = load_digits(n_class=4)
    return (digits.images / 16).astype(np.float32), NAMES[digits.target]


@pytest.fixture(scope="session")
def clf(digits):
    X, y = digits
    watched = RobustClassifier(
        attack=PGD(eps=0.15, steps=3),
        averaging=None,
        coreset_frac=0.5,
        max_epochs=12,
        select_every=1,
        warmup_frac=0.25,
        callbacks=[Dynamics(n_samples=100)],
        random_state=0,
    )
    return watched.fit(X[:300], y[:300])


@pytest.fixture(scope="session")
def plain_clf():
    """A classifier of a table, without coresets, that nobody watched."""
    return RobustClassifier(selector=None, max_epochs=3, random_state=0).fit(*load_iris(return_X_y=True))
