"""The checks of config.yaml: against its schema, and where one key refers to another."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from posequant.base.errors import InputError


def validate_config(config: dict[str, Any], schema_path: Path) -> None:
    """Fill the defaults of the schema into `config`, in place, and check it.

    Raises:
        InputError: with every fault found: the key's path, what is wrong and, for an unknown key, the nearest known
            one.
    """
    schema = yaml.safe_load(schema_path.read_text())
    faults = [_describe(error) for error in _FillingValidator(schema).iter_errors(config)]
    if not faults:
        faults = list(_broken_references(config))
    if faults:
        raise InputError("the configuration is not valid:\n" + "\n".join(f"  - {fault}" for fault in faults))


def _fill_defaults(
    validator: Any, properties: Mapping[str, Any], instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    # The recipe of the jsonschema documentation, FAQ "Why doesn't my schema's default property set the default".
    if isinstance(instance, dict) and schema.get("additionalProperties") is False:
        for name, subschema in properties.items():
            if "default" in subschema:
                value = subschema["default"]
                instance.setdefault(name, dict(value) if isinstance(value, dict) else value)
    yield from Draft202012Validator.VALIDATORS["properties"](validator, properties, instance, schema)


_FillingValidator: Any = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"properties": _fill_defaults}
)


def _describe(error: ValidationError) -> str:
    place = ".".join(str(step) for step in error.absolute_path) or "config"
    schema: Any = error.schema
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(schema["properties"])
        unknown = [str(key) for key in error.instance if key not in known]
        return "; ".join(f"{place}: unknown key '{key}'{_nearest(key, known)}" for key in unknown)
    if error.validator == "not":
        misplaced = schema["not"].get("required")
        what = f"key '{misplaced[0]}' does not belong here" if misplaced else f"{error.instance!r} is not allowed here"
        return f"{place}: {what}"
    if error.validator == "oneOf":
        choices = ", ".join(f"'{choice['required'][0]}'" for choice in schema["oneOf"])
        return f"{place}: give exactly one of {choices}"
    return f"{place}: {error.message}"


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(sorted(known))}"


def _misplaced_steps(steps: list[str]) -> Iterator[str]:
    """Yield which of a recipe's steps is missing or stands where it cannot work."""
    scales = ("weights", "activations")
    yield from (f"no step '{needed}', which chooses scales" for needed in scales if needed not in steps)
    if "budget" in steps[:-1]:
        yield "'budget' must be the last step"
    for place, step in enumerate(steps):
        if step in ("round", "correct-bias", "budget"):
            yield from (f"'{step}' must come after '{needed}'" for needed in scales if needed not in steps[:place])
        if step == "activations" and "weights" not in steps[:place]:
            yield "'activations' must come after 'weights'"
        if step == "equalize" and any(earlier in scales for earlier in steps[:place]):
            yield "'equalize' must come before 'weights' and 'activations'"


def _broken_references(config: dict[str, Any]) -> Iterator[str]:
    studies, variants = config["studies"], config["variants"]
    if config["study"] not in studies:
        yield f"study: there is no study '{config['study']}'{_nearest(config['study'], list(studies))}"
    for name, recipe in config["recipes"].items():
        faults = _misplaced_steps([step for entry in recipe for step in entry])
        yield from (f"recipes.{name}: {fault}" for fault in faults)
    for name, variant in variants.items():
        known = ["kl", "aciq", *config["recipes"]]
        if (calibration := variant.get("calibration")) not in (None, *known):
            yield f"variants.{name}.calibration: there is no recipe '{calibration}'{_nearest(calibration, known)}"
    sources: dict[str, str] = {}
    for name, study in studies.items():
        for variant in study["variants"]:
            if variant not in variants:
                yield f"studies.{name}.variants: no variant '{variant}'{_nearest(variant, list(variants))}"
            elif variants[variant]["backend"] == "pytorch":
                for model, settings in study["models"].items():
                    if settings["source"] == "onnx":
                        yield (
                            f"studies.{name}.variants: '{variant}' runs in PyTorch, but model '{model}' is an ONNX "
                            "file; remove the variant"
                        )
        if study["protocol"]["boxes"] == "detections" and "detections" not in study["dataset"]:
            yield (
                f"studies.{name}.protocol.boxes: 'detections' needs the file studies.{name}.dataset.detections; "
                "name it, or evaluate on ground-truth boxes"
            )
        for model, settings in study["models"].items():
            for place, entry in enumerate(settings.get("published", [])):
                for variant in entry["variants"]:
                    if variant not in variants:
                        yield (
                            f"studies.{name}.models.{model}.published.{place}.variants: no variant '{variant}'"
                            f"{_nearest(variant, list(variants))}"
                        )
            if sources.setdefault(model, settings["source"]) != settings["source"]:
                yield f"studies.{name}.models.{model}: the same name has another source in another study; rename it"
