"""Headers from anyone: whatever they say, no more is read and no more memory taken than the file has."""

import json
import tracemalloc

import pytest
import torch

from sklearn_acs.saving.tensor_file import read_tensors, write_tensors

METADATA = {"about": "null", "layout": '{"same":{},"strides":{},"types":{}}', "blake2b": "0" * 64}


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def file_of(header, data=b"\0" * 16, length=None):
    """Make the bytes of a file of any header, whose length may be told wrongly."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensors(**entries):
    return file_of({"__metadata__": METADATA, **entries})


HOSTILE = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "no header": b"\0" * 8,
    "a header as long as anything": file_of(b"{}", length=2**63),
    "a header longer than the file": file_of(b"{}", length=100),
    "no text": file_of(b"\xff\xfe"),
    "no object": file_of(b"[]"),
    "no metadata": file_of({"x": entry([4], 0, 16)}),
    "metadata that is no text": file_of({"__metadata__": {"about": {}}}),
    "metadata that is a list": file_of({"__metadata__": []}),
    "nested a million times": file_of(b"[" * 1_000_000),
    "a million empty things": file_of(b'{"__metadata__":{},"x":[' + b"{}," * 1_000_000 + b"0]}"),
    "the same name twice": file_of(b'{"__metadata__":{},"x":1,"x":2}'),
    "a shape without bytes": tensors(x=entry([2**40], 0, 16)),
    "a shape beyond all numbers": tensors(x=entry([2**61, 2**61, 0], 0, 16)),
    "an empty shape beyond all numbers": tensors(x=entry([2**61, 2**61, 0], 0, 0), y=entry([4], 0, 16)),
    "a negative shape": tensors(x=entry([-4], 0, 16)),
    "a shape of floats": tensors(x=entry([4.0], 0, 16)),
    "a shape of bools": tensors(x=entry([True, 4], 0, 16)),
    "a shape of 100 axes": tensors(x=entry([1] * 99 + [4], 0, 16)),
    "an unknown type": tensors(x=entry([4], 0, 16, "os.system")),
    "a type that is none": tensors(x=entry([4], 0, 16, [])),
    "offsets that overlap": tensors(x=entry([4], 0, 16), y=entry([2], 8, 16)),
    "offsets that leave a gap": tensors(x=entry([2], 8, 16)),
    "offsets backwards": tensors(x=entry([4], 16, 0)),
    "offsets beyond the end": tensors(x=entry([8], 0, 32)),
    "bytes that nobody has": tensors(x=entry([2], 0, 8)),
    "three offsets": tensors(x={**entry([4], 0, 16), "data_offsets": [0, 16, 16]}),
    "an entry of more": tensors(x={**entry([4], 0, 16), "code": "os.system('')"}),
    "an entry that is none": tensors(x=3),
    "another checksum": tensors(x=entry([4], 0, 16)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_none_is_a_value_error_and_takes_no_memory(tmp_path, name):
    (tmp_path / "file").write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"'.*file' cannot be read: "):
            read_tensors(tmp_path / "file")
        assert tracemalloc.get_traced_memory()[1] < 100e6 + len(HOSTILE[name])
    finally:
        tracemalloc.stop()


LAYOUTS = [
    {"strides": {"x": [2**40, 1]}},
    {"strides": {"x": [0, 0]}},
    {"strides": {"x": [1]}},
    {"strides": {"y": [1, 2]}},
    {"strides": {"x": "ab"}},
    {"strides": []},
    {"types": {"x": "object"}},
    {"types": {"x": []}},
    {"types": {"x": "complex128"}},
    {"same": {"y": "z"}},
    {"same": 3},
]


@pytest.mark.parametrize("changed", LAYOUTS, ids=str)
def test_a_layout_that_fits_no_tensor_is_a_value_error(tmp_path, monkeypatch, changed):
    from sklearn_acs.saving import tensor_file

    def to_text(value):
        return text({**value, **changed} if isinstance(value, dict) and "strides" in value else value)

    text = tensor_file.to_text
    monkeypatch.setattr(tensor_file, "to_text", to_text)
    write_tensors(tmp_path / "file", {"x": torch.ones(2, 3)}, None)
    with pytest.raises(ValueError, match=r"cannot be read: (its layout is none|it has tensors)"):
        read_tensors(tmp_path / "file")


def test_a_bool_that_is_neither_is_a_value_error(tmp_path):
    write_tensors(tmp_path / "file", {"x": torch.tensor([2], dtype=torch.uint8).view(torch.bool)}, None)
    with pytest.raises(ValueError, match="neither true nor false"):
        read_tensors(tmp_path / "file")


def test_the_largest_header_takes_less_than_it_may(tmp_path):
    (tmp_path / "file").write_bytes(file_of({"__metadata__": {**METADATA, "about": "[" + "{}," * 199_000 + "0]"}}, b""))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="checksum"):
            read_tensors(tmp_path / "file")
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
