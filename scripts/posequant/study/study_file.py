"""The file of a first study: its content, its text, its check, and how long it takes."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from posequant.base.errors import InputError
from posequant.base.files import whole
from posequant.base.markdown import table
from posequant.base.measures import AP, PCK, Measure
from posequant.study.trial import Outcome, behind
from posequant.workflow.costs import Network
from posequant.workflow.estimate import makespan, planned_job, roughly, work
from posequant.workflow.local_files import find_file
from posequant.workflow.settings.config import Model
from posequant.workflow.study_config import validate_config
from posequant.workflow.yaml_files import check_yaml

# Of what poses are judged by against the labels; below it, no normalisation that was tried can be right. 1 - NME of
# keypoints at random places is larger than their OKS.
LEAST = {AP: 0.3, PCK: 0.7}
_LINE = 118
_ROWS = {
    "onnx": ("onnxruntime", "ncnn", "ncnn-int8"),
    "ncnn": ("ncnn", "ncnn-int8"),
    "mmpose": ("pytorch", "onnxruntime", "ncnn", "ncnn-int8"),
}
# The jobs of a study that take time: of each model, and of each row.
_OF_MODEL = ("simplify", "convert_ncnn", "calibration_crops", "evaluation_crops", "latency")
_OF_ROW = {
    ("ncnn", "int8"): ("ncnn2table", "ncnn2int8", "certify", "pictures"),
    ("openvino", "int8"): ("quantize_openvino", "certify", "pictures"),
    ("onnxruntime", "int8"): ("quantize_onnxruntime", "certify", "pictures"),
}
_IMPORT = {"onnx": "import_onnx", "ncnn": "import_ncnn", "mmpose": "export"}
# As many as the workflow gives a prediction.
_THREADS = 4


def name_from(text: str) -> str:
    """Return a name of a study or model, made from that of a file."""
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text).strip("._") or "mine"


def named_model(name: str) -> str | None:
    """Return the name of a network of mmpose as a study may give it in place of keys; None where it may not."""
    try:
        TypeAdapter(Model).validate_python(name)
    except ValidationError:
        return None
    return name


def default_rows(source: str) -> list[str]:
    """Return the rows of a first study of a model: the float network in each of few runtimes, and ncnn's INT8."""
    return [*_ROWS[source]]


def model_settings(outcome: Outcome, input_size: Sequence[int], padding: float) -> dict[str, Any]:
    """Return the keys of a model that say how it is fed and read, as they were found."""
    normalisation, reading = outcome.chosen.normalisation, outcome.chosen.reading
    return {
        "input_size": [*input_size],
        "mean": [*normalisation.mean],
        "std": [*normalisation.std],
        **({} if normalisation.to_rgb else {"to_rgb": False}),
        **({"padding": padding} if padding != 1.25 else {}),
        **({"use_udp": True} if reading.use_udp else {}),
        **({"flip_mode": reading.flip_mode} if reading.flip_mode != "heatmap" else {}),
        **({"shift_heatmap": True} if reading.shift_heatmap else {}),
        "codec": dict(reading.codec),
    }


def findings(outcome: Outcome, people: str, measure: Measure) -> list[str]:
    """Return what the trial found: paragraphs, the second a table.

    Args:
        outcome: of the trial.
        people: on whom, in words.
        measure: what networks of their keypoints are judged by.
    """
    best, chosen = outcome.attempts[0], outcome.chosen
    lines = []
    for one in outcome.attempts:
        distance, error = behind(best, one)
        lines.append(
            {
                "normalisation": one.normalisation.name,
                "codec": one.reading.name,
                "mean OKS": f"{one.mean_oks:.4f}",
                "behind the best": "" if one is best else f"{distance:.4f} +- {error:.4f}",
                "": "<- taken" if one is chosen else "close" if one in outcome.close else "",
            }
        )
    said = [
        f"Mean OKS of {people}, with the labels in the place of the truth; behind the best, with the standard error:",
        table(lines),
    ]
    if outcome.close:
        said.append(
            "Too close to tell, for these people: what is marked. The best was taken. More people tell more: --people "
            f"{4 * len(best.oks)}."
        )
    if best.reading.plain and chosen is not best:
        said.append(
            f"The codec is read plainly. Refined by DARK ({_flow(best.reading.codec)}) it is better by "
            f"{behind(best, chosen)[0]:.4f}; --dark takes that. Take what your application does."
        )
    if best.mean_oks < LEAST[measure]:
        said.append("Nothing fits well: the normalisation, the codec or the order of keypoints may be another.")
    return [measure.said(one) for one in said]


def text_of(content: Mapping[str, Any], comment: Sequence[str]) -> str:
    """Return a study file: paragraphs of comment, then the settings."""
    lines = []
    for paragraph in comment:
        lines += [*_wrapped(paragraph), ""]
    head = "\n".join(f"# {line}".rstrip() for line in lines[:-1])
    return f"{head}\n\n{_as_yaml(content)}"


def write_study(target: Path, text: str, shipped: Mapping[str, Any], beside: Path) -> dict[str, Any]:
    """Check a study file by the settings' own validation and write it; return the whole configuration with it.

    Args:
        target: the file.
        text: its content.
        shipped: the configuration that the workflow ships, onto which Snakemake puts the file.
        beside: the folder of the workflow, where relative paths are looked for, too.

    Raises:
        InputError: the file is there already; the configuration is not valid; a path in it is not there.
    """
    if target.exists():
        raise InputError(f"{target}: is there already. Remove it, or name another file by --out.")
    content = yaml.safe_load(text)
    for study in content["studies"]:
        if study in shipped["studies"]:
            raise InputError(
                f"a study '{study}' is in the workflow's own config.yaml already; choose another by --name"
            )
    with whole(target) as draft:
        draft.write_text(text, encoding="utf-8")
        check_yaml(draft)
        config = _merged(shipped, content)
        validate_config(config)
        for study, settings in content["studies"].items():
            for key, source in _paths(settings):
                if "://" not in source:
                    find_file(f"studies.{study}.{key}", source, beside)
    return config


def time_of(config: Mapping[str, Any], study: str, network: Network, people: int, cores: int) -> str:
    """Return how long a study of one network takes on so many cores, about.

    Args:
        config: the whole configuration, checked.
        study: its name.
        network: what the network takes.
        people: who are evaluated.
        cores: how many there are.
    """
    settings = config["studies"][study]
    ((model, keys),) = settings["models"].items()
    source = "mmpose" if isinstance(keys, str) else keys["source"]
    jobs = []

    def add(rule: str, threads: int = 1, **wildcards: str) -> None:
        known = {"study": study, "model": model, **wildcards}
        jobs.append(planned_job(rule, work(rule, known, config, network=network, people=people), [], threads, ()))

    for rule in (_IMPORT[source], *_OF_MODEL):
        add(rule, threads=cores if rule == "latency" else 1)
    for row in settings["variants"]:
        variant = config["variants"][row]
        add("predict", threads=_THREADS, variant=row)
        add("evaluate", variant=row)
        for rule in _OF_ROW.get((variant["backend"], variant["precision"]), ()):
            recipe = rule == "ncnn2table" and variant["calibration"] in config["recipes"]
            add("apply_recipe" if recipe else rule, threads=_THREADS, variant=row)
    for rule in ("calibration_set", "collect_result", "render_report", "render_result"):
        add(rule)
    return roughly(makespan(jobs, cores))


def _paths(study: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [
        (f"dataset.{split}.{key}", value)
        for split in ("train", "val")
        for key, value in study["dataset"][split].items()
        if key in ("images", "annotations")
    ]
    for model, keys in study["models"].items():
        if not isinstance(keys, str):
            files = ("onnx", "param", "bin", "config", "checkpoint")
            found += [(f"models.{model}.{key}", keys[key]) for key in files if key in keys]
    return found


def _merged(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with another on top of it, key by key, as Snakemake's `update_config`."""
    result = deepcopy(dict(base))
    for key, value in other.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both else value
    return result


def _wrapped(paragraph: str) -> list[str]:
    if paragraph.startswith("|"):
        return paragraph.splitlines()
    return textwrap.wrap(paragraph, _LINE, break_long_words=False, break_on_hyphens=False)


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).strip()


def _as_yaml(content: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(
        content, default_flow_style=None, sort_keys=False, width=10_000, allow_unicode=True, indent=2
    )
    return text
