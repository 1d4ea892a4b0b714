import hashlib
import os
from pathlib import Path

import pytest

from posequant.base.command import command
from posequant.base.errors import InputError
from posequant.base.files import read_json, require_file, sha256, whole, write_json


def test_whole_replaces_a_file_only_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with whole(target) as draft:
        draft.write_text("first")
    with pytest.raises(RuntimeError), whole(target) as draft:
        draft.write_text("second")
        raise RuntimeError
    assert target.read_text() == "first"
    assert list(target.parent.iterdir()) == [target]


def test_whole_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for name in ("old", "new"):
        with whole(target) as draft:
            draft.mkdir()
            (draft / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["new"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done to the disk, in order."""
    done: list[str] = []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace

    def synced(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append(f"{path.name} -> {target.name}")
        return rename(path, target)

    def replaced(path: Path, target: Path) -> Path:
        done.append(f"{path.name} => {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(Path, "replace", replaced)
    return done


def test_whole_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, calls: list[str]) -> None:
    with whole(tmp_path / "file.txt") as draft:
        draft.write_text("content")
    assert calls == ["sync file.txt", "file.txt => file.txt", f"sync {tmp_path.name}"]


def test_whole_moves_an_old_folder_aside(tmp_path: Path, calls: list[str]) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    with whole(target) as draft:
        (draft / "inner").mkdir(parents=True)
        (draft / "inner/file.txt").write_text("new")
    written = ["sync file.txt", "sync inner", "sync folder"]
    assert calls == [*written, "folder -> replaced", "folder -> folder", f"sync {tmp_path.name}"]
    assert list(tmp_path.rglob("*")) == [target, target / "inner", target / "inner/file.txt"]


@pytest.mark.parametrize("fault", [OSError, KeyboardInterrupt])
def test_whole_puts_an_old_folder_back_where_the_new_one_cannot_take_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]
) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    rename = Path.rename

    def refused(path: Path, new: Path) -> Path:
        if path.parent.name.startswith(".folder") and path.name == "folder":
            raise fault("refused")
        return rename(path, new)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(fault, match="refused"), whole(target) as draft:
        draft.mkdir()
    assert list(tmp_path.rglob("*")) == [target, target / "old"]


def test_fault_of_a_draft_names_the_file_that_it_was_to_be(tmp_path: Path) -> None:
    target = tmp_path / "table.json"
    with pytest.raises(InputError) as caught, whole(target) as draft:
        draft.write_text("{")
        read_json(draft)
    assert str(caught.value).startswith(f"{target}: not valid JSON")


def test_draft_keeps_the_suffix(tmp_path: Path) -> None:
    with whole(tmp_path / "table.npz") as draft:
        assert draft.suffix == ".npz"
        draft.touch()


def test_sha256_reads_files_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes(b"a" * (1 << 20) + b"b")
    second.write_bytes(b"c")
    assert sha256(first, second) == hashlib.sha256(b"a" * (1 << 20) + b"bc").hexdigest()


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent: no such file\. Make it"):
        require_file(tmp_path / "absent", "Make it")
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="empty: the file is empty"):
        require_file(tmp_path / "empty")


def test_json_survives_and_broken_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"b": 1.5, "a": ["ü"]})
    assert read_json(path) == {"b": 1.5, "a": ["ü"]}
    path.write_text('{"b": ')
    with pytest.raises(InputError, match=r"record\.json: not valid JSON"):
        read_json(path)


def test_json_without_a_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "record.json", float("nan"))
    assert not (tmp_path / "record.json").exists()


def test_script_ends_with_the_message_of_an_input_error() -> None:
    @command
    def main() -> None:
        raise InputError("crops: none")

    with pytest.raises(SystemExit, match=r"^error: crops: none$"):
        main()
