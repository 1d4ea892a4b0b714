"""Files that no rule makes any more."""

import re
from pathlib import Path

from posequant.workflow.leftovers import describe_leftovers, leftovers, notices

KNOWN = [re.compile(pattern) for pattern in (r".*/metrics\.json", r".*/dataset/train", r".*/evaluate\.log")]


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_what_no_pattern_knows_is_found_and_named_by_its_kind(tmp_path: Path) -> None:
    make(tmp_path, "a/metrics.json", "a/cost.json", "b/cost.json", "dataset/train/1.png", "b/.x.123/half", "old.md")
    found = [str(path.relative_to(tmp_path)) for path in leftovers(tmp_path, KNOWN)]
    assert found == ["a/cost.json", "b/cost.json", "old.md"]
    said = describe_leftovers(tmp_path, KNOWN)
    assert "cost.json (2), old.md." in said
    assert str(tmp_path) in said


def test_many_kinds_are_counted(tmp_path: Path) -> None:
    make(tmp_path, *(f"{number}.old" for number in range(20)))
    assert "and 8 more names" in describe_leftovers(tmp_path, KNOWN)


def test_nothing_is_said_of_a_folder_that_is_clean_or_missing(tmp_path: Path) -> None:
    make(tmp_path, "a/metrics.json", "a/evaluate.log")
    assert describe_leftovers(tmp_path, KNOWN) == ""
    assert describe_leftovers(tmp_path / "none", KNOWN) == ""


def test_folders_of_other_studies_are_not_looked_into(tmp_path: Path) -> None:
    make(tmp_path, "README.md", "result.svg", "demo/cost.json", "demo/metrics.json", "elsewhere/odd.json")
    known = [re.compile(r".*/metrics\.json")]
    top, demo = notices(tmp_path, ["demo", "not-run-yet"], known)
    assert "result.svg" in top
    assert "README" not in top
    assert "cost.json" in demo
    assert "odd.json" not in top + demo
