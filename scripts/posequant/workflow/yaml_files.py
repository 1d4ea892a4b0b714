"""What YAML itself passes over: a key that stands twice; and where a file is not YAML at all."""

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from posequant.base.errors import InputError
from posequant.base.files import require_file


def check_yaml(path: Path) -> None:
    """Make sure that a configuration file is YAML or JSON, with each key once.

    Raises:
        InputError: it is not; the message begins with `FILE:LINE: `, and says everything that is wrong with its keys.
    """
    try:
        text = require_file(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8 (byte {error.start}). Save it as such.") from error
    try:
        json.loads(text)
        # JSON is YAML but for tabs, which in JSON never mean anything.
        text = text.replace("\t", " ")
    except (json.JSONDecodeError, RecursionError):
        pass
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        context = f"{error.context}, " if error.context else ""
        raise InputError(f"{place}: not valid YAML: {context}{error.problem}. Indent by spaces only.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path}:1: holds no keys with values, such as 'study: demo'")
    if faults := list(_doubled(root, path)):
        raise InputError("\n".join(faults))


def _doubled(root: yaml.Node, path: Path) -> Iterator[str]:
    """Yield what to say of each key that stands twice in its mapping."""
    # Of a part with an anchor, which may hold itself, once.
    waiting, seen = [(root, "")], set()
    while waiting:
        node, place = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(entry, f"{place}{number}.") for number, entry in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            waiting.append((value, f"{place}{key.value}."))
            if not isinstance(key, yaml.ScalarNode):
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                yield (
                    f"{path}:{line}: the key '{place}{key.value}' is in line {lines[name]} already; YAML would take "
                    "the last in silence. Remove one of them."
                )
            lines.setdefault(name, line)
