"""Results of studies with chosen figures, put together from records as the steps write them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posequant.base.keypoints import KEYPOINTS, NUM_KEYPOINTS
from posequant.base.model_spec import ModelSpec
from posequant.report.collect import NetworkRecords, Record, RowRecords, collect
from posequant.report.result import Links, Result

GROUND_TRUTH = {"boxes": "ground-truth", "flip_test": False}
CALIBRATION = {
    "seed": 7,
    "images": 2,
    "people": [{}, {}, {}],
    "annotations": {"sha256": "feed"},
    "evaluation": {"overlap": 0},
}
BOOTSTRAP = {"resamples": 2000, "seed": 0, "confidence": 0.95, "unit": "image", "paired": True}


def spec(name: str = "net") -> ModelSpec:
    codec = {"type": "MSRAHeatmap", "input_size": [192, 256], "heatmap_size": [48, 64], "sigma": 2}
    return ModelSpec(
        name, (192, 256), (0, 0, 0), (1, 1, 1), True, 1.25, False, codec, "heatmap", True, "input", ("output",)
    )


def metrics(
    variant: str, backend: str, precision: str, average_precision: float | None, **changed: Any
) -> dict[str, Any]:
    """What evaluation writes of a row."""
    return {
        "model": "net",
        "variant": variant,
        "backend": backend,
        "precision": precision,
        "protocol": GROUND_TRUTH,
        "images": 10,
        "instances": 25,
        "sha256": {"model": "1", "artifact": {"net.bin": f"{variant:-<64}"}, "annotations": "beef", "detections": None},
        "versions": {backend: "1.0", "numpy": "2.0"},
        "statistics": {"AP": average_precision, "AP50": 0.9, "AP75": 0.8, "AR": 0.75, "AR50": 0.95},
    } | changed


def estimate(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "interval": [low, high], "left_out": 0}


def compared(reference: float, candidate: float, low: float, high: float) -> dict[str, Any]:
    return {
        "reference": reference,
        "candidate": candidate,
        "difference": candidate - reference,
        "interval": [low, high],
        "left_out": 0,
    }


def moved(name: str, within: float) -> dict[str, Any]:
    """What a certificate says of a joint, or of people of one size."""
    shares = {limit: estimate(within, within - 0.02, within + 0.01) for limit in ("1", "2", "4")}
    return {"name": name, "people": 20, "keypoints": 20, "oks": estimate(0.96, 0.95, 0.97), "within": shares}


def certificate(of: Mapping[str, Any], reference: str, **changed: Any) -> dict[str, Any]:
    """What certification writes of a row in reduced precision."""
    return {
        "model": of["model"],
        "variant": of["variant"],
        "precision": of["precision"],
        "reference": reference,
        "protocol": of["protocol"],
        "images": of["images"],
        "instances": of["instances"],
        "bootstrap": BOOTSTRAP,
        "statistics": {"AP": compared(0.59, 0.57, -0.031, -0.0095)},
        "share_of_fp32": estimate(0.9661, 0.95, 0.992)
        | {"targets": [{"target": 0.99, "verdict": "undecided"}, {"target": 0.999, "verdict": "not met"}]},
        "joints": [
            {"name": f"joint {place}", "labelled": 20, "similarity": compared(0.8, 0.79, -0.03, 0.01)}
            for place in range(NUM_KEYPOINTS)
        ],
        "without_labels": {
            "people": 25,
            "keypoints": 400,
            "oks": estimate(0.97, 0.965, 0.9741),
            "within": {
                "1": estimate(0.81, 0.80, 0.8249),
                "2": estimate(0.9, 0.88, 0.92),
                "4": {"value": 1.0, "interval": None, "left_out": 0},
            },
            "pixels": {"mean": 0.8, "median": 0.0, "p95": 4.3},
            "relative": {"mean": 0.008, "median": 0.0, "p95": 0.04},
            "by_joint": [moved(name, 0.9 - place / 100) for place, name in enumerate(KEYPOINTS)],
            "by_size": [
                {"name": "small", "people": 0, "keypoints": 0, "oks": None, "within": None},
                moved("medium", 0.88),
                moved("large", 0.92),
            ],
        },
        "outputs": {"crops": 32, "max_abs": 0.1, "rms": 0.003, "sqnr_db": 21.34},
        "layers": [
            {
                "name": "conv_0",
                "kernel": "7x7 stride 2",
                "stored": "int8",
                "bits": 8,
                "weights": [-127, 127],
                "levels": 245,
                "activation_scale": 59.5,
                "macs": 1000,
                "bounds": [],
            }
        ],
        "work": {"macs": 1000, "int8": 0.986, "float": 0.014, "bits": {"8": 0.986}},
        "overflow": {
            "can_overflow": [],
            "winograd_safe": [],
            "winograd_on_and_off": {"crops": 2, "largest_difference": 0.0, "equal": True},
        },
        "sha256": {"artifact": of["sha256"]["artifact"]},
        "versions": of["versions"],
    } | changed


def latency(median_ms: float, against_fp32: float | None = None) -> dict[str, Any]:
    return {
        "median_ms": median_ms,
        "quartiles_ms": [0.9 * median_ms, 1.1 * median_ms],
        "p95_ms": 1.5 * median_ms,
        "speedup": 2.5,
        "against_fp32": against_fp32,
    }


def cost(of: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """What the measurement of costs writes of a row."""
    return {
        "latency": latency(12.345),
        "throughput": {"per_second": 150.4, "threads": 2},
        "load_ms": 30.4,
        "memory_mb": 12.3,
        "size_bytes": 1_234_567,
        "sha256": of["sha256"]["artifact"],
    } | changed


def row_records(of: dict[str, Any], certified: dict[str, Any] | None = None, **more: Any) -> RowRecords:
    """What there is of a row, with links as the rules have them."""
    folder = f"{of['model']}/{of['variant']}"
    links = Links(log=f"{folder}/evaluate.log", certificate=f"{folder}/certificate.md" if certified else None)
    record = Record(Path(folder) / "certificate.json", certified) if certified else None
    return RowRecords(Record(Path(folder) / "metrics.json", of), links, record, **more)


def network_records(
    rows: Sequence[RowRecords], name: str = "net", costs: Mapping[str, Mapping[str, Any]] | None = None
) -> NetworkRecords:
    """What there is of a network; rows that `costs` does not name cost the same."""
    of_rows = {
        row.metrics.content["variant"]: (costs or {}).get(row.metrics.content["variant"]) or cost(row.metrics.content)
        for row in rows
    }
    cpu = {"name": "a CPU", "features": ["AVX2"], "cores": 2}
    measured = {"model": name, "run": "once", "cpu": cpu, "rounds": 60, "reference": "ONNX Runtime FP32"}
    measured["rows"] = of_rows
    return NetworkRecords(spec(name), f"{name}/onnx/operators.md", Record(Path(f"{name}/latency.json"), measured), rows)


def settings(networks: Sequence[NetworkRecords], **of_networks: Any) -> dict[str, Any]:
    """What the configuration says of the study."""
    models = {network.spec.name: {"architecture": "Net", "source": "mmpose", **of_networks} for network in networks}
    study = {"tolerance": {"oks_loss": 0.03, "ap_loss": 0.02}, "models": models}
    return {"study": "mine", "studies": {"mine": study}}


def result(*rows: RowRecords, **of_networks: Any) -> Result:
    """The result of a study of one network."""
    networks = [network_records(rows)]
    return collect("mine", settings(networks, **of_networks), networks, CALIBRATION)


def small_result() -> Result:
    """Two rows in FP32, one certified in INT8."""
    int8 = metrics("ncnn-int8", "ncnn", "int8", 0.57)
    return result(
        row_records(metrics("pytorch", "pytorch", "fp32", 0.6)),
        row_records(metrics("ncnn", "ncnn", "fp32", 0.59)),
        row_records(int8, certificate(int8, "ncnn")),
    )
