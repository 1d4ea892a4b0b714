import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from posequant.base.errors import InputError
from posequant.base.model_index import networks
from posequant.workflow import named_models
from posequant.workflow.sources import parse_source
from posequant.workflow.study_config import validate_config

ROOT = Path(__file__).parents[3]


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
    validate_config(config)


def test_defaults_are_filled_at_every_depth(config: dict[str, Any]) -> None:
    config["studies"]["mine"] = onnx_study()
    validate_config(config)
    study = config["studies"]["mine"]
    assert study["protocol"] == {"boxes": "ground-truth", "flip_test": False}
    assert study["calibration"] == {"people": 128, "seed": 0}
    assert study["models"]["mine"]["padding"] == 1.25
    assert config["tools"] == {"ncnn2table": "auto", "ncnn2int8": "auto"}


def test_people_on_the_command_line_are_those_of_every_study(config: dict[str, Any]) -> None:
    config["studies"]["mine"] = onnx_study() | {
        "dataset": {"train": {"annotations": "train.json"}, "val": {"annotations": "val.json", "people": 9, "seed": 3}}
    }
    validate_config(config)
    assert config["studies"]["mine"]["dataset"]["val"] == {"annotations": "val.json", "people": 9, "seed": 3}
    assert config["studies"]["demo"]["dataset"]["val"] == {"seed": 0}
    config["people"] = 1000
    validate_config(config)
    assert "people" not in config
    assert config["studies"]["mine"]["dataset"]["val"] == {"annotations": "val.json", "people": 1000, "seed": 3}
    assert config["studies"]["demo"]["dataset"]["val"] == {"people": 1000, "seed": 0}


def test_defaults_do_not_share_one_object(config: dict[str, Any]) -> None:
    config["studies"]["mine"] = onnx_study()
    validate_config(config)
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
            "recipes.mine: after 'equalize' 'activations' must come after 'weights'",
        ),
        (
            "recipes.mine",
            [{"weights": {}}, {"activations": {"method": "kl"}}, {"equalize": {}}, {"round": {}}],
            "recipes.mine: after 'equalize' 'round' must come after 'weights'",
        ),
        (
            "recipes.mine",
            [{"weights": {}}, {"activations": {"method": "kl"}}, {"equalize": {}}, {"weights": {}}],
            "recipes.mine: no step 'activations' after 'equalize', which takes scales away",
        ),
        ("recipes.mine", [{"weights": {}}, {"round": {}}], "recipes.mine: no step 'activations', which chooses scales"),
        (
            "recipes.mine",
            [{"weights": {}}, {"activations": {"method": "kl"}}, {"budget": {}}],
            "recipes.mine.2.budget: give 'oks_loss', 'ap_loss' or 'int8_work'",
        ),
        (
            "recipes.mine",
            [{"weights": {}}, {"activations": {"method": "kl"}}, {"budget": {"oks_loss": 0.1, "ap_loss": 0.1}}],
            "recipes.mine.2.budget: give one of 'oks_loss' and 'ap_loss', not both",
        ),
        (
            "recipes.mine",
            [{"weights": {}}, {"activations": {"method": "kl"}}, {"budget": {"oks_loss": 0.1}}, {"round": {}}],
            "recipes.mine: 'budget' must come after all other steps but 'distill' and 'fold-stem'",
        ),
        ("variants.ncnn.calibration", "kl", "variants.ncnn: key 'calibration' does not belong here"),
        (
            "variants.ncnn.precision",
            "int8",
            "variants.ncnn: key 'calibration' is missing; give kl or aciq, or the name",
        ),
        ("variants.openvino-int8.calibration", "kl", "variants.openvino-int8: key 'calibration' does not belong here"),
        ("variants.pytorch.precision", "int8", "variants.pytorch.precision: 'pytorch' does not compute in int8"),
        ("variants.openvino.precision", "fp16", "'openvino' does not compute in fp16; choose fp32 or int8"),
        ("variants.openvino.backend", "openvin", "'openvino', 'ncnn' or 'ncnn-vulkan'"),
        ("variants.openvino.backend", "openvin", "; did you mean 'openvino'?"),
        ("studies.demo.calibration", {"people": 0}, "studies.demo.calibration.people: 0 is less than the minimum of 1"),
        (
            "variants.openvino",
            {"backend": "onnxruntime", "precision": "fp32"},
            "variants: those of openvino are compared with openvino in fp32, which is missing; add a variant ",
        ),
        (
            "variants.ncnn-vulkan.precision",
            "bf16",
            "'ncnn-vulkan' does not compute in bf16; choose fp32 or fp16 or int8",
        ),
        ("vulkan_device", 1.5, "vulkan_device: 1.5 is not text"),
        ("study", "demmo", "study: there is no study 'demmo'; did you mean 'demo'?"),
        ("studies.demo.variants", ["ncnn-int9"], "no variant 'ncnn-int9'; did you mean 'ncnn-int8'?"),
        ("studies.demo.protocol", {"boxes": "detections"}, "needs the file studies.demo.dataset.detections"),
        ("studies.mine.variants", ["pytorch"], "'pytorch' runs in PyTorch, but model 'mine' is an ONNX file"),
        ("variants.onnx", {"backend": "ncnn", "precision": "fp32"}, "variants.onnx: 'onnx' is not allowed here"),
        ("variants.Mine", {"backend": "ncnn", "precision": "fp32"}, "variants.Mine: 'Mine' is not a name: use small"),
        ("variants", ["ncnn"], "variants: ['ncnn'] is not a mapping of keys to values"),
        ("studies.demo.variants", ["ncnn", "pytorch", "ncnn"], "studies.demo.variants: 'ncnn' is listed twice"),
        ("studies.demo.variants", [], "studies.demo.variants: [] has 0 entries; give at least 1"),
        ("studies.demo.variants", None, "studies.demo.variants: is empty; give it a value, or remove the key"),
        ("studies.demo.protocol", {"flip_test": 1}, "studies.demo.protocol.flip_test: 1 is neither true nor false"),
        ("studies.demo.shards", "2", "studies.demo.shards: '2' is not a whole number"),
        ("studies.demo.dataset.val", {"people": 0}, "studies.demo.dataset.val.people: 0 is less than the minimum of 1"),
        ("people", "all", "people: 'all' is not a whole number"),
        ("studies.demo.shards", 1.5, "studies.demo.shards: 1.5 is not a whole number"),
        ("studies.demo.certificate", {"confidence": 1}, "studies.demo.certificate.confidence: 1 is not less than 1"),
        ("studies.demo.export", {"opset": 18}, "studies.demo.export.opset: 18 is greater than the maximum of 17"),
        ("studies.demo.dataset", {"train": {"annotations": "a"}}, "studies.demo.dataset: key 'val' is missing"),
        ("studies.mine.dataset.val", {"images": "a"}, "studies.mine.dataset.val: key 'annotations' is missing"),
        (
            "studies.mine.models.mine.source",
            "onx",
            "studies.mine.models.mine: does not say where the network comes from",
        ),
        ("studies.mine.models.mine.input_size", [192], "studies.mine.models.mine.input_size: entry 2 is missing"),
        ("studies.mine.models.mine.codec", {}, "studies.mine.models.mine.codec: key 'type' is missing"),
        ("recipes.mine", [{"weights": {}, "round": {}}], "recipes.mine.0: name exactly one step"),
        ("recipes.mine", [{"weights": {"bits": 7}}], "recipes.mine.0.weights.bits: 7 is not 6, 8 or 'auto'"),
        ("studies.demo.target", "arm64", "there is no target and no device 'arm64'; did you mean 'arm'?"),
        ("studies.demo.devices", ["pi5"], "studies.demo.devices: there is no device 'pi5' in devices"),
        ("devices", {"pi5": {}}, "devices.pi5: needs one way to it; give 'ssh', or 'results' where the runner"),
        ("devices", {"pi5": {"ssh": "a", "results": "b"}}, "devices.pi5: needs one way to it; give 'ssh', or"),
        (
            "devices",
            {"a53": {"core": "cortex-a53", "rounds": 5}},
            "devices.a53: 'rounds' has no effect on a device with",
        ),
        ("devices", {"arm": {"core": "cortex-a53"}}, "'arm' is not allowed here: the name is taken"),
        ("devices", {"pi5": {"ssh": "-p"}}, "devices.pi5: '-p' is no host; options belong into 'ssh_options'"),
        ("devices", {"Pi": {"ssh": "pi"}}, "devices.Pi: 'Pi' is not a name: use small letters, digits and '-'"),
        (
            "devices",
            {"pi5": {"ssh": "pi", "folder": "here"}},
            "devices.pi5.folder: 'here' is not a folder of its own",
        ),
        ("recipes.mine", [{"activations": {}}], "recipes.mine.0.activations: key 'method' is missing"),
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
        validate_config(config)
    assert message in str(fault.value)


def test_device_may_be_the_target_of_a_study(config: dict[str, Any]) -> None:
    config["devices"] = {"pi5": {"ssh": "pi@raspberrypi.local"}}
    config["studies"]["demo"]["target"] = "pi5"
    validate_config(config)
    assert config["devices"]["pi5"]["people"] == 200


def test_target_that_cannot_be_asked_what_it_is_needs_to_be_told(config: dict[str, Any]) -> None:
    config["devices"] = {"phone": {"results": "phone"}}
    config["studies"]["demo"]["target"] = "phone"
    with pytest.raises(InputError) as fault:
        validate_config(config)
    assert "device 'phone' cannot be asked what it is; give devices.phone.target" in str(fault.value)
    config["devices"]["phone"]["target"] = "arm"
    validate_config(config)


def test_every_fault_is_listed(config: dict[str, Any]) -> None:
    config["studies"]["demo"] |= {"shards": 0, "protocl": {}, "calibration": {"people": "many"}}
    config["variants"]["ncnn"]["precision"] = "fp8"
    with pytest.raises(InputError) as fault:
        validate_config(config)
    first, *faults = str(fault.value).splitlines()
    assert first == "the configuration is not valid:"
    assert len(faults) == 4


def test_what_is_left_out_and_has_no_default_stays_out(config: dict[str, Any]) -> None:
    config["studies"]["mine"] = onnx_study()
    validate_config(config)
    assert "detections" not in config["studies"]["mine"]["dataset"]
    assert "calibration" not in config["variants"]["ncnn"]


def test_same_model_name_with_two_sources_is_refused(config: dict[str, Any]) -> None:
    other = onnx_study()
    other["models"] = {"hourglass_demo": copy.deepcopy(other["models"]["mine"])}
    config["studies"]["mine"] = other
    with pytest.raises(InputError, match="another source in another study"):
        validate_config(config)


def ncnn_study(**more: Any) -> dict[str, Any]:
    study = onnx_study()
    of_onnx = study["models"]["mine"]
    files = {"source": "ncnn", "param": "mine.param", "bin": "mine.bin"}
    study["models"]["mine"] = {key: value for key, value in of_onnx.items() if key != "onnx"} | files | more
    return study | {"variants": ["ncnn", "ncnn-fp16", "ncnn-int8"]}


def test_study_of_ncnns_files_has_rows_of_ncnn(config: dict[str, Any]) -> None:
    config["studies"]["mine"] = ncnn_study(input="data", outputs=["heatmap"])
    validate_config(config)


def test_int8_on_vulkan_is_that_of_a_variant_on_the_cpu(config: dict[str, Any]) -> None:
    config["studies"]["mine"] = ncnn_study() | {"variants": ["ncnn-vulkan", "ncnn-vulkan-fp16", "ncnn-vulkan-int8"]}
    config["vulkan_device"] = 1
    validate_config(config)
    assert config["vulkan_device"] == "1"
    config["variants"]["ncnn-int8"]["calibration"] = "aciq"
    with pytest.raises(InputError, match=r"'ncnn-vulkan-int8' runs on Vulkan .* none with calibration 'kl'; add "):
        validate_config(config)


@pytest.mark.parametrize(
    ("variant", "title"),
    [("pytorch", "PyTorch"), ("onnxruntime", "ONNX Runtime"), ("openvino-int8", "OpenVINO")],
)
def test_other_rows_of_ncnns_files_are_refused(config: dict[str, Any], variant: str, title: str) -> None:
    config["studies"]["mine"] = ncnn_study() | {"variants": ["ncnn", variant]}
    with pytest.raises(InputError, match=f"'{variant}' runs in {title}, but model 'mine' is ncnn's files"):
        validate_config(config)


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        ({"input": 0}, "mine.input: 0 is not text; put it in quotes"),
        ({"outputs": ["x", "x"]}, "mine.outputs: 'x' is listed twice"),
        ({"outputs": []}, "mine.outputs: .* has 0 entries"),
    ],
)
def test_names_of_blobs_are_checked(config: dict[str, Any], blobs: dict[str, Any], message: str) -> None:
    config["studies"]["mine"] = ncnn_study(**blobs)
    with pytest.raises(InputError, match=message):
        validate_config(config)


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
    validate_config(config)
    assert config["studies"]["mine"]["models"]["mine"]["published"][0]["tolerance"] == 0.002
    study["models"]["mine"]["published"] = [figures]
    config["studies"]["mine"] = study
    figures["variants"] = ["onnxruntim"]
    with pytest.raises(
        InputError, match=r"published\.0\.variants: no variant 'onnxruntim'; did you mean 'onnxruntime'"
    ):
        validate_config(config)
    figures["variants"] = ["onnxruntime"]
    figures["statistics"] = {"AP": 71.69}
    with pytest.raises(InputError, match=r"published\.0: statistics\.AP is 71\.69, more than 1"):
        validate_config(config)


def test_shards_are_one_or_more(config: dict[str, Any]) -> None:
    validate_config(config)
    assert "shards" not in config["studies"]["demo"]
    assert config["studies"]["demo"]["shard_minutes"] == 10
    config["studies"]["demo"]["shards"] = 0
    with pytest.raises(InputError, match=r"studies\.demo\.shards: 0 is less than the minimum"):
        validate_config(config)


# Networks by name

HOURGLASS = "td-hm_hourglass52_8xb32-210e_coco-256x256"
ON_COCO = {
    "dataset": {
        "train": {"images": "train", "annotations": "train.json"},
        "val": {
            "images": "val",
            "annotations": "https://host/all.zip/annotations/person_keypoints_val2017.json#sha256=feedfeed",
        },
    },
    "variants": ["onnxruntime", "ncnn-int8"],
}


def resolved(config: dict[str, Any], model: Any, **study: Any) -> dict[str, Any]:
    """The settings of a model of a study on COCO, all filled in."""
    config["studies"]["mine"] = copy.deepcopy(ON_COCO) | study | {"models": {"net": model}}
    validate_config(config)
    found: dict[str, Any] = config["studies"]["mine"]["models"]["net"]
    return found


def test_name_stands_for_everything_that_the_index_says(config: dict[str, Any]) -> None:
    assert resolved(config, HOURGLASS) == {
        "source": "mmpose",
        "architecture": "Hourglass",
        "config": HOURGLASS,
        "checkpoint": "https://download.openmmlab.com/mmpose/top_down/hourglass/hourglass52_coco_256x256-4ec713ba_20200709.pth",
        "published": [
            {
                "variants": ["onnxruntime", "ncnn"],
                "protocol": {"boxes": "detections", "flip_test": True},
                "statistics": {"AP": 0.726, "AP50": 0.896, "AP75": 0.799, "AR": 0.78, "AR50": 0.934},
                "tolerance": 0.002,
                "source": "mmpose's model index, hourglass_coco.yml",
            }
        ],
    }


def test_what_is_said_beside_a_name_counts_more_than_the_index(config: dict[str, Any]) -> None:
    said = {"checkpoint": "mine.pth", "architecture": "Mine", "gmac": 28.6, "license": "MIT", "published": []}
    assert resolved(config, {"name": HOURGLASS, **said}) == {"source": "mmpose", "config": HOURGLASS, **said}


def test_figures_of_another_dataset_are_not_those_of_the_study(config: dict[str, Any]) -> None:
    assert resolved(config, HOURGLASS, dataset={"synthetic": {}})["published"] == []


def test_figures_of_hands_are_those_of_a_study_of_hands(config: dict[str, Any]) -> None:
    dataset: Any = copy.deepcopy(ON_COCO["dataset"])
    dataset["keypoints"] = "onehand10k"
    dataset["val"]["annotations"] = "data/onehand10k_test.json"
    (published,) = resolved(config, "td-hm_res50_8xb32-210e_onehand10k-256x256", dataset=dataset)["published"]
    assert published["protocol"] == {"boxes": "ground-truth", "flip_test": True}
    assert published["statistics"] == {"PCK": 0.989, "AUC": 0.555}


def test_every_network_of_the_index_that_has_a_config_and_a_checkpoint_can_be_named(config: dict[str, Any]) -> None:
    names = [network.name for network in networks() if network.config and network.checkpoint]
    assert len(names) == 353
    config["studies"]["mine"] = ON_COCO | {"models": {f"net{place}": name for place, name in enumerate(names)}}
    validate_config(config)
    models = config["studies"]["mine"]["models"].values()
    assert [model["config"] for model in models] == names
    assert all(parse_source(model["checkpoint"]) for model in models)
    assert sum(bool(model["published"]) for model in models) == 149


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "td-hm_hourglas52_coco-256x256",
            f"models.net: mmpose's model index has no network .* nearest are {HOURGLASS}",
        ),
        ("td-hm_res101_8xb32-210e_coco-384x288", "models.net: .* the checkpoint of another network; give its own"),
        ("swin_b_p4_w7_fpn_coco_256x192", "models.net: mmpose ships no config for 'swin_b_p4_w7_fpn_coco_256x192'"),
    ],
)
def test_name_that_does_not_tell_all_is_an_error(config: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolved(config, name)


def test_what_the_index_lacks_can_be_said_beside_the_name(config: dict[str, Any]) -> None:
    model = resolved(config, {"name": "td-hm_res101_8xb32-210e_coco-384x288", "checkpoint": "res101.pth"})
    assert model["checkpoint"] == "res101.pth"


def test_settings_that_came_from_a_name_are_taken_again(config: dict[str, Any]) -> None:
    model = resolved(config, HOURGLASS)
    assert resolved(config, copy.deepcopy(model)) == model


def test_index_is_not_read_where_nothing_is_named(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise AssertionError("the index is read")

    monkeypatch.setattr(named_models, "find_network", refuse)
    validate_config(config)


def test_what_is_left_out_is_a_model(config: dict[str, Any]) -> None:
    config["studies"]["demo"]["left_out"] = {"hourglas_demo": {"all": "why"}}
    with pytest.raises(InputError, match=r"left_out: no model 'hourglas_demo'; did you mean 'hourglass_demo'"):
        validate_config(config)


@pytest.mark.parametrize(
    ("boxes", "keypoints", "message"),
    [
        ("ground-truth", "ap10", r"studies\.mine\.dataset\.keypoints: there is no set .* did you mean 'ap10k'"),
        ("detections", "onehand10k", r"studies\.mine\.protocol\.boxes: the keypoints onehand10k have no sigmas"),
    ],
)
def test_keypoints_that_cannot_be_scored_are_refused(
    config: dict[str, Any], boxes: str, keypoints: str, message: str
) -> None:
    study = onnx_study()
    study["dataset"] |= {"keypoints": keypoints, "detections": "boxes.json"}
    config["studies"]["mine"] = study | {"protocol": {"boxes": boxes}}
    with pytest.raises(InputError, match=message):
        validate_config(config)
