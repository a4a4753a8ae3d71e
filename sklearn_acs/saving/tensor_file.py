"""Tensors and a description of them go into one safetensors file, and come back as they were."""

import os
from collections.abc import Mapping
from hashlib import blake2b
from itertools import accumulate, chain
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from sklearn_acs.saving.files import Content, write_file
from sklearn_acs.saving.header import MAX_HEADER, METADATA, TYPES, are_sizes, in_place, read_header
from sklearn_acs.saving.json_text import from_text, to_text

AS_BYTES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
    )
}
"""Types that safetensors, or versions of it, do not have: their bytes are a last axis, and their name is noted."""

NAMES = {dtype: name for name, dtype in TYPES.items()}


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, Tensor], about: Any) -> None:
    """Write tensors and a description into a safetensors file, at once.

    Parameters
    ----------
    path : str or Path
        The file; one that is there is replaced when the new one is whole.
    tensors : mapping of str to Tensor
        Dense tensors of any type and shape, on any device. Those that are the same place in memory are written once.
    about : dict, list, str, int, float, bool or None
        What JSON holds, without NaN and infinity.

    Raises
    ------
    TypeError
        A tensor is sparse, quantised, or on no device.
    ValueError
        The description is larger than `read_tensors` would read.
    OSError
        The file cannot be written.

    Notes
    -----
    1. safetensors itself knows values in the order of their indices alone. How they lay in memory (channels last), who
       is the same as whom (tied weights) and a checksum stand beside the description, in the header's metadata.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> from sklearn_acs.saving.tensor_file import read_tensors, write_tensors
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ones.safetensors"
    ...     write_tensors(path, {"ones": torch.ones(2)}, {"epoch": 3})
    ...     read_tensors(path)
    ({'ones': tensor([1., 1.])}, {'epoch': 3})
    """
    stored: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    strides: dict[str, list[int]] = {}
    types: dict[str, str] = {}
    places: dict[tuple, str] = {}
    for name, tensor in tensors.items():
        place = _place(name, tensor)
        if tensor.numel() and place in places:
            same[name] = places[place]
            continue
        places[place] = name
        if tensor.stride() != _strides(tensor.shape) and is_dense(tensor.shape, tensor.stride()):
            strides[name] = list(tensor.stride())
        if tensor.dtype not in NAMES:
            types[name] = str(tensor.dtype).removeprefix("torch.")
        stored[name] = _plain(tensor)

    order = sorted(stored, key=lambda name: -stored[name].itemsize)  # so that each stands at a multiple of its size
    ends = dict(zip(order, accumulate(stored[name].nbytes for name in order), strict=True))
    entries = {
        name: {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [ends[name] - tensor.nbytes, ends[name]],
        }
        for name, tensor in stored.items()
    }
    layout = to_text({"same": same, "strides": strides, "types": types})
    metadata = {"about": to_text(about), "layout": layout}
    digest = _digest(metadata, entries)
    for name in order:
        digest.update(_bytes(stored[name]))
    header = to_text({METADATA: {**metadata, "blake2b": digest.hexdigest()}, **entries})
    header += " " * (-len(header) % 8)
    if len(header) > MAX_HEADER:
        raise ValueError(f"the description takes {len(header):,} bytes, more than the {MAX_HEADER:,} of a header")
    from_text(header, "what is to be written")  # or nobody could read it
    head: list[Content] = [len(header).to_bytes(8, "little"), header.encode()]
    write_file(Path(path), chain(head, (_bytes(stored[name]) for name in order)))


def read_tensors(path: str | os.PathLike, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], Any]:
    """Read what `write_tensors` has written; nothing in the file is run.

    Memory is taken for what is in the file alone, after its header has been checked.

    Parameters
    ----------
    path : str or Path
        The file.
    device : str or torch.device, default="cpu"
        Where the tensors go.

    Returns
    -------
    tensors : dict of str to Tensor
        In the layout that they had; names of the same tensor have one.
    about : dict, list, str, int, float, bool or None
        The description.

    Raises
    ------
    OSError
        There is no such file, or it cannot be read.
    ValueError
        It is something else, cut short, or altered.
    """
    try:
        with Path(path).open("rb") as file:
            return _read(file, torch.device(device))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r} cannot be read: {error}") from error


def _read(file: IO[bytes], device: torch.device) -> tuple[dict[str, Tensor], Any]:
    entries, metadata = read_header(file)
    try:
        about, checksum = from_text(metadata["about"], "its description"), metadata.pop("blake2b")
        layout = from_text(metadata["layout"], "its layout")
        same, strides, types = layout["same"], layout["strides"], layout["types"]
    except (KeyError, TypeError) as error:
        raise ValueError("it has tensors, but was not written by this library") from error
    stored, digest = {}, _digest(metadata, entries)
    for name, entry in in_place(entries):
        tensor = torch.empty(entry["shape"], dtype=TYPES[entry["dtype"]])
        content = _bytes(tensor)
        if file.readinto(content) != len(content):  # type: ignore[attr-defined]
            raise ValueError("it is cut short")
        digest.update(content)
        if tensor.dtype == torch.bool and (tensor.view(torch.uint8) > 1).any():
            raise ValueError(f"{name!r} has values that are neither true nor false")
        stored[name] = tensor
    if digest.hexdigest() != checksum:
        raise ValueError("it was altered after it was written: its checksum is another one")
    try:
        for name, dtype in types.items():
            stored[name] = stored[name].view(AS_BYTES[dtype]).squeeze(-1)
        for name, stride in strides.items():
            stored[name] = _laid_out(stored[name], stride)
        found = {name: tensor.to(device) for name, tensor in stored.items()}
        return found | {name: found[other] for name, other in same.items()}, about
    except (AttributeError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"its layout is none of its tensors: {error}") from error


def _digest(metadata: Mapping[str, str], entries: Mapping[str, Any]) -> Any:
    """Begin a checksum with all that the header says."""
    return blake2b(to_text([metadata["about"], metadata["layout"], entries]).encode(), digest_size=32)


def _place(name: str, tensor: Tensor) -> tuple:
    """Tell where a tensor is in memory, and how."""
    if name == METADATA:
        raise ValueError(f"a tensor cannot be called {METADATA!r}")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise TypeError(f"tensor {name!r} has no plain memory: it is sparse, quantised or on the meta device")
    if tensor.dtype not in NAMES and tensor.dtype not in AS_BYTES.values():
        raise TypeError(f"tensor {name!r} is of {tensor.dtype}, which cannot be written")
    flags = tensor.dtype, tensor.is_conj(), tensor.is_neg()
    return str(tensor.device), tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), flags


def _plain(tensor: Tensor) -> Tensor:
    """Give a tensor on the CPU whose values stand in the order of their indices, of a type that safetensors has."""
    tensor = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return tensor if tensor.dtype in NAMES else tensor[..., None].view(torch.uint8)


def _bytes(tensor: Tensor) -> memoryview:
    """Show the memory of a contiguous tensor."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()


def is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Tell whether values fill their memory without gaps, each in a place of its own."""
    expected = 1
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size != 1):
        if step != expected:
            return False
        expected *= size
    return True


def _laid_out(tensor: Tensor, stride: Any) -> Tensor:
    """Copy a tensor into another layout."""
    if not are_sizes(stride) or len(stride) != tensor.ndim or not is_dense(tuple(tensor.shape), tuple(stride)):
        raise TypeError(f"strides {stride} leave gaps, or overlap")
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)
