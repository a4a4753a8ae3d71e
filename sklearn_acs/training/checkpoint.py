"""Checkpoint keeps the state of a training in a folder, and lets the training go on from there when it was killed."""

import errno
import warnings
from functools import partial
from threading import Thread
from time import perf_counter
from typing import Any

from torch import Tensor

from sklearn_acs.saving.tensor_file import read_tensors, write_tensors
from sklearn_acs.saving.tree import flatten, unflatten
from sklearn_acs.training.place import Place, free_bytes
from sklearn_acs.training.records import RECORDS
from sklearn_acs.training.training import AFTER_ALL, AFTER_BATCH, Training
from sklearn_acs.training.weights import weights_of

STATELESS = {
    *("GradientNormClipping", "PrintLog", "ProgressBar", "EpochTimer", "PassthroughScoring", "Checkpoint"),
    *("TrainEndCheckpoint", "BatchScoring", "TensorBoard", "MlflowLogger", "WandbLogger", "NeptuneLogger"),
}
"""Callbacks of skorch that remember nothing by which a training goes."""

RETRY = 1.0
"""Seconds after which a disk that was full is asked again, where there is more to keep than memory should hold."""


class Checkpoint:
    """Keeps the state of one training in its place: after each epoch and selection, and amid epochs that take long.

    It is what `Training.run` takes as `keep`. A checkpoint is written beside the one before, and takes its place when
    it is on the disk. From a GPU the state is copied at once, and written while training goes on.

    Parameters
    ----------
    place : Place
        Locked for this training.
    training : Training
        Has not run yet; where the place has a checkpoint, it goes on from that.
    seconds : float
        After which an epoch under way is kept, too.

    Attributes
    ----------
    went_on : bool
        Whether there was a checkpoint.
    finished : bool
        Whether the last checkpoint is the training's end.

    Raises
    ------
    ValueError
        Something in the training cannot be kept, or the checkpoint cannot be read.
    OSError
        There is too little room for checkpoints.
    """

    def __init__(self, place: Place, training: Training, seconds: float) -> None:
        self.place, self.seconds, self.finished = place, seconds, False
        self._failed: Exception | None = None
        self._told: set[str] = set()
        self._writing: Thread | None = None
        self._journal = None if training.memory is None else training.memory.journal
        self.went_on = self.place.state.exists()
        if self.went_on:
            self._load(training)
        if self._journal is not None and self.finished:
            self._journal.close(self.place.folder)
        if self._journal is not None and not self.finished:
            self._journal.open(self.place.folder)
        if not self.went_on:
            self._check(training)
        self._written = perf_counter()

    def __call__(self, training: Training, after: str) -> None:
        """Keep the state of the training if it is time."""
        if self.finished or (after == AFTER_BATCH and not self._is_due(training)):
            return
        if after == AFTER_ALL:
            self._write(training, finished=True)
            self.close()
            self.finished = self._failed is None
            if self._journal is not None and self.finished:
                self._journal.close(self.place.folder)
            return
        self._write(training)
        if self._journal is not None and self._journal.is_full and self._failed is None:
            self._journal.merge()
            self._write(training)

    def _is_due(self, training: Training) -> bool:
        passed = perf_counter() - self._written
        is_urgent = training.is_signalled or (self._journal is not None and self._journal.is_full)
        return passed >= self.seconds or (is_urgent and (self._failed is None or passed >= RETRY))

    def _write(self, training: Training, *, finished: bool = False) -> None:
        self.close()
        held, tensors = self._flat(training, finished)
        about = {"finished": finished, "state": held, "on_device": _on_device(tensors)}
        if self._journal is not None and not finished:
            self._journal.flush()
        write = partial(self._write_file, tensors, about)
        if about["on_device"] and self._journal is None:
            tensors.update({name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()})
            self._writing = Thread(target=write)
            self._writing.start()
        else:
            write()
            if self._journal is not None:
                self._journal.kept(self._failed is None)
        if training.is_signalled:
            self.close()
        self._written = perf_counter()

    def _write_file(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        try:
            write_tensors(self.place.state, tensors, about)
            self.place.settle()
            self._failed = None
        except (OSError, ValueError, MemoryError) as error:
            self._failed = error

    def close(self) -> None:
        """Wait until the last checkpoint is written; warn where it could not be."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._failed is not None:
            why = getattr(self._failed, "strerror", None) or self._failed
            kept = "the one before is kept, and " if self.place.state.exists() else ""
            self._tell(f"a checkpoint could not be written ({why}): {kept}the training goes on")

    def _flat(self, training: Training, finished: bool = False) -> tuple[Any, dict[str, Tensor]]:
        """Take the training's state apart into JSON and tensors."""
        state, left_out = training.state_dict(), dict[str, str]()
        if finished:  # nobody goes on with what was for further steps
            state.pop("memory", None)
            if "selection" in state:
                state["selection"]["recorders"] = {}
        callbacks = state.pop("callbacks")
        kept: dict[str, Any] = {}
        for name, each in callbacks.items():
            try:
                flatten(each, RECORDS)
                kept[name] = each
            except TypeError as error:
                self._tell(
                    f"what callback {name!r} has learned cannot be kept ({error}): a training that goes on may end "
                    "with other bits"
                )
        held, tensors = flatten({**state, "callbacks": kept}, RECORDS, left_out)
        for path, what in left_out.items():
            if not path.startswith("history"):
                raise ValueError(f"checkpoint= cannot keep {what} in the training's {path}")
            self._tell(f"the history has {what}, which cannot be kept")
        return held, tensors

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            warnings.warn(f"checkpoint={str(self.place.folder.parent)!r}: {sentence}", stacklevel=2)

    def _load(self, training: Training) -> None:
        """Let the training go on from the checkpoint."""
        try:
            tensors, about = read_tensors(self.place.state)
        except ValueError as error:
            raise ValueError(f"{error}; delete its folder to train anew") from error
        try:
            device, self.finished = training.randomness.device, about["finished"]
            moved = {name: tensors[name].to(device) for name in about["on_device"]}
            state = unflatten(about["state"], {**tensors, **moved}, RECORDS)
            training.load_state_dict(state)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{str(self.place.state)!r} is no checkpoint of this training ({type(error).__name__}: {error}); "
                "delete its folder to train anew"
            ) from error

    def _check(self, training: Training) -> None:
        """Refuse, before any work, what cannot be kept, and a disk without room for two checkpoints."""
        _, tensors = self._flat(training)
        size = sum(tensor.nbytes for tensor in tensors.values())
        weights = sum(each.nbytes for each in weights_of(training.module).values() if isinstance(each, Tensor))
        # Optimisers begin without what they will hold, up to two numbers a weight; amid an epoch there are the weights
        # from before it, and until a checkpoint is written there is the one before.
        needed, free = 2 * (size + 4 * weights), free_bytes(self.place.folder)
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"checkpoint={str(self.place.folder.parent)!r} needs {needed:,} bytes for two checkpoints, and the "
                f"disk has {free:,} left",
            )


def _on_device(tensors: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if tensor.device.type != "cpu"]
