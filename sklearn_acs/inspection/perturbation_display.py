"""PerturbationDisplay draws images, what an attack adds to them, and what the model makes of both."""

from math import floor
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from sklearn_acs.attacks import Attack
from sklearn_acs.checks import COUNT, check_clip, checked
from sklearn_acs.data.formats import CHANNELS, InputFormat
from sklearn_acs.inspection._axes import LETTER, checked_axes, cut, fitted, inches, numbers, plain, pyplot
from sklearn_acs.model import last_step

LARGEST_CELL = 1.5
"""Width of one image in inches at most."""


class PerturbationDisplay:
    """Draws images with label and prediction, below them their perturbations enlarged, and the adversarial examples.

    A wrong prediction is red. Make it with `from_estimator` or `from_predictions`; its parameters are kept as
    attributes.

    Parameters
    ----------
    X, X_adv : array-like of shape (n, H, W), (n, C, H, W) or (n, H, W, C)
        Images, and their adversarial examples; uint8 stands for [0, 1].
    y_true, y_pred, y_pred_adv : array-like of shape (n,)
        Labels, and predictions for both.
    confidence, confidence_adv : array-like of shape (n,) or None, default=None
        Probabilities of the predictions.
    clip : (float, float) or None, default=None
        What is black and what is white; None is (0, 1), or the range of the data where it is larger.

    Attributes
    ----------
    images_, images_adv_ : ndarray of shape (n, H, W, 1 or 3)
        As they are shown: in [0, 1], with the mean of channels that are no colours.
    factor_ : int or float
        By how much perturbations are enlarged: as much as the largest allows. No change is gray, and white where images
        have one channel.
    axes_ : ndarray of matplotlib Axes, of shape (3, n)
        The axes drawn on.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    RobustClassifier.perturb : Makes adversarial examples.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_acs import PerturbationDisplay
    >>> X = np.full((2, 4, 4), 0.5)
    >>> display = PerturbationDisplay.from_predictions(X, X + 0.1, [3, 7], [3, 7], [8, 7])
    >>> display.factor_, [axes.get_title() for axes in display.axes_[2]]
    (5, ['8', '7'])
    """

    def __init__(
        self,
        *,
        X: ArrayLike | Tensor,
        X_adv: ArrayLike | Tensor,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        y_pred_adv: ArrayLike,
        confidence: ArrayLike | None = None,
        confidence_adv: ArrayLike | None = None,
        clip: tuple[float, float] | None = None,
    ) -> None:
        self.X, self.X_adv = _floats("X", X), _floats("X_adv", X_adv)
        if self.X.shape != self.X_adv.shape:
            raise ValueError(f"X_adv has shape {self.X_adv.shape}; it must be that of X, {self.X.shape}")
        n = len(self.X)
        self.y_true, self.y_pred = _aligned("y_true", y_true, n), _aligned("y_pred", y_pred, n)
        self.y_pred_adv = _aligned("y_pred_adv", y_pred_adv, n)
        self.confidence = None if confidence is None else _aligned("confidence", confidence, n)
        self.confidence_adv = None if confidence_adv is None else _aligned("confidence_adv", confidence_adv, n)
        low = min(0.0, float(self.X.min()), float(self.X_adv.min()))
        high = max(1.0, float(self.X.max()), float(self.X_adv.max()))
        self.clip = check_clip(clip) or (low, high)
        self.images_, self.images_adv_ = (_pictures(x, self.clip) for x in (self.X, self.X_adv))
        largest = float(np.abs(self.images_adv_ - self.images_).max())
        factor = 0.5 / largest if largest else 1.0
        # A hair more than the quotient: 0.5 / 0.1 in float32 is below 5.
        self.factor_: float = floor(factor * (1 + 1e-5)) if factor >= 1 else factor

    def plot(self, ax: Any = None) -> Self:
        """Draw the images.

        Parameters
        ----------
        ax : array-like of matplotlib Axes, of shape (3, n), or None, default=None
            Where; None makes a figure.

        Returns
        -------
        self
        """
        n = len(self.X)
        if ax is None:
            plt = pyplot("PerturbationDisplay.plot")
            height, width = self.images_.shape[1:3]
            cell = min(LARGEST_CELL, (plt.rcParams["figure.figsize"][0] - 0.5) / n)
            # No row is lower than its name is long.
            row = max(cell * height / width, LETTER * len("perturbation") * inches("small"))
            size = (n * cell + 0.5, 3 * row + 0.8)
            _, ax = plt.subplots(3, n, figsize=size, layout="constrained", squeeze=False)
        self.axes_ = _grid(ax, n)
        enlarged = np.clip(0.5 + self.factor_ * (self.images_adv_ - self.images_), 0, 1)
        factor = f"perturbation\n\N{MULTIPLICATION SIGN} {self.factor_:.3g}"
        kinds = (("clean", self.images_), (factor, enlarged), ("adversarial", self.images_adv_))
        for axes, (name, images) in zip(self.axes_, kinds, strict=True):
            axes[0].set_ylabel(name, fontsize="small")
            cmap = "RdBu_r" if images is enlarged else "gray"
            for panel, image in zip(axes, images, strict=True):
                panel.imshow(image, cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
                panel.set(xticks=[], yticks=[])
        self.figure_ = self.axes_[0, 0].figure
        self._write()
        return self

    def _write(self) -> None:
        """Write predictions over the images and labels under the clean ones, on two lines where one is too narrow."""
        clean, adversarial = _texts(self.y_pred, self.confidence), _texts(self.y_pred_adv, self.confidence_adv)
        labels = [["label", str(label)] for label in self.y_true]
        width = self.axes_[0, 0].get_position().width * self.figure_.get_figwidth()
        letters = width / (LETTER * inches("small"))
        fits = all(len(", ".join(text)) <= letters for text in [*clean, *adversarial, *labels])

        def joined(text: list[str], comma: str) -> str:
            return plain((comma if fits else "\n").join(cut(part, letters) for part in text))

        for row, texts, predicted in ((0, clean, self.y_pred), (2, adversarial, self.y_pred_adv)):
            for panel, text, is_wrong in zip(self.axes_[row], texts, predicted != self.y_true, strict=True):
                color = {"color": "C3"} if is_wrong else {}
                panel.set_title(joined(text, ", "), fontsize="small", pad=3, **color)
        for panel, text in zip(self.axes_[0], labels, strict=True):
            panel.set_xlabel(joined(text, " "), fontsize="small", labelpad=2)

    @classmethod
    def from_predictions(
        cls,
        X: ArrayLike | Tensor,
        X_adv: ArrayLike | Tensor,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        y_pred_adv: ArrayLike,
        *,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Draw images that were attacked before.

        Parameters
        ----------
        X, X_adv : array-like of shape (n, H, W), (n, C, H, W) or (n, H, W, C)
            Images, and their adversarial examples.
        y_true, y_pred, y_pred_adv : array-like of shape (n,)
            Labels, and predictions for both.
        ax : array-like of matplotlib Axes, of shape (3, n), or None, default=None
            Where to draw.
        **options
            The further parameters of the class: `confidence`, `confidence_adv` and `clip`.

        Returns
        -------
        PerturbationDisplay
        """
        return cls(X=X, X_adv=X_adv, y_true=y_true, y_pred=y_pred, y_pred_adv=y_pred_adv, **options).plot(ax)

    @classmethod
    @checked(n_images=COUNT)
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike | Tensor,
        y: ArrayLike,
        *,
        attack: Attack | str | None = None,
        n_images: int = 5,
        ax: Any = None,
    ) -> Self:
        """Attack the first images of X and draw them.

        Parameters
        ----------
        estimator : RobustClassifier
            A fitted classifier of images.
        X, y : array-like
            Images and labels as the classifier takes them; more than `n_images` are not looked at.
        attack : Attack, str or None, default=None
            The attack; None is the one trained against.
        n_images : int, default=5
            How many images to show.
        ax : array-like of matplotlib Axes, of shape (3, n_images), or None, default=None
            Where to draw.

        Returns
        -------
        PerturbationDisplay
        """
        estimator, X = last_step(estimator, X)
        clf = fitted(estimator)
        if clf.input_format_.is_table:
            raise ValueError("estimator was fitted on a table; PerturbationDisplay shows images")
        if isinstance(X, Dataset):
            raise TypeError(f"X must be an array of images; got the Dataset {type(X).__name__}")
        X = X[:n_images] if isinstance(X, Tensor) else np.atleast_1d(_array(X))[:n_images]
        y = np.atleast_1d(_array(y))[:n_images]
        if ax is not None:
            _grid(ax, len(X))  # said before the work
        found: dict[str, Any] = {}
        for which, images in (("", X), ("_adv", clf.perturb(X, y, attack=attack))):
            probabilities = clf.predict_proba(images)
            found["X" + which] = clf.input_format_.to_model(torch.from_numpy(_floats("X", images)))
            found["y_pred" + which] = clf.classes_[probabilities.argmax(1)]
            found["confidence" + which] = probabilities.max(1)
        return cls(y_true=y, clip=clf.clip_, **found).plot(ax)


def _grid(ax: Any, n: int) -> np.ndarray:
    """Return the axes of three rows of `n` images; others are refused."""
    grid = np.asarray(ax)
    if grid.shape != (3, n):
        raise ValueError(f"ax must be axes of shape {(3, n)}; got {grid.shape}")
    for axes in grid.flat:
        checked_axes(axes)
    return grid


def _texts(predicted: np.ndarray, confidence: np.ndarray | None) -> list[list[str]]:
    """Put each prediction into words, in parts."""
    if confidence is None:
        return [[str(label)] for label in predicted]
    return [[str(label), f"{share:.0%}"] for label, share in zip(predicted, confidence, strict=True)]


def _array(values: Any) -> np.ndarray:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # a type that NumPy does not have


def _aligned(name: str, values: Any, n: int) -> np.ndarray:
    array = _array(values)
    if array.shape != (n,):
        raise ValueError(f"{name} has shape {array.shape}; it must have one value for each of {n} images")
    return array


def _floats(name: str, X: Any) -> np.ndarray:
    """Turn images into floats, uint8 into [0, 1]."""
    x = _array(X)
    if x.ndim not in (3, 4) or len(x) == 0:
        raise ValueError(f"{name} must be images (n, H, W), (n, C, H, W) or (n, H, W, C); got shape {x.shape}")
    return numbers(name, x / 255 if x.dtype == np.uint8 else x, np.float32)


def _pictures(x: np.ndarray, clip: tuple[float, float]) -> np.ndarray:
    """Turn images into (n, H, W, 1 or 3) in [0, 1]: alpha is left out, and channels that are no colours averaged."""
    channels = "auto" if {x.shape[1], x.shape[-1]}.intersection(CHANNELS) else "first"
    images = InputFormat.of(x.shape, channels=channels).to_model(torch.from_numpy(x)).movedim(1, 3).numpy()
    images = (images - clip[0]) / (clip[1] - clip[0])
    n_channels = images.shape[3]
    return images[..., :3] if n_channels in (3, 4) else images.mean(3, keepdims=True)
