"""Settings apart from config.yaml: what is made of them for editors, readers, scripts and Python."""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from posequant.base.errors import InputError
from posequant.workflow.settings.base import Settings, add_options, checked_json, chosen
from posequant.workflow.settings.certify import Sampling
from posequant.workflow.settings.demo import Synthetic
from posequant.workflow.settings.export import CropAndCodec, Export
from posequant.workflow.settings.recipe import ActivationsStep, Curve, Recipe, WeightsStep
from posequant.workflow.settings.reference import json_schema, page, schema_text

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "rules" / "config.schema.json"
STEPS: list[dict[str, dict[str, Any]]] = [{"weights": {"bits": 6}}, {"activations": {"method": "kl"}}]


# For editors and readers


def test_schema_for_editors_is_what_the_settings_make() -> None:
    assert SCHEMA.read_text() == schema_text(), "out of date; run `make schema`"


def test_description_of_the_keys_is_what_the_settings_make() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == page(), "out of date; run `make schema`"


def test_schema_takes_the_shipped_config_and_refuses_faults() -> None:
    config: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    validate(config, SCHEMA, set_default=False)
    for path, value in (
        ("studies.demo.protocol", {"flip_tset": True}),
        ("variants.onnx", {"backend": "ncnn", "precision": "fp32"}),
        ("variants.Mine", {"backend": "ncnn", "precision": "fp32"}),
        ("variants.pytorch.precision", "int8"),
        ("variants.ncnn.precision", "int8"),
        ("variants.ncnn.calibration", "kl"),
        ("recipes.mine", [{"weights": {}, "round": {}}]),
        ("recipes.mine", [{"budget": {}}]),
        ("recipes.mine", [{"round": None}]),
        ("studies.demo.variants", ["ncnn", "ncnn"]),
        ("studies.demo.certificate", {"confidence": 1}),
    ):
        broken = copy.deepcopy(config)
        *parents, last = path.split(".")
        place = broken
        for step in parents:
            place = place[step]
        place[last] = value
        with pytest.raises(WorkflowError):
            validate(broken, SCHEMA, set_default=False)


def test_every_key_is_described() -> None:
    schema = json_schema()
    undescribed = [
        f"{name}.{key}"
        for name, part in {"config": schema, **schema["$defs"]}.items()
        for key, value in part.get("properties", {}).items()
        if "description" not in value and "description" not in schema["$defs"][value["$ref"].rpartition("/")[2]]
    ]
    assert undescribed == []


def test_page_has_a_key_with_its_range_default_unit_and_meaning() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page().splitlines() if line.startswith("|")]
    assert ["`resamples`", "whole number, 100 or more", "`2000`", "How many times the images are drawn."] in rows
    assert [
        "`input_size`",
        "list of 2: whole number, 1 or more (pixels)",
        "required",
        "Width and height of the crop.",
    ] in rows


# For Python


def test_settings_that_are_left_out_have_their_defaults() -> None:
    assert (WeightsStep().bits, WeightsStep(bits=6).scales) == (8, "absmax")
    assert ActivationsStep(method="kl").crops == 64


def test_recipe_is_filled_with_defaults() -> None:
    recipe = Recipe.of([*STEPS, {"budget": {"oks_loss": 0.01}}])
    assert recipe.filled() == [
        {"weights": {"bits": 6, "scales": "absmax"}},
        {"activations": {"method": "kl", "share": 0.9999, "crops": 64}},
        {"budget": {"oks_loss": 0.01, "crops": 64}},
    ]
    assert Recipe.of(recipe.filled()) == recipe
    assert recipe.budget is not None
    assert Recipe.of(STEPS).budget is None


def test_faults_of_a_recipe_are_named() -> None:
    with pytest.raises(InputError) as fault:
        Recipe.of([{"weights": {"bit": 6}}, {"activation": {}}])
    assert str(fault.value).splitlines() == [
        "the recipe is not valid:",
        "  - recipe.0.weights: unknown key 'bit'; did you mean 'bits'?",
        "  - recipe.1: unknown key 'activation'; did you mean 'activations'?",
    ]
    with pytest.raises(InputError, match=r"recipe: no step 'activations', which chooses scales"):
        Recipe.of(STEPS[:1])


# For scripts


def parse(kind: type[Settings], *given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser, kind)
    return parser.parse_args(given)


def test_options_have_the_defaults_of_the_settings() -> None:
    for kind in (Sampling, Export, Curve):
        assert chosen(kind, parse(kind)) == kind()


def test_options_are_taken_by_their_types() -> None:
    assert chosen(Sampling, parse(Sampling, "--resamples", "100", "--confidence", "0.5")) == Sampling(
        resamples=100, confidence=0.5
    )
    given = parse(Export, "--precision", "FP16", "--opset", "12")
    assert chosen(Export, given) == Export(precision="FP16", opset=12)
    assert chosen(Curve, parse(Curve, "--people", "8", "16")).people == [8, 16]


def test_option_out_of_range_is_named() -> None:
    with pytest.raises(InputError, match=r"--resamples: 5 is less than the minimum of 100"):
        chosen(Sampling, parse(Sampling, "--resamples", "5"))
    with pytest.raises(InputError, match="--train-images: 0 is less than the minimum of 1"):
        chosen(Synthetic, parse(Synthetic, "--train-images", "0"))


def test_json_of_an_option_is_checked() -> None:
    given = {"input_size": [6, 8], "mean": [0.5], "std": [1, 0, 1], "padding": 1}
    with pytest.raises(InputError) as fault:
        checked_json(CropAndCodec, json.dumps(given), option="--onnx-settings")
    assert str(fault.value).splitlines() == [
        "--onnx-settings is not valid:",
        "  - --onnx-settings.mean: entry 2 is missing",
        "  - --onnx-settings.mean: entry 3 is missing",
        "  - --onnx-settings.std.1: 0 is not greater than 0",
        "  - --onnx-settings: key 'codec' is missing",
    ]
    with pytest.raises(InputError, match=r"--onnx-settings: not valid JSON \(Expecting value"):
        checked_json(CropAndCodec, "", option="--onnx-settings")


def test_setting_without_default_is_a_required_option(capsys: pytest.CaptureFixture[str]) -> None:
    class Needed(Settings):
        method: str = Field(description="How 5% are taken.")

    with pytest.raises(SystemExit):
        parse(Needed)
    assert "required: --method" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(Needed, "--help")
    assert "how 5% are taken" in capsys.readouterr().out
