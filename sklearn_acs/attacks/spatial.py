"""StAdv moves pixels a little instead of changing them."""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sklearn_acs.attacks.transform import SmoothTransformAttack, Transform
from sklearn_acs.data.formats import Clip


@dataclass(eq=False, repr=False)
class StAdv(SmoothTransformAttack):
    """Spatially transformed adversarial examples (StAdv): it fetches each pixel from a little beside its place.

    Adam raises ``margin(x') - smoothness / bound * sum_p sum_q |flow(p) - flow(q)|`` over flows of size at most
    `bound` in each direction, with x' the image resampled along the flow and q the four neighbours of pixel p.

    Parameters
    ----------
    bound : float, default=0.02
        Largest shift in each direction, in units of half the image's width and height: 0.02 is a third of a pixel of
        32, 0.05 four fifths.
    steps : int, default=50
        Gradient steps.
    step_size : float, default=0.01
        Adam's learning rate, in the same units.
    smoothness : float, default=0.0025
        Weight of the flow's roughness, divided by `bound`.

    Attributes
    ----------
    sizes_ : Tensor of shape (batch,)
        Largest shift of each sample in the last batch, in the units of `bound`.

    See Also
    --------
    ReColor : The same in the space of colours.

    Notes
    -----
    Costs `steps` forward and backward passes per sample and one forward pass more. Draws no random numbers.
    Images may have any size and number of channels. `start` is a flow of shape (batch, 2, H, W), x before y.

    1. Where the flow points outside the image, the pixel at its edge is fetched; the published code fetches black.
    2. Each sample keeps the best of all its steps, see `TransformAttack`; the published code returns the last.

    References
    ----------
    Xiao, Zhu, Li, He, Liu, Song, "Spatially transformed adversarial examples", ICLR 2018.
    Settings: Laidlaw, Singla, Feizi, "Perceptual adversarial robustness: defense against unseen threat models",
    ICLR 2021.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs import StAdv
    >>> from sklearn_acs.models import convnet
    >>> model, x, y = convnet((1, 8, 8), 3), torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    >>> x_adv = StAdv(bound=0.2, steps=5).perturb(model, x, y, clip=(0, 1))
    >>> bool(x_adv.min() >= x.min()), bool(x_adv.max() <= x.max())
    (True, True)
    """

    metric = "flow"

    bound: float = 0.02
    _: KW_ONLY
    steps: int = 50
    step_size: float = 0.01
    smoothness: float = 0.0025

    def _start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x.new_zeros(len(x), 2, *x.shape[2:])

    def _transform(self, x: Tensor, clip: Clip) -> Transform:
        return lambda flow: warp(x, flow)


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Resample images along a flow.

    Parameters
    ----------
    x : Tensor of shape (batch, C, H, W)
        Images.
    flow : Tensor of shape (batch, 2, H, W)
        How far beside its place, in x and in y, each pixel is fetched; 2 is the width or height of the image.

    Returns
    -------
    Tensor of shape (batch, C, H, W)
        Bilinear between pixels.
    """
    # The centres of the pixels.
    down, across = ((2 * torch.arange(side, device=x.device) + 1 - side).to(x.dtype) / side for side in x.shape[2:])
    grid = torch.stack([flow[:, 0] + across, flow[:, 1] + down[:, None]], dim=3)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
