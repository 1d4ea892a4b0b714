"""What may be removed of a finished study."""

import json
import os
from pathlib import Path

import pytest

from posequant.base.errors import InputError
from posequant.workflow.prune import prune_crops, remove, require_finished


def at(path: Path, time: int) -> Path:
    path.touch()
    os.utime(path, (time, time))
    return path


def test_study_is_finished_once_its_page_is_newer_than_all_it_is_made_of(tmp_path: Path) -> None:
    metrics, page = [at(tmp_path / f"{row}.json", 10) for row in "ab"], tmp_path / "result.md"
    with pytest.raises(InputError, match=r"result\.md: not there yet: .* Nothing was removed\. .*snakemake -c all"):
        require_finished(page, metrics)
    require_finished(at(page, 10), metrics)
    at(metrics[1], 11)
    with pytest.raises(InputError, match=r"result\.md: older than .*b\.json: the study is not finished"):
        require_finished(page, metrics)
    metrics[1].unlink()
    with pytest.raises(InputError, match=r"b\.json: not there yet"):
        require_finished(page, metrics)


def test_crops_are_marked_as_not_kept_before_they_are_removed(tmp_path: Path) -> None:
    folder, without = tmp_path / "1-of-2", tmp_path / "2-of-2"
    for one in (folder, without):
        one.mkdir()
        (one / "crops.json").write_text(json.dumps({"people": 3, "kept": one == folder}))
    (folder / "crops.npy").write_bytes(b"12345")
    assert remove(prune_crops([folder, without])) == (1, 5)
    assert not (folder / "crops.npy").exists()
    assert json.loads((folder / "crops.json").read_text()) == {"people": 3, "kept": False}
    assert remove(prune_crops([folder, without])) == (0, 0)
