"""The whole of config.yaml."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

from posequant.workflow.settings.base import Settings, each_once, fault
from posequant.workflow.settings.certify import Sampling
from posequant.workflow.settings.data import Calibration, EvaluationCrops, EvaluationPeople
from posequant.workflow.settings.demo import Synthetic
from posequant.workflow.settings.devices import Arm, Device
from posequant.workflow.settings.export import CropAndCodec, Export
from posequant.workflow.settings.precisions import NCNN, PRECISIONS
from posequant.workflow.settings.quantize import METHODS
from posequant.workflow.settings.recipe import Curve, Recipe, Target
from posequant.workflow.settings.report import Pictures, Tolerance


@dataclass(frozen=True)
class _Name:
    """What a key may be named that is a folder of the results, too."""

    pattern: str
    words: str
    taken: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{self.pattern}$"} | (
            {"not": {"enum": list(self.taken)}} if self.taken else {}
        )

    def _check(self, name: str) -> str:
        if name in self.taken:
            raise fault(f"'{name}' is not allowed here: the name is taken by PoseQuant itself; choose another")
        if not re.fullmatch(self.pattern, name):
            raise fault(f"'{name}' is not a name: {self.words}")
        return name


_FOLDERS = ("onnx", "converted", "calibration", "crops", "devices")
_WORDS = "use letters, digits, '_' and '.', and start with a letter or digit"
_SMALL_WORDS = "use small letters, digits and '-', and start with a letter or digit"
StudyName = Annotated[str, _Name(r"[A-Za-z0-9][A-Za-z0-9_.]*", _WORDS, ("downloads",))]
ModelName = Annotated[str, _Name(r"[A-Za-z0-9][A-Za-z0-9_.]*", _WORDS, ("devices",))]
VariantName = Annotated[str, _Name(r"[a-z0-9][a-z0-9-]*", _SMALL_WORDS, _FOLDERS)]
DeviceName = Annotated[str, _Name(r"[a-z0-9][a-z0-9-]*", _SMALL_WORDS, get_args(Target))]
RecipeName = Annotated[str, _Name(r"[a-z0-9][a-z0-9-]*", _SMALL_WORDS, (*_FOLDERS, *METHODS))]


Rows = Annotated[
    list[VariantName], AfterValidator(each_once), Field(min_length=1, json_schema_extra={"uniqueItems": True})
]


Backend = Literal["pytorch", "onnxruntime", "openvino", "ncnn", "ncnn-vulkan"]
LeftOut = Literal["pytorch", "onnxruntime", "openvino", "ncnn", "ncnn-vulkan", "all"]


class Variant(Settings):
    """A row of the result: a runtime, the precision that it computes in and, for INT8 in ncnn, how it is calibrated."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {
                    "if": {"properties": {"backend": {"const": backend}}},
                    "then": {"properties": {"precision": {"enum": list(precisions)}}},
                }
                for backend, precisions in PRECISIONS.items()
            ],
            "if": {"properties": {"backend": {"enum": list(NCNN)}, "precision": {"const": "int8"}}},
            "then": {"required": ["calibration"]},
            "else": {"not": {"required": ["calibration"]}},
        }
    )

    backend: Backend = Field(
        description="The runtime that executes the network. `ncnn-vulkan` is ncnn on a GPU, by Vulkan."
    )
    precision: Literal["fp32", "fp16", "bf16", "int8"] = Field(
        description=(
            "The arithmetic. Every backend has `fp32`, ncnn also `fp16` and `bf16`, ncnn-vulkan also `fp16`, all but "
            "pytorch `int8`."
        )
    )
    calibration: str | None = Field(
        default=None,
        description=(
            "For ncnn's `int8`: `kl` or `aciq`, the methods of ncnn2table, or the name of a recipe. A variant of "
            "ncnn-vulkan runs the network of the variant of ncnn with the same `calibration`."
        ),
    )

    note: str | None = Field(
        default=None, description="What a reader of the row's verdict must know; a sentence, shown with it."
    )

    @field_validator("precision")
    @classmethod
    def _require_precision_of_backend(cls, precision: str, info: ValidationInfo) -> str:
        backend = info.data.get("backend")
        if backend and precision not in PRECISIONS[backend]:
            raise fault(f"'{backend}' does not compute in {precision}; choose {' or '.join(PRECISIONS[backend])}")
        return precision

    @model_validator(mode="after")
    def _require_calibration_where_it_belongs(self) -> "Variant":
        belongs = self.backend in NCNN and self.precision == "int8"
        if belongs and self.calibration is None:
            raise fault(f"key 'calibration' is missing; give {' or '.join(METHODS)}, or the name of a recipe")
        if not belongs and self.calibration is not None:
            raise fault("key 'calibration' does not belong here; only ncnn's int8 takes it")
        return self


class Tools(Settings):
    """The programs of two steps that have an official and a built-in implementation.

    `auto` takes the official program if it is on PATH, otherwise the built-in one. `builtin` takes the built-in one.
    Anything else is the path of the official program.
    """

    ncnn2table: str = Field(default="auto", description="`auto`, `builtin` or a path.")
    ncnn2int8: str = Field(default="auto", description="`auto`, `builtin` or a path.")


Boxes = Literal["ground-truth", "detections"]


class Protocol(Settings):
    """Where boxes come from and how predictions are made. Every row states it."""

    boxes: Boxes = Field(
        default="ground-truth", description="Boxes of the annotations, or of the dataset's `detections` file."
    )
    flip_test: bool = Field(
        default=False, description="Whether a prediction is averaged with that of the mirrored crop."
    )


class PublishedProtocol(Settings):
    """The protocol of published figures. A study with another protocol is not compared with them."""

    boxes: Boxes = Field(description="As in the study's protocol.")
    flip_test: bool = Field(description="As in the study's protocol.")


Statistic = Literal[
    "AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL",
    "PCK", "AUC", "EPE", "NME", "PCKh", "PCKh@0.1",
]  # fmt: skip


class Published(Settings):
    """Figures of a model from elsewhere, shown beside the measured ones."""

    variants: Rows = Field(description="The rows that the figures belong to.")
    protocol: PublishedProtocol
    statistics: dict[Statistic, Annotated[float, Field(ge=0)]] = Field(
        min_length=1,
        description="The figures, by their names on a page of results. EPE is in pixels; the others are at most 1.",
    )
    tolerance: float = Field(
        default=0.002, ge=0, description="How much a measured figure may differ before its row is flagged."
    )
    source: str = Field(description="Where the figures are from.")

    @model_validator(mode="after")
    def _are_shares(self) -> "Published":
        for name, value in self.statistics.items():
            if value > 1 and name != "EPE":
                raise fault(f"statistics.{name} is {value:g}, more than 1")
        return self


class _Model(Settings):
    source: str = Field(description="Where the network comes from.")
    architecture: str | None = Field(
        default=None, description="Name in the Arch column; the default is the model's key."
    )
    license: str | None = Field(
        default=None,
        description="Licence of the network's weights, as `Apache-2.0`. A package says it (docs/ship.md).",
    )
    gmac: float | None = Field(
        default=None,
        gt=0,
        description=(
            "Billions of multiply-accumulates for a crop, to tell how long it takes. The default is an estimate from "
            "the size of the weights, once they are there."
        ),
    )
    published: list[Published] = Field(default=[], description="Figures of the model from elsewhere.")


class MmposeModel(_Model):
    """A network of mmpose."""

    model_config = ConfigDict(title="mmpose")

    source: Literal["mmpose"] = Field(description="Where the network comes from.")
    config: str = Field(description="Path of an mmpose config, or the name of one that mmpose ships.")
    checkpoint: str = Field(
        description=(
            "Path or address of the weights. OpenMMLab's file names hold the start of the SHA-256, as in "
            "`hourglass52_coco_256x256-4ec713ba_20200709.pth`; it is checked."
        )
    )


class OnnxModel(CropAndCodec, _Model):
    """A network in an ONNX file."""

    model_config = ConfigDict(title="onnx")

    source: Literal["onnx"] = Field(description="Where the network comes from.")
    onnx: str = Field(description="Path or address of the network; one image input, heatmaps out.")


class NcnnModel(CropAndCodec, _Model):
    """A float network in ncnn's files. It is run in ncnn alone: there is nothing that other runtimes could load."""

    model_config = ConfigDict(title="ncnn")

    source: Literal["ncnn"] = Field(description="Where the network comes from.")
    param: str = Field(description="Path or address of its `.param`.")
    bin: str = Field(description="Path or address of its `.bin`, with weights in float32 or float16.")
    input: str | None = Field(
        default=None,
        description="Name of the blob that takes the crop. The default is that of the file's only input.",
    )
    outputs: Annotated[list[str], AfterValidator(each_once), Field(min_length=1)] | None = Field(
        default=None,
        description=(
            "Names of the blobs that the codec decodes; for SimCC, that of x first. What lies behind them is cut off. "
            "The default are those that no layer reads."
        ),
    )


class NamedModel(_Model):
    """A network of mmpose's model index, by its name.

    The index gives what is not said here. A plain name in place of the keys is short for `name`.
    """

    model_config = ConfigDict(title="by name")

    source: Literal["mmpose"] = Field(default="mmpose", description="Where the network comes from.")
    name: str = Field(
        description="The name of the network in mmpose's model index, or that of its config; `make models` lists them."
    )
    config: str | None = Field(default=None, description="As of a network of mmpose; the default is that of the index.")
    checkpoint: str | None = Field(
        default=None, description="As of a network of mmpose; the default is that of the index."
    )


def _kind_of_model(content: Any) -> str | None:
    if isinstance(content, dict):
        source, named = content.get("source"), "name" in content
    else:
        source, named = getattr(content, "source", None), isinstance(content, NamedModel)
    kinds = {"mmpose": "MmposeModel", "onnx": "OnnxModel", "ncnn": "NcnnModel"}
    return "NamedModel" if named else kinds.get(str(source))


def _named(content: Any) -> Any:
    return {"name": content} if isinstance(content, str) else content


_ModelOfKind = Annotated[
    Annotated[MmposeModel, Tag("MmposeModel")]
    | Annotated[NamedModel, Tag("NamedModel")]
    | Annotated[OnnxModel, Tag("OnnxModel")]
    | Annotated[NcnnModel, Tag("NcnnModel")],
    Discriminator(
        _kind_of_model,
        custom_error_type="fault",
        custom_error_message=(
            "does not say where the network comes from; give it 'source: mmpose', 'source: onnx' or 'source: ncnn', or "
            "the name of a network of mmpose's model index"
        ),
    ),
]
Model = Annotated[_ModelOfKind, BeforeValidator(_named, json_schema_input_type=str | _ModelOfKind)]


class TrainingSplit(Settings):
    """The people to calibrate and to distill on, in COCO keypoint format."""

    images: str | None = Field(
        default=None,
        description=(
            "Folder of the images, or the address of one in a zip archive: `https://HOST/FILE.zip/FOLDER`. Without "
            "this key, only the images that calibration and `distill` need are fetched, each from the `coco_url` in "
            "the annotations."
        ),
    )
    annotations: str = Field(
        description=(
            "The person_keypoints JSON file, or its address; `https://HOST/FILE.zip/PATH` takes it from a zip "
            "archive. Any address may end in `#sha256=HEX`, the SHA-256 of the downloaded file or its beginning."
        )
    )


class EvaluationSplit(EvaluationPeople):
    """The people to evaluate on, in COCO keypoint format."""

    model_config = ConfigDict(title="COCO")

    images: str | None = Field(
        default=None,
        description=(
            "Folder of the images, or the address of one in a zip archive: `https://HOST/FILE.zip/FOLDER`. Without "
            "this key, the images are fetched one by one, each from the `coco_url` in the annotations; with `people`, "
            "only those that are evaluated."
        ),
    )
    annotations: str = Field(description="The person_keypoints JSON file, or its address.")


class SyntheticDataset(Settings):
    """A dataset that is drawn."""

    model_config = ConfigDict(title="synthetic")

    synthetic: Synthetic
    val: EvaluationPeople = Field(default=EvaluationPeople(), description="Whom of the val images to evaluate on.")


class CocoDataset(Settings):
    """A dataset in COCO keypoint format."""

    model_config = ConfigDict(title="COCO")

    train: TrainingSplit
    val: EvaluationSplit
    detections: str | None = Field(
        default=None,
        description=(
            "COCO detection results for the val images, a path or address. The protocol `boxes: detections` needs them."
        ),
    )
    keypoints: str = Field(
        default="coco",
        description=(
            "What people, hands, faces or animals have annotated: `coco`; the name of a dataset whose keypoints mmpose "
            "knows, as `ap10k` or `coco_wholebody_hand`; or a file of your own (.yaml, .json; docs/keypoints.md)."
        ),
    )


def _kind_of_dataset(content: Any) -> str:
    if isinstance(content, SyntheticDataset) or (isinstance(content, dict) and "synthetic" in content):
        return "SyntheticDataset"
    return "CocoDataset"


Dataset = Annotated[
    Annotated[SyntheticDataset, Tag("SyntheticDataset")] | Annotated[CocoDataset, Tag("CocoDataset")],
    Discriminator(_kind_of_dataset),
]


class Study(Settings):
    """A dataset, a protocol, networks, and the rows to measure."""

    dataset: Dataset = Field(description="The images and annotations.")
    protocol: Protocol = Protocol()
    shards: int | None = Field(
        default=None,
        ge=1,
        description=(
            "How many jobs share the predictions of a row. The result is the same for any number. The default is as "
            "many as take `shard_minutes` each; docs/studies.md says how that is told."
        ),
    )
    shard_minutes: float = Field(
        default=10.0,
        gt=0,
        description="How long a job takes with the slowest row of a model, about, where the study names no `shards`.",
        json_schema_extra={"unit": "minutes"},
    )
    crops: EvaluationCrops = EvaluationCrops()
    calibration: Calibration = Calibration()
    curve: Curve = Curve()
    certificate: Sampling = Sampling()
    arm: Arm = Arm()
    tolerance: Tolerance = Tolerance()
    pictures: Pictures = Pictures()
    attribution: list[VariantName] = Field(
        default=[],
        description=(
            "Rows of INT8 in ncnn whose error is attributed to their layers on the report. A page of any other is made "
            "on request."
        ),
    )
    devices: Annotated[list[DeviceName], AfterValidator(each_once)] = Field(
        default=[],
        description=(
            "Those of `devices` that the report shows, each in a section of its own: they are measured with the study. "
            "A page of any other is made on request."
        ),
    )
    target: str = Field(
        default="any",
        description=(
            "What ncnn's INT8 networks are to run on: `x86`, `arm` (cores without dot product), `arm-dotprod`, "
            "`vulkan`, or `any`, which is safe on all; or the name of one of `devices`, whose features say it. Steps "
            "of recipes that depend on it say what they decided."
        ),
    )
    export: Export = Export()
    models: dict[ModelName, Model] = Field(
        min_length=1,
        description=(
            "The networks. The key is the model's name and its folder. In place of keys, the name of a network of "
            "mmpose's model index says all of it: `hourglass52: td-hm_hourglass52_8xb32-210e_coco-256x256`."
        ),
    )
    left_out: dict[str, dict[LeftOut, str]] = Field(
        default={},
        description=(
            "What of `models` is not run, each with the reason, which the page states: of a model its rows of a "
            "`backend`, or `all`, as in `{pvt: {all: mmdeploy cannot export it}}`."
        ),
    )
    variants: Rows = Field(description="The rows to measure, in the order in which the result shows them.")


def _number_as_text(content: Any) -> Any:
    return str(content) if type(content) is int else content


VulkanDevice = Annotated[str, BeforeValidator(_number_as_text, json_schema_input_type=str | int)]


class Config(Settings):
    """All of config.yaml."""

    model_config = ConfigDict(title="config.yaml of PoseQuant")

    study: str = Field(description="The study that `snakemake results/result.md` runs; a key of `studies`.")
    variants: dict[VariantName, Variant] = Field(
        description="The rows that a study may list. The key is the row's name and its folder."
    )
    people: int | None = Field(
        default=None,
        ge=1,
        description=(
            "For one run, in place of `dataset.val.people` of the studies: `--config people=1000` is a quick answer "
            "before the full one."
        ),
    )
    vulkan_device: VulkanDevice | None = Field(
        default=None,
        description=(
            "What rows of ncnn-vulkan run on: the number of a Vulkan device, or a part of its name, as in `--config "
            "vulkan_device=nvidia`; `python scripts/vulkan_devices.py` lists them. The default is ncnn's choice: a "
            "discrete GPU before an integrated one, and both before any other."
        ),
    )
    tools: Tools = Tools()
    recipes: dict[RecipeName, Recipe] = Field(
        default={},
        description=(
            "How ncnn networks are prepared and calibrated for INT8, beyond what ncnn2table does: steps, in order. "
            "docs/quantization.md explains each step and its gain."
        ),
    )
    devices: dict[DeviceName, Device] = Field(
        default={},
        description=(
            "Boards of your own, for `snakemake results/STUDY/devices/NAME/result.md`. The key is the device's name "
            "and its folder. docs/devices.md explains them."
        ),
    )
    studies: dict[StudyName, Study] = Field(
        description="The studies. The key is the study's name and its folder under `results/`."
    )
