"""The result of a study: everything that its page, its figures and its report say, as one file of data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from posequant.base.errors import InputError
from posequant.base.files import read_json, whole
from posequant.base.measures import Measure, measure_of
from posequant.report.parts import Part
from posequant.report.verdict import Verdict
from posequant.workflow.settings.base import checked
from posequant.workflow.settings.precisions import TITLES
from posequant.workflow.settings.report import Tolerance

SCHEMA = 1
"""Version of the file. It grows where a key is renamed, removed or gets another meaning."""


def variant_title(variant: str, backend: str, precision: str) -> str:
    """Return the variant's name in words: backend and precision, then what else its name says.

    `ncnn-int8` becomes `ncnn INT8`, `ncnn-int8-aciq` becomes `ncnn INT8 aciq`.
    """
    rest = [part for part in variant.split("-") if part not in (*backend.split("-"), precision)]
    return " ".join([TITLES[backend], precision.upper(), *rest])


class Latency(Part):
    """Wall-clock times of single crops on one thread."""

    median_ms: float
    quartiles_ms: tuple[float, float]
    p95_ms: float = Field(description="95th percentile.")
    speedup: float = Field(
        description="Median over the rounds of the reference's time / this row's time; above 1 this row is faster."
    )
    against_fp32: float | None = Field(
        default=None,
        description="The same with the FP32 row of the same runtime, where it was timed in the same run.",
    )


class Throughput(Part):
    """Crops per second of the bare network, on so many threads."""

    per_second: float
    threads: int


class Device(Part):
    """A Vulkan device that a network ran on."""

    name: str
    kind: str = Field(
        description="`discrete GPU`, `integrated GPU`, `virtual GPU`; `CPU` of a driver that is no GPU's."
    )
    driver: int = Field(description="Version of its driver, as its maker counts.")
    fp16: Literal["arithmetic", "storage"] | None = Field(
        default=None, description="Of FP16: whether it computes in float16, or holds values in it and sums in float32."
    )
    on_cpu: list[str] = Field(default=[], description="Types of the layers that ncnn computed on the CPU.")


class Cost(Part):
    """What a row costs to run."""

    latency: Latency
    throughput: Throughput
    load_ms: float = Field(description="Time from the files to the output of the first crop, in milliseconds.")
    memory_mb: float = Field(
        description=(
            "Peak of the process's own memory that opening the network and inferring single crops adds, in MB of 1e6 "
            "bytes; pages of files do not count."
        )
    )
    size_bytes: int = Field(description="The files that the runtime loads.")
    device: Device | None = Field(default=None, description="What it was measured on, where it is not the CPU.")


class Links(Part):
    """Where more is said of a row, relative to the file of the result; None where there is nothing."""

    log: str
    certificate: str | None = None
    recipe: str | None = None
    attribution: str | None = None
    pictures: str | None = None


class Row(Part):
    """One variant of one network."""

    variant: str = Field(description="Its name in the configuration.")
    title: str = Field(description="Its name in words, such as `ncnn INT8 tuned`.")
    backend: Literal["pytorch", "onnxruntime", "openvino", "ncnn", "ncnn-vulkan"]
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    reference: bool = Field(description="Whether the differences of AP in the summary are taken to this row.")
    statistics: dict[str, float | None] = Field(
        description=(
            "By name: COCO's keypoint statistics, and of other sets of keypoints distances to the annotated ones. None "
            "where nobody is of the size."
        )
    )
    sha256: dict[str, str] = Field(description="Of the files that the runtime loads, by their names.")
    device: Device | None = Field(default=None, description="What its people were predicted on, if not the CPU.")
    cost: Cost
    links: Links
    certificate: dict[str, Any] | None = Field(
        default=None, description="Of a row in reduced precision: its `certificate.json`."
    )
    verdict: Verdict | None = Field(default=None, description="Of a row with a certificate.")
    note: str | None = Field(default=None, description="What the configuration says of it, for its verdict.")
    recipe: dict[str, Any] | None = Field(default=None, description="Of a row made by a recipe: its `recipe.json`.")
    attribution: dict[str, Any] | None = Field(
        default=None, description="Of a row that the study attributes: its `attribution.json`."
    )

    @property
    def ap(self) -> float | None:
        """Its AP; its PCK where the keypoints have no sigmas."""
        return self.statistics[self.measure.score]

    @property
    def measure(self) -> Measure:
        """What it is judged by."""
        return measure_of(self.statistics)


class Processor(Part):
    """The processor that was measured on."""

    name: str
    features: list[str] = Field(description="Its instructions that matter to INT8 and FP16, by their common names.")
    cores: int = Field(description="How many the measurement might use.")


class Measurement(Part):
    """The run in which the costs of all rows of a network were measured. Those of two runs are not compared."""

    run: str = Field(description="When it was, and what tells it from any other.")
    cpu: Processor
    rounds: int = Field(description="Of the latencies: so often each row was timed, in turn with the others.")
    reference: str = Field(
        default="ONNX Runtime FP32", description="What `speedup` compares with; ncnn where there are ncnn's files only."
    )


class Network(Part):
    """One network of the study."""

    name: str = Field(description="Its name in the configuration.")
    architecture: str = Field(description="Its name in the Arch column.")
    spec: dict[str, Any] = Field(description="Its `model.json`: input, normalisation, codec.")
    operators: str = Field(description="Link to the table of its operators.")
    measurement: Measurement
    rows: list[Row] = Field(min_length=1)
    published: list[dict[str, Any]] = Field(default=[], description="Figures from elsewhere, as in the configuration.")

    @property
    def input_size(self) -> str:
        """Width and height as tables show them."""
        return "{}x{}".format(*self.spec["input_size"])

    @property
    def title(self) -> str:
        """Architecture and input size."""
        return f"{self.architecture}, {self.input_size}"

    @property
    def reference(self) -> Row:
        """The row that the differences of AP in the summary are taken to."""
        return next(row for row in self.rows if row.reference)

    def row(self, variant: str) -> Row | None:
        """Return the row of a variant; None where the study does not list it."""
        return next((row for row in self.rows if row.variant == variant), None)

    def kept(self, row: Row) -> tuple[float, tuple[float, float] | None] | None:
        """Return the share of FP32's AP that a row keeps, and its interval where there is one; None if it is not known.

        A row in reduced precision is compared with FP32 in the same runtime, by its certificate; others with the
        reference, without an interval.
        """
        if row.precision != "fp32":
            share = row.certificate["share_of_fp32"] if row.certificate else None
            if share is None:
                return None
            return share["value"], tuple(share["interval"]) if share["interval"] else None
        full = self.reference.ap
        return None if row.ap is None or not full else (row.ap / full, None)

    @property
    def measure(self) -> Measure:
        """What its rows are judged by."""
        return self.rows[0].measure

    def fp32_of(self, row: Row) -> Row | None:
        """Return the row that a row's certificate compares it with; None where the study does not list it."""
        return self.row(row.certificate["reference"]) if row.certificate else None


class Protocol(Part):
    """How the people were found and predicted."""

    boxes: Literal["ground-truth", "detections"]
    flip_test: bool
    people: int | None = Field(default=None, description="Of a subset of the evaluation set: how many it must hold.")
    seed: int | None = Field(default=None, description="Of a subset: the seed of the choice.")


class Ground(Part):
    """What all rows were evaluated on."""

    protocol: Protocol
    images: int
    instances: int
    annotations_sha256: str
    detections_sha256: str | None


class Result(Part):
    """The result of a study."""

    schema_: Literal[1] = Field(alias="schema", description="Version of this file.")
    posequant: str = Field(description="Version of PoseQuant.")
    study: str = Field(description="Its name in the configuration.")
    settings: dict[str, Any] = Field(
        description="What the configuration says of the study, defaults filled in: enough to run it again."
    )
    tolerance: Tolerance
    ground: Ground
    calibration: dict[str, Any] = Field(description="How the calibration people were chosen, without the people.")
    versions: dict[str, str] = Field(description="Of the packages that the rows were made with.")
    networks: list[Network] = Field(min_length=1)

    @property
    def command(self) -> str:
        """The command that makes this result."""
        return f"snakemake -c4 results/{self.study}/result.md"

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read what `write` wrote.

        Raises:
            InputError: the file is missing or damaged, is of another version, or is no result.
        """
        content = read_json(path)
        version = content.get("schema") if isinstance(content, Mapping) else None
        if version != SCHEMA:
            said = "it has no version" if version is None else f"its version is {version!r}"
            raise InputError(
                f"{path}: {said}, and version {SCHEMA} of a study's result is needed. Make it again with this version "
                "of PoseQuant, or read it with the one that made it."
            )
        return checked(cls, content, what=str(path))

    def write(self, path: Path) -> None:
        """Write the result as JSON; equal results give equal bytes."""
        with whole(path) as draft:
            draft.write_text(json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False) + "\n")


def schema_text() -> str:
    """Return the JSON schema of a result's file, for whoever reads it with other programs."""
    schema = Result.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=1) + "\n"
