"""Tells a user's Ctrl-C from a callback that raises KeyboardInterrupt to end a training."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noting_interrupts(pressed: threading.Event, held: threading.Event) -> Iterator[None]:
    """Set `pressed` where the process is sent SIGINT, and hand the signal on to whoever had it before.

    While `held` is set the first signal is only noted, so that what is under way ends in order; the next one is handed
    on. In other threads than the main one, which alone gets signals, nothing is noted.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        again = pressed.is_set()
        pressed.set()
        if again or not held.is_set():
            before(signum, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
