"""Tells a user's Ctrl-C from a callback that raises KeyboardInterrupt to end a training."""

import signal
import threading
from types import FrameType
from typing import Any, Self


class Interrupts:
    """Notes in its context whether the process was sent SIGINT, and hands the signal on to whoever had it before.

    In other threads than the main one, which alone gets signals, nothing is noted.
    """

    def __init__(self) -> None:
        self.seen = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(self._before):
            self._before = None
        else:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.seen = True
        self._before(signum, frame)
