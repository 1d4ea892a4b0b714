"""The study of every top-down network of mmpose's model index on COCO."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.utils import update_config, validate

from posequant.base.model_index import find_network, networks
from posequant.survey.listing import surveyed
from posequant.workflow.study_config import validate_config
from posequant.workflow.yaml_files import check_yaml

ROOT = Path(__file__).parents[3]
FILE = ROOT / "studies" / "zoo.yaml"


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())["studies"]["zoo"]
    return content


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The configuration with the study, as a run with `study: zoo` has it."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(content, yaml.safe_load(FILE.read_text()))
    return content | {"study": "zoo"}


def test_models_are_the_top_down_networks_with_figures_on_coco(written: dict[str, Any]) -> None:
    wanted = [one.name for one in networks() if any(figures.dataset == "COCO" for figures in one.published)]
    assert list(written["models"].values()) == wanted


def test_models_are_named_as_the_index_names_them(written: dict[str, Any]) -> None:
    for name in written["models"].values():
        assert find_network(name).name == name


def test_study_is_valid_and_has_the_dataset_of_coco(config: dict[str, Any]) -> None:
    check_yaml(FILE)
    validate(config, ROOT / "rules" / "config.schema.json", set_default=False)
    validate_config(config)
    assert config["studies"]["zoo"]["dataset"] == config["studies"]["coco"]["dataset"]


def test_published_figures_are_of_the_protocol_of_the_study(config: dict[str, Any]) -> None:
    validate_config(config)
    study = config["studies"]["zoo"]
    run = [model for name, model in study["models"].items() if "all" not in study["left_out"].get(name, {})]
    assert len(run) == 131
    for model in run:
        (published,) = model["published"]
        assert published["protocol"] == study["protocol"], model["config"]


def test_what_the_survey_or_the_index_lacks_is_left_out(written: dict[str, Any]) -> None:
    states = surveyed((ROOT / "docs/models.md").read_text())
    for key, name in written["models"].items():
        network = find_network(name)
        stopped = states.get(name, "").startswith("stops") or network.config is None or network.checkpoint is None
        assert key in written["left_out"] or not stopped, name
