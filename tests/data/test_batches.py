"""Batches of arrays and of streamed data: which samples, in which order, with which weights."""

import os

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from sklearn_acs.data.batches import ArrayData, Batches, StreamedData, batch_count, to_float
from sklearn_acs.data.datasets import Items

CPU = torch.device("cpu")
N = 23


class Images(Dataset):
    """A Dataset on disk, as far as the loader can tell."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], "a label that only the encoder's owner understands"


def images(n=N, dtype=torch.uint8):
    x = torch.randint(256, (n, 1, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return x if dtype == torch.uint8 else x.to(dtype) / 255


def labels(n=N):
    return torch.arange(n) % 3


def array_data(n=N, dtype=torch.uint8):
    return ArrayData(images(n, dtype), labels(n), CPU)


def streamed_data(n=N, dtype=torch.uint8):
    return StreamedData(Items(Images(images(n, dtype))), labels(n), CPU, lambda x, name: x, lambda batch: None)


@pytest.fixture(params=[array_data, streamed_data], ids=["array", "streamed"])
def make_data(request):
    return request.param


def make_batches(data, batch_size=5, seed=0, **options):
    return Batches(data, batch_size, generator=torch.Generator().manual_seed(seed), **options)


def rows_of(batches):
    return torch.cat([batch.rows for batch in batches]).tolist()


def weights_by_row(batches):
    """The weight that each sample came with."""
    return {int(row): float(w) for batch in batches for row, w in zip(batch.rows, batch.weight, strict=True)}


# Which samples


def test_an_epoch_has_every_sample_once(make_data):
    assert sorted(rows_of(make_batches(make_data()))) == list(range(N))


def test_an_epoch_on_a_coreset_has_each_of_its_samples_once(make_data):
    batches = make_batches(make_data())
    batches.use_coreset(np.array([20, 3, 7, 11, 0, 1, 2]), np.ones(7))
    assert sorted(rows_of(batches)) == [0, 1, 2, 3, 7, 11, 20]


def test_all_samples_come_back_after_a_coreset():
    batches = make_batches(array_data())
    batches.use_coreset(np.array([3, 7]), np.array([1.0, 5.0]))
    batches.use_all()
    assert weights_by_row(batches) == dict.fromkeys(range(N), 1.0)


def test_order_changes_from_epoch_to_epoch():
    batches = make_batches(array_data())
    assert rows_of(batches) != rows_of(batches)


def test_same_seed_gives_the_same_orders(make_data):
    one, two = make_batches(make_data(), seed=4), make_batches(make_data(), seed=4)
    assert [rows_of(one) for _ in range(3)] == [rows_of(two) for _ in range(3)]


def test_another_seed_gives_another_order():
    assert rows_of(make_batches(array_data(), seed=1)) != rows_of(make_batches(array_data(), seed=2))


def test_coreset_members_are_mixed_across_batches_in_each_epoch():
    # Published code left a selected batch together for good, where its common weight cancels.
    batches = make_batches(array_data(), batch_size=4)
    batches.use_coreset(np.arange(12), np.ones(12))
    groups = [{frozenset(batch.rows.tolist()) for batch in batches} for _ in range(2)]
    assert groups[0] != groups[1]


def test_samples_and_labels_belong_to_their_rows(make_data):
    for batch in make_batches(make_data()):
        torch.testing.assert_close(batch.x, images()[batch.rows] / 255)
        assert torch.equal(batch.y, labels()[batch.rows])


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(23, [5, 5, 5, 5, 3]), (20, [5] * 4), (21, [5, 5, 5, 6]), (6, [6]), (5, [5]), (3, [3]), (1, [1])],
)
def test_batch_sizes_and_a_single_left_over_sample_joining_the_batch_before(n, sizes):
    batches = make_batches(array_data(n))
    assert [len(batch.y) for batch in batches] == sizes
    assert len(batches) == batch_count(n, 5) == len(sizes)
    assert batch_count(n, 1) == n


def test_number_of_batches_is_that_of_the_coreset():
    batches = make_batches(array_data())
    batches.use_coreset(np.arange(11), np.ones(11))
    assert len(batches) == len(list(batches)) == 2


# Pixels


def test_bytes_become_floats_between_0_and_1(make_data):
    x = torch.cat([batch.x for batch in make_batches(make_data())])
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (images().min() / 255, images().max() / 255)


def test_every_byte_is_divided_by_255_exactly():
    values = torch.arange(256, dtype=torch.uint8)
    np.testing.assert_array_equal(to_float(values), np.arange(256, dtype=np.float32) / np.float32(255))


def test_floats_stay_what_they_are():
    x = 300 * torch.randn(7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(to_float(x), x)


def test_users_images_are_not_written_to():
    x = images(dtype=torch.float32)
    before = x.clone()
    for batch in make_batches(ArrayData(x, labels(), CPU)):
        batch.x.zero_()
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_streamed_data_gives_the_batches_of_an_array(dtype):
    pair = [make_batches(make(dtype=dtype)) for make in (array_data, streamed_data)]
    for batches in pair:
        batches.use_coreset(np.array([1, 5, 9, 13, 17, 21]), np.array([1.0, 2, 3, 4, 5, 6]))
    for of_array, streamed in zip(*pair, strict=True):
        assert all(map(torch.equal, of_array[:4], streamed[:4]))


class Processes(Dataset):
    """Samples that say by which process they were read, and something random."""

    def __init__(self, drawing):
        self.drawing = drawing

    def __len__(self):
        return N

    def __getitem__(self, i):
        return torch.tensor([os.getpid() * (not self.drawing), torch.rand(()).item() * self.drawing]), 0


def process_data(drawing=False):
    return StreamedData(
        Items(Processes(drawing)), labels(), torch.device("cpu"), encode=lambda x, name: x, check=lambda x: None
    )


def test_workers_stay_for_the_next_pass():
    batches = make_batches(process_data(), num_workers=2)
    readers = [{int(pid) for batch in passes for pid in batch.x[:, 0]} for passes in (batches, batches.everything())]
    assert readers[0] == readers[1]
    assert len(readers[0]) == 2
    assert os.getpid() not in readers[0]
    aside = [{int(pid) for x, _ in batches.aside(torch.arange(N)) for pid in x[:, 0]} for _ in range(2)]
    assert aside[0] == aside[1] != readers[0]


def test_reading_aside_leaves_the_draws_of_workers_alone():
    def epochs(looks):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            batches = make_batches(process_data(drawing=True), num_workers=2)
            for _ in range(3):
                yield torch.cat([batch.x for batch in batches])
                if looks:
                    list(batches.aside(torch.arange(7)))

    for seen, alone in zip(list(epochs(True)), list(epochs(False)), strict=True):
        assert torch.equal(seen, alone)


def test_options_of_the_loader_may_be_those_that_have_defaults():
    batches = make_batches(process_data(), num_workers=1, persistent_workers=False, pin_memory=False)
    readers = [{int(pid) for batch in batches for pid in batch.x[:, 0]} for _ in range(2)]
    assert readers[0] != readers[1]


def test_single_samples_are_those_of_the_data_set():
    assert torch.equal(array_data()[4][0], images()[4] / 255)
    assert torch.equal(streamed_data()[4][0], images()[4])
    assert len(array_data()) == len(streamed_data()) == N


def test_global_randomness_is_untouched(make_data, global_randomness):
    batches = make_batches(make_data())
    before = global_randomness()
    rows_of(batches)
    assert global_randomness() == before


# Weights


def test_without_weights_every_sample_counts_one(make_data):
    assert weights_by_row(make_batches(make_data())) == dict.fromkeys(range(N), 1.0)


def test_sample_weights_follow_their_samples(make_data):
    weight = torch.linspace(0.1, 2, N)
    batches = make_batches(make_data(), sample_weight=weight)
    assert weights_by_row(batches) == pytest.approx(dict(enumerate(weight.tolist())))


def test_the_mean_over_the_coreset_stands_for_the_mean_over_all(make_data):
    # sum_j w_j l_j approximates the sum over all N, so mean_j (weight_j l_j) must be (1/N) sum_j w_j l_j.
    indices, weights = np.array([20, 3, 7, 11]), np.array([10.0, 20.0, 30.0, 40.0])
    batches = make_batches(make_data())
    batches.use_coreset(indices, weights)
    losses = dict(zip(indices.tolist(), (0.5, 0.1, 2.0, 1.0), strict=True))
    mean = np.mean([weight * losses[row] for row, weight in weights_by_row(batches).items()])
    assert mean == pytest.approx(np.dot(weights, list(losses.values())) / N)


def test_weights_that_count_all_samples_have_mean_1():
    batches = make_batches(array_data())
    batches.use_coreset(np.array([1, 2, 5, 6]), np.full(4, N / 4))
    assert set(weights_by_row(batches).values()) == {1.0}


def test_coreset_weights_are_multiplied_by_sample_weights():
    sample_weight = torch.ones(N)
    sample_weight[3], sample_weight[7] = 2, 4
    batches = make_batches(array_data(), sample_weight=sample_weight)
    batches.use_coreset(np.array([3, 7, 11]), N / 3 * np.array([0.6, 0.3, 0.6]))
    assert weights_by_row(batches) == pytest.approx({3: 1.2, 7: 1.2, 11: 0.6})


def test_weights_are_never_normalised_within_a_batch():
    # Weights equal within a batch must act: published code divided by each batch's own sum, and they cancelled.
    batches = make_batches(array_data(), batch_size=4)
    batches.use_coreset(np.arange(12), N / 12 * np.repeat([0.5, 0.5, 2.0], 4))
    means = []
    for batch in batches:
        np.testing.assert_allclose(batch.weight, np.repeat([0.5, 0.5, 2.0], 4)[batch.rows], rtol=1e-6)
        means.append(batch.weight.mean().item())
    assert np.abs(np.subtract(means, 1)).max() > 0.1


def test_a_selection_does_not_multiply_the_weights_of_the_one_before():
    batches = make_batches(array_data())
    batches.use_coreset(np.array([1, 2]), np.array([1.0, 3.0]))
    batches.use_coreset(np.array([2, 4]), np.array([N / 2, N / 2]))
    assert weights_by_row(batches) == {2: 1.0, 4: 1.0}


def test_coreset_does_not_write_to_the_users_sample_weights():
    weight = torch.linspace(0.1, 2, N)
    before = weight.clone()
    make_batches(array_data(), sample_weight=weight).use_coreset(np.array([1, 2]), np.array([1.0, 3.0]))
    assert torch.equal(weight, before)


# Augmentation and everything()


def add_noise(x, generator):
    return x + 1 + torch.rand(x.shape, generator=generator)


def test_training_batches_are_augmented(make_data):
    for batch in make_batches(make_data(), augment=add_noise):
        assert (batch.x >= images()[batch.rows] / 255 + 1).all()


def test_augmentation_draws_from_its_own_generator():
    # The order is then the same with and without augmentation.
    plain = make_batches(array_data())
    own = make_batches(array_data(), augment=add_noise, augment_generator=torch.Generator().manual_seed(1))
    assert [rows_of(plain) for _ in range(2)] == [rows_of(own) for _ in range(2)]


def test_augmentation_differs_from_epoch_to_epoch():
    batches = make_batches(array_data(4), augment=add_noise)
    first, second = (next(iter(batches)) for _ in range(2))
    assert not torch.equal(first.x[first.rows.argsort()], second.x[second.rows.argsort()])


def test_everything_is_every_sample_in_order_as_it_is(make_data):
    batches = make_batches(make_data(), augment=add_noise)
    batches.use_coreset(np.array([3, 7]), np.array([1.0, 5.0]))
    everything = list(batches.everything())
    assert rows_of(everything) == list(range(N))
    torch.testing.assert_close(torch.cat([batch.x for batch in everything]), images() / 255)


def test_everything_carries_the_sample_weights_also_after_a_coreset():
    weight = torch.linspace(0.1, 2, N)
    batches = make_batches(array_data(), sample_weight=weight)
    batches.use_coreset(np.array([3, 7]), np.array([1.0, 5.0]))
    assert torch.equal(torch.cat([batch.weight for batch in batches.everything()]), weight)


def test_everything_leaves_the_order_of_training_alone():
    one, two = make_batches(array_data()), make_batches(array_data())
    list(two.everything())
    assert rows_of(one) == rows_of(two)
