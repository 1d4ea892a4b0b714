"""What may be removed of a finished study."""

import json
from pathlib import Path

from posequant.workflow.prune import prune_crops, remove


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
