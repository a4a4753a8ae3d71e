"""The networks of LPIPS, AlexNet and SqueezeNet trained on ImageNet, as judges of how alike two images look."""

import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sklearn_acs.attacks.features import unit_features

LPIPS_NETWORKS = ("alex", "squeeze")

MIN_SIDE = 32
"""Images with a shorter side are enlarged to it: AlexNet takes none below 31 pixels, and 32 is CIFAR's size, for which
the bound of 0.5 is published."""

WEIGHT_FILES = (".npz", ".pt", ".pth")


class LpipsNetwork(nn.Module):
    """Features of images as LPIPS has them without its learned weights: ``|phi(a) - phi(b)|^2`` is its distance.

    Parameters
    ----------
    lpips : lpips.LPIPS
        The metric, of which the network and its standardisation of colours are taken.
    """

    def __init__(self, lpips: Any) -> None:
        super().__init__()
        self.scaling, self.net = lpips.scaling_layer, lpips.net
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, 1 or 3, H, W) in [0, 1] to features (batch, n)."""
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(
                f"distance={LPIPS_NETWORKS} take images with 1 or 3 channels; got samples of shape "
                f"{tuple(x.shape[1:])}. Use distance='self' or a network of your own"
            )
        x = x.to(next(self.buffers()).dtype).expand(-1, 3, -1, -1)
        sides = x.shape[2:]
        if min(sides) < MIN_SIDE:
            larger = [round(side * MIN_SIDE / min(sides)) for side in sides]
            x = F.interpolate(x, size=larger, mode="bilinear", align_corners=False)
        return torch.cat([unit_features(maps) for maps in self.net(self.scaling(2 * x - 1))], dim=1)


def check_weights(weights: str | os.PathLike) -> None:
    """Raise ValueError if there is no such file, or none that can be read."""
    path = Path(weights) if isinstance(weights, str | os.PathLike) else None
    if path is None or not path.is_file() or path.suffix not in WEIGHT_FILES:
        raise ValueError(f"weights={weights!r} is no file; it must be the path of one that ends in {WEIGHT_FILES}")


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # weights that were made in it could not be used outside
def lpips_network(name: str, weights: str | None, device: torch.device) -> LpipsNetwork:
    """Load a network once per device; it is shared, and nothing in it changes.

    Parameters
    ----------
    name : {"alex", "squeeze"}
        Which one.
    weights : str or None
        File of torchvision's weights, under its names (``features.0.weight``); None lets torchvision download them.
    device : torch.device
        Where it runs.

    Returns
    -------
    LpipsNetwork
        In eval mode, without parameter gradients.

    Raises
    ------
    ValueError
        If the file has not the weights of this network.
    ConnectionError
        If the download fails.
    """
    # Building draws initial weights, even where others are loaded over them.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # lpips asks torchvision for weights in a way that is deprecated there, and warns on its own import.
        warnings.simplefilter("ignore")
        from lpips import LPIPS

        try:
            made = LPIPS(net=name, lpips=False, pnet_rand=weights is not None, verbose=False)
        except OSError as error:
            raise ConnectionError(
                f"torchvision could not download the weights for distance={name!r} ({error}); get them where there is "
                f"a connection and give weights=PATH, a file that ends in {WEIGHT_FILES}"
            ) from error
    if weights is not None:
        _load(made.net, name, weights)
    return LpipsNetwork(made).to(device)


def _load(net: nn.Module, name: str, weights: str) -> None:
    """Put torchvision's weights into lpips's network, which keeps the layers' numbers but sorts them into slices."""
    check_weights(weights)
    try:
        if Path(weights).suffix == ".npz":
            with np.load(weights) as arrays:
                given = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        else:
            given = dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # of a damaged file each reader raises others
        raise ValueError(f"weights={weights!r} cannot be read as weights: {error}") from error
    names = {key: "features." + key.partition(".")[2] for key in net.state_dict()}  # slice2.3.bias: features.3.bias
    try:
        net.load_state_dict({key: given[given_name] for key, given_name in names.items() if given_name in given})
    except RuntimeError as error:
        raise ValueError(f"weights={weights!r} are not those of distance={name!r}: {error}") from error
