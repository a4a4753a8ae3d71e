"""Files are written whole or not at all."""

import os

import pytest

from sklearn_acs.saving import files
from sklearn_acs.saving.files import check_path, write_file


def test_a_file_is_written_and_written_anew_with_nothing_left_beside_it(tmp_path):
    path = check_path("path", tmp_path / ("ä" * 120))
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_where_the_renaming_fails_the_file_before_stays_alone(tmp_path, monkeypatch, error):
    path = tmp_path / "file"
    write_file(path, b"one")

    def fail(*places):
        raise error

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(type(error)):
        write_file(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_written_to(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_file(check_path("path", path), b"one")
    assert os.read(reader, 9) == b"one"
    os.close(reader)


def test_checking_a_path_leaves_nothing(tmp_path):
    check_path("path", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "why"), [("", "folder"), ("no/file", "does not exist"), ("a\0b", "null"), ("n" * 300, "long")]
)
def test_a_path_that_cannot_be_written_is_named(tmp_path, name, why):
    with pytest.raises((OSError, ValueError), match=rf"state_path=.* cannot be written: .*{why}"):
        check_path("state_path", os.path.join(tmp_path, name))


@pytest.mark.parametrize("path", [5, None, b"file"])
def test_what_is_no_path_is_refused_by_name(path):
    with pytest.raises(TypeError, match=r"state_path=.* must be a str or Path"):
        check_path("state_path", path)


def test_an_error_of_the_system_is_told_without_the_name_of_the_file_beside(tmp_path, monkeypatch):
    def refuse(*given):
        raise PermissionError(13, "Permission denied", "file.part")

    monkeypatch.setattr(files.Path, "touch", refuse)
    with pytest.raises(PermissionError, match=r"path=.*file' cannot be written: Permission denied$"):
        check_path("path", tmp_path / "file")
