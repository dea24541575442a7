"""Files appear whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from hwsearch.files import replace_file, write_text


def test_a_file_is_replaced_when_the_context_ends_well(tmp_path: Path):
    path = tmp_path / "deep" / "er" / "a.json"
    write_text(path, "old")
    with replace_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        # Beside it, since a rename across file systems is no rename.
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.json"]  # noqa: PTH208 - hidden files count too


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path, fault: type[BaseException]):
    path = tmp_path / "a.json"
    write_text(path, "old")

    def fail_half_way() -> None:
        with replace_file(path) as temporary:
            temporary.write_text("ha")
            raise fault

    with pytest.raises(fault):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_reaches_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, flushed = tmp_path / "a.json", []

    def fsync(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(path, "new")
    assert flushed == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_file_gets_the_permissions_of_any_new_file(tmp_path: Path):
    write_text(tmp_path / "ours", "")
    (tmp_path / "plain").write_text("")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")}
    assert len(modes) == 1
