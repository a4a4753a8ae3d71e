"""Every named model takes its kinds of input, and build_model takes what may stand in place of a name."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_acs.models import MODELS, Standardize, build_model, last_linear, mlp, standardized

DIGITS, FASHION, CIFAR, TABLE = (1, 8, 8), (1, 28, 28), (3, 32, 32), (20,)

CASES = [
    ("mlp", TABLE, {}),
    ("mlp", TABLE, {"hidden": ()}),
    ("mlp", DIGITS, {"hidden": (16,)}),
    *[("convnet", shape, {}) for shape in (DIGITS, FASHION, CIFAR, (3, 4, 4), (3, 96, 64), (1, 4, 64))],
    ("convnet", CIFAR, {"width": 4, "hidden": 10}),
    *[("resnet18", shape, {}) for shape in (DIGITS, FASHION, CIFAR, (4, 80, 80))],
    ("resnet18", CIFAR, {"stem": "imagenet"}),
    ("resnet50", DIGITS, {}),
    ("preact_resnet18", DIGITS, {}),
    ("preact_resnet18", FASHION, {}),
    ("wrn-28-10", DIGITS, {"depth": 10, "width": 1}),
    ("wrn-28-10", FASHION, {"depth": 16, "width": 2}),
]
IMAGE_MODELS = sorted(set(MODELS) - {"mlp"})


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def on_meta(name, shape, n_classes=10, **options):
    """Build the model without memory for its parameters."""
    with torch.device("meta"):
        return build_model(name, shape, n_classes, **options)


def n_parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "shape", "options"), CASES)
def test_named_model_gives_logits_gradients_and_a_last_linear(name, shape, options):
    model = build_model(name, shape, 7, mean=0.5, scale=0.25, **options)
    x = torch.rand(2, *shape, requires_grad=True)
    logits = model(x)
    assert logits.shape == (2, 7)
    logits.logsumexp(1).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert last_linear(model, x.detach()).out_features == 7


@pytest.mark.parametrize("name", MODELS)
def test_every_name_has_a_case(name):
    assert name in {case[0] for case in CASES}


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("resnet18", CIFAR, 11_173_962),
        ("resnet50", CIFAR, 23_520_842),
        ("preact_resnet18", CIFAR, 11_172_170),
        ("wrn-28-10", CIFAR, 36_479_194),
        ("convnet", FASHION, 210_618),
    ],
)
def test_number_of_parameters_is_the_published_one(name, shape, expected):
    assert n_parameters(on_meta(name, shape)) == expected


@pytest.mark.parametrize(
    ("side", "stem", "small"),
    [(32, "auto", True), (64, "auto", True), (65, "auto", False), (224, "small", True), (32, "imagenet", False)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet_stem(side, stem, small, channels):
    model = on_meta("resnet18", (channels, side, side), stem=stem)
    assert model.conv1.in_channels == channels
    assert model.conv1.stride == ((1, 1) if small else (2, 2))
    assert isinstance(model.maxpool, nn.Identity if small else nn.MaxPool2d)


def test_preactivation_residual_network_by_hand():
    """If the last convolution of each block is zero, only the shortcuts remain."""
    model = build_model("wrn-28-10", CIFAR, 2, depth=10, width=1)
    blocks = [part for part in model if hasattr(part, "shortcut")]
    for block in blocks:
        nn.init.zeros_(block.conv2.weight)
    assert blocks[0].shortcut is None
    x = model[0](torch.rand(4, *CIFAR))
    assert torch.equal(blocks[0](x), x)
    assert torch.equal(blocks[1](x), blocks[1].shortcut(blocks[1].bn1(x).relu()))
    assert blocks[1](x).shape == (4, 32, 16, 16)


def test_auto_is_a_convnet_for_images_and_an_mlp_for_tables():
    assert isinstance(build_model("auto", DIGITS, 3)[0], nn.Conv2d)
    assert isinstance(build_model("auto", TABLE, 3)[1], nn.Linear)


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_models_for_the_cpu_have_neither_batch_normalisation_nor_dropout(name):
    assert not any(isinstance(m, nn.BatchNorm2d | nn.Dropout) for m in build_model(name, CIFAR, 10).modules())


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_image_models_refuse_tables(name):
    with pytest.raises(ValueError, match=rf"module='{name}' takes images.*\(20,\).*'mlp'"):
        build_model(name, TABLE, 3)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("resnet", {}, ValueError, "module='resnet' is not known; .*'auto', 'mlp'"),
        ("resnet18", {"stem": "tiny"}, ValueError, "stem='tiny'"),
        ("wrn-28-10", {"depth": 27}, ValueError, "depth must be.*27"),
        ("convnet", {"depth": 3}, TypeError, "depth"),
        (3, {}, TypeError, "module must be one of .*got 3"),
        (lambda input_shape, n_classes: None, {}, TypeError, "must return an nn.Module; it returned None"),
        (nn.Linear(2, 2), {"bias": False}, TypeError, r"takes no options; got \['bias'\]"),
    ],
)
def test_errors_name_the_parameter_and_the_value(name, options, error, message):
    with pytest.raises(error, match=message):
        build_model(name, CIFAR, 10, **options)


def test_convnet_refuses_images_smaller_than_its_first_convolution():
    with pytest.raises(ValueError, match=r"sides of 4 or more; got samples of shape \(1, 3, 9\)"):
        build_model("convnet", (1, 3, 9), 2)


def test_a_module_is_copied_and_left_without_standardisation():
    own = nn.Linear(20, 3)
    model = build_model(own, TABLE, 3, mean=0.0, scale=1.0)
    assert isinstance(model, nn.Linear)
    assert model is not own
    assert model.weight is not own.weight
    assert torch.equal(model.weight, own.weight)


class Own(nn.Module):
    def __init__(self, input_shape, n_classes, bias=True):
        super().__init__()
        self.fc = nn.Linear(*input_shape, n_classes, bias=bias)

    def forward(self, x):
        return self.fc(x)


def test_a_class_gets_shape_classes_and_options_but_no_standardisation():
    model = build_model(Own, TABLE, 3, mean=0.0, scale=1.0, bias=False)
    assert isinstance(model, Own)
    assert model.fc.out_features == 3
    assert model.fc.bias is None


@pytest.mark.parametrize("shape", [TABLE, CIFAR, (3, 5)])
def test_standardize_is_per_feature_and_per_channel(shape):
    rng = np.random.default_rng(0)
    x, mean, scale = rng.random((4, *shape)), rng.random(shape[0]), rng.random(shape[0]) + 0.5
    expected = np.moveaxis((np.moveaxis(x, 1, -1) - mean) / scale, -1, 1)
    given = torch.tensor(x, dtype=torch.float32)
    torch.testing.assert_close(Standardize(mean, scale)(given), torch.tensor(expected, dtype=torch.float32))


def test_standardize_keeps_a_copy_in_its_state():
    mean = torch.zeros(2)
    layer = standardized(nn.Identity(), mean, np.ones(2))[0]
    mean += 1
    assert layer.state_dict()["mean"].tolist() == [0, 0]
    assert not list(layer.parameters())


def test_standardize_takes_read_only_arrays():
    mean = np.zeros(2, np.float32)
    mean.flags.writeable = False
    assert Standardize(mean, 1.0).mean.tolist() == [0, 0]


class Uses(nn.Module):
    """Applies two linear layers and `combine` to their outputs."""

    def __init__(self, combine):
        super().__init__()
        self.first, self.second, self.combine = nn.Linear(4, 3), nn.Linear(4, 3), combine

    def forward(self, x):
        b = self.second(x)
        return self.combine(self.first(x), b)


@pytest.mark.parametrize(
    ("combine", "name"),
    [(lambda a, b: a, "first"), (lambda a, b: b, "second"), (lambda a, b: b.double(), "second")],
    ids=["ran last", "ran first", "other precision"],
)
def test_last_linear_is_the_one_that_makes_the_output(combine, name):
    module = Uses(combine)
    assert last_linear(module, torch.rand(5, 4)) is getattr(module, name)


@pytest.mark.parametrize(
    "combine",
    [
        lambda a, b: a.softmax(1),
        lambda a, b: a.relu_(),
        lambda a, b: a + b,
        lambda a, b: (a, b),
        lambda a, b: a[:, :2],
    ],
    ids=["softmax", "in-place ReLU", "sum", "tuple", "some classes"],
)
def test_last_linear_refuses_a_module_that_goes_on_after_it(combine):
    with pytest.raises(ValueError, match=r"in Uses, the last nn.Linear that ran, 'first'.*selector='random'"):
        last_linear(Uses(combine), torch.rand(5, 4))


def test_last_linear_refuses_a_module_without_one():
    with pytest.raises(ValueError, match=r"in Flatten, no nn.Linear ran.*End the module in nn.Linear"):
        last_linear(nn.Flatten(), torch.rand(5, 4))


def test_last_linear_leaves_modes_statistics_hooks_and_gradients_alone():
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), mlp((4,), 3))
    module[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    layer = last_linear(module, torch.rand(5, 4))
    assert [part.training for part in module] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not layer._forward_hooks
    assert all(p.grad is None for p in module.parameters())


def test_last_linear_restores_modes_after_an_error():
    module = mlp((4,), 3)
    with pytest.raises(RuntimeError):
        last_linear(module, torch.rand(5, 6))
    assert all(part.training for part in module.modules())
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [("mlp", (4,), {"hidden": 0}), ("mlp", (4,), {"hidden": (8, 2.5)}), ("convnet", (1, 8, 8), {"width": -1})],
)
def test_a_width_that_no_layer_can_have_is_refused(name, shape, options):
    with pytest.raises(ValueError, match=rf"module__{next(iter(options))} must be an int of at least 1"):
        build_model(name, shape, 3, **options)
