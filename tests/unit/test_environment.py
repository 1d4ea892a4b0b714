import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ENVS = ROOT / "envs"
PIN = re.compile(r"^([a-z0-9-]+)==([\w.+]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", flags=re.MULTILINE)
LOCKS = sorted(path.name for path in ENVS.glob("*.lock"))


def without_comments(name: str) -> str:
    return re.sub(r"^(#.*)?\n", "", (ENVS / name).read_text(), flags=re.MULTILINE)


def locked(name: str) -> dict[str, str]:
    """The releases in a lock by package, without the name of a build."""
    return {package: release.partition("+")[0] for package, release, _ in PIN.findall(without_comments(name))}


def named(*names: str) -> dict[str, str]:
    """The releases that the project names itself in the files `names`."""
    lines = [line for name in names for line in without_comments(name).splitlines()]
    pins = [line.split("==") for line in lines]
    return {re.sub(r"[-_.]+", "-", package).lower(): release for package, release in pins}


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_is_a_pin_or_a_hash(name: str) -> None:
    assert PIN.sub("", without_comments(name)) == ""
    assert locked(name)


@pytest.mark.parametrize("name", LOCKS)
def test_lock_keeps_every_pin_that_the_project_names(name: str) -> None:
    files = [name.replace(".lock", ".in")]
    if name == "requirements.lock":
        files.append("requirements-nodeps.in")
    assert named(*files).items() <= locked(name).items()


@pytest.mark.parametrize("name", LOCKS)
def test_lock_names_no_place_to_fetch_from(name: str) -> None:
    assert not re.search(r"https?:|file:|--(extra-)?index-url|--find-links", (ENVS / name).read_text())


def test_script_for_conda_installs_the_lines_of_the_lock() -> None:
    environment = yaml.safe_load((ENVS / "posequant.yaml").read_text())
    assert environment["dependencies"] == ["python=3.11", "pip", "c-compiler"]
    script = (ENVS / "posequant.post-deploy.sh").read_text()
    assert sorted(PIN.findall(script)) == sorted(PIN.findall(without_comments("requirements.lock")))


@pytest.mark.parametrize("package", sorted(locked("requirements.lock")))
def test_installed_package_is_the_locked_one(package: str) -> None:
    assert version(package).partition("+")[0] == locked("requirements.lock")[package]


def test_package_that_reports_use_is_not_installed() -> None:
    with pytest.raises(PackageNotFoundError):
        version("openvino-telemetry")


def test_changed_package_is_refused(tmp_path: Path) -> None:
    """A wheel whose hash is in the lock is installed; the same wheel with a byte more is not."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text('[project]\nname = "six"\nversion = "1.17.0"\n')
    pip = [sys.executable, "-m", "pip"]
    wheels = tmp_path / "wheels"
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    pin = re.search(r"^six==.*\n( .*\n)+", (ENVS / "requirements.lock").read_text(), flags=re.MULTILINE)
    assert pin is not None
    (tmp_path / "pin.txt").write_text(pin[0])
    install = [*pip, "install", "--no-deps", "--require-hashes", "--target", str(tmp_path / "installed"), "--no-index"]
    install += ["--find-links", str(wheels), "--requirement", str(tmp_path / "pin.txt")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment["PIP_CONFIG_FILE"] = os.devnull
    done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE" in done.stderr
    assert not (tmp_path / "installed").exists()
