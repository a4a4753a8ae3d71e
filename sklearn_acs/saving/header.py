"""The header of a safetensors file is read as one that may come from anyone: all is checked before memory is taken."""

import os
from collections.abc import Mapping
from math import prod
from typing import IO, Any

import torch

from sklearn_acs.saving.json_text import from_text

TYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
}
"""What safetensors calls the types of tensors."""

MAX_HEADER = 10_000_000
"""Bytes of a header at most."""

MAX_DIMS = 64

METADATA = "__metadata__"


def read_header(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read and check the header, up to where the tensors' bytes begin; give its entries and its metadata."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError("it is cut short, or no safetensors file")
    if length > MAX_HEADER:
        raise ValueError(f"its header takes {length:,} bytes; {MAX_HEADER:,} are the most")
    try:
        header = from_text(file.read(length).decode("ascii"), "its header")
    except UnicodeDecodeError as error:
        raise ValueError("it is no safetensors file") from error
    if not isinstance(header, dict) or not isinstance(header.get(METADATA), dict):
        raise ValueError("it is no safetensors file with a description")
    metadata = header.pop(METADATA)
    if not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its description is no text")
    for name, entry in header.items():
        _check_entry(name, entry)
    end = 0
    for name, entry in in_place(header):
        if entry["data_offsets"][0] != end:
            raise ValueError(f"the bytes of {name!r} do not begin where those before it end")
        end = entry["data_offsets"][1]
    if end != size - 8 - length:
        raise ValueError(f"its tensors have {end:,} bytes, and {size - 8 - length:,} are there: it is cut or altered")
    return header, metadata


def in_place(entries: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List a header's entries in the order of their bytes."""
    return sorted(entries.items(), key=lambda each: each[1]["data_offsets"])


def _check_entry(name: str, entry: Any) -> None:
    """Refuse a tensor whose shape and type do not make as many bytes as it says."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the header says of {name!r} what belongs to no tensor")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in TYPES:
        raise ValueError(f"{name!r} has the type {str(dtype)[:50]!r}; the known types are {list(TYPES)}")
    if not (are_sizes(shape) and len(shape) <= MAX_DIMS and are_sizes(offsets) and len(offsets) == 2):
        raise ValueError(f"{name!r} has a shape or a place that is none")
    if prod(max(size, 1) for size in shape) >= 2**62:
        raise ValueError(f"{name!r} has a shape that is too large")
    if prod(shape) * TYPES[dtype].itemsize != offsets[1] - offsets[0]:
        raise ValueError(f"{name!r} has {offsets[1] - offsets[0]} bytes, which do not fit its shape and type")


def are_sizes(value: Any) -> bool:
    """Tell whether something is a list of ints that sizes can be."""
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**62 for each in value)
