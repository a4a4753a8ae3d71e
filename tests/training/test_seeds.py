"""One random_state for everything, and global generators left as they were."""

import threading

import numpy as np
import pytest
import torch

from sklearn_acs.training.seeds import LocalRandomness, Seeds, spawn_seeds

CPU = torch.device("cpu")


def test_same_int_gives_the_same_seeds():
    assert spawn_seeds(3) == spawn_seeds(3) == spawn_seeds(np.int64(3))


def test_another_int_shares_no_seed():
    assert not set(spawn_seeds(3)) & set(spawn_seeds(4))


def test_each_use_has_a_seed_of_its_own():
    assert len(set(spawn_seeds(0))) == len(Seeds._fields)


def test_none_gives_fresh_seeds():
    assert spawn_seeds(None) != spawn_seeds(None)


def test_a_random_state_gives_the_seeds_of_its_own_state():
    assert spawn_seeds(np.random.RandomState(3)) == spawn_seeds(3)


def test_a_random_state_that_has_moved_on_gives_others():
    state = np.random.RandomState(3)
    assert spawn_seeds(state) != spawn_seeds(state)


def test_continued_training_draws_anew():
    assert not set(spawn_seeds(3, epochs_done=10)) & set(spawn_seeds(3))


def test_continued_training_is_repeatable():
    assert spawn_seeds(3, epochs_done=10) == spawn_seeds(3, epochs_done=10)


@pytest.mark.parametrize("random_state", [None, 3])
def test_global_randomness_is_untouched(random_state, global_randomness):
    before = global_randomness()
    spawn_seeds(random_state)
    assert global_randomness() == before


def test_seeds_fit_every_generator():
    for seed in spawn_seeds(0):
        torch.Generator().manual_seed(seed)
        np.random.RandomState(seed)


def test_local_randomness_repeats_what_modules_draw():
    drawn = []
    for _ in range(2):
        with LocalRandomness(5, CPU).in_use():
            drawn.append(torch.nn.Linear(3, 3).weight.tolist())
    assert drawn[0] == drawn[1]


def test_local_randomness_differs_between_seeds():
    drawn = []
    for seed in (5, 6):
        with LocalRandomness(seed, CPU).in_use():
            drawn.append(torch.rand(3).tolist())
    assert drawn[0] != drawn[1]


def test_local_randomness_leaves_the_global_generators_as_they_were(global_randomness):
    before = global_randomness()
    with LocalRandomness(5, CPU).in_use():
        torch.rand(3)
    assert global_randomness() == before


def test_local_randomness_leaves_the_global_generators_as_they_were_after_an_error(global_randomness):
    before = global_randomness()
    with pytest.raises(KeyError), LocalRandomness(5, CPU).in_use():
        torch.rand(3)
        raise KeyError
    assert global_randomness() == before


def test_local_randomness_does_not_depend_on_what_was_drawn_before():
    drawn = []
    for _ in range(2):
        torch.rand(1)
        with LocalRandomness(5, CPU).in_use():
            drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1]


def test_local_randomness_goes_on_where_it_ended():
    randomness, whole = LocalRandomness(5, CPU), LocalRandomness(5, CPU)
    with whole.in_use():
        expected = torch.rand(6)
    parts = []
    for _ in range(2):
        with randomness.in_use():
            parts.append(torch.rand(3))
        torch.rand(1)
    assert torch.equal(torch.cat(parts), expected)


@pytest.mark.parametrize("while_in_use", [False, True])
def test_local_randomness_goes_on_from_a_state(while_in_use):
    one, other = LocalRandomness(5, CPU), LocalRandomness(6, CPU)
    with one.in_use():
        torch.rand(3)
        state = one.state_dict() if while_in_use else None
        expected = torch.rand(3) if while_in_use else None
    state = state or one.state_dict()
    if expected is None:
        with one.in_use():
            expected = torch.rand(3)
    other.load_state_dict(state)
    with other.in_use():
        assert torch.equal(torch.rand(3), expected)


def test_where_nothing_draws_the_global_generators_are_looked_at_once(monkeypatch):
    randomness, uses, put = LocalRandomness(5, CPU), [], torch.set_rng_state
    monkeypatch.setattr(torch, "set_rng_state", lambda state: put(state) or uses.append(state))
    for _ in randomness.each(range(4)):
        with randomness.where_drawn():
            pass
    assert not randomness.drawn
    assert len(uses) == 4  # in and out, of the first item and of the first step


@pytest.mark.parametrize("drawing", ["item", "step"])
def test_where_something_draws_all_draws_are_local(drawing, global_randomness):
    def run(interrupted):
        def draw(where):
            return torch.rand(3).tolist() if where == drawing else None

        randomness = LocalRandomness(5, CPU)
        for drawn in randomness.each(draw("item") or [0] for _ in range(3)):
            if interrupted:
                torch.rand(1)
            with randomness.where_drawn():
                yield drawn, draw("step")

    alone = list(run(False))
    assert alone == list(run(True))
    before = global_randomness()
    list(run(False))
    assert global_randomness() == before


def test_what_a_look_draws_is_no_part_of_the_training():
    one, other = LocalRandomness(5, CPU), LocalRandomness(5, CPU)
    with one.where_drawn(going_on=False):
        torch.rand(3)
    drawn = []
    for randomness in (one, other):
        with randomness.where_drawn():
            drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1]
    assert one.drawn


def test_a_thread_waits_for_another_that_draws():
    began, order = threading.Event(), []

    def other():
        began.wait()
        with LocalRandomness(6, CPU).in_use():
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    with LocalRandomness(5, CPU).in_use():
        began.set()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
