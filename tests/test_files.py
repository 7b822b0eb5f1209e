"""Files that are whole or not there."""

import resource
import signal

import pyarrow
import pyarrow.parquet
import pytest

from reckon.errors import RunError
from reckon.files import write_file, write_table


@pytest.fixture
def no_room():
    """The system refuses files over 1 kB, as a full disk would any."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_file_is_written_into_a_folder_that_is_not_there_yet(tmp_path):
    path = tmp_path / "new" / "file"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert [place.name for place in path.parent.iterdir()] == ["file"]


def test_without_room_the_old_file_stays_and_nothing_is_left_behind(tmp_path, no_room):
    path = tmp_path / "file"
    write_file(path, b"old")
    with pytest.raises(RunError, match=r"No room left to write .*/file \(File too large\)\. Free some space, then"):
        write_file(path, bytes(2000))
    assert path.read_bytes() == b"old"
    assert [place.name for place in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file/x could not be written \(.*\)\. Mend that, then resume or start again"):
        write_file(tmp_path / "file" / "x", b"")


def test_a_table_comes_back(tmp_path):
    table = pyarrow.table({"n": [1, None], "text": ["a", "é"]}).replace_schema_metadata({b"about": b"it"})
    write_table(tmp_path / "t.parquet", table)
    assert pyarrow.parquet.read_table(tmp_path / "t.parquet").equals(table, check_metadata=True)
