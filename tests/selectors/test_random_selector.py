"""The random baseline draws from its own random state alone."""

import numpy as np

from sklearn_acs.selectors import RandomSelector

G = np.random.default_rng(0).normal(size=(50, 4)) + 1


def draw(random_state, **parameters):
    return RandomSelector(n_select=10, random_state=random_state, **parameters).fit(G)


def test_weights_are_n_over_k():
    np.testing.assert_array_equal(draw(0).weights_, 5.0)


def test_weights_per_class_are_those_of_the_class():
    y = np.repeat(["a", "b"], [45, 5])
    selector = RandomSelector(n_select=10, random_state=0, per_class=True).fit(G, y)
    np.testing.assert_array_equal(selector.weights_, np.repeat([5.0, 5.0], [9, 1]))
    selector.set_params(n_select=9).fit(G, y)
    np.testing.assert_allclose(selector.weights_, np.repeat([45 / 8, 5.0], [8, 1]))


def test_an_int_repeats_the_draw():
    np.testing.assert_array_equal(draw(3).indices_, draw(3).indices_)


def test_a_random_state_moves_on_from_fit_to_fit():
    selector = RandomSelector(n_select=10, random_state=np.random.RandomState(0))
    first = selector.fit(G).indices_
    assert not np.array_equal(selector.fit(G).indices_, first)


def test_none_neither_reads_nor_moves_the_global_generator():
    state = np.random.get_state()
    first = draw(None).indices_
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])
    np.random.set_state(state)
    assert not np.array_equal(draw(None).indices_, first)


def test_the_sum_is_estimated_without_bias():
    rng = np.random.RandomState(0)
    selector = RandomSelector(n_select=10, random_state=rng)
    sums = [np.sum(selector.fit(G).weights_[:, None] * selector.select(G), axis=0) for _ in range(200)]
    np.testing.assert_allclose(np.mean(sums, axis=0), G.sum(0), rtol=0.05)
