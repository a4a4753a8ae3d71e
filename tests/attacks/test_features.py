"""What perceptual distances compare: scaled activations, of layers found or named, from one forward pass."""

import pytest
import torch
from torch import nn

from sklearn_acs.attacks.features import find_layers, looking, unit_features
from sklearn_acs.models import MODELS, standardized


@pytest.fixture(autouse=True)
def same_weights():
    """Networks made in a test have the same weights in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Scaling


def test_maps_are_divided_by_their_length_over_the_channels_and_by_the_root_of_the_pixels():
    maps = numbers(3, 5, 4, 6)
    expected = maps / ((maps**2).sum(1, keepdim=True).sqrt() + 1e-10) / 24**0.5
    torch.testing.assert_close(unit_features(maps), expected.flatten(1))


def test_features_without_pixels_have_one():
    flat = numbers(3, 5)
    torch.testing.assert_close(unit_features(flat), unit_features(flat[:, :, None, None]))
    torch.testing.assert_close(unit_features(flat).norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 4)])
def test_gradient_is_finite_where_all_activations_are_0(shape):
    zeros = torch.zeros(shape, requires_grad=True)
    unit_features(zeros).square().sum().backward()
    assert zeros.grad.isfinite().all()


def test_gradient_is_finite_where_an_image_is_what_it_was():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    x = torch.zeros(2, 1, 5, 5, requires_grad=True)
    with torch.no_grad():
        net[0].bias.fill_(-1.0)  # no activation anywhere
    with looking(net) as look:
        (look(x)[1] - look(x.detach())[1]).norm(dim=1).sum().backward()
    assert x.grad.isfinite().all()


# Layers found


FOUND = {
    "mlp": ["2", "4"],
    "convnet": ["1", "3", "5", "8"],
    "resnet18": ["layer1", "layer2", "layer3", "layer4"],
    "preact_resnet18": ["2", "4", "6", "8"],
    "resnet50": ["layer1", "layer2", "layer3", "layer4"],
    "wrn-28-10": ["4", "8", "12"],
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_of_named_models_are_stages_or_activations(name):
    options = {"depth": 28, "width": 1} if name == "wrn-28-10" else {}
    network = MODELS[name]((3, 64, 64), 10, **options)
    assert find_layers(network) == FOUND[name]
    assert find_layers(standardized(network, 0.5, 0.5)) == ["1." + layer for layer in FOUND[name]]


@pytest.mark.parametrize("name", ["mlp", "convnet", "preact_resnet18", "resnet18"])
def test_every_layer_found_counts_alike(name):
    # Each layer's features have length 1 unless a pixel has no activation at all.
    network = MODELS[name]((3, 16, 16), 10).eval()
    with looking(network) as look, torch.no_grad():
        logits, phi = look(numbers(2, 3, 16, 16))
    assert logits.shape == (2, 10)
    torch.testing.assert_close(
        phi.square().sum(1), torch.full((2,), float(len(find_layers(network)))), rtol=0.05, atol=0
    )


class Functional(nn.Module):
    """Activations as functions, and the layer of the logits registered first."""

    def __init__(self):
        super().__init__()
        self.head, self.conv, self.fc = nn.Linear(6, 3), nn.Conv2d(1, 4, 3), nn.Linear(36, 6)
        self.spare = nn.Linear(1, 1)  # never runs

    def forward(self, x):
        x = self.conv(x).relu_()
        return self.head(self.fc(x.flatten(1)).relu())


def test_functional_activations_are_compared_before_them_and_logits_are_not():
    network, x = Functional(), numbers(2, 1, 5, 5)
    with looking(network) as look, torch.no_grad():
        _, phi = look(x)
        maps = network.conv(x)
        expected = torch.cat([unit_features(maps), unit_features(network.fc(maps.relu().flatten(1)))], dim=1)
    torch.testing.assert_close(phi, expected)


def test_gradient_goes_through_maps_that_are_overwritten_afterwards():
    x = numbers(2, 1, 5, 5).requires_grad_()
    with looking(Functional()) as look:
        logits, phi = look(x)
        (gradient,) = torch.autograd.grad(logits.sum() + phi.sum(), x)
    assert gradient.isfinite().all()


def test_a_stage_that_puts_out_the_logits_is_not_compared():
    class Stages(nn.Sequential):
        def __init__(self):
            super().__init__()
            self.layer1 = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
            self.layer2 = nn.Sequential(nn.Linear(5, 3))

    with looking(Stages()) as look, torch.no_grad():
        assert look(numbers(2, 4))[1].shape == (2, 5)


def test_a_network_of_features_alone_is_compared_to_its_last_activation():
    with looking(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.ReLU())) as look, torch.no_grad():
        assert look(numbers(2, 1, 6, 6))[1].shape == (2, 2 * 16 + 3 * 4)


def test_a_layer_that_runs_twice_counts_twice():
    tanh = nn.Tanh()
    with looking(nn.Sequential(nn.Linear(4, 5), tanh, nn.Linear(5, 6), tanh, nn.Linear(6, 2))) as look, torch.no_grad():
        assert look(numbers(2, 4))[1].shape == (2, 11)


# Layers named


def test_named_layers_are_compared_in_the_order_in_which_they_run():
    network, x = MODELS["mlp"]((4,), 3).eval(), numbers(2, 4)
    with looking(network, ["5", "1"]) as look, torch.no_grad():
        logits, phi = look(x)
        expected = torch.cat([unit_features(network[1](x)), unit_features(logits)], dim=1)
    torch.testing.assert_close(phi, expected)


def test_unknown_layer_is_named_with_those_that_are_there():
    with pytest.raises(ValueError, match=r"layers=\['1', 'relu'\].*no layer 'relu'.*'3', '4', '5'"):
        looking(MODELS["mlp"]((4,), 3), ["1", "relu"]).__enter__()


def test_network_without_a_layer_to_compare_is_refused():
    network = MODELS["mlp"]((4,), 3, hidden=())
    with looking(network) as look, pytest.raises(ValueError, match="no layer of Sequential to compare: layers=None"):
        look(numbers(2, 4))


def test_layer_of_something_else_than_a_tensor_is_refused():
    network = nn.Sequential(nn.LSTM(4, 3))
    with looking(network, ["0"]) as look, pytest.raises(ValueError, match="'0' puts out tuple"):
        look(numbers(2, 5, 4))


# Afterwards


def test_no_hook_is_left():
    network = MODELS["mlp"]((4,), 3)
    with pytest.raises(RuntimeError), looking(network) as look:
        look(numbers(2, 5))
    assert not any(module._forward_hooks for module in network.modules())
