"""The loaders read small files laid out as torchvision expects them."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch.utils.data import DataLoader

from sklearn_acs.data import (
    imagenet_subset,
    load_cifar10,
    load_cifar100,
    load_fashion_mnist,
    load_svhn,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def _without_checksums(monkeypatch):
    """Skip torchvision's checksums, which are those of the published files."""
    for module in ("cifar", "svhn"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: True)


def check(arrays, X, y):
    np.testing.assert_array_equal(arrays[0], X)
    np.testing.assert_array_equal(arrays[1], y)
    assert [array.dtype for array in arrays] == [np.uint8, np.int64]
    assert arrays[0].flags.c_contiguous


@pytest.mark.usefixtures("_without_checksums")
@pytest.mark.parametrize(
    ("load", "folder", "train_files", "test_file", "meta", "labels", "names"),
    [
        (
            load_cifar10,
            "cifar-10-batches-py",
            [f"data_batch_{i}" for i in range(1, 6)],
            "test_batch",
            "batches.meta",
            "labels",
            "label_names",
        ),
        (load_cifar100, "cifar-100-python", ["train"], "test", "meta", "fine_labels", "fine_label_names"),
    ],
)
def test_cifar(tmp_path, rng, load, folder, train_files, test_file, meta, labels, names):
    X = rng.integers(256, size=(10, 32, 32, 3), dtype=np.uint8)
    y = rng.integers(10, size=10)
    (tmp_path / folder).mkdir()

    def write(name, content):
        (tmp_path / folder / name).write_bytes(pickle.dumps(content))

    write(meta, {names: []})
    rows = X.transpose(0, 3, 1, 2).reshape(10, -1)  # as the files have them, channels first
    for files, rows_, y_ in (train_files, rows, y), ([test_file], rows[:2], y[:2]):
        for name, data, targets in zip(files, np.split(rows_, len(files)), np.split(y_, len(files)), strict=True):
            write(name, {"data": data, labels: targets.tolist()})

    check(load(tmp_path), X, y)
    check(load(str(tmp_path), train=False), X[:2], y[:2])


@pytest.mark.usefixtures("_without_checksums")
def test_svhn_has_the_digit_zero_as_class_zero(tmp_path, rng):
    X = rng.integers(256, size=(4, 32, 32, 3), dtype=np.uint8)
    for split, n in ("train", 4), ("test", 2):
        content = {"X": X[:n].transpose(1, 2, 3, 0), "y": np.array([[1], [10], [3], [9]], np.uint8)[:n]}
        savemat(tmp_path / f"{split}_32x32.mat", content)
    check(load_svhn(tmp_path), X, [1, 0, 3, 9])
    check(load_svhn(tmp_path, train=False), X[:2], [1, 0])


def test_fashion_mnist(tmp_path, rng):
    X = rng.integers(256, size=(3, 28, 28), dtype=np.uint8)
    y = np.array([9, 0, 4], np.uint8)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for split, n in ("train", 3), ("t10k", 2):
        for name, array in ("images-idx3", X[:n]), ("labels-idx1", y[:n]):
            header = [0x0800 + array.ndim, *array.shape]  # 8: unsigned bytes
            (raw / f"{split}-{name}-ubyte").write_bytes(np.array(header, ">i4").tobytes() + array.tobytes())
    check(load_fashion_mnist(tmp_path), X, y)
    check(load_fashion_mnist(tmp_path, train=False), X[:2], y[:2])


@pytest.mark.parametrize("load", [load_cifar10, load_cifar100, load_svhn, load_fashion_mnist])
def test_missing_files_are_an_error_that_says_what_to_do(tmp_path, load):
    with pytest.raises(RuntimeError, match="download=True"):
        load(tmp_path)


@pytest.fixture
def imagenet(tmp_path):
    """Write two, one and three grey images of one level each for the classes a, b and c."""
    for wnid, levels in ("a", [10, 20]), ("b", [30]), ("c", [40, 50, 60]):
        (tmp_path / "train" / wnid).mkdir(parents=True)
        for level in levels:
            image = Image.new("L", (300, 260), level)
            image.save(tmp_path / "train" / wnid / f"{wnid}_{level}.JPEG", quality=100)
    return tmp_path


def test_imagenet_subset_labels_the_classes_in_the_order_asked_for(imagenet):
    dataset = imagenet_subset(imagenet, ["c", "a"])
    assert dataset.classes == ["c", "a"]
    assert dataset.targets == [1, 1, 0, 0, 0]
    assert len(dataset) == 5
    x, label = dataset[0]
    assert (x.shape, x.dtype, label) == ((3, 224, 224), torch.float32, 1)
    torch.testing.assert_close(x, torch.full_like(x, 10 / 255), atol=1 / 255, rtol=0)
    assert torch.equal(dataset[0][0], x)


def test_imagenet_subset_is_read_by_workers(imagenet):
    loader = DataLoader(imagenet_subset(imagenet, ["a", "b"]), batch_size=3, num_workers=1)
    x, y = next(iter(loader))
    assert x.shape == (3, 3, 224, 224)
    assert y.tolist() == [0, 0, 1]


def test_imagenet_subset_can_be_pickled(imagenet):
    dataset = pickle.loads(pickle.dumps(imagenet_subset(imagenet, ["b"])))
    assert dataset[0][1] == 0


def test_imagenet_subset_takes_another_transform(imagenet):
    dataset = imagenet_subset(imagenet, ["b"], transform=lambda image: image.size)
    assert dataset[0] == ((300, 260), 0)


def test_imagenet_subset_does_not_read_images_before_they_are_asked_for(imagenet):
    (imagenet / "train" / "b" / "broken.JPEG").write_bytes(b"no image")
    dataset = imagenet_subset(imagenet, ["b"])
    assert len(dataset) == 2
    with pytest.raises(OSError, match="image"):
        dataset[1]


@pytest.mark.parametrize(
    ("wnids", "message"),
    [
        (["a", "x", "y"], r"there are none for \['x', 'y'\]"),
        (["a", "a"], r"different ids; got \['a', 'a'\]"),
        ([], r"one or more"),
    ],
)
def test_imagenet_subset_refuses_ids_it_cannot_find_or_tell_apart(imagenet, wnids, message):
    with pytest.raises(ValueError, match=message):
        imagenet_subset(imagenet, wnids)


def test_imagenet_subset_names_the_split_that_is_missing(imagenet):
    with pytest.raises(ValueError, match="val"):
        imagenet_subset(imagenet, ["a"], split="val")
