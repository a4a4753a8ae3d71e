"""Interrupts notes the signals that end a process, and lets a training end in order before they take effect."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


class Interrupts:
    """Notes that the user pressed Ctrl-C, or that the process is to terminate.

    It tells a user's Ctrl-C from a callback that raises KeyboardInterrupt to end a training.

    Attributes
    ----------
    pressed : bool
        Whether the process was sent SIGINT.
    terminated : bool
        Whether it was sent SIGTERM, which has not taken effect yet.
    held : bool
        Whether the first signal is only noted, so that what is under way ends in order; the next one is handed on.
    """

    def __init__(self) -> None:
        self.pressed = self.terminated = self.held = False
        self._before: dict[int, Any] = {}

    @property
    def noted(self) -> bool:
        """Whether a signal waits to take effect."""
        return self.pressed or self.terminated

    @contextmanager
    def noting(self, *, termination: bool = False) -> Iterator[None]:
        """Note SIGINT, and with `termination` SIGTERM too; whoever had them before gets them back in the end.

        In other threads than the main one, which alone gets signals, nothing is noted.
        """
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._note(signal.SIGINT, self._on_interrupt)
            if termination:
                self._note(signal.SIGTERM, self._on_termination)
        try:
            yield
        finally:
            for signum, before in self._before.items():
                signal.signal(signum, before)
            self._before = {}
            self.deliver(interrupt=False)

    def deliver(self, *, interrupt: bool = True) -> None:
        """Let a signal that was noted take its usual effect now."""
        if self.terminated:
            self.terminated = False
            self._hand_on(signal.SIGTERM)
        if interrupt and self.pressed:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let signals take effect at once inside, and one that was noted before."""
        held, self.held = self.held, False
        if held:
            self.deliver()
        try:
            yield
        finally:
            self.held = held

    def _note(self, signum: int, handler: Handler) -> None:
        before = signal.getsignal(signum)
        if callable(before) or (signum == signal.SIGTERM and before is not None):
            self._before[signum] = before
            signal.signal(signum, handler)

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        again, self.pressed = self.pressed, True
        if again or not self.held:
            self._before[signum](signum, frame)

    def _on_termination(self, signum: int, frame: FrameType | None) -> None:
        again, self.terminated = self.terminated, True
        if again or not self.held or os.getpid() != self._process:  # one that was forked has nothing to keep
            self.terminated = False
            self._hand_on(signum)

    def _hand_on(self, signum: int) -> None:
        """Send the signal once more, to whoever had it before; should that one go on, the next is noted again."""
        ours = signal.getsignal(signum)
        signal.signal(signum, self._before.get(signum, ours))
        try:
            signal.raise_signal(signum)
        finally:
            signal.signal(signum, ours)
