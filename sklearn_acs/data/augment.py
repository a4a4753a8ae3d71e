"""Augmentation draws crops, flips and cutouts of a whole batch on its device; a View applies and inverts them."""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

PADDING = 4
"""Pixels of black border from which crops are cut, as is usual for CIFAR-10."""


class View(NamedTuple):
    """Tells which pixels of each image of a batch augmentation shows, and where."""

    rows: Tensor  # (batch, H), of the padded image
    columns: Tensor  # (batch, W), of the padded image, in descending order where it is mirrored
    hole: Tensor | None  # (batch, 1, H, W), True where it is cut out

    def see(self, x: Tensor) -> Tensor:
        """Show images of shape (batch, C, H, W) through this view, black beyond their border and in the hole."""
        seen = F.pad(x, [PADDING] * 4)[self._window()].permute(0, 3, 1, 2).contiguous()
        return seen if self.hole is None else seen.masked_fill_(self.hole, 0)

    def put_back(self, seen: Tensor, whole: Tensor) -> Tensor:
        """Write the pixels `seen` to their places in the images `whole`, whose other pixels stay as they are."""
        if self.hole is not None:
            seen = torch.where(self.hole, self._replace(hole=None).see(whole), seen)
        padded = F.pad(whole, [PADDING] * 4)
        padded[self._window()] = seen.permute(0, 2, 3, 1)
        return padded[:, :, PADDING:-PADDING, PADDING:-PADDING]

    def take(self, at: Tensor) -> "View":
        """Take the views of some images of the batch."""
        return View(self.rows[at], self.columns[at], None if self.hole is None else self.hole[at])

    def _window(self) -> tuple:
        sample = torch.arange(len(self.rows), device=self.rows.device)[:, None, None]
        return sample, slice(None), self.rows[:, :, None], self.columns[:, None, :]


@dataclass(frozen=True)
class Augmentation:
    """Shows a random view of each image: ``augment(x, generator) -> x`` for (batch, C, H, W).

    Crops are drawn first, then flips, then cutouts.

    Attributes
    ----------
    crop : bool
        Pad by 4 black pixels and cut a window of the old size.
    flip : bool
        Mirror left to right with probability one half.
    cutout : bool
        Cut a black hole of half the image's height and width around a random pixel, so that it may reach beyond the
        border (DeVries and Taylor 2017).
    """

    crop: bool = False
    flip: bool = False
    cutout: bool = False

    def check(self, is_table: bool, clip: tuple[float, float] | None) -> None:
        """Raise ValueError for tables, and for a box that black, which is shown beyond a border, is outside of."""
        if is_table:
            raise ValueError(f"augment={self.name!r} is for images, and X is a table")
        if (self.crop or self.cutout) and clip is not None and not clip[0] <= 0 <= clip[1]:
            raise ValueError(
                f"augment={self.name!r} shows 0 beyond an image's border, which is outside clip={clip}; shift the "
                "images so that black is 0"
            )

    @property
    def name(self) -> str:
        """Its name among `AUGMENTS`."""
        return "-".join(name for name in ("crop", "flip", "cutout") if getattr(self, name))

    def draw(self, x: Tensor, generator: torch.Generator) -> View:
        """Draw a view of each image."""
        (batch, _, height, width), device = x.shape, x.device
        offset = torch.full((2, batch, 1), PADDING, device=device)
        if self.crop:
            offset = torch.randint(2 * PADDING + 1, (2, batch, 1), device=device, generator=generator)
        row, column = torch.arange(height, device=device), torch.arange(width, device=device)
        rows, columns = offset[0] + row, offset[1] + column
        if self.flip:
            mirrored = torch.rand(batch, 1, device=device, generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        hole = None
        if self.cutout:
            centre = torch.rand(2, batch, 1, device=device, generator=generator)
            high, wide = covered(row, centre[0], height), covered(column, centre[1], width)
            hole = (high[:, :, None] & wide[:, None, :])[:, None]
        return View(rows, columns, hole)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a view of each image, and show the images through it."""
        return self.draw(x, generator).see(x)


def covered(at: Tensor, centre: Tensor, size: int) -> Tensor:
    """Mark the positions `at` that lie in a window of ``size / 2`` around ``centre * size``, (batch, size)."""
    first = (centre * size).floor() - size // 4
    return (at >= first) & (at < first + size // 2)


AUGMENTS = {
    made.name: made for chosen in product((True, False), repeat=3) if any(chosen) for made in [Augmentation(*chosen)]
}
"""By name: "crop", "flip", "cutout", and several of them in this order, as in "crop-flip"."""
