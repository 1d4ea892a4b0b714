import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ENVS = Path(__file__).parents[2] / "envs"
PIN = re.compile(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+")


def pins(name: str) -> set[str]:
    lines = (ENVS / name).read_text().splitlines()
    found = {line for line in lines if line and not line.startswith("#")}
    assert all(PIN.fullmatch(line) for line in found), f"{name} has a line that is no pin"
    return found


def test_lock_keeps_every_pin_that_the_project_names() -> None:
    assert pins("requirements.in") | pins("requirements-nodeps.in") <= pins("requirements.lock")


def test_conda_files_name_the_pins_of_the_lock() -> None:
    environment = yaml.safe_load((ENVS / "posequant.yaml").read_text())
    (by_pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    in_environment = {line for line in by_pip if not line.startswith("--")}
    after_it = set(PIN.findall((ENVS / "posequant.post-deploy.sh").read_text()))
    assert in_environment.isdisjoint(after_it)
    assert in_environment | after_it == pins("requirements.lock")
    assert after_it == pins("requirements-nodeps.in")
    assert "python=3.11" in environment["dependencies"]


@pytest.mark.parametrize("pin", sorted(pins("requirements.lock")))
def test_installed_package_is_the_locked_one(pin: str) -> None:
    name, locked = pin.split("==")
    assert version(name).partition("+")[0] == locked
