"""Layouts, statistics, ranges and labels: from what users hold to what a model takes, and back."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch.utils.data import Dataset, TensorDataset

from sklearn_acs.data.datasets import SAMPLES_FOR_STATISTICS, Items, listed_labels
from sklearn_acs.data.formats import InputFormat, check_range, example_of, make_data, read_samples
from sklearn_acs.data.labels import encode_labels, read_labels
from sklearn_acs.data.statistics import statistics
from sklearn_acs.data.tensors import image_tensor, plain_tensor

CPU = torch.device("cpu")

LAYOUTS = {
    # shape as given: shape of a sample for the model
    (5, 13): (13,),
    (5, 6, 7): (1, 6, 7),
    (5, 1, 6, 7): (1, 6, 7),
    (5, 3, 6, 7): (3, 6, 7),
    (5, 6, 7, 1): (1, 6, 7),
    (5, 6, 7, 3): (3, 6, 7),
    (5, 6, 7, 4): (4, 6, 7),
    (5, 3, 6, 3): (3, 6, 3),  # both axes could be channels: channels first, as torch has them
}


def numbered(shape, dtype=torch.float32):
    return torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape).to(dtype)


# Layouts


@pytest.mark.parametrize(("given", "model_shape"), LAYOUTS.items(), ids=str)
def test_layout_is_recognised(given, model_shape):
    form = InputFormat.of(given)
    assert form.model_shape == model_shape
    assert form.to_model(numbered(given)).shape == (5, *model_shape)
    assert form.is_table == (len(given) == 2)


@pytest.mark.parametrize("given", LAYOUTS, ids=str)
def test_layout_is_inverted(given):
    form = InputFormat.of(given)
    assert torch.equal(form.to_given(form.to_model(numbered(given))), numbered(given))


def test_pixels_keep_their_places_when_channels_come_first():
    x = numbered((2, 6, 5, 3))
    moved = InputFormat.of(tuple(x.shape)).to_model(x)
    assert all(moved[n, c, i, j] == x[n, i, j, c] for n in range(2) for c in range(3) for i in range(6) for j in [0, 4])


@pytest.mark.parametrize("given", [(5, 6, 7, 3), (5, 6, 7), (5, 3, 6, 7), (5, 13)])
def test_one_sample_is_encoded_as_in_a_batch(given):
    form, x = InputFormat.of(given), numbered(given)
    assert torch.equal(form.encode_one(x[2]), form.to_model(x)[2])


@pytest.mark.parametrize("shape", [(5,), (5, 1, 2, 3, 4)])
def test_other_numbers_of_axes_are_refused(shape):
    with pytest.raises(ValueError, match=r"X must be a table.*got shape \(5,"):
        InputFormat.of(shape)


def test_another_shape_than_that_of_fit_is_refused():
    form = InputFormat.of((5, 6, 7, 3))
    with pytest.raises(ValueError, match=r"shape \(6, 7, 1\), but fit saw samples of shape \(6, 7, 3\)"):
        form.check((6, 7, 1))
    with pytest.raises(ValueError, match=r"shape \(7,\)"):
        form.encode_one(np.zeros(7))


# Images


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_images_keep_their_type_and_memory_until_they_become_data(dtype):
    x = np.zeros((2, 3, 3), dtype)
    for kind in (x, torch.from_numpy(x)):
        assert image_tensor(kind).data_ptr() == x.ctypes.data
    made = make_data(image_tensor(x), torch.zeros(2), InputFormat.of(x.shape), (0, 1), CPU)
    assert made.x.dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor], ids=["array", "tensor"])
def test_images_with_nan_or_infinity_are_refused(kind, bad):
    x = np.zeros((2, 3, 3))
    x[1, 2, 0] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        image_tensor(kind(x))


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor], ids=["array", "tensor"])
def test_images_of_wide_integers_are_refused(kind):
    with pytest.raises(ValueError, match=r"must be uint8 or float; got torch\.int64"):
        image_tensor(kind(np.zeros((2, 3, 3), np.int64)))


def test_read_only_memory_map_is_read(tmp_path):
    x = np.random.RandomState(0).randint(256, size=(4, 5, 5), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    read = image_tensor(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert np.array_equal(read, x)


def test_read_only_memory_map_of_a_table_is_read(tmp_path):
    x = np.random.RandomState(0).rand(4, 5)
    np.save(tmp_path / "x.npy", x)
    read = read_samples(np.load(tmp_path / "x.npy", mmap_mode="r"))
    np.testing.assert_allclose(read, x, rtol=1e-6)


@pytest.mark.parametrize("x", [np.zeros(3, np.uint8), np.zeros(3), [1, 2, 3], torch.zeros(3, dtype=torch.float64)])
def test_plain_tensor_is_bytes_or_float32(x):
    expected = torch.uint8 if getattr(x, "dtype", None) == np.uint8 else torch.float32
    assert plain_tensor(x).dtype == expected


# Reading samples


def test_table_of_numbers_becomes_floats():
    assert torch.equal(read_samples([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1.0, 2, 3], [4, 5, 6]]))


def test_table_of_another_width_is_refused():
    with pytest.raises(ValueError, match="X has 4 features, but Forest is expecting 3"):
        read_samples(np.zeros((2, 4)), InputFormat.of((2, 3)), "Forest")


def test_table_with_other_column_names_is_refused():
    pandas = pytest.importorskip("pandas")
    form = InputFormat.of((2, 2), np.array(["a", "b"], dtype=object))
    frame = pandas.DataFrame(np.zeros((2, 2)), columns=["a", "b"])
    assert read_samples(frame, form).shape == (2, 2)
    with pytest.raises(ValueError, match="feature names should match"):
        read_samples(frame[["b", "a"]], form)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, np.ndarray.tolist], ids=["array", "tensor", "lists"])
def test_images_are_read_from_arrays_tensors_and_lists(kind):
    x = np.random.RandomState(0).rand(2, 3, 4)
    np.testing.assert_allclose(read_samples(kind(x)), x, rtol=1e-6)


def test_dataset_is_not_read():
    class Unreadable(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise AssertionError("was read")

    dataset = Unreadable()
    assert read_samples(dataset).dataset is dataset


@pytest.mark.parametrize(
    ("samples", "message"),
    [(torch.zeros(2, 5, 6, 3), "fit saw samples of shape"), (torch.full((2, 6, 6, 3), 2.0), "outside clip")],
    ids=["shape", "range"],
)
def test_data_of_another_shape_or_range_is_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        make_data(samples, torch.zeros(2, dtype=torch.long), InputFormat.of((2, 6, 6, 3)), (0, 1), CPU)


def test_data_made_from_a_dataset_gives_the_arrays_batches():
    x, y = torch.rand(6, 5, 5, 3), torch.arange(6) % 2
    form = InputFormat.of(tuple(x.shape))
    batches = [torch.tensor([0, 2]), torch.tensor([5])]
    of_array, streamed = (
        list(make_data(samples, y, form, (0, 1), CPU).fetch(batches)) for samples in (x, Items(TensorDataset(x, y)))
    )
    for one, two in zip(of_array, streamed, strict=True):
        assert all(map(torch.equal, one, two))


def test_dataset_labels_are_its_targets_where_it_has_them():
    class WithTargets(Dataset):
        targets = [3, 1, 2]

        def __getitem__(self, index):
            raise AssertionError("was read")

        def __len__(self):
            return 3

    assert listed_labels(WithTargets()).tolist() == [3, 1, 2]


def test_dataset_labels_are_read_where_it_has_no_targets():
    dataset = TensorDataset(torch.zeros(3, 1), torch.tensor([3, 1, 2]))
    assert listed_labels(dataset) is None
    assert Items(dataset).labels(np.array([0]), [3], {}).tolist() == [3, 1, 2]
    assert listed_labels(dataset).tolist() == [3, 1, 2]  # which are not read again


def test_dataset_sample_is_spread_over_the_whole_dataset():
    n = 5 * SAMPLES_FOR_STATISTICS
    sample = example_of(Items(TensorDataset(torch.arange(n)[:, None], torch.zeros(n)))).squeeze(1).float()
    assert len(set(sample.tolist())) == SAMPLES_FOR_STATISTICS
    assert (sample.min(), sample.max()) == (0, n - 1)
    assert sample.mean().item() == pytest.approx((n - 1) / 2, rel=0.01)


def test_dataset_sample_of_a_small_dataset_is_all_of_it():
    sample = example_of(Items(TensorDataset(torch.arange(7)[:, None], torch.zeros(7))))
    assert sample.squeeze(1).tolist() == list(range(7))


# Range


@pytest.mark.parametrize(("low", "high"), [(-0.01, 1), (0, 1.01), (0, 255)])
def test_values_outside_clip_are_refused(low, high):
    with pytest.raises(ValueError, match=rf"from {low:g} to {high:g}, outside clip=\(0, 1\)"):
        check_range(torch.tensor([low, 0.5, high]), (0, 1))


@pytest.mark.parametrize(
    ("x", "clip"),
    [
        (torch.tensor([0.0, 1.0]), (0, 1)),
        (torch.tensor([-1e-7, 1 + 1e-7]), (0, 1)),  # rounding
        (torch.tensor([-7.0, 300.0]), (-7, 300)),
        (torch.tensor([-1e9, 1e9]), None),
        (torch.tensor([0, 255], dtype=torch.uint8), (0, 1)),
    ],
)
def test_values_inside_clip_pass(x, clip):
    check_range(x, clip)


# Statistics


@pytest.mark.parametrize("shape", [(50, 3, 6, 7), (50, 1, 4, 4)])
def test_statistics_of_images_are_numpys_per_channel(shape):
    x = np.random.RandomState(0).rand(*shape).astype(np.float32)
    mean, scale, _ = statistics(torch.from_numpy(x))
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(scale, x.astype(np.float64).std((0, 2, 3)), rtol=1e-6)


def test_statistics_of_bytes_are_numpys_on_the_floats_they_become():
    x = np.random.RandomState(0).randint(256, size=(50, 3, 6, 7), dtype=np.uint8)
    x[:, 1] //= 4  # channels differ
    mean, scale, _ = statistics(torch.from_numpy(x))
    np.testing.assert_allclose(mean, (x / 255).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(scale, (x / 255).std((0, 2, 3)), rtol=1e-6)


def test_statistics_of_a_table_are_those_of_standard_scaler():
    x = np.random.RandomState(0).randn(50, 4) * [1, 10, 0.001, 0] + [5, -100, 0, 7]
    scaler = StandardScaler().fit(x)
    mean, scale, _ = statistics(torch.tensor(x))
    np.testing.assert_allclose(mean, scaler.mean_, rtol=1e-6)
    np.testing.assert_allclose(scale, scaler.scale_, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e6])
def test_constant_feature_has_scale_1(value, dtype):
    # In float64 the mean of many 0.1 is not quite 0.1, and the deviation not quite 0.
    x = torch.full((1_003, 1), value, dtype=dtype)
    assert statistics(x)[1].tolist() == [1.0]


@pytest.mark.parametrize("value", [0, 1, 77, 255])
def test_constant_channel_of_bytes_has_scale_1(value):
    x = torch.full((49, 2, 3, 3), value, dtype=torch.uint8)
    x[0, 1, 0, 0] = 128
    mean, scale, _ = statistics(x)
    assert mean[0].item() == pytest.approx(value / 255)
    assert scale[0] == 1
    assert 0 < scale[1] < 1


# Labels


@pytest.mark.parametrize("labels", [[0, 1, 2], ["a", "b", "a"], np.array([5, 3, 5]), torch.tensor([0, 1, 0])])
def test_labels_of_any_kind_pass(labels):
    assert read_labels(labels, 3).tolist() == np.asarray(labels).tolist()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"inconsistent numbers of samples: \[3, 2\]"),
        ([0.0, np.nan, 1.0], "NaN"),
        ([0.1, 0.25, 0.3], "Unknown label type: continuous"),
        (np.zeros((3, 2)), "1d array"),
    ],
)
def test_bad_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        read_labels(labels, 3)


def test_column_of_labels_is_flattened_with_scikit_learns_warning():
    with pytest.warns(UserWarning, match="column-vector y was passed"):
        assert read_labels([[0], [1], [0]], 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("labels", "classes", "codes"),
    [
        ([3, 1, 3, 7], [1, 3, 7], [1, 0, 1, 2]),
        (["cat", "ant"], ["ant", "bee", "cat"], [2, 0]),
        ([True, False], [False, True], [1, 0]),
        ([2.0, 1.0], [1.0, 2.0], [1, 0]),
    ],
)
def test_labels_are_encoded_as_positions_among_the_classes(labels, classes, codes):
    encoded = encode_labels(np.array(labels), np.array(classes))
    assert encoded.dtype == torch.int64
    assert encoded.tolist() == codes


@pytest.mark.parametrize("unknown", [0, 2, 9])
def test_unknown_label_is_refused_by_name(unknown):
    with pytest.raises(ValueError, match=rf"label .*{unknown}.*none of the classes \[1, 3\]"):
        encode_labels(np.array([1, unknown, 3]), np.array([1, 3]))
