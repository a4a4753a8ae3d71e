"""`evaluate` runs many attacks on one model: a row for each, and the worst of them sample by sample."""

import os
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import clone
from torch import Tensor
from tqdm import tqdm

from sklearn_acs.attacks import Attack
from sklearn_acs.checks import COUNT, PATH, SEED, checked
from sklearn_acs.data.batches import Reader
from sklearn_acs.data.formats import Clip, DataFormat, example_of
from sklearn_acs.data.labels import UNKNOWN
from sklearn_acs.evaluation.masking import connected, find_masking, generator_for
from sklearn_acs.evaluation.result import BROKEN, NORMS, WITHSTOOD, Evaluation
from sklearn_acs.evaluation.state import State
from sklearn_acs.evaluation.suites import make_attacks
from sklearn_acs.model import FittedModel, correct, last_step
from sklearn_acs.models.logits import predicted
from sklearn_acs.saving.files import check_path
from sklearn_acs.saving.fingerprint import fingerprint

Attacks = str | Attack | Sequence[str | Attack] | Mapping[str, str | Attack]
"""A suite, an attack, or several of them."""


@checked(
    batch_size=COUNT,
    random_state=SEED,
    worst_case_only=["boolean"],
    check_masking=["boolean"],
    state_path=[*PATH, None],
    verbose=["verbose"],
)
@torch.inference_mode(False)
def evaluate(
    model: Any,
    X: Any,
    y: ArrayLike | Tensor | None = None,
    attacks: Attacks = "quick",
    *,
    clip: Clip = (0.0, 1.0),
    batch_size: int = 256,
    random_state: int = 0,
    worst_case_only: bool = False,
    check_masking: bool = False,
    state_path: str | os.PathLike | None = None,
    verbose: int = 0,
) -> Evaluation:
    """Judge one model by many attacks, and by the worst of them for each sample.

    Parameters
    ----------
    model : RobustClassifier or nn.Module
        A fitted classifier, which knows its labels and clip range, or any module from inputs to logits. A classifier at
        the end of a Pipeline is attacked in what the steps before it make of X.
    X : array-like, DataFrame, Tensor or torch Dataset
        For a classifier as in its `fit`; for a module a table (n, features), images (n, H, W), (n, C, H, W) or
        (n, H, W, C), uint8 or floats in `clip`, which it gets channels first and as floats, or a Dataset of them.
    y : array-like of shape (n,) or None
        True labels; for a module 0 to C-1; None for a Dataset, which brings its own.
    attacks : str, Attack, list or dict, default="quick"
        A suite, an attack by name or as an object, a list of these, or a dict of attacks by the names of their rows.
        The suites are "quick" (PGD-20), "linf" and "l2" (PGD with 50 steps and 10 restarts, and AutoAttack, at 8/255
        and 80/255), "linf-sweep" (that PGD at 4, 8 and 16/255, and AutoAttack at 8/255), and "unseen" (AutoAttack at
        8/255 in linf and 1 in l2, JPEG, StAdv, ReColor, PPGD and LPA). Their radii are for images in [0, 1]; "quick"
        also goes with a classifier of tables, and there means 0.1 standard deviations of each feature.
    clip : (float, float) or None, default=(0, 1)
        The box that a module's inputs live in.
    batch_size : int, default=256
        Samples attacked together.
    random_state : int, default=0
        Seed of the attacks. Each of them draws the same whatever else is in `attacks`.
    worst_case_only : bool, default=False
        Whether samples that one attack broke are spared by the later ones, which saves their time: the worst case is
        sought and the rows then tell the accuracy under an attack and all before it. By default every attack sees all
        samples that are classified rightly, and its row is its own.
    check_masking : bool, default=False
        Whether to look for signs of masked gradients, on up to 500 samples; costs about 70 forward and 50 backward
        passes for each. They are looked for in the ball of the first attack that has a `threat`, and of "pgd" where
        none has one.
    state_path : str, Path or None, default=None
        File that keeps what has been found, written after each batch. An evaluation that was interrupted goes on from
        it, to the same result bit for bit. It stays when all is done. Where it can no longer be written, because the
        disk is full, there is a warning, and the result comes all the same.
    verbose : int, default=0
        1 shows a progress bar with the attack and the accuracy under it so far.

    Returns
    -------
    Evaluation
        A table: the clean accuracy, each attack, and the worst case; with what became of each sample.

    Raises
    ------
    TypeError
        The model is neither, or an attack is none.
    OSError
        `state_path` cannot be written; said before any work.
    ValueError
        The data or a parameter cannot be used, a module does not give logits of two classes or more, or `state_path`
        is of another evaluation.

    See Also
    --------
    robust_accuracy : One number for one attack.
    make_robustness_report : The table and the pictures on one page.

    Notes
    -----
    1. Samples that are misclassified as they are count as wrong in every row and are not attacked.
    2. An example with NaN or infinity does not count as adversarial; NaN among the logits counts as a wrong answer.
    3. Perturbations that leave the ball or the box they were promised to stay in are told of in `warnings`, and so are
       radii for images in [0, 1] where samples live in another box.
    4. Each attack's ``size`` is in the ``metric`` and the units of its own bound; see `Evaluation` for what these are.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs import PGD, evaluate
    >>> model = torch.nn.Linear(1, 2)
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[-1.0], [1.0]])), model.bias.copy_(torch.tensor([0.5, -0.5]))
    >>> X, y = [[0.1], [0.45], [0.55], [0.9]], [0, 0, 1, 1]
    >>> result = evaluate(model, X, y, {"weak": PGD(eps=0.01), "strong": PGD(eps=0.2)})
    >>> result["attack"], result["accuracy"]
    (['clean', 'weak', 'strong', 'worst case'], [1.0, 1.0, 0.5, 0.5])
    >>> result.worst_case_
    array([ True, False, False,  True])
    """
    path = None if state_path is None else check_path("state_path", state_path)
    model, X = last_step(model, X)
    fitted = FittedModel.of(model, X, clip)
    data = fitted.data(X, y)
    batch_size, random_state = min(int(batch_size), len(data)), int(random_state)
    fetch = fitted.reader(data)
    made = make_attacks(attacks, is_table=fitted.format.inputs.is_table)
    settled = {name: fitted.settled(attack) for name, (attack, _) in made.items()}

    start = perf_counter()
    choices = predicted(fitted.forward(data, batch_size))
    codes = data.y.cpu()  # a Dataset's labels have been read with its samples
    clean = choices == codes
    clean_seconds = perf_counter() - start
    key = {}
    if path is not None:
        # A module may compute with more than its weights, and another number of threads rounds logits differently:
        # predictions tell models apart, and logits do not. Of a Dataset, evenly spaced samples stand for all.
        known = {
            "model": fitted.module,
            "data": (example_of(fitted.read(X)), codes),
            "predictions": choices,
            "attacks": settled,
            "clip": fitted.format.clip,
            "batch_size": batch_size,
            "random_state": random_state,
            "worst_case_only": bool(worst_case_only),
        }
        key = {name: fingerprint(value) for name, value in known.items()}
    state = State(len(settled), len(codes), path, key)
    state.warn(*_meant_for_others(fitted.format, made))

    total = len(settled) * int(clean.sum())
    threats = [attack.threat for attack in settled.values()]
    masking = None
    with connected(fitted.module, state.warn), tqdm(total=total, disable=not verbose, unit="sample") as bar:
        if clean.any() and len(settled) > 1:
            _try_out(fitted, fetch, settled, clean.nonzero()[0])
        for number, (name, attack) in enumerate(settled.items()):
            outcomes, left = state.outcomes[number], clean.clone()
            if worst_case_only:
                left &= ~torch.from_numpy((state.outcomes[:number] == BROKEN).any(0))
            bar.set_description(name)
            bar.update(int((clean & ~left).sum()) + int((outcomes > 0).sum()))
            batches = left.nonzero().squeeze(1).split(batch_size)
            for n_attacked, told in _run(fitted, fetch, attack, batches, number, state, random_state):
                state.warn(*(f"{name}: {text}" for text in told))
                state.save()
                bar.update(n_attacked)
                bar.set_postfix(broken=f"{(outcomes == BROKEN).sum() / (outcomes > 0).sum():.1%}")
        if check_masking and (codes != UNKNOWN).any():
            reference = next(threat for threat in (*threats, fitted.settled("pgd").threat) if threat is not None)
            masking = find_masking(fitted, fetch, codes, reference, batch_size, random_state)
    return Evaluation(
        list(settled),
        clean.numpy(),
        state.outcomes,
        state.sizes,
        state.own_sizes,
        [attack.metric for attack in settled.values()],
        [clean_seconds, *state.seconds],
        norms=NORMS[: 2 + any(threat is not None and threat.norm == "l1" for threat in threats)],
        worst_case_only=worst_case_only,
        warnings=state.warnings,
        masking=masking,
    )


def _try_out(fitted: FittedModel, fetch: Reader, attacks: Mapping[str, Attack], row: Tensor) -> None:
    """Take one step of each attack on one sample.

    What cannot work (images without colour, weights that are not there) fails before hours of other attacks, not after.
    """
    x, y = next(fetch([row]))
    for name, attack in attacks.items():
        brief = dict.fromkeys({"steps", "restarts", "rounds"} & attack.get_params(deep=False).keys(), 1)
        if "steps" not in brief:
            continue
        trial = clone(attack).set_params(**brief)
        try:
            trial.perturb(fitted.module, x, y, clip=fitted.format.clip, generator=generator_for(fitted.device, 0))
        except Exception as error:
            error.add_note(f"in attack {name!r}, tried on one sample")
            raise


def _run(
    fitted: FittedModel, fetch: Reader, attack: Attack, batches: Sequence[Tensor], number: int, state: State, seed: int
) -> Iterator[tuple[int, list[str]]]:
    """Attack the batches that the state does not know yet; yield the size of each, and what is wrong with it."""
    # A batch holds the same samples and draws from a generator of its own whether or not a run was interrupted.
    done = state.outcomes[number] > 0
    to_do = {i: rows for i, rows in enumerate(batches) if len(rows) and not done[rows.numpy()].all()}
    module, clip = fitted.module, fitted.format.clip
    since = perf_counter()
    for (i, rows), (x, y) in zip(to_do.items(), fetch(list(to_do.values())), strict=True):
        x_adv = attack.perturb(module, x, y, clip=clip, generator=generator_for(fitted.device, seed, i))
        finite = x_adv.flatten(1).isfinite().all(1)
        broken = finite & ~correct(module, x_adv, y)
        sizes = perturbation_sizes(x_adv - x)
        where = rows.numpy()  # as a tensor, a single row would be taken for an int
        state.outcomes[number, where] = torch.where(broken, BROKEN, WITHSTOOD).cpu().numpy()
        state.sizes[:, number, where] = sizes.cpu().numpy()
        own_sizes = attack.measure(module, x, x_adv, clip=clip)
        if own_sizes is not None:
            state.own_sizes[number, where] = own_sizes.cpu().numpy()
        told = [*getattr(attack, "warnings_", ()), *_overstepped(attack, x_adv, sizes, finite, clip)]
        now = perf_counter()
        state.seconds[number] += now - since
        since = now
        yield len(rows), told


def _meant_for_others(form: DataFormat, made: Mapping[str, tuple[Attack, bool]]) -> list[str]:
    """Tell which attacks given by name have a radius for images in [0, 1], where samples live in no such box.

    For a classifier of tables they have one in its scale; transforms of images go by the box.
    """
    in_scale = form.inputs.is_table and form.scale is not None
    if in_scale or (form.clip is not None and form.clip[1] - form.clip[0] == 1):
        return []
    box = "no box" if form.clip is None else f"the box {form.clip}"
    return [
        f"{name}: its radius, {attack.threat.eps:.4g}, is one for images in [0, 1], and these samples live in {box}"
        for name, (attack, by_name) in made.items()
        if by_name and attack.threat is not None and (form.clip is None or attack.get_params().get("eps") is not None)
    ]


def perturbation_sizes(delta: Tensor) -> Tensor:
    """Measure perturbations in linf, l2 and l1.

    Parameters
    ----------
    delta : Tensor of shape (batch, ...)
        Perturbations.

    Returns
    -------
    Tensor of shape (3, batch)

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.evaluation.evaluating import perturbation_sizes
    >>> perturbation_sizes(torch.tensor([[3.0, -4.0]])).tolist()
    [[4.0], [5.0], [7.0]]
    """
    flat = delta.flatten(1).float()
    return torch.stack([flat.abs().amax(1), torch.linalg.vector_norm(flat, dim=1), flat.abs().sum(1)])


def _overstepped(attack: Attack, x_adv: Tensor, sizes: Tensor, finite: Tensor, clip: Clip) -> list[str]:
    """Tell what is wrong with adversarial examples, if anything is."""
    found = []
    if not finite.all():
        found.append("some examples have NaN or infinity; they do not count as adversarial")
    threat = attack.threat
    if threat is not None and np.ndim(threat.eps) == 0:
        largest = sizes[NORMS.index(threat.norm)][finite].max().item() if finite.any() else 0.0
        if largest > threat.eps * (1 + 1e-3) + 1e-6:
            found.append(f"perturbations leave the ball of radius {threat.eps:.4g} in {threat.norm}")
    if clip is not None and finite.any():
        low, high, slack = x_adv[finite].min().item(), x_adv[finite].max().item(), 1e-6 * (clip[1] - clip[0])
        if low < clip[0] - slack or high > clip[1] + slack:
            found.append(f"examples leave the box {clip}")
    return found
