"""Rows on disk: what a checkpoint has stays, whatever is written after it."""

import numpy as np
import pytest
import torch

from sklearn_acs.training.journal import JournaledRows

SHAPE = (20, 3)


def opened(folder, state=None):
    rows = JournaledRows(SHAPE)
    if state is not None:
        rows.load_state_dict({name: each.clone() if torch.is_tensor(each) else each for name, each in state.items()})
    rows.open(folder)
    return rows


def everything(rows):
    return rows[torch.arange(SHAPE[0])].numpy()


def copied(rows):
    return {name: each.clone() if torch.is_tensor(each) else each for name, each in rows.state_dict().items()}


def test_rows_are_zeros_at_first(tmp_path):
    np.testing.assert_array_equal(everything(opened(tmp_path)), np.zeros(SHAPE))


@pytest.mark.parametrize("seed", range(8))
def test_the_rows_of_the_last_checkpoint_come_back_whatever_was_written_since(tmp_path, seed):
    random, rows, expected = np.random.default_rng(seed), opened(tmp_path), np.zeros(SHAPE, np.int8)
    state, kept = copied(rows), expected.copy()

    def write():
        some = random.choice(SHAPE[0], random.integers(1, 8), replace=False)
        values = random.integers(-127, 128, (len(some), 3)).astype(np.int8)
        rows[torch.from_numpy(some)], expected[some] = torch.from_numpy(values), values

    for _ in range(60):
        write()
        np.testing.assert_array_equal(everything(rows), expected)
        if rows.is_full or random.random() < 0.3:
            rows.flush()
            done = random.random() < 0.8  # else the disk is full
            if done:
                state, kept = copied(rows), expected.copy()
            rows.kept(done)
            if rows.is_full and done:
                rows.merge()
                if random.random() < 0.5:  # it is killed, or the disk is full, before the checkpoint that tells of it
                    rows.kept(False)
                else:
                    state = copied(rows)
                    rows.kept(True)
        if random.random() < 0.2:  # killed
            rows, expected = opened(tmp_path, state), kept.copy()
            np.testing.assert_array_equal(everything(rows), expected)


def test_a_checkpoint_tells_of_no_more_than_what_was_changed(tmp_path):
    rows = opened(tmp_path)
    rows[torch.arange(4)] = torch.ones((4, 3), dtype=torch.int8)
    rows.kept(True)
    used = rows.state_dict()["used"]
    rows[torch.arange(2)] = torch.full((2, 3), 2, dtype=torch.int8)
    rows[torch.arange(2)] = torch.full((2, 3), 3, dtype=torch.int8)
    assert rows.state_dict()["used"] - used == 2
    assert len(rows.state_dict()["more"]) == 0


def test_two_files_take_one_and_a_half_times_the_rows(tmp_path):
    opened(tmp_path)
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) == 1.5 * np.prod(SHAPE)


def test_files_that_are_gone_are_told_of(tmp_path):
    state = copied(opened(tmp_path))
    (tmp_path / "memory_log.bin").unlink()
    with pytest.raises(ValueError, match=r"memory_log.bin' is not there, or cut short"):
        opened(tmp_path, state)


def test_files_are_deleted_in_the_end(tmp_path):
    opened(tmp_path).close(tmp_path)
    assert list(tmp_path.iterdir()) == []
