"""Features of LPIPS: its distance, what images they take, and where their weights come from."""

import copy
import pickle
import warnings
from urllib.error import URLError

import lpips
import numpy as np
import pytest
import torch

from sklearn_acs.attacks.lpips_networks import LPIPS_NETWORKS, LpipsNetwork, lpips_network

CPU = torch.device("cpu")


def make_lpips(name, seed=0):
    """A metric with random weights, which needs no download."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips asks torchvision in a deprecated way
        torch.manual_seed(seed)
        return lpips.LPIPS(net=name, lpips=False, pnet_rand=True, verbose=False)


def torchvision_names(metric):
    return {"features." + key.partition(".")[2]: value for key, value in metric.net.state_dict().items()}


@pytest.fixture(scope="module", params=LPIPS_NETWORKS)
def made(request, tmp_path_factory):
    """Name, metric and a file with the metric's weights."""
    metric = make_lpips(request.param)
    path = tmp_path_factory.mktemp("weights") / "features.npz"
    np.savez(path, **{key: value.numpy() for key, value in torchvision_names(metric).items()})
    return request.param, metric, str(path)


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("side", [32, 47, 64])
def test_distance_is_the_root_of_lpips_without_learned_weights(made, side):
    name, metric, path = made
    network = lpips_network(name, path, CPU)
    a = images(4, 3, side, side)
    b = (a + 0.1 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    distance = (network(a) - network(b)).norm(dim=1)
    with torch.no_grad():
        expected = metric(a, b, normalize=True).flatten().sqrt()
    torch.testing.assert_close(distance, expected, rtol=0, atol=1e-5)


def test_gray_images_are_colour_images_of_three_equal_channels(made):
    name, _, path = made
    network, x = lpips_network(name, path, CPU), images(2, 1, 40, 40)
    assert torch.equal(network(x), network(x.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(("shape", "enlarged"), [((8, 8), (32, 32)), ((28, 28), (32, 32)), ((12, 24), (32, 64))])
def test_small_images_are_enlarged(made, shape, enlarged):
    name, _, path = made
    network, x = lpips_network(name, path, CPU), images(2, 3, *shape)
    larger = torch.nn.functional.interpolate(x, size=enlarged, mode="bilinear")
    torch.testing.assert_close(network(x), network(larger))


@pytest.mark.parametrize("shape", [(2, 7), (2, 4, 32, 32)])
def test_other_samples_are_refused(made, shape):
    name, _, path = made
    with pytest.raises(ValueError, match=r"1 or 3 channels; got samples of shape"):
        lpips_network(name, path, CPU)(images(*shape))


def test_double_images_are_looked_at_in_the_networks_precision(made):
    name, _, path = made
    assert lpips_network(name, path, CPU)(images(2, 3, 32, 32).double()).dtype == torch.float32


def test_network_is_loaded_once(made):
    name, _, path = made
    assert lpips_network(name, path, CPU) is lpips_network(name, path, CPU)


def test_network_is_frozen(made):
    name, _, path = made
    network = lpips_network(name, path, CPU)
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_network_can_be_copied_and_pickled(made):
    name, _, path = made
    network, x = lpips_network(name, path, CPU), images(1, 3, 32, 32)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(x), network(x))


def test_loading_leaves_global_randomness_alone(made, tmp_path, global_randomness):
    name, metric, _ = made
    path = tmp_path / "features.pth"
    torch.save(torchvision_names(metric), path)
    before = global_randomness()
    network = lpips_network(name, str(path), CPU)
    assert global_randomness() == before
    x = images(1, 3, 32, 32)
    assert torch.equal(network(x), LpipsNetwork(metric)(x))


def test_weights_of_another_network_are_refused(made):
    name, _, path = made
    other = next(network for network in LPIPS_NETWORKS if network != name)
    with pytest.raises(ValueError, match=f"not those of distance='{other}'"):
        lpips_network(other, path, CPU)


@pytest.mark.parametrize("name", LPIPS_NETWORKS)
def test_failed_download_says_what_to_do(name, monkeypatch):
    def fail(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    lpips_network.cache_clear()
    with pytest.raises(ConnectionError, match=rf"distance='{name}'.*no route to host.*weights=PATH"):
        lpips_network(name, None, CPU)
