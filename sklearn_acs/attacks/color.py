"""ReColorAdv replaces every colour of an image by one close to it, the same wherever it occurs."""

from dataclasses import KW_ONLY, dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from sklearn_acs.attacks.transform import SmoothTransformAttack, Transform
from sklearn_acs.data.formats import Clip

NODES = (16, 32, 32)
"""Nodes of the grid over lightness, u and v."""

_XYZ_OF_RGB = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))  # sRGB, white D65
_TINY = 1e-4  # 13 L v' below this is a black that 8 bits cannot hold


@dataclass(eq=False, repr=False)
class ReColor(SmoothTransformAttack):
    """Recolouring attack (ReColorAdv): it applies one function of the colour to all pixels of an image.

    The function is given at `NODES` of a grid over the CIE LUV colours and trilinear between them. Adam raises
    ``margin(x') - smoothness / bound * sum_p sum_q |delta(p) - delta(q)|`` over its changes delta, each component
    at most `bound`, with q the six neighbours of node p. Colours that a screen cannot show are cut to those it can.

    Parameters
    ----------
    bound : float, default=0.06
        Largest change of each component: 0.06 is 6 in lightness and 12 in u and v. Lightness / 100, (u + 100) / 200
        and (v + 100) / 200 are what the grid goes over.
    steps : int, default=100
        Gradient steps.
    step_size : float, default=0.001
        Adam's learning rate, in the same units.
    smoothness : float, default=0.0036
        Weight of the function's roughness, divided by `bound`.

    Attributes
    ----------
    sizes_ : Tensor of shape (batch,)
        Largest change at a node of each sample in the last batch, in the units of `bound`.

    See Also
    --------
    StAdv : The same in the plane of the image.

    Notes
    -----
    Costs `steps` forward and backward passes per sample and one forward pass more. Draws no random numbers.
    Images have three channels, red, green and blue; grey ones are refused, as half of this attack is about hue. The
    range of a channel is `clip`, and (0, 1) without one. `start` is a tensor of shape (batch, 3, 16, 32, 32).

    1. Colours are cut to those of a screen when pixels are made of them, which may move one at their edge somewhat
       beyond the bound; the published code cuts those of the nodes in every step too, which changes some images before
       any attack.
    2. Each sample keeps the best of all its steps, see `TransformAttack`; the published code looks for it and returns
       the last.
    3. The matrix from XYZ to RGB is the inverse of the other one to all digits, not to four.
    4. X and Z are cut to what a screen has for a Y. The published code cuts them to 1.1, by which a hue that does not
       exist becomes a bright one, and black pixels magenta.

    References
    ----------
    Laidlaw, Feizi, "Functional adversarial attacks", NeurIPS 2019.
    Settings: Laidlaw, Singla, Feizi, "Perceptual adversarial robustness: defense against unseen threat models",
    ICLR 2021.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs import ReColor
    >>> from sklearn_acs.attacks.color import luv_of_rgb
    >>> from sklearn_acs.models import convnet
    >>> model, x, y = convnet((3, 8, 8), 3), 0.4 + 0.2 * torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    >>> x_adv = ReColor(bound=0.06, steps=5).perturb(model, x, y, clip=(0, 1))
    >>> bool((luv_of_rgb(x_adv) - luv_of_rgb(x)).abs().max() <= 0.06 + 1e-4)
    True
    """

    metric = "colour"

    bound: float = 0.06
    _: KW_ONLY
    steps: int = 100
    step_size: float = 0.001
    smoothness: float = 0.0036

    def _start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x.new_zeros(len(x), 3, *NODES)

    def _transform(self, x: Tensor, clip: Clip) -> Transform:
        if x.shape[1] != 3:
            raise ValueError(f"ReColor is for images of 3 colour channels; got samples of shape {tuple(x.shape[1:])}")
        low, high = clip or (0.0, 1.0)
        luv = luv_of_rgb((x - low) / (high - low))
        return lambda delta: low + (high - low) * rgb_of_luv(recolor(luv, delta))


def recolor(luv: Tensor, delta: Tensor) -> Tensor:
    """Add to each pixel what a function of its colour says.

    Parameters
    ----------
    luv : Tensor of shape (batch, 3, H, W)
        Scaled LUV colours.
    delta : Tensor of shape (batch, 3, L, U, V)
        The function at the nodes of a grid over [0, 1]^3; trilinear between, and constant beyond the outer ones.

    Returns
    -------
    Tensor of shape (batch, 3, H, W)
    """
    place = (2 * luv - 1).flip(1).movedim(1, -1)[:, None]  # (batch, 1, H, W, 3), the last axis of the grid first
    return luv + F.grid_sample(delta, place, mode="bilinear", padding_mode="border", align_corners=True)[:, :, 0]


def luv_of_rgb(rgb: Tensor) -> Tensor:
    """Turn sRGB colours into scaled CIE LUV colours.

    Parameters
    ----------
    rgb : Tensor of shape (batch, 3, H, W)
        In [0, 1].

    Returns
    -------
    Tensor of shape (batch, 3, H, W)
        Lightness / 100, (u + 100) / 200 and (v + 100) / 200.
    """
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)
    there, _, u_white, v_white = _constants()
    x, y, z = torch.einsum("ij,njhw->inhw", there.to(rgb), linear)
    lightness = torch.where(y <= (6 / 29) ** 3, (29 / 3) ** 3 * y, 116 * y.clamp(min=1e-6) ** (1 / 3) - 16)
    weight = (x + 15 * y + 3 * z).clamp(min=1e-12)
    u = 13 * lightness * (4 * x / weight - u_white)
    v = 13 * lightness * (9 * y / weight - v_white)
    return torch.stack([lightness / 100, (u + 100) / 200, (v + 100) / 200], dim=1)


def rgb_of_luv(luv: Tensor) -> Tensor:
    """Turn scaled CIE LUV colours into sRGB colours, cut to [0, 1].

    Parameters
    ----------
    luv : Tensor of shape (batch, 3, H, W)
        As `luv_of_rgb` returns them.

    Returns
    -------
    Tensor of shape (batch, 3, H, W)
        In [0, 1], with finite gradients everywhere.
    """
    lightness = (100 * luv[:, 0]).clamp(min=0)
    there, back, u_white, v_white = _constants()
    there, back = there.to(luv), back.to(luv)
    # 13 L u' and 13 L v', rather than u' and v' themselves, for which black would be divided by zero.
    u = 200 * luv[:, 1] - 100 + 13 * lightness * u_white
    v = (200 * luv[:, 2] - 100 + 13 * lightness * v_white).clamp(min=_TINY)
    y = torch.where(lightness <= 8, lightness * (3 / 29) ** 3, ((lightness + 16) / 116) ** 3)
    x, z = y * 9 * u / (4 * v), y * (156 * lightness - 3 * u - 20 * v) / (4 * v)
    most_x, _, most_z = (there / there[1]).amax(1)  # for a Y of 1: those of pure blue
    xyz = torch.stack([torch.minimum(x.clamp(min=0), most_x * y), y, torch.minimum(z.clamp(min=0), most_z * y)])
    linear = torch.einsum("ij,jnhw->nihw", back, xyz)
    bright = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, bright).clamp(0, 1)


@cache
def _constants() -> tuple[Tensor, Tensor, float, float]:
    """From linear RGB to XYZ, and back; and white's coordinates u' and v', by which every grey has u = v = 0."""
    matrix = torch.tensor(_XYZ_OF_RGB, dtype=torch.float64)
    x, y, z = matrix.sum(1).tolist()
    return matrix, torch.linalg.inv(matrix), 4 * x / (x + 15 * y + 3 * z), 9 * y / (x + 15 * y + 3 * z)
