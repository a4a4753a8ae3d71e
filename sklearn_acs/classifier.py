"""RobustClassifier trains adversarially on coresets, behind scikit-learn's methods."""

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from copy import copy
from dataclasses import replace
from math import inf
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from sklearn_acs._compat import Interval, StrOptions
from sklearn_acs.attacks import ATTACKS, Attack
from sklearn_acs.checks import COUNT, checked
from sklearn_acs.classifier_file import load_classifier, save_classifier
from sklearn_acs.data.augment import AUGMENTS
from sklearn_acs.data.batches import Augment
from sklearn_acs.data.formats import LAYOUTS, Clip, DataFormat
from sklearn_acs.data.training_data import TrainingData, check_validation, read_validation
from sklearn_acs.model import PREDICT_BATCH, FittedModel
from sklearn_acs.models import MODELS
from sklearn_acs.network import network_params
from sklearn_acs.objectives import OBJECTIVES, Objective
from sklearn_acs.params import RoutedParamsMixin
from sklearn_acs.plan import Plan
from sklearn_acs.selectors import SELECTORS
from sklearn_acs.selectors.base import BaseSelector
from sklearn_acs.table import Table
from sklearn_acs.training.averaging import AVERAGES, EMA
from sklearn_acs.training.cost import CostMeter
from sklearn_acs.training.estimate import CostEstimate, estimate_cost, start_torch, untouched
from sklearn_acs.training.export import exported
from sklearn_acs.training.in_batch import InBatchSelection
from sklearn_acs.training.keeping import Keeping
from sklearn_acs.training.one_class import warn_of_one_class
from sklearn_acs.training.optimizers import OPTIMIZERS
from sklearn_acs.training.precision import PRECISIONS
from sklearn_acs.training.rate import LR_SCHEDULES, LrSchedule
from sklearn_acs.training.seeds import LocalRandomness, current_device
from sklearn_acs.training.selection import GRADIENTS_FROM, SELECT_BY
from sklearn_acs.training.training import Training


class RobustClassifier(RoutedParamsMixin, ClassifierMixin, BaseEstimator):
    """A classifier that withstands small perturbations of its inputs, trained adversarially at a fraction of the cost.

    Adversarial training attacks every sample in every epoch, in ten steps or so. Two things save most of that. The
    perturbation of each sample is remembered, so that one step an epoch does the work of ten: this is the default.
    And with ``coreset_frac=0.5`` the first epochs alone train on all samples, the others on a coreset: a weighted
    subset, chosen anew now and then, whose last-layer gradients add up to those of all adversarial examples.

    Parameters
    ----------
    module : str, nn.Module, class of nn.Module or callable, default="auto"
        "auto" is a multi-layer perceptron for tables and a small convolutional net for images; other names are
        "mlp", "convnet", "resnet18", "preact_resnet18", "resnet50" and "wrn-28-10". Named models standardise their
        inputs inside, with the mean and scale of the training data. Others are used as they are, in float32: an
        nn.Module, which is copied; a class, made from its ``module__name`` options as in skorch, and from
        `input_shape` and `n_classes` where it has parameters of these names; a function ``(input_shape, n_classes,
        **options) -> nn.Module``. They give logits, without softmax; of a dict or a tuple, such as auxiliary heads
        make in train mode, what is called "logits" is taken, or the first tensor of shape (batch, n_classes).
    objective : {"adversarial", "trades", "mart", "pat", "fast", "natural"} or Objective, default="adversarial"
        What is minimised.
    attack : {"pgd", "fgsm", "n-fgsm", "fast-lpa", "bullet"}, Attack or None, default=None
        What training defends against. None is the objective's own attack, and where that is None too
        ``PGD(init="previous", steps=1)``: one step an epoch, from the perturbation that the sample had last. Where that
        cannot be remembered it is ``PGD()``, of 10 steps: in `partial_fit`, with an `augment` of one's own, for a
        Dataset that gives another sample each time, or whose perturbations find no room in the temporary folder;
        `attack_` is the one in use. A name means 10 steps (or one) in linf, and "fast-lpa" a bound of 0.5 in the
        model's activations. An `eps` is in the units of X, or in those that `unit` says. Without `eps` the radius fits
        the data: for images 8/255 of the width of `clip`, for tables 0.1 standard deviations of each feature (constant
        and two-valued ones do not move).
    attack_ramp : float, default=0.15
        Share of the training, in [0, 1], over which the radius grows evenly from 0 to what `attack` says, at
        selections too; 0 begins with all of it. It keeps a training from ending at one class for everything, as small
        networks do at large radii, and with wrong labels. ``history_[:, "radius"]`` has the radius at the beginning
        of each epoch. Training that goes on from another, by `warm_start` or `partial_fit`, begins with all of it.
    selector : {"auto", "gradmatch", "craig", "glister", "random", "infobatch", "score"}, BaseSelector or None, \
default="auto"
        What chooses the coreset. "auto" is "gradmatch" where `coreset_frac` or a parameter of the selector is given,
        and no coreset otherwise. None trains on everything. Its `n_select` and `per_class` are set from `coreset_frac`
        and `select_by`.
    coreset_frac : float or None, default=None
        Share of the samples in a coreset, in (0, 1]. None is 0.5 where there is a selector, and what comes of `prune`
        for "infobatch".
    select_every : int, default=20
        Coreset epochs between two selections. A selector that needs no pass through the network, as "random",
        "infobatch" and scores given as numbers, chooses anew in every epoch.
    warmup_frac : float, default=0.5
        Share of `max_epochs` that the epochs on all data stand for, in [0, 1); see `CoresetSchedule`.
    final_full : float or None, default=None
        Share of `max_epochs`, in [0, 1 - `warmup_frac`), on all data at the end. None is what the selector asks for: 0,
        and 0.125 for "infobatch".
    select_by : {"sample", "class", "batch"}, default="batch"
        Choose among all samples, within each class, or among random batches by their summed gradients: batches of
        `batch_size`, smaller where that makes fewer than 64.
    validation_fraction : float, default=0.1
        Share of the samples, in (0, 1), that a fit holds out for `early_stopping`, and where its selector asks for
        validation samples, as "glister" does: stratified, neither trained on nor part of a coreset, and attacked at
        every selection. `coreset_frac` is then a share of the others. Other fits hold out nothing.
    selection_attack : str, Attack or None, default=None
        The attack at selections, for example one of fewer steps. Without `eps` it has the norm and radius trained
        against; other ones are warned of. None is that of training, and where that remembers, as it does by default,
        no attack: a selection reads the perturbations that training had last.
    selection_gradients : {"fresh", "last"}, default="fresh"
        Where selectors that match gradients have them from: every sample attacked afresh, or, without a pass through
        the network, what training computed when it last saw the sample (in train mode, augmented, and one epoch old
        or, for samples outside the coreset, older). A selection before all samples have been seen is "fresh".
    early_stopping : bool, default=False
        Measure the accuracy of held-out samples under attack after every epoch, and end with the weights that were
        best, because adversarial training overfits late: published full runs lose 4 points at their last epochs.
    n_iter_no_change : int or None, default=10
        With `early_stopping`, end the training after so many epochs without a better score. None never ends it, and
        is right for schedules whose rate falls up to the end, where the last epochs bring most: "one-cycle", "cosine".
    in_batch : InBatchSelection or None, default=None
        Train on the hardest samples of each batch alone; goes with a coreset and without.
    class_weight : dict, "balanced" or None, default=None
        Factors of the sample weights by label, as in scikit-learn. "balanced" gives every class the same weight in sum;
        `partial_fit`, which does not see all labels, takes a dict alone.
    max_epochs : int or None, default=None
        Length in epochs of the ordinary training that is sped up. None is 30, and with `max_seconds` no limit.
    max_seconds : float or None, default=None
        Seconds of wall clock that a fit may take. Learning rate, radius and phases then go by time, so that the plan
        is whole when it ends, after at most `max_epochs` epochs; the last one may be short. None sets no limit.
    batch_size : int, default=128
        Samples in a mini-batch.
    optimizer : {"sgd", "adam", "adamw"} or torch optimiser class, default="sgd"
        "sgd" has momentum 0.9 and weight decay 5e-4 unless ``optimizer__...`` parameters say otherwise.
    lr : float or None, default=None
        Highest learning rate. None is 0.1 for "sgd" and 0.002 for "adam" and "adamw".
    lr_schedule : {"one-cycle", "cosine", "multistep", "constant"} or callable, default="one-cycle"
        Factor of `lr` over the steps really taken; a callable gets the share of training done, 0 to 1.
    averaging : {"ema"}, EMA or None, default="ema"
        Average of the weights over the steps, with which the classifier predicts; see `EMA`. None predicts with the
        last weights.
    augment : {"crop", "flip", "cutout", "crop-flip", ...}, callable or None, default=None
        Change of each training batch before its attack; a callable is ``augment(x, generator) -> x`` on a batch of
        (C, H, W) images. Selections look at the samples as they are.
    clip : (float, float), "auto" or None, default="auto"
        The box that inputs and their adversarial examples live in. "auto" is (0, 1) for images and none for tables.
    channels : {"auto", "first", "last"}, default="auto"
        Whether images with a fourth axis are (n, C, H, W) or (n, H, W, C). "auto" takes the axis of length 1, 3 or 4
        for the channels, the first of them where both are so short, and refuses images where neither is.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is a device, else the CPU.
    precision : {"fp32", "bf16", "fp16", "auto"}, default="fp32"
        In what convolutions and matrix products are done, in training, attacks, selections and prediction alike.
        Weights, BatchNorm's statistics, logits, losses and the gradients that selectors see are float32 throughout.
        "bf16" is for GPUs and for CPUs that have it (AVX512-BF16, AMX), "fp16" for GPUs without it: it scales losses,
        and on a CPU it is slow. "auto" times a batch in "bf16" and in "fp32" on such GPUs, and for convolutional
        modules on such CPUs, and takes the faster; elsewhere it is "fp32". ``net_.precision_`` tells which, and so does
        ``verbose=1``. What else the machine does can turn that choice: name the precision where the bits must be the
        same again. Training that goes on from another keeps what was chosen.
    compile : bool, default=False
        Whether `fit` compiles the module with `torch.compile`, which takes about a minute and a C++ compiler, or
        Triton on a GPU, again in each `fit` and `partial_fit`. Selections and perceptual attacks, which look inside the
        module, and second derivatives run without, and so does a classifier that has been pickled.
    callbacks : list of skorch callbacks or None, default=None
        As in skorch, with the net as their first argument; ``GradientNormClipping(1.0)`` clips gradients. skorch's
        scores of validation samples need `early_stopping`, and its LRScheduler ``lr_schedule="constant"``. What could
        not work, as LoadInitState, is refused.
    checkpoint : str, Path or None, default=None
        A folder, such as "~/runs", in which `fit` keeps how far it has come, so that one that was killed, called again,
        goes on from there to the same bits, and one that is over returns at once. Many fits may share it, those of a
        search too; each has a place of its own, by all that its result depends on. See note 7. None keeps nothing.
    checkpoint_seconds : float, default=300
        With `checkpoint`, an epoch that takes longer is kept after so many seconds, too.
    random_state : int, RandomState instance or None, default=None
        Drives initial weights, batches, augmentation, attacks and selections through generators of its own. The same
        int gives the same bits on the CPU. NumPy's and torch's global generators are left as they are, also by fits in
        several threads, see note 5.
    warm_start : bool, default=False
        Whether `fit` continues from the weights of the fit before.
    verbose : int, default=0
        1 shows a progress bar with the phase, the loss and the time left.
    **options
        Parameters of parts given by name, as ``part__name``: ``objective__beta``, ``attack__eps``,
        ``selector__ridge``, ``optimizer__momentum``, ``module__width``, ``callbacks__name__parameter``;
        for a Dataset those of torch's DataLoader, ``iterator_train__num_workers`` in training and
        ``iterator_valid__num_workers`` in predictions, scores and `evaluate`. Set in grids like any other parameter.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    net_ : AdversarialNet
        The skorch net; ``net_.module_`` is the trained torch module, from inputs to logits. With `averaging` it has
        the averaged weights, and ``net_.raw_module_`` those that training ended with and would go on from.
        ``net_.precision_`` is what `precision` came to.
    attack_ : Attack
        The attack trained against.
    coreset_ : Coreset or None
        The last one: `indices` into the training samples, `weights`, `error`, `n_matched` and `stop_reason`; its
        `report()` is a table.
    coresets_ : dict of Coreset
        All of them, by the epoch that they were selected in, counted from 0; of a selector that chooses anew in every
        epoch the last one.
    cost_ : Cost
        Samples sent forwards and backwards and seconds, for each phase of the last `fit`; prints as a table, and has
        `to_frame`.
    best_epoch_ : int or None
        With `early_stopping`, the epoch whose weights are kept, counted from 1; else None.
    best_validation_score_ : float or None
        Accuracy of the held-out samples after that epoch.
    stop_reason_ : str or None
        Why the last fit ended before its last epoch; None where it did not.
    interrupted_ : bool
        Whether a Ctrl-C ended it.
    model_ : FittedModel
        The network with what must be known to use it: how inputs look, their box, the classes, the scale.
    schedule_ : CoresetSchedule or TimedSchedule
        The plan of the last fit; ``schedule_.expected_speedup()``. With `max_seconds` a TimedSchedule, which has it as
        ``schedule_.planned``.
    history_ : History
        skorch's, with `to_frame`. One row per epoch: epoch, phase, train_loss, coreset_size, radius,
        approximation_error, seconds, lr; with `early_stopping` also valid_robust (valid_accuracy for an objective that
        attacks nothing).
    clip_ : (float, float) or None
        The box in use.
    input_format_ : InputFormat
        Shape and layout of the samples.
    n_features_in_ : int
        Number of features, for tables.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, for a DataFrame with string column names.

    See Also
    --------
    CoresetSchedule : Which epoch does what, and the speed-up to expect.
    robust_scorer : Robust accuracy for GridSearchCV and cross_validate.

    Notes
    -----
    1. Coreset weights are scaled once per selection, by k/n, so that the mean over the coreset has the gradient that
       the mean over all samples had. Published code scales them within each mini-batch, which cancels them wherever
       a batch shares one weight.
    2. Attacks and selections run in eval mode: BatchNorm's statistics come from training alone, and a sample's
       gradient does not depend on the others in its batch.
    3. A fit that fails, or that is interrupted by Ctrl-C, before its first epoch is over leaves the classifier as it
       was. After that it leaves a usable one: the fitted attributes tell of the epochs that are over. An interrupt then
       sets `interrupted_`, warns, and is raised again. A callback that raises KeyboardInterrupt itself, as skorch's
       EarlyStopping does, ends the training, and `fit` returns as usual.
    4. `early_stopping` attacks the held-out samples with 5 steps of PGD where training is in the ball of a norm, one
       step or ten, and with ``attack_.for_evaluation()`` otherwise. Training is the same bits as without the
       measurements; they count as "checks" in `cost_`, and in the history's seconds. An error or an interrupt also
       leaves the best weights. A fit that continues (`warm_start`) starts from those, holds out the same samples
       where X is the same, and looks for the best among its own epochs.
    5. Fits in several threads give the same bits as one after the other. They take turns in reading data and building
       networks; networks that draw nothing from torch's global generator train side by side, and those with dropout,
       like a Dataset read without workers, take turns step by step. What callbacks draw is out of reach.
    6. `fit` warns if in the end, after more than 30 steps, the model predicts one class for all of 512 training
       samples, unless that class has three quarters of their weight.
    7. `checkpoint` is written after every epoch and selection, and when SIGTERM or Ctrl-C comes, which then have their
       usual effect. A fit is known again by its parameters, `verbose` and the like aside, its data, the network's
       initial weights, what `warm_start` starts from, the source of functions and classes of one's own, and the
       library's version. Without an int as `random_state` it only goes on where it was killed; one that is over is
       trained anew. With `warm_start` and a larger `max_epochs` a new process goes on from the fit that is over.
       `partial_fit`, an epoch long, keeps nothing.

    References
    ----------
    Dolatabadi, Erfani, Leckie, "l-inf-Robustness and Beyond: Unleashing Efficient Adversarial Training", ECCV 2022.
    Rice, Wong, Kolter, "Overfitting in adversarially robust deep learning", ICML 2020 (`early_stopping`).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_acs import RobustClassifier
    >>> digits = load_digits(n_class=3)
    >>> X, y = digits.images / 16, digits.target
    >>> clf = RobustClassifier(attack__eps=0.1, max_epochs=20, random_state=0).fit(X[:400], y[:400])
    >>> clf.score(X[400:], y[400:]) > 0.9, clf.robust_score(X[400:], y[400:]) > 0.8
    (True, True)
    """

    _routes = (
        *("module", "objective", "attack", "selector", "selection_attack", "in_batch", "optimizer", "averaging"),
        *("iterator_train", "iterator_valid", "callbacks"),
    )

    _parameter_constraints: ClassVar[dict] = {
        "module": [StrOptions({"auto", *MODELS}), nn.Module, callable],
        "objective": [StrOptions(set(OBJECTIVES)), Objective],
        "attack": [StrOptions(set(ATTACKS)), Attack, None],
        "selector": [StrOptions({"auto", *SELECTORS}), BaseSelector, None],
        "coreset_frac": [Interval(Real, 0, 1, closed="right"), None],
        "select_every": [Interval(Integral, 1, None, closed="left")],
        "warmup_frac": [Interval(Real, 0, 1, closed="left")],
        "final_full": [Interval(Real, 0, 1, closed="left"), None],
        "select_by": [StrOptions(set(SELECT_BY))],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "selection_attack": [StrOptions(set(ATTACKS)), Attack, None],
        "selection_gradients": [StrOptions(set(GRADIENTS_FROM))],
        "early_stopping": ["boolean"],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), None],
        "attack_ramp": [Interval(Real, 0, 1, closed="both")],
        "in_batch": [InBatchSelection, None],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "max_seconds": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [StrOptions(set(OPTIMIZERS)), callable],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "lr_schedule": [StrOptions(set(LR_SCHEDULES)), callable],
        "averaging": [StrOptions(set(AVERAGES)), EMA, None],
        "augment": [StrOptions(set(AUGMENTS)), callable, None],
        "clip": [StrOptions({"auto"}), tuple, None],
        "channels": [StrOptions(set(LAYOUTS))],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", *PRECISIONS})],
        "compile": ["boolean"],
        "callbacks": [list, None],
        "checkpoint": [str, PathLike, None],
        "checkpoint_seconds": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        module: str | nn.Module | Callable[..., nn.Module] = "auto",
        *,
        objective: str | Objective = "adversarial",
        attack: str | Attack | None = None,
        attack_ramp: float = 0.15,
        selector: str | BaseSelector | None = "auto",
        coreset_frac: float | None = None,
        select_every: int = 20,
        warmup_frac: float = 0.5,
        final_full: float | None = None,
        select_by: str = "batch",
        validation_fraction: float = 0.1,
        selection_attack: str | Attack | None = None,
        selection_gradients: str = "fresh",
        early_stopping: bool = False,
        n_iter_no_change: int | None = 10,
        in_batch: InBatchSelection | None = None,
        class_weight: dict[Any, float] | str | None = None,
        max_epochs: int | None = None,
        max_seconds: float | None = None,
        batch_size: int = 128,
        optimizer: str | type[Optimizer] = "sgd",
        lr: float | None = None,
        lr_schedule: str | LrSchedule = "one-cycle",
        averaging: str | EMA | None = "ema",
        augment: str | Augment | None = None,
        clip: str | Clip = "auto",
        channels: str = "auto",
        device: str | torch.device = "auto",
        precision: str = "fp32",
        compile: bool = False,
        callbacks: list[Callback] | None = None,
        checkpoint: str | PathLike | None = None,
        checkpoint_seconds: float = 300,
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        verbose: int = 0,
        **options: Any,
    ) -> None:
        self.module = module
        self.objective = objective
        self.attack = attack
        self.attack_ramp = attack_ramp
        self.selector = selector
        self.coreset_frac = coreset_frac
        self.select_every = select_every
        self.warmup_frac = warmup_frac
        self.final_full = final_full
        self.select_by = select_by
        self.validation_fraction = validation_fraction
        self.selection_attack = selection_attack
        self.selection_gradients = selection_gradients
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.in_batch = in_batch
        self.class_weight = class_weight
        self.max_epochs = max_epochs
        self.max_seconds = max_seconds
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.averaging = averaging
        self.augment = augment
        self.clip = clip
        self.channels = channels
        self.device = device
        self.precision = precision
        self.compile = compile
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.checkpoint_seconds = checkpoint_seconds
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self._set_options(options)

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Train on `X`: on all of it, and where a coreset is asked for, after some epochs on that.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            Table (n, features); images (n, H, W), (n, C, H, W) or (n, H, W, C), uint8 or floats in the clip range;
            or a Dataset, which is streamed and never held in memory: of pairs (x, label), of mappings such as
            ``{"image": x, "label": label}``, or, with `y`, of samples alone.
        y : array-like of shape (n,) or None
            Labels of any kind; None for a Dataset, which brings its own. Unless it lists them as `targets` or
            `labels` that agree with its items, it is read once for them, in the workers of `iterator_train`.
        sample_weight : array-like of shape (n,) or None, default=None
            Factors of the samples' losses, scaled to mean 1. They multiply the coreset weights; samples of weight 0
            are left out.
        X_val, y_val : as X and y, default=None
            Samples for `early_stopping`, and for selectors that look at validation samples, in place of
            `validation_fraction` of `X`. `y_val` is None for a Dataset.
        sample_weight_val : array-like of shape (n_val,) or None, default=None
            Weights of the validation samples in the score of `early_stopping`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            A parameter or the data cannot be used; said before any work.
        FloatingPointError
            The loss or a weight became NaN or infinite. After an epoch or more, `net_` has the weights from before
            the epoch that diverged, with `early_stopping` the best ones.
        KeyboardInterrupt
            The user's Ctrl-C; see note 3.
        """
        before = self.net_.training_ if self.warm_start and hasattr(self, "net_") else None
        return self._train(X, y, sample_weight, before=before, validation=(X_val, y_val, sample_weight_val))

    def estimate_cost(
        self,
        X: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> CostEstimate:
        """Estimate what `fit` would take, from a few of its steps: passes, seconds and memory, phase by phase.

        The classifier and everything that it was given stay as they are, and a `fit` afterwards gives the same bits.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val, sample_weight_val : objects
            As `fit` takes them.

        Returns
        -------
        estimate : CostEstimate
            Prints as a table, and has `to_frame`. `n_epochs` says how many epochs `max_seconds` leaves time for.

        Raises
        ------
        ValueError
            What `fit` would raise before any work.

        Notes
        -----
        1. It takes some seconds: that of `fit` before its first step, and then about two, or once each kind of step
           where these are long. `compile=True` compiles.
        2. Passes are those of real steps, times their number, and so exact where they do not depend on what the network
           predicts. `BulletTrain`, `early_stopping`, `CollapseGuard` and `Dynamics` spare samples that are predicted
           wrongly: here none are. A share of `InBatchSelection` that is "adaptive" counts as 1. A training that ends
           early takes less.
        3. Callbacks of skorch and of your own are not called, and what they take is left out, except for skorch's
           Freezer and scores of validation samples.
        4. Memory is that of tensors. What kernels, the allocator and NumPy take beside them is left out.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from sklearn_acs import RobustClassifier
        >>> X, y = load_digits(n_class=3, return_X_y=True)
        >>> clf = RobustClassifier(attack__eps=0.1, max_epochs=4, random_state=0)
        >>> estimate = clf.estimate_cost(X / 16, y)
        >>> estimate.total.forwards == clf.fit(X / 16, y).cost_.total.forwards
        True
        """
        start_torch()
        trial = copy(self)
        for name, value in untouched(self.get_params(deep=False)).items():
            setattr(trial, name, value)
        before = self.net_.training_ if self.warm_start and hasattr(self, "net_") else None
        _, data, training, _ = trial._prepare(
            X, y, sample_weight, before, False, None, (X_val, y_val, sample_weight_val)
        )
        return estimate_cost(training, data.samples, X)

    def partial_fit(
        self, X: Any, y: Any = None, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch on all of `X`, at the constant rate `lr`, continuing from the current weights.

        A coreset stands for a data set that is seen many times, so a single pass has none.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`, of the same shape in every call.
        y : array-like of shape (n,) or None
            Labels, as in `fit`.
        classes : array-like of shape (n_classes,) or None, default=None
            All labels that will ever come; needed in the first call unless `y` has them all.
        sample_weight : array-like of shape (n,) or None, default=None
            As in `fit`.

        Returns
        -------
        self
        """
        if self.early_stopping:
            raise ValueError("early_stopping=True is for fit; partial_fit trains one epoch, so set it to False")
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is for fit, which sees all labels; for partial_fit give a dict, as "
                "sklearn.utils.class_weight.compute_class_weight computes it of all labels"
            )
        before = self.net_.training_ if hasattr(self, "net_") else None
        return self._train(X, y, sample_weight, before=before, one_pass=True, classes=classes)

    def _train(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None,
        *,
        before: Training | None,
        one_pass: bool = False,
        classes: ArrayLike | None = None,
        validation: tuple[Any, Any, Any] = (None, None, None),
    ) -> Self:
        """Plan, read, train; attributes are assigned once an epoch is over, and then however the training ended."""
        given = (X, y, sample_weight, before, one_pass, classes, validation)
        plan, data, training, keeping = self._prepare(*given, keeps=not one_pass)
        if keeping is not None and self.warm_start and before is None:
            if (epochs := keeping.shorter(training)) is not None:
                training.progress.close(None)
                return self._go_on_after(epochs, X, y, sample_weight, validation)
        checkpoint = None if keeping is None else keeping.begin(training)
        randomness = training.randomness
        try:
            training.run(checkpoint)
        except BaseException:
            if training.epochs_done:
                self._assign(training, data.format, plan.params)
                if training.interrupted:
                    n_epochs = plan.schedule.n_epochs
                    of = "" if n_epochs == inf else f" of {n_epochs}"
                    warnings.warn(f"interrupted in epoch {min(training.epochs_done + 1, n_epochs)}{of}", stacklevel=3)
            raise
        finally:
            if keeping is not None:
                keeping.close(checkpoint)
        self._assign(training, data.format, plan.params)
        if not one_pass:
            with randomness.in_use(going_on=False):
                warn_of_one_class(training.net, data, stacklevel=3)
        return self

    def _prepare(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None,
        before: Training | None,
        one_pass: bool,
        classes: ArrayLike | None,
        validation: tuple[Any, Any, Any],
        keeps: bool = False,
    ) -> tuple[Plan, TrainingData, Training, Keeping | None]:
        """Plan and read: all that comes before the first step."""
        meter = CostMeter()
        self._validate_params()
        validates = check_validation(*validation)
        plan = Plan.of(self.get_params(deep=False), one_pass=one_pass, validates=validates, before=before)
        keeping = None if self.checkpoint is None or not keeps else Keeping(self.checkpoint, self.checkpoint_seconds)
        randomness = LocalRandomness(plan.seeds.model, plan.device)
        with torch.inference_mode(False), torch.enable_grad(), current_device(plan.device):
            watching = nullcontext() if keeping is None else keeping.watching()
            with randomness.in_use(), watching:  # a Dataset may draw from torch's global generators
                like = None if before is None else self._format
                reading: dict[str, Any] = {"loader_options": self._routed("iterator_train"), "verbose": self.verbose}
                given: dict[str, Any] = {
                    "clip": self.clip,
                    "channels": self.channels,
                    "classes": classes,
                    "class_weight": self.class_weight,
                    "like": like,
                }
                data = TrainingData.read(X, y, sample_weight, **given, **reading)
                apart = read_validation(*validation, data.format, **reading) if validates else None
            with randomness.in_use(going_on=False):
                plan = plan.settled(data)
            if keeping is not None:
                seeds = keeping.know(plan.params, plan.attack, data, apart, before, plan.device, plan.seeds)
                if seeds != plan.seeds:  # those of a fit that was killed
                    plan, randomness = replace(plan, seeds=seeds), LocalRandomness(seeds.model, plan.device)
            training = plan.training(data, apart, before, randomness, meter, journaled=keeping is not None)
        return plan, data, training, keeping

    def _go_on_after(self, max_epochs: int, X: Any, y: Any, sample_weight: Any, validation: tuple) -> Self:
        """Take the attributes of a shorter fit, which is kept and over, and go on from there."""
        shorter = clone(self).set_params(max_epochs=max_epochs)
        shorter._train(X, y, sample_weight, before=None, validation=validation)
        self.__dict__.update({name: value for name, value in vars(shorter).items() if name not in vars(self)})
        before = self.net_.training_
        return self._train(X, y, sample_weight, before=before, validation=validation)

    def _assign(self, training: Training, format: DataFormat, params: Mapping[str, Any]) -> None:
        """Set the fitted attributes."""
        inputs, best = format.inputs, training.best
        of_tables = {
            "n_features_in_": inputs.given_shape[0] if inputs.is_table else None,
            "feature_names_in_": inputs.feature_names,
        }
        self.__dict__.update(  # all at once: no interrupt finds half of them
            of_tables,
            _network_params=network_params(params),
            _format=format,
            classes_=format.classes,
            clip_=format.clip,
            input_format_=inputs,
            net_=training.net,
            attack_=training.adversary.attack,
            schedule_=training.schedule,
            history_=training.net.history,
            cost_=training.meter.cost,
            coresets_=training.coresets,
            coreset_=next(reversed(training.coresets.values()), None),
            best_epoch_=best and best.epoch,
            best_validation_score_=best and best.score,
            interrupted_=training.interrupted,
            stop_reason_=training.stop_reason,
        )
        for name in [name for name, value in of_tables.items() if value is None]:
            delattr(self, name)

    @property
    def model_(self) -> FittedModel:
        """The trained network, and what must be known to use it."""
        check_is_fitted(self)
        seed, options = self.net_.training_.seeds.evaluation, self._routed("iterator_valid")
        return FittedModel(self.net_.module_, self._format, seed, options, type(self).__name__)

    def predict(self, X: Any) -> np.ndarray:
        """Predict a label for each sample.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,)
            Labels as in the `y` of `fit`.
        """
        codes = self.model_.logits(X).argmax(1).numpy()
        return self.classes_[codes]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict the probability of each class.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, n_classes)
            In the order of `classes_`.
        """
        return self.model_.logits(X).softmax(1).numpy()

    def decision_function(self, X: Any) -> np.ndarray:
        """Compute logits, or their difference for two classes.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
            In the order of `classes_`; with two, positive values speak for the second.
        """
        logits = self.model_.logits(X).numpy()
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Compute the clean accuracy.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.
        y : array-like of shape (n,) or None
            True labels; None for a Dataset.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples in the mean.

        Returns
        -------
        float
            Share of samples predicted rightly.
        """
        return self.model_.accuracy(X, y, None, sample_weight)

    @checked(batch_size=COUNT)
    def robust_score(
        self,
        X: Any,
        y: Any = None,
        attack: Attack | str | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        batch_size: int = PREDICT_BATCH,
    ) -> float:
        """Compute the accuracy under attack: the share of samples predicted rightly as they are and after the attack.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.
        y : array-like of shape (n,) or None
            True labels; None for a Dataset. A label that is none of `classes_` counts as wrong, with a warning.
        attack : Attack, str or None, default=None
            The attack, raising its own loss, cross-entropy for most. None is that trained against. Where that saves
            steps in training alone, or one given remembers perturbations, it is its ``for_evaluation()``.
        sample_weight : array-like of shape (n,) or None, default=None
            Weights of the samples in the mean.
        batch_size : int, default=512
            Samples attacked together; fewer need less memory.

        Returns
        -------
        float
            At most `score`.
        """
        attack = self._evaluation_attack(attack)
        return self.model_.accuracy(X, y, attack, sample_weight, int(batch_size))

    @checked(batch_size=COUNT)
    def perturb(
        self, X: Any, y: Any = None, attack: Attack | str | None = None, *, batch_size: int = PREDICT_BATCH
    ) -> Any:
        """Make adversarial examples for this classifier.

        Parameters
        ----------
        X : array-like, DataFrame, Tensor or torch Dataset
            As in `fit`.
        y : array-like of shape (n,) or None
            True labels, all of them among `classes_`; None for a Dataset.
        attack : Attack, str or None, default=None
            The attack, as in `robust_score`.
        batch_size : int, default=512
            Samples attacked together; fewer need less memory.

        Returns
        -------
        ndarray or Tensor of the shape of `X`, float32
            A tensor for a tensor. For uint8 images the values are in [0, 1].
        """
        x_adv = self.model_.perturb(X, y, self._evaluation_attack(attack), int(batch_size))
        return x_adv.to(X.device) if isinstance(X, Tensor) else x_adv.cpu().numpy()

    def export_module(self) -> nn.Module:
        """Copy the trained network as plain PyTorch, for `torch.save`, `torch.export`, ONNX or training elsewhere.

        Returns
        -------
        nn.Module
            From inputs to logits in the order of `classes_`, in float32, in eval mode, on the CPU: without hooks and
            compilation, and without autocast whatever `precision` it was trained in. Named models standardise their
            inputs inside. With `averaging` it has the averaged weights.

        Notes
        -----
        Inputs are float32 tensors in the box `clip_`: tables (n, features), and images channels first, (n, C, H, W), so
        that grey images (n, H, W) need ``x[:, None]``, images (n, H, W, C) ``x.permute(0, 3, 1, 2)``, and uint8 pixels
        ``x / 255``. On these its logits are those of `decision_function`, up to the rounding of half precision where
        the network was trained in it; of two classes `decision_function` gives the difference.

        Examples
        --------
        >>> import torch
        >>> from sklearn.datasets import load_digits
        >>> from sklearn_acs import RobustClassifier
        >>> X, y = load_digits(n_class=3, return_X_y=True)
        >>> X = X.reshape(-1, 8, 8) / 16
        >>> module = RobustClassifier(max_epochs=2, random_state=0).fit(X, y).export_module()
        >>> module(torch.tensor(X[:5, None], dtype=torch.float32)).shape
        torch.Size([5, 3])
        """
        check_is_fitted(self)
        return exported(self.net_.module_)

    def save(self, path: str | os.PathLike) -> None:
        """Write the classifier into one file, from which `load` makes it again; no code is in the file.

        It is a safetensors file: the weights, raw and averaged, and the optimiser's state are its tensors; parameters,
        classes, how inputs look, coresets, history, cost and versions stand in its header as JSON. Of the training data
        it has which rows the coresets chose, and the smallest and largest value, but no sample.

        Parameters
        ----------
        path : str or Path
            The file. One that is there is replaced when the new one is whole.

        Raises
        ------
        OSError, ValueError
            The file cannot be written; said before any work.
        TypeError
            The module's `get_extra_state`, or the optimiser's state, has something that a file cannot hold.

        Warns
        -----
        UserWarning
            A file cannot hold a class, a function or an object that is not this library's: a module, a callback, a
            `lr_schedule`. They are named, left out, and given to `load` where they are needed.

        See Also
        --------
        load : Its inverse.
        export_module : The network alone, as PyTorch.

        Examples
        --------
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_acs import RobustClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = RobustClassifier(max_epochs=2, random_state=0).fit(X, y)
        >>> with TemporaryDirectory() as folder:
        ...     clf.save(Path(folder) / "iris.safetensors")
        ...     again = RobustClassifier.load(Path(folder) / "iris.safetensors")
        >>> bool((again.decision_function(X) == clf.decision_function(X)).all())
        True
        """
        save_classifier(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike, **params: Any) -> Self:
        """Make a classifier from the file that `save` has written; nothing in the file is run.

        It predicts the same bits on the same machine, and goes on with `warm_start` and `partial_fit` as the one saved
        would.

        Parameters
        ----------
        path : str or Path
            The file.
        **params
            Parameters, ``part__name`` ones too, in place of those in the file. `module` is needed where it was
            one's own: an object or what makes one, whose weights then come from the file; and so are an `objective`,
            `attack` or `optimizer` class of one's own. ``device="cpu"`` moves the classifier. What is left out of the
            file and not given here, as `callbacks`, `lr_schedule` or `augment`, is asked for by the next `fit`.

        Returns
        -------
        RobustClassifier
            Fitted, if the one saved was.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            It is something else, cut short, altered, of a version to come, or names what this library does not have;
            what it cannot hold is needed and not given; or the module given is not the one that was trained.

        Notes
        -----
        1. Sizes, shapes and checksum are compared before anything is made of a file. A checksum finds accidents, not
           intent: a stranger's file can hold any weights, but can neither run code nor take much more memory than its
           size.
        2. What was fitted is made by the code that a fit uses, from the parameters of that fit. Those changed since
           then by `set_params` come back as changed.
        3. On another machine, or after `device` or `precision` have been changed, logits are the same up to rounding.

        Examples
        --------
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_acs import RobustClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "iris.safetensors"
        ...     RobustClassifier(max_epochs=2, random_state=0).fit(X, y).save(path)
        ...     clf = RobustClassifier.load(path, device="cpu", warm_start=True)
        >>> len(clf.fit(X, y).history_)
        2
        """
        return load_classifier(cls, path, params)

    def _evaluation_attack(self, attack: Attack | str | None) -> Attack | str:
        """Take what measures the attack trained against, where none is given."""
        check_is_fitted(self)
        return self.attack_.for_evaluation() if attack is None else attack

    def selection_report(self) -> Table:
        """Tell what each selection of the last fit chose, with how much error, and why its algorithm stopped.

        Returns
        -------
        table : Table
            A row for each selection; prints well, and has `to_frame`. ``coreset_.report()`` tells of the last one
            class by class.
        """
        check_is_fitted(self)
        rows = []
        for epoch, coreset in self.coresets_.items():
            n_samples = sum(selection.n_samples for selection in coreset.classes)
            shape = [n_samples, len(coreset.indices), coreset.n_matched]
            rows.append([epoch, *shape, float(coreset.weights.sum()), coreset.error, coreset.stop_reason])
        return Table(["epoch", "samples", "selected", "matched", "weight", "error", "why it stopped"], rows)
