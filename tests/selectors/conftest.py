"""The tests of selectors share these fixtures."""

from contextlib import contextmanager

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")
"""Operations whose result the CPU has to wait for: numbers, and shapes that depend on the data."""


class _Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype.itemsize == 1 for i in args[1])
        if name.startswith(READS) or by_mask:
            self.seen.append(name)
        return func(*args, **kwargs or {})


@pytest.fixture
def reads():
    """Give a context that lists, on the CPU, the operations that would read from a GPU."""

    @contextmanager
    def watch():
        with _Watch() as mode:
            yield mode.seen

    return watch
