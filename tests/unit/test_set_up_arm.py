"""`make arm` without a network: what it takes from the lock, and what it says is missing."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def set_up_arm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("set_up_arm", ROOT / "envs/set_up_arm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_wheels_are_those_of_the_lock_with_their_hashes(set_up_arm: ModuleType) -> None:
    lines = set_up_arm.locked(ROOT / "envs/requirements.lock").splitlines()
    named = [line.partition("==")[0] for line in lines if not line.startswith(" ")]
    assert named == ["ncnn", "numpy"]
    hashes = [line for line in lines if line.startswith(" ")]
    assert all(line.strip().startswith("--hash=sha256:") for line in hashes)
    # Each has a wheel for this processor and one for ARM, at least.
    assert len(hashes) >= 4


def test_missing_programs_and_keys_are_named(
    set_up_arm: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(set_up_arm, "KEYRING", tmp_path / "keyring.gpg")
    faults = "\n".join(set_up_arm.missing())
    assert "missing: apt-get, dpkg-deb, tar; Debian and Ubuntu have it" in faults
    assert f"{tmp_path / 'keyring.gpg'} is missing: install debian-archive-keyring" in faults


def test_a_program_that_fails_ends_it_with_its_last_words(set_up_arm: ModuleType) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('E: no such release')"]
    with pytest.raises(SystemExit, match=r"E: no such release\nerror: python.* failed\. Run it again: it goes on"):
        set_up_arm.run(command)


def test_what_is_there_is_not_made_again(
    set_up_arm: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, folder = tmp_path / "requirements.lock", tmp_path / ".arm"
    lock.write_text("numpy==1 \\\n    --hash=sha256:0\n")
    folder.mkdir()
    monkeypatch.setattr(sys, "argv", ["set_up_arm.py", "--lock", str(lock), "--out", str(folder)])
    made_by = set_up_arm.made_by(set_up_arm.locked(lock))
    (folder / "setup.json").write_text(json.dumps({"made_by": made_by}))
    set_up_arm.main()
    assert "is set up already" in capsys.readouterr().out
    assert not folder.with_name(".arm-part").exists()


def test_a_folder_of_somebody_else_is_left_alone(
    set_up_arm: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    lock = str(ROOT / "envs/requirements.lock")
    monkeypatch.setattr(sys, "argv", ["set_up_arm.py", "--lock", lock, "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="is there already, and not of this script"):
        set_up_arm.main()
    assert (tmp_path / "mine.txt").read_text() == "mine"
