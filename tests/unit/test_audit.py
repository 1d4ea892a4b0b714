"""`make audit` on packages whose files were changed, and on what pip-audit answers."""

import importlib.util
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "envs/audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def installed(tmp_path: Path) -> list[Distribution]:
    """A package of one module, as an installer leaves it."""
    (tmp_path / "thing.py").write_text("x = 1\n")
    folder = tmp_path / "thing-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    digest = "nia_NpkRxFwkPGhBR7I_yeHc_PJX0pmhxjIBam_NM_Q"
    (folder / "RECORD").write_text(f"thing.py,sha256={digest},6\nthing-1.0.dist-info/RECORD,,\n")
    return list(distributions(path=[str(tmp_path)]))


def test_untouched_files_are_good(audit: ModuleType, installed: list[Distribution]) -> None:
    assert list(audit.changed_files(installed)) == []


def test_changed_file_is_named(audit: ModuleType, installed: list[Distribution], tmp_path: Path) -> None:
    (tmp_path / "thing.py").write_text("x = 2\n")
    assert list(audit.changed_files(installed)) == [f"thing: {tmp_path / 'thing.py'} has changed"]


def test_missing_file_is_named(audit: ModuleType, installed: list[Distribution], tmp_path: Path) -> None:
    (tmp_path / "thing.py").unlink()
    assert list(audit.changed_files(installed)) == [f"thing: {tmp_path / 'thing.py'} is missing"]


def test_packages_beside_the_lock_are_named(audit: ModuleType, installed: list[Distribution], tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("other==2.0 \\\n    --hash=sha256:00\n")
    assert "thing 1.0 is installed, but in no lock" in list(audit.wrong_releases(installed, [lock]))
    lock.write_text("thing==1.1 \\\n    --hash=sha256:00\n")
    assert "thing 1.0 is installed, the lock has 1.1" in list(audit.wrong_releases(installed, [lock]))


def answering(folder: Path, answer: str) -> str:
    """A program that prints what pip-audit prints."""
    program = folder / "pip-audit"
    program.write_text(f"#!{sys.executable}\nprint({answer!r})\n")
    program.chmod(0o755)
    return str(program)


def test_vulnerability_is_named_and_packages_without_advisories_are_counted(audit: ModuleType, tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("thing==1.0\nother==2.0\ntorch==2.13.0+cpu\n")
    program = answering(
        tmp_path,
        '{"dependencies": [{"name": "thing", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]},'
        ' {"name": "other", "skip_reason": "not found"}, {"name": "torch", "version": "2.13.0", "vulns": []}]}',
    )
    assert audit.vulnerabilities(program, [lock]) == (["thing 1.0: CVE-1, mended by 1.1 (some.lock)"], 2)


def test_index_out_of_reach_checks_nothing(audit: ModuleType, tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("thing==1.0\n")
    assert audit.vulnerabilities(answering(tmp_path, ""), [lock]) == ([], 0)
