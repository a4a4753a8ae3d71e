"""What people really hand over: Datasets of every kind, raw tables, images of many channels, and what is no data."""

import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.preprocessing import StandardScaler
from skorch.helper import SliceDataset
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from sklearn_acs import LPA, PGD, GradMatch, RobustClassifier, evaluate, robust_accuracy, robust_scorer
from sklearn_acs.data import imagenet_subset
from sklearn_acs.data.training_data import TrainingData

DIGITS = load_digits(n_class=3)
X, y = (DIGITS.images / 16)[:120], DIGITS.target[:120]
ATTACK = PGD(eps=0.1, steps=2)


def make(**params) -> RobustClassifier:
    settings = {"max_epochs": 6, "attack": ATTACK, "batch_size": 32, "random_state": 0}
    return RobustClassifier(**{**settings, **params})


@pytest.fixture(scope="module")
def reference():
    return make().fit(X, y)


class Listed(Dataset):
    """A Dataset whose items may have other labels than it lists."""

    def __init__(self, x, listed, labels):
        self.x, self.targets, self.labels_of_items = torch.tensor(x).float(), listed, labels
        self.reads = 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.reads += 1
        return self.x[index], self.labels_of_items[index]


# The items are the truth


def test_a_dataset_with_permuted_targets_is_trained_on_the_labels_of_its_items(reference):
    permuted = Listed(X, np.random.RandomState(0).permutation(y).tolist(), y.tolist())
    clf = make().fit(permuted)
    np.testing.assert_array_equal(clf.decision_function(X), reference.decision_function(X))
    assert clf.score(permuted) == reference.score(X, y) > 0.85
    assert clf.robust_score(permuted) == reference.robust_score(X, y)
    assert evaluate(clf, permuted, attacks=ATTACK)["accuracy"] == evaluate(clf, X, y, ATTACK)["accuracy"]


def test_a_subset_that_maps_labels_is_trained_on_what_it_gives():
    class Mapped(Subset):
        def __getitem__(self, index):
            x, label = self.dataset[self.indices[index]]
            return x, {0: "zero", 1: "one", 2: "two"}[label]

        def __getitems__(self, indices):
            return [self[index] for index in indices]

    names = np.array(["zero", "one", "two"])[y]
    mapped = Mapped(Listed(X, y.tolist(), y.tolist()), range(20, 120))
    clf, expected = make().fit(mapped), make().fit(X[20:], names[20:])
    assert clf.classes_.tolist() == ["one", "two", "zero"]
    np.testing.assert_array_equal(clf.predict(X), expected.predict(X))
    assert clf.score(mapped) == expected.score(X[20:], names[20:])


def test_an_item_that_contradicts_the_targets_later_on_is_an_error_that_names_it_and_both_labels():
    many, labels = np.tile(X, (6, 1, 1)), np.tile(y, 6)
    listed = labels.copy()
    listed[701] = 2 - labels[701] if labels[701] != 1 else 0  # not among the samples looked at first
    message = rf"item 701 of X has the label {labels[701]}, .* said {listed[701]}\. .*mend the Dataset, or give y"
    contradicting = Listed(many, listed.tolist(), labels.tolist())
    with pytest.raises(ValueError, match=message):
        make(max_epochs=2).fit(contradicting)
    make(max_epochs=1).fit(contradicting, labels)  # a y that is given decides
    assert make().fit(X, y).score(contradicting) == make().fit(X, y).score(many, labels)


def test_targets_that_agree_are_used_without_reading_every_item():
    plain = Listed(np.tile(X, (6, 1, 1)), np.tile(y, 6).tolist(), np.tile(y, 6).tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = TrainingData.read(plain, None, None)
    assert plain.reads == 512
    assert data.y.tolist() == np.tile(y, 6).tolist()


def test_labels_that_are_not_listed_are_read_once_in_workers_with_progress(capsys):
    class Processes(Dataset):
        def __len__(self):
            return 600

        def __getitem__(self, index):
            return torch.full((3,), float(index)), int(os.getpid() == parent and index > 0)  # not in the workers

    class Counting(Dataset):
        n = 0

        def __len__(self):
            return 600

        def __getitem__(self, index):
            Counting.n += 1
            return torch.full((3,), float(index)), index % 2

    parent, two = os.getpid(), Counting()
    data = TrainingData.read(two, None, None, verbose=1)
    assert data.y.tolist() == [0, 1] * 300
    assert "reading labels" in capsys.readouterr().err
    assert Counting.n == 512 + 600
    TrainingData.read(two, None, None)
    assert Counting.n == 512 + 600 + 512  # labels that have been read are looked up, as targets are
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match=r"two classes.*got 1 class: \[0\]"):
        make(iterator_train__num_workers=1).fit(Processes())


# Datasets of every kind


class Items(Dataset):
    def __init__(self, item):
        self.item = item

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return self.item(index)


PIXELS = (X * 16).round().astype(np.uint8) * 15


@pytest.mark.parametrize(
    "item",
    [
        lambda i: {"image": torch.tensor(PIXELS[i]), "label": int(y[i])},
        lambda i: {"img": Image.fromarray(PIXELS[i]), "labels": y[i]},
        lambda i: {"pixel_values": PIXELS[i], "labels": torch.tensor(y[i])},
        lambda i: (Image.fromarray(PIXELS[i]), int(y[i])),
        lambda i: [PIXELS[i].tolist() and torch.tensor(PIXELS[i]), torch.tensor([y[i]]), "more"],
    ],
    ids=["image", "img, a PIL image", "pixel_values", "pair with a PIL image", "list"],
)
def test_items_of_hugging_face_and_torchvision_train_as_arrays_do(item):
    clf, expected = make(max_epochs=2).fit(Items(item)), make(max_epochs=2).fit(PIXELS, y)
    np.testing.assert_array_equal(clf.decision_function(Items(item)), expected.decision_function(PIXELS))
    assert clf.score(Items(item)) == expected.score(PIXELS, y)


def test_a_hugging_face_dataset_trains_by_its_label_column():
    class Columns:
        column_names = ["image", "label"]

        def __len__(self):
            return len(X)

        def __getitem__(self, key):
            return y.tolist() if key == "label" else {"image": PIXELS[key], "label": int(y[key])}

        def __getitems__(self, keys):
            return [self[key] for key in keys]

        def with_format(self, kind):
            return self

    expected = make(max_epochs=2).fit(PIXELS, y)
    assert make(max_epochs=2).fit(Columns()).score(Columns()) == expected.score(PIXELS, y)


def test_a_dataset_without_labels_is_predicted_and_told_where_labels_are_needed(reference):
    bare = Items(lambda i: torch.tensor(X[i]).float())
    np.testing.assert_array_equal(reference.predict(bare), reference.predict(X))
    assert reference.score(bare, y) == reference.score(X, y)
    np.testing.assert_array_equal(make().fit(bare, y).predict(X), reference.predict(X))
    for use in (make().fit, reference.score, reference.robust_score, reference.perturb):
        with pytest.raises(ValueError, match=r"items of X have no labels.*give y"):
            use(bare)


class Endless(IterableDataset):
    def __len__(self):
        return len(X)

    def __iter__(self):
        yield from zip(X, y, strict=True)


PAIRS = TensorDataset(torch.tensor(X).float(), torch.tensor(y))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataLoader(PAIRS), r"X is a DataLoader; give its Dataset, X=loader\.dataset,.*iterator_train__num_workers"),
        (Endless(), "must have a length and be read by index.*map-style"),
        (Items(lambda i: {"picture": X[i], "label": 0}), r"item 0 of X has the keys \['picture', 'label'\]"),
        (Items(lambda i: (X[i], np.eye(3)[y[i]])), r"item 0 of X has a label of shape \(3,\)"),
        (Items(lambda i: ("a.png", 0)), "item 0 of X must be an array"),
        (Subset(PAIRS, []), "0 sample"),
    ],
    ids=["DataLoader", "IterableDataset", "keys", "one-hot", "paths", "empty"],
)
def test_a_dataset_that_cannot_be_used_is_told_what_to_do(data, message, reference):
    for use in (make().fit, reference.predict):
        with pytest.raises((TypeError, ValueError), match=message):
            use(data)


def test_a_dataset_that_is_ragged_is_refused_with_the_item_and_the_shapes(reference):
    ragged = Items(lambda i: (X[i, : 8 - (i == 9)], y[i]))
    with pytest.raises(ValueError, match=r"item 9 of X has the shape \(7, 8\), and item 0 of X has \(8, 8\)"):
        make().fit(ragged)
    for use in (reference.predict, reference.score, reference.robust_score, reference.perturb):
        with pytest.raises(ValueError, match=r"item 9 of X has the shape \(7, 8\), but fit saw .*\(8, 8\)"):
            use(ragged)


@pytest.mark.parametrize("labels", [y, SliceDataset(PAIRS, idx=1)], ids=["array", "SliceDataset"])
def test_datasets_in_model_selection_through_slice_dataset(labels):
    scoring = {"clean": "accuracy", "robust": robust_scorer(ATTACK), "log": "neg_log_loss"}
    of_dataset, of_array = (
        cross_validate(make(max_epochs=2), *given, cv=2, scoring=scoring, error_score="raise")
        for given in ((SliceDataset(PAIRS), labels), (X, y))
    )
    for name in ("test_clean", "test_robust", "test_log"):
        np.testing.assert_allclose(of_dataset[name], of_array[name])
    search = GridSearchCV(make(max_epochs=2), {"coreset_frac": [0.3, 0.6]}, cv=2, scoring=robust_scorer(ATTACK))
    assert search.fit(SliceDataset(PAIRS), labels).predict(SliceDataset(PAIRS)).shape == y.shape


def test_workers_asked_for_read_in_predictions_and_evaluations():
    class Process(Dataset):
        """Which process reads decides the class."""

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return torch.tensor([float(os.getpid() == parent), 0.0]), 1

    parent = os.getpid()
    table = np.array([[0.0, 0.0], [1.0, 1.0]] * 20)
    clf = make(module__hidden=(), iterator_valid__num_workers=1, max_epochs=10).fit(table, [1, 0] * 20)
    assert clf.score(table, [1, 0] * 20) == 1
    assert clf.predict(Process()).tolist() == [1] * 8
    assert clf.score(Process()) == 1
    assert evaluate(clf, Process(), attacks={"tiny": PGD(eps=1e-6, steps=1)})["accuracy"] == [1, 1, 1]


# Tables


@pytest.mark.parametrize(("mean", "deviation"), [(1e4, 0.009), (1.7e9, 1000.0)], ids=["small", "timestamps"])
def test_a_column_far_from_zero_trains_as_if_it_were_standardised(mean, deviation):
    z = np.random.RandomState(0).randn(300, 2)
    labels, raw = (z[:, 0] > 0).astype(int), z * [deviation, 1] + [mean, 0]
    scaler = StandardScaler().fit(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = make(attack=None, selector=None).fit(raw, labels)
    np.testing.assert_allclose(clf.model_.format.scale, scaler.scale_, rtol=1e-6)
    assert clf.score(raw, labels) > 0.94
    assert clf.score(raw, labels) >= make(attack=None, selector=None).fit(scaler.transform(raw), labels).score(
        scaler.transform(raw), labels
    ) - 0.03  # fmt: skip
    assert np.isfinite(clf.history_[:, "train_loss"]).all()


def test_a_column_that_float32_rounds_away_is_named():
    z = np.random.RandomState(0).randn(100, 2)
    raw = pd.DataFrame({"kept": z[:, 0], "lost": 1e4 + 1e-4 * z[:, 1]})
    with pytest.warns(UserWarning, match=r"columns \['lost'\] of X .*float32.*subtract an offset"):
        clf = make(attack=None).fit(raw, z[:, 0] > 0)
    assert np.isfinite(clf.history_[:, "train_loss"]).all()
    assert clf.score(raw, z[:, 0] > 0) > 0.8


def test_large_integers_that_float32_has_are_not_warned_of():
    z = np.random.RandomState(0).randn(100, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TrainingData.read(np.column_stack([1e7 + (z[:, 0] > 0), 12 * z[:, 1]]), z[:, 0] > 0, None)


def test_constant_columns_have_the_scale_of_standard_scaler_and_are_known():
    raw = np.column_stack([np.full(303, 0.1), np.full(303, 1e6), np.arange(303.0)])
    form = TrainingData.read(raw, np.arange(303) % 2, None).format
    np.testing.assert_allclose(form.scale, StandardScaler().fit(raw).scale_, rtol=1e-6)
    assert form.n_values.tolist() == [1, 1, 3]


MEMORY = """
import resource
import numpy as np
from sklearn_acs import RobustClassifier

X = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
y = (X[:, 0] > 0).astype(int)
clf = RobustClassifier(objective="natural", max_epochs=2, batch_size=500, **PARAMS)
clf.fit(X[:500].copy(), y[:500])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clf.fit(X, y, sample_weight=np.arange(len(X)) % 10)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / X.nbytes)
"""


def memory_of_a_fit(shape, params):
    """What a fit takes beyond X, in sizes of X."""
    # Pieces are given back to the system at once, so that what is measured is what is held.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20), "OMP_NUM_THREADS": "1"}
    code = MEMORY.replace("SHAPE", str(shape)).replace("PARAMS", str(params))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_a_float32_table_is_not_copied():
    params = {"selector": "glister", "early_stopping": True, "module__hidden": (8,)}
    assert memory_of_a_fit((12_000, 1_250), params) < 0.8


def test_a_narrow_table_costs_as_little_with_the_default_selector():
    assert memory_of_a_fit((100_000, 60), {"module__hidden": (128,)}) < 1.2


def test_gradients_of_samples_are_held_once():
    width = 400  # of the last layer, for each of 100 features
    params = {"module__hidden": (width,), "select_by": "sample", "selector": "score"}
    assert memory_of_a_fit((60_000, 100), params) < 1.75 * width / 100  # twice they are 2 alone


# Images


@pytest.mark.parametrize("n_channels", [2, 5, 13])
def test_images_of_many_channels_are_ambiguous_until_channels_says_where_they_are(n_channels):
    last = np.repeat(X[..., None], n_channels, axis=3)
    first = last.transpose(0, 3, 1, 2)
    for images in (last, first, TensorDataset(torch.tensor(first).float(), torch.tensor(y))):
        with pytest.raises(ValueError, match=r"neither axis 1 nor axis 3 has 1, 3 or 4 channels; say channels='first'"):
            make().fit(images, y)
    of_last, of_first = make(channels="last").fit(last, y), make(channels="first").fit(first, y)
    np.testing.assert_array_equal(of_last.decision_function(last), of_first.decision_function(first))
    assert of_last.perturb(last, y).shape == last.shape


def test_channels_says_what_auto_would_take_otherwise():
    tiny = np.tile(X[:, :3, :3, None], (1, 1, 1, 3))
    assert make(module="mlp").fit(tiny, y).input_format_.channel_axis == 1
    assert make(module="mlp", channels="last").fit(tiny, y).input_format_.channel_axis == 3
    with pytest.raises(ValueError, match=r"'channels' parameter .* 'middle'"):
        make(channels="middle").fit(X, y)


def test_a_module_takes_images_of_many_channels_without_a_word():
    module = nn.Sequential(nn.Conv2d(13, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    images = np.repeat(X[:, None], 13, axis=1).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0 <= robust_accuracy(module, images, y, ATTACK) <= 1
        assert len(evaluate(module, images, y, ATTACK)["accuracy"]) == 3


# What is no data

TABLE = X.reshape(len(X), -1)
NOT_X = {
    "masked": (np.ma.masked_array(TABLE, TABLE > 0.9), "X is a masked array"),
    "dates": (np.full(TABLE.shape, "2026-01-01", "M8[D]"), "X has dates"),
    "time differences": (np.full(TABLE.shape, 1, "m8[s]"), "X has time differences"),
    "frame with dates": (pd.DataFrame({"a": y, "b": pd.date_range("2026", periods=len(y))}), "column 'b', has dates"),
    "timestamps": (np.array([[pd.Timestamp("2026")]] * len(y), dtype=object), "X must have numbers.*Timestamp"),
    "complex": (TABLE + 1j, "X has complex numbers"),
    "strings": (TABLE.astype(str), "X has strings.*OneHotEncoder"),
    "frame with strings": (pd.DataFrame({"a": ["u", "v", "w"] * 40}), "X, column 'a', has strings"),
    "pd.NA": (pd.DataFrame(TABLE).astype("Float64").mask(TABLE > 0.9), "X.*NaN"),
    "pd.NA among objects": (np.array([[pd.NA, 1]] * len(y), dtype=object), "X contains NaN: <NA> stands for no number"),
    "empty images": (np.zeros((len(y), 0, 8)), r"X has the shape \(120, 0, 8\)"),
    "no images": (X[:0], r"X has the shape \(0, 8, 8\): Found 0 sample"),
    "no rows": (TABLE[:0], "X cannot be read: .*0 sample"),
    "images of two shapes": (np.array([X[0], X[0, :7, :7]], dtype=object), "X must have numbers.*np.stack"),
    "ragged lists": ([[1.0, 2.0], [3.0]], "X has rows of different lengths"),
    "bools": (X > 0.5, "X has images, which must be uint8 or float"),
    "sparse tensor": (torch.tensor(TABLE).to_sparse(), "X is a sparse tensor"),
    "too large": (TABLE * 1e300, "X contains .* too large for float32"),
    "a path": ("digits.npy", "X must be an array"),
    "None": (None, "X must be an array"),
}
NOT_Y = {
    "masked": (np.ma.masked_array(y, y == 1), "y is a masked array"),
    "dates": (np.array(["2024", "2025", "2026"], "M8[Y]")[y], r"y .*datetime64\[Y\]; labels are numbers"),
    "complex": (y + 1j, "y .*complex128"),
    "pd.NA": (pd.Series(y).astype("Int64").mask(y == 1), "y .*(NaN|<NA>)"),
    "gaps among objects": (np.where(y == 1, None, y), "y .*row 1 has None"),
    "mixed": ([0, "one", 2] * 40, "y .*strings and numbers are mixed"),
    "one-hot": (np.eye(3)[y], "y should be a 1d array"),
    "fractions": (y + 0.5, "y .*continuous"),
    "short": (y[:-1], r"y .*120\b.* 119"),
}


@pytest.mark.parametrize("name", NOT_X)
def test_what_is_no_array_of_numbers_is_refused_by_name_at_every_entrance(name, reference):
    given, message = NOT_X[name]
    of_table = make(max_epochs=1, selector=None).fit(TABLE, y) if name == "too large" else reference
    module = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    entrances = [
        lambda: make().fit(given, y),
        lambda: of_table.predict(given),
        lambda: of_table.score(given, y),
        lambda: of_table.robust_score(given, y),
        lambda: of_table.perturb(given, y),
        lambda: evaluate(of_table, given, y, ATTACK),
        lambda: evaluate(module, given, y, ATTACK),
        lambda: robust_accuracy(module, given, y, ATTACK),
    ]
    for entrance in entrances:
        with pytest.raises((ValueError, TypeError), match=message):
            entrance()


@pytest.mark.parametrize("name", ["masked", "dates", "complex", "strings", "ragged lists", "a path"])
def test_a_selector_refuses_what_is_no_matrix_of_numbers(name):
    given, message = NOT_X[name]
    with pytest.raises((ValueError, TypeError), match=re.sub("^X", "G", message)):
        GradMatch(n_select=2).fit(given)


@pytest.mark.parametrize("name", NOT_Y)
def test_what_is_no_label_is_refused_by_name_at_every_entrance(name, reference):
    labels, message = NOT_Y[name]
    entrances = [
        lambda: make().fit(X, labels),
        lambda: reference.score(X, labels),
        lambda: reference.robust_score(X, labels),
        lambda: reference.perturb(X, labels),
        lambda: evaluate(reference, X, labels, ATTACK),
        lambda: robust_accuracy(reference.net_.module_, X, labels, ATTACK),
        lambda: GradMatch(n_select=3, per_class=True).fit(TABLE, labels),
    ]
    for entrance in entrances:
        with pytest.raises(ValueError, match=message):
            entrance()


def test_strings_against_integer_classes_name_y(reference):
    names = np.array(["a", "b", "c"])[y]
    for use in (reference.score, reference.robust_score, reference.perturb):
        with pytest.raises(ValueError, match=r"y has 'a', and the classes are \[0, 1, 2\]"):
            use(X, names)


@pytest.mark.parametrize(
    "kind",
    [
        np.asarray,
        np.ndarray.tolist,
        torch.tensor,
        pd.DataFrame,
        lambda table: table.astype(object),
        lambda table: pd.DataFrame(table).astype("Float64"),
        lambda table: torch.tensor(table).requires_grad_(),
    ],
)
def test_tables_of_any_kind_are_read_without_a_word(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = TrainingData.read(kind(TABLE), y.astype(object), None)
    np.testing.assert_allclose(data.format.mean, TABLE.mean(0), rtol=1e-5)


# Files


@pytest.mark.parametrize("wnid", ["..", ".", "a/b", "/etc", "../other", "a/../a", ""])
def test_imagenet_subset_takes_names_of_folders_alone(tmp_path, wnid):
    for folder in ("train/a/b", "other"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"wnids must be names of folders directly in .*, not paths"):
        imagenet_subset(tmp_path, ["a", wnid])
    with pytest.raises(ValueError, match="wnids must be a list of names"):
        imagenet_subset(tmp_path, "a")


@pytest.mark.parametrize(
    ("name", "content"), [("w.npz", b"no archive"), ("w.pt", b"no weights"), ("w.pth", b""), (None, None)]
)
def test_weights_that_cannot_be_read_are_named(tmp_path, name, content):
    weights = 3 if name is None else str(tmp_path / name)
    if name is not None:
        (tmp_path / name).write_bytes(content)
    images = torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match=f"weights.*{re.escape(str(weights))}"):
        attack = LPA(weights=weights)
        attack.validate()
        attack.perturb(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), images, torch.tensor([0]), clip=(0, 1))
