"""What all settings have in common: how they are checked, what is said of faults, and how scripts take them."""

import argparse
import difflib
import json
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from posequant.base.errors import InputError

Name = TypeVar("Name", bound=str)
Kind = TypeVar("Kind", bound=BaseModel)

# By pydantic's name of a fault; the words in braces are what pydantic tells of it.
_MESSAGES = {
    "missing": "{key} is missing",
    "int_type": "{value} is not a whole number",
    "int_from_float": "{value} is not a whole number",
    "float_type": "{value} is not a number",
    "finite_number": "{value} is not a number",
    "bool_type": "{value} is neither true nor false",
    "string_type": "{value} is not text; put it in quotes if it is meant as text",
    "list_type": "{value} is not a list",
    "tuple_type": "{value} is not a list",
    "dict_type": "{value} is not a mapping of keys to values",
    "model_type": "{value} is not a mapping of keys to values",
    "greater_than": "{value} is not greater than {gt:g}",
    "greater_than_equal": "{value} is less than the minimum of {ge:g}",
    "less_than": "{value} is not less than {lt:g}",
    "less_than_equal": "{value} is greater than the maximum of {le:g}",
    "too_short": "{value} has {actual_length} entries; give at least {min_length}",
    "too_long": "{value} has {actual_length} entries; give at most {max_length}",
    "literal_error": "{value} is not {expected}{nearest}",
}


class Settings(BaseModel):
    """Settings with their defaults, ranges and descriptions; `pydantic` has the details.

    Instances do not change. Types are taken at their word: 1 is not true, and "1" is not 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_empty(cls, value: Any) -> Any:
        if value is None:
            raise fault("is empty; give it a value, or remove the key")
        return value

    def filled(self) -> dict[str, Any]:
        """Return the settings as they stand in a file, defaults filled in; keys without a value are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def fault(message: str) -> PydanticCustomError:
    """Return the exception by which a validator refuses a value; what is wrong and what to do, in words."""
    return PydanticCustomError("fault", "{message}", {"message": message})


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: the known one that is most like it, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(sorted(known))}"


def each_once(names: list[Name]) -> list[Name]:
    """Return names if each is there once; `fault` otherwise."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise fault(f"{', '.join(map(repr, twice))} is listed twice; name each once")
    return names


def checked(kind: type[Kind], content: Any, *, what: str, prefix: str = "") -> Kind:
    """Return the settings that `content` has.

    Args:
        kind: the settings.
        content: mappings, lists and values, as from YAML or JSON.
        what: is checked, in words, for the message.
        prefix: of the path of each key in the message.

    Raises:
        InputError: with every fault found: the key's path, what is wrong and, for an unknown key, the nearest known
            one.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise not_valid(what, [_in_words(one, kind, prefix) for one in error.errors()]) from None


def checked_json(kind: type[Kind], text: str, *, option: str) -> Kind:
    """Return the settings given as JSON to an option of a script.

    Raises:
        InputError: as `checked`, and where the text is no JSON.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{option}: not valid JSON ({error})") from error
    return checked(kind, content, what=option, prefix=f"{option}.")


def not_valid(what: str, faults: Iterable[str]) -> InputError:
    """Return the exception that lists faults, one a line."""
    return InputError(f"{what} is not valid:\n" + "\n".join(f"  - {one}" for one in faults))


def add_options(parser: argparse.ArgumentParser, kind: type[Settings]) -> None:
    """Give a script an option for each of some settings, with its default and description."""
    for name, field in kind.model_fields.items():
        inner, several = field.annotation, False
        if get_origin(inner) is list:
            (inner,), several = get_args(inner), True
        while get_origin(inner) is Annotated:
            inner = get_args(inner)[0]
        options: dict[str, Any] = {"required": field.is_required()}
        if not field.is_required():
            options["default"] = field.get_default()
        if inner is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif get_origin(inner) is Literal:
            options["choices"] = get_args(inner)
        else:
            options["type"] = inner
        if several:
            options["nargs"] = "+"
        text = (field.description or "").rstrip(".").replace("%", "%%")
        text = text[:1].lower() + text[1:] if text[1:2].islower() else text
        default = "" if field.is_required() else " (default: %(default)s)"
        parser.add_argument(f"--{name.replace('_', '-')}", help=text + default, **options)


def chosen(kind: type[Kind], arguments: argparse.Namespace) -> Kind:
    """Return the settings that the options of `add_options` have been given; `InputError` where one is out of range."""
    content = {name: getattr(arguments, name) for name in kind.model_fields}
    return checked(kind, content, what="the command line", prefix="--")


def _in_words(error: ErrorDetails, kind: type[BaseModel], prefix: str) -> str:
    place = error["loc"]
    missing, unknown = error["type"] == "missing", error["type"] == "extra_forbidden"
    path, settings = _follow(kind, place[:-1] if missing or unknown else place)
    key = str(place[-1]) if place else ""
    if unknown:
        message = f"unknown key '{key}'{nearest(key, _keys(settings))}"
    elif error["type"] in _MESSAGES:
        key = f"entry {place[-1] + 1}" if missing and isinstance(place[-1], int) else f"key '{key}'"
        words = {"key": key, "value": _short(error["input"]), "nearest": "", **error.get("ctx", {})}
        if error["type"] == "literal_error" and isinstance(error["input"], str):
            close = difflib.get_close_matches(error["input"], map(str, get_args(_bare(settings))), n=1)
            words["nearest"] = f"; did you mean '{close[0]}'?" if close else ""
        message = _MESSAGES[error["type"]].format_map(words)
    else:
        message = error["msg"]
    keys = ".".join(path)
    if prefix == "--":
        keys = keys.replace("_", "-")
    return f"{(prefix + keys).rstrip('.') or 'config'}: {message}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _follow(kind: Any, place: Sequence[str | int]) -> tuple[list[str], Any]:
    """Return the keys to a place, and the type there; without pydantic's own steps, into kinds and to names of keys."""
    path = []
    for step in place:
        kind = _bare(kind)
        if step == "[key]":
            continue
        if get_origin(kind) in (Union, UnionType):
            # The tag of a kind is the name of its class.
            kind = next(one for one in map(_bare, get_args(kind)) if one.__name__ == step)
        else:
            path.append(str(step))
            kind = _keys(kind).get(str(step)) if _is_settings(kind) else next(reversed(get_args(kind)), None)
    return path, kind


def _bare(kind: Any) -> Any:
    """Return a type without annotations, without None, and without a model around it that has but a root."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, UnionType) and type(None) in get_args(kind):
            (kind,) = (one for one in get_args(kind) if one is not type(None))
        elif isinstance(kind, type) and issubclass(kind, RootModel):
            kind = kind.model_fields["root"].annotation
        else:
            return kind


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _keys(kind: Any) -> dict[str, Any]:
    """Return the keys of settings, each with its type."""
    kind = _bare(kind)
    if not _is_settings(kind):
        return {}
    return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
