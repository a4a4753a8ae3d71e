"""The JPEG attack moves the frequencies that JPEG keeps, bounded by how finely it keeps them."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cache
from math import pi
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sklearn_acs.attacks.balls import uniform
from sklearn_acs.attacks.base import COUNT, POSITIVE
from sklearn_acs.attacks.transform import Transform, TransformAttack
from sklearn_acs.data.formats import Clip

_CELL = 16  # pixels a side of what 4:2:0 codes together: four blocks of brightness and one of each colour

# The quantisation tables that the standard gives as examples (ITU-T T.81, Annex K), frequencies rising down and right.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))  # and 99 for all higher frequencies


@dataclass(eq=False, repr=False)
class JPEG(TransformAttack):
    """JPEG attack: it moves the coefficients that JPEG stores, each by a share of its quantisation step.

    ``x' = x + decode(bound * v / 2)`` with each v in [-1, 1], and coefficients counted in quantisation steps. Sign
    steps on v raise the loss. With ``bound=1`` the change is as large as that of JPEG's own rounding at quality 50.

    Parameters
    ----------
    bound : float, default=0.25
        Largest change of a coefficient, in units of half its quantisation step.
    steps : int, default=200
        Gradient steps, each one forward and one backward pass.
    step_size : float or None, default=None
        Length of a step in the same units; None is ``bound / sqrt(steps)``.
    restarts : int, default=1
        Runs from fresh starts, uniform in the bound. Samples that are broken leave.

    Attributes
    ----------
    sizes_ : Tensor of shape (batch,)
        Largest change of a coefficient of each sample in the last batch, in the units of `bound`.

    See Also
    --------
    PGD : The same in the space of pixels.

    Notes
    -----
    Images have one channel, or red, green and blue, whose two colour differences are coded at half resolution
    (4:2:0). They may have any size: the perturbation is made for the next multiple of 16 pixels, and cut. The range
    of a channel is `clip`, and (0, 1) without one. `start` is a tensor of shape (batch, n), `bound * v` in the order
    of `coefficients`.

    1. The published attack also halves the colour resolution of the image itself, and so changes it before any
       attack; here that is done to the perturbation alone.
    2. The published code takes its first step from a start that it has not scaled by the bound; here all are alike.
    3. Each sample keeps the best of all steps, see `TransformAttack`; the published code returns the last.

    References
    ----------
    Kang, Sun, Hendrycks, Brown, Steinhardt, "Testing robustness against unforeseen adversaries", arXiv:1908.08016.
    Settings: for 0.25, Laidlaw, Singla, Feizi, "Perceptual adversarial robustness: defense against unseen threat
    models", ICLR 2021.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs import JPEG
    >>> from sklearn_acs.attacks.jpeg import coefficients
    >>> from sklearn_acs.models import convnet
    >>> model, x, y = convnet((3, 16, 16), 3), torch.rand(5, 3, 16, 16), torch.tensor([0, 1, 2, 0, 1])
    >>> x_adv = JPEG(bound=0.5, steps=5).perturb(model, x, y)
    >>> bool((coefficients(x_adv) - coefficients(x)).abs().max() <= 0.5 / 2 + 1e-4)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **TransformAttack._parameter_constraints,
        "step_size": [POSITIVE, None],
        "restarts": [COUNT],
    }

    metric = "jpeg"

    bound: float = 0.25
    _: KW_ONLY
    steps: int = 200
    step_size: float | None = None
    restarts: int = 1

    def _start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if x.shape[1] not in (1, 3):
            raise ValueError(f"JPEG is for images of 1 or 3 channels; got samples of shape {tuple(x.shape[1:])}")
        return self.bound * (2 * uniform(coefficients(x).shape, x, generator) - 1)

    def _transform(self, x: Tensor, clip: Clip) -> Transform:
        width = 1.0 if clip is None else clip[1] - clip[0]
        return lambda moves: x + width * decode(moves / 2, x.shape[1:])

    def _ascent(self, parameters: Tensor) -> Callable[[Tensor], object]:
        step_size = self.bound / self.steps**0.5 if self.step_size is None else self.step_size
        return lambda gradient: parameters.add_(gradient.sign(), alpha=step_size)


def decode(moves: Tensor, shape: Sequence[int]) -> Tensor:
    """Map coefficients to pixels as JPEG's decoder does, which is linear.

    Parameters
    ----------
    moves : Tensor of shape (batch, n)
        Coefficients in units of their quantisation steps, in the order of `coefficients`.
    shape : (C, H, W)
        Of one image; C is 1 or 3.

    Returns
    -------
    Tensor of shape (batch, C, H, W)
        Pixels, 1 being the whole range of a channel, and grey 0.
    """
    channels, height, width = shape
    high, wide = _padded(moves.new_empty(0, *shape))
    luma = moves[:, : high * wide].reshape(-1, 1, high, wide)
    dct, luma_table, chroma_table, _, rgb_of_ycc = _constants(moves.dtype, moves.device)
    image = _blockwise(dct, luma * _tiled(luma_table, luma))
    if channels == 3:
        chroma = moves[:, high * wide :].reshape(-1, 2, high // 2, wide // 2)
        chroma = _blockwise(dct, chroma * _tiled(chroma_table, chroma))
        image = torch.cat([image, chroma.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)], dim=1)
        image = torch.einsum("ij,njhw->nihw", rgb_of_ycc, image)
    return image[:, :, :height, :width] / 255


def coefficients(x: Tensor) -> Tensor:
    """Map images to what JPEG's encoder would round: coefficients in units of their quantisation steps.

    Parameters
    ----------
    x : Tensor of shape (batch, C, H, W)
        Images of 1 or 3 channels in [0, 1].

    Returns
    -------
    Tensor of shape (batch, n)
        Those of brightness, where they lie in a plane of the image's size, and those of the two colour differences,
        in planes of half its width and height. Images are continued to multiples of 16 pixels by those at their edge.
    """
    dct, luma_table, chroma_table, ycc_of_rgb, _ = _constants(x.dtype, x.device)
    height, width = _padded(x)
    image = 255 * F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]), mode="replicate")
    if x.shape[1] == 3:
        image = torch.einsum("ij,njhw->nihw", ycc_of_rgb, image)
    planes = [(image[:, :1] - 128, luma_table)]
    if x.shape[1] == 3:
        planes.append((F.avg_pool2d(image[:, 1:], 2), chroma_table))
    coded = [_blockwise(dct.T, plane) / _tiled(table, plane) for plane, table in planes]
    return torch.cat([plane.flatten(1) for plane in coded], dim=1)


def _padded(x: Tensor) -> tuple[int, int]:
    """Height and width up to the next multiple of 16."""
    height, width = (-(-side // _CELL) * _CELL for side in x.shape[2:])
    return height, width


def _blockwise(matrix: Tensor, planes: Tensor) -> Tensor:
    """``matrix.T @ block @ matrix`` for each block of 8 by 8."""
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))
    return torch.einsum("ncavbw,vy,wx->ncaybx", blocks, matrix, matrix).flatten(4).flatten(2, 3)


def _tiled(table: Tensor, planes: Tensor) -> Tensor:
    return table.repeat(planes.shape[2] // 8, planes.shape[3] // 8)


@cache
@torch.inference_mode(False)  # what is made in it could not be used outside
def _constants(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """The cosine transform, two quantisation tables, and the change of colours and back."""
    frequency, place = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    waves = 0.5 * torch.cos((2 * place + 1) * frequency * pi / 16)
    dct = torch.cat([waves[:1] / 2**0.5, waves[1:]])  # orthonormal, (frequency, place)
    luma_table, chroma_table = torch.tensor(_LUMA), F.pad(torch.tensor(_CHROMA), (0, 4, 0, 4), value=99)
    # From red, green, blue to brightness and the two colour differences (ITU-R BT.601).
    red, blue = 0.299, 0.114
    y = torch.tensor([red, 1 - red - blue, blue], dtype=torch.float64)
    cb = (torch.tensor([0.0, 0.0, 1.0]) - y) / (2 * (1 - blue))
    cr = (torch.tensor([1.0, 0.0, 0.0]) - y) / (2 * (1 - red))
    ycc_of_rgb = torch.stack([y, cb, cr])
    exact = dct, luma_table, chroma_table, ycc_of_rgb, torch.linalg.inv(ycc_of_rgb)
    return tuple(constant.to(device, dtype) for constant in exact)
