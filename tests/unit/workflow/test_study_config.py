import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from posequant.base.errors import InputError
from posequant.workflow.study_config import validate_config

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "rules" / "config.schema.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    return content


def onnx_study() -> dict[str, Any]:
    return {
        "dataset": {
            "train": {"images": "train", "annotations": "train.json"},
            "val": {"images": "val", "annotations": "val.json"},
        },
        "models": {
            "mine": {
                "source": "onnx",
                "onnx": "mine.onnx",
                "input_size": [192, 256],
                "mean": [0, 0, 0],
                "std": [1, 1, 1],
                "codec": {"type": "MSRAHeatmap"},
            }
        },
        "variants": ["onnxruntime", "ncnn-int8"],
    }


def test_shipped_config_is_valid(config: dict[str, Any]) -> None:
    validate_config(config, SCHEMA)


def test_defaults_are_filled_at_every_depth(config: dict[str, Any]) -> None:
    config["studies"]["mine"] = onnx_study()
    validate_config(config, SCHEMA)
    study = config["studies"]["mine"]
    assert study["protocol"] == {"boxes": "ground-truth", "flip_test": False}
    assert study["calibration"] == {"people": 128, "seed": 0}
    assert study["models"]["mine"]["padding"] == 1.25
    assert config["tools"] == {"ncnn2table": "auto", "ncnn2int8": "auto"}


def test_defaults_do_not_share_one_object(config: dict[str, Any]) -> None:
    config["studies"]["mine"] = onnx_study()
    validate_config(config, SCHEMA)
    config["studies"]["mine"]["protocol"]["flip_test"] = True
    assert config["studies"]["demo"]["protocol"]["flip_test"] is False


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("studdy", "demo", "config: unknown key 'studdy'; did you mean 'study'?"),
        ("studies.demo.protocl", {}, "studies.demo: unknown key 'protocl'; did you mean 'protocol'?"),
        (
            "studies.demo.models.hourglass_demo.chekpoint",
            "x",
            "studies.demo.models.hourglass_demo: unknown key 'chekpoint'; did you mean 'checkpoint'?",
        ),
        ("studies.demo.dataset.synthetic.seeed", 1, "unknown key 'seeed'; did you mean 'seed'?"),
        ("studies.mine.models.mine.stdd", [1, 1, 1], "unknown key 'stdd'; did you mean 'std'?"),
        ("variants.ncnn-int8.calibration", "kll", "there is no recipe 'kll'; did you mean 'kl'?"),
        ("variants.ncnn-int8.calibration", "tunned", "there is no recipe 'tunned'; did you mean 'tuned'?"),
        (
            "recipes.mine",
            [{"weights": {}}, {"round": {"crop": 8}}],
            "recipes.mine.1.round: unknown key 'crop'; did you mean 'crops'?",
        ),
        (
            "recipes.mine",
            [{"weights": {}}, {"rounds": {}}],
            "recipes.mine.1: unknown key 'rounds'; did you mean 'round'?",
        ),
        ("recipes.kl", [{"weights": {}}, {"round": {}}], "'kl' is not allowed here"),
        (
            "recipes.mine",
            [{"round": {}}, {"weights": {}}, {"activations": {"method": "kl"}}],
            "recipes.mine: 'round' must come after 'weights'",
        ),
        (
            "recipes.mine",
            [{"activations": {"method": "mse"}}, {"weights": {}}],
            "recipes.mine: 'activations' must come after 'weights'",
        ),
        (
            "recipes.mine",
            [{"weights": {}}, {"equalize": {}}, {"activations": {"method": "kl"}}],
            "recipes.mine: 'equalize' must come before 'weights' and 'activations'",
        ),
        ("recipes.mine", [{"weights": {}}, {"round": {}}], "recipes.mine: no step 'activations', which chooses scales"),
        (
            "recipes.mine",
            [{"weights": {}}, {"activations": {"method": "kl"}}, {"budget": {}}],
            "recipes.mine.2.budget: give exactly one of 'oks_loss', 'ap_loss'",
        ),
        (
            "recipes.mine",
            [{"weights": {}}, {"activations": {"method": "kl"}}, {"budget": {"oks_loss": 0.1, "ap_loss": 0.1}}],
            "recipes.mine.2.budget: give exactly one of 'oks_loss', 'ap_loss'",
        ),
        (
            "recipes.mine",
            [{"weights": {}}, {"activations": {"method": "kl"}}, {"budget": {"oks_loss": 0.1}}, {"round": {}}],
            "recipes.mine: 'budget' must be the last step",
        ),
        ("variants.ncnn.calibration", "kl", "variants.ncnn: key 'calibration' does not belong here"),
        ("variants.ncnn.precision", "int8", "'calibration' is a required property"),
        ("variants.openvino-int8.calibration", "kl", "variants.openvino-int8: key 'calibration' does not belong here"),
        ("variants.pytorch.precision", "int8", "'pytorch' is not one of ['onnxruntime', 'openvino', 'ncnn']"),
        ("variants.openvino.precision", "fp16", "variants.openvino.backend: 'ncnn' was expected"),
        ("studies.demo.calibration", {"people": 0}, "studies.demo.calibration.people: 0 is less than the minimum of 1"),
        ("study", "demmo", "study: there is no study 'demmo'; did you mean 'demo'?"),
        ("studies.demo.variants", ["ncnn-int9"], "no variant 'ncnn-int9'; did you mean 'ncnn-int8'?"),
        ("studies.demo.protocol", {"boxes": "detections"}, "needs the file studies.demo.dataset.detections"),
        ("studies.mine.variants", ["pytorch"], "'pytorch' runs in PyTorch, but model 'mine' is an ONNX file"),
        ("variants.onnx", {"backend": "ncnn", "precision": "fp32"}, "'onnx' is not allowed here"),
    ],
)
def test_fault_is_named(config: dict[str, Any], path: str, value: object, message: str) -> None:
    config["studies"]["mine"] = onnx_study()
    *parents, last = path.split(".")
    place = config
    for step in parents:
        place = place[step]
    place[last] = value
    with pytest.raises(InputError) as fault:
        validate_config(config, SCHEMA)
    assert message in str(fault.value)


def test_same_model_name_with_two_sources_is_refused(config: dict[str, Any]) -> None:
    other = onnx_study()
    other["models"] = {"hourglass_demo": copy.deepcopy(other["models"]["mine"])}
    config["studies"]["mine"] = other
    with pytest.raises(InputError, match="another source in another study"):
        validate_config(config, SCHEMA)


def test_every_key_of_the_schema_is_described() -> None:
    def undescribed(schema: Any, place: str) -> list[str]:
        found = []
        for name, part in schema.get("properties", {}).items():
            if "$ref" not in part and "const" not in part and "description" not in part and place != "if":
                found.append(f"{place}.{name}")
            found += undescribed(part, f"{place}.{name}")
        for name, part in schema.get("$defs", {}).items():
            found += undescribed(part, name)
        return found

    assert undescribed(yaml.safe_load(SCHEMA.read_text()), "config") == []


def test_published_figures_are_checked_and_get_a_tolerance(config: dict[str, Any]) -> None:
    study = onnx_study()
    figures: dict[str, Any] = {
        "variants": ["onnxruntime"],
        "protocol": {"boxes": "detections", "flip_test": False},
        "statistics": {"AP": 0.7169},
        "source": "a paper",
    }
    study["models"]["mine"]["published"] = [figures]
    config["studies"]["mine"] = study
    validate_config(config, SCHEMA)
    assert figures["tolerance"] == 0.002
    figures["variants"] = ["onnxruntim"]
    with pytest.raises(
        InputError, match=r"published\.0\.variants: no variant 'onnxruntim'; did you mean 'onnxruntime'"
    ):
        validate_config(config, SCHEMA)
    figures["variants"] = ["onnxruntime"]
    figures["statistics"] = {"AP": 71.69}
    with pytest.raises(InputError, match=r"published\.0\.statistics\.AP: 71\.69"):
        validate_config(config, SCHEMA)


def test_shards_are_one_or_more(config: dict[str, Any]) -> None:
    validate_config(config, SCHEMA)
    assert config["studies"]["demo"]["shards"] == 1
    config["studies"]["demo"]["shards"] = 0
    with pytest.raises(InputError, match=r"studies\.demo\.shards: 0 is less than the minimum"):
        validate_config(config, SCHEMA)
