"""Files of tensors: every tensor comes back as it was, and other programs read them too."""

import numpy as np
import pytest
import safetensors.torch
import torch

from sklearn_acs.saving.header import TYPES
from sklearn_acs.saving.tensor_file import AS_BYTES, is_dense, read_tensors, write_tensors

DTYPES = [*TYPES.values(), *AS_BYTES.values()]


def tensor_of(dtype, *shape):
    values = torch.randint(0, 120, shape, generator=torch.Generator().manual_seed(0))
    if str(dtype).startswith("torch.float8"):
        return values.to(torch.uint8).view(dtype)
    return values.to(torch.bool if dtype == torch.bool else dtype)


def bytes_of(tensor):
    return tensor.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8).tolist()


def back(tmp_path, tensors, about=None):
    write_tensors(tmp_path / "file", tensors, about)
    return read_tensors(tmp_path / "file")[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_shape_and_layout_come_back_as_they_were(tmp_path, dtype):
    x = tensor_of(dtype, 2, 3, 4, 5)
    given = {
        "whole": x,
        "scalar": x[0, 0, 0, 0],
        "empty": x[:0],
        "empty last": x[..., :0],
        "channels last": x.to(memory_format=torch.channels_last),
        "one channel": tensor_of(dtype, 4, 1, 3, 3).to(memory_format=torch.channels_last),
        "transposed": x.transpose(0, 3),
        "part": x[1],
        "../x": x[0],
    }
    found = back(tmp_path, given)
    assert found.keys() == given.keys()
    for name, tensor in given.items():
        assert (found[name].dtype, found[name].shape) == (dtype, tensor.shape)
        assert bytes_of(found[name]) == bytes_of(tensor)
        if tensor.numel():
            assert found[name].stride() == tensor.stride(), name
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_what_leaves_gaps_or_overlaps_comes_back_dense(tmp_path):
    x = torch.arange(24.0).reshape(4, 6)
    found = back(
        tmp_path,
        {
            "gaps": x[:, ::2],
            "expanded": torch.ones(1).expand(5),
            "conj": torch.view_as_complex(x.reshape(-1, 2)).conj(),
        },
    )
    assert torch.equal(found["gaps"], x[:, ::2])
    assert torch.equal(found["expanded"], torch.ones(5))
    assert found["conj"][1] == 2 - 3j
    assert all(tensor.is_contiguous() for tensor in found.values())


def test_one_tensor_of_several_names_is_written_once_and_is_one_again(tmp_path):
    x, one = torch.randn(1000), torch.nn.Parameter(torch.randn(1000))
    found = back(tmp_path, {"a": x, "b": x, "c": one, "d": one.detach(), "e": x.clone(), "f": x[:500]})
    assert found["a"] is found["b"]
    assert found["c"] is found["d"]
    assert found["e"] is not found["a"]
    assert torch.equal(found["f"], x[:500])
    assert (tmp_path / "file").stat().st_size < 4 * 3500 + 2000


def test_a_description_comes_back(tmp_path):
    about = {"list": [1, 2.5, None, True, -0.0], "text": 'ü\ud800"\\', "big": 10**50}
    write_tensors(tmp_path / "file", {}, about)
    tensors, found = read_tensors(tmp_path / "file")
    assert (tensors, repr(found)) == ({}, repr(about))


def test_the_reference_implementation_reads_the_same_values_aligned(tmp_path):
    given = {str(dtype): tensor_of(dtype, 3, 5) for dtype in (torch.bool, torch.int64, torch.bfloat16, torch.float32)}
    given["channels last"] = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    write_tensors(tmp_path / "file", given, {"what": "ever"})
    found = safetensors.torch.load_file(tmp_path / "file")
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in given.items())
    with safetensors.safe_open(tmp_path / "file", "np") as file:
        assert file.metadata()["about"] == '{"what":"ever"}'


def test_a_file_of_another_program_is_told_from_ours(tmp_path):
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "file")
    with pytest.raises(ValueError, match="no safetensors file with a description"):
        read_tensors(tmp_path / "file")
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "file", {"format": "pt"})
    with pytest.raises(ValueError, match="not written by this library"):
        read_tensors(tmp_path / "file")


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.empty(2, device="meta"), "meta"),
    ],
)  # fmt: skip
def test_what_has_no_plain_memory_is_refused_and_nothing_written(tmp_path, tensor, why):
    with pytest.raises(TypeError, match=rf"'x' .*{why}"):
        write_tensors(tmp_path / "file", {"x": tensor}, None)
    assert list(tmp_path.iterdir()) == []


def test_a_description_that_nobody_would_read_is_not_written(tmp_path):
    write_tensors(tmp_path / "file", {}, "the one before")
    for about in ([[]] * 300_000, "x" * 10_000_001):
        with pytest.raises(ValueError, match=r"holds more than|bytes"):
            write_tensors(tmp_path / "file", {}, about)
    assert read_tensors(tmp_path / "file")[1] == "the one before"


def test_there_is_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "file")
    with pytest.raises(IsADirectoryError):
        read_tensors(tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_dense_is_what_as_strided_fills(seed):
    random = np.random.default_rng(seed)
    shape, stride = random.integers(1, 4, 3), random.choice([0, 1, 2, 3, 4, 6, 9], 3)
    places = (np.indices(shape).reshape(3, -1) * stride[:, None]).sum(0)
    assert is_dense((*shape,), (*stride,)) == (sorted(places) == list(range(len(places))))
