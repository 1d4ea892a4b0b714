"""Valid content with a few changes, for tests of what reads it: it is read, or refused by an `InputError`."""

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

from posequant.base.errors import InputError

# What a reader of numbers, names and lists stumbles over.
_WORDS = [
    *("", " ", "=", "0=", "=1", "-1", "0", "1", "7", "-23300=2,1,2", "-23310=1,nan", "0=x", "6=-4", "1=0", "3=0"),
    *("nan", "inf", "-inf", "1e30", "1e400", "-0.0", "1e-30", "9" * 30, "9" * 5000, "0x10", "1_0", "\u0661", "\0", "é"),
]
_VALUES: list[Any] = [
    *(None, True, 0, -1, 2**63, 10**400, 0.5, float("nan"), float("inf"), "", "abc", "\0", b"abc"),
    *([], [[]], {}, {"": None}, {1: 2}, [None], ["kl"], {"type": "MSRAHeatmap"}),
]


@st.composite
def mutated_lines(draw: st.DrawFn, text: str, words: list[str] = _WORDS) -> str:
    """Text with up to four words or lines left out, doubled, exchanged or replaced."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        if not lines:
            break
        place = draw(st.integers(0, len(lines) - 1))
        tokens = lines[place].split()
        token = draw(st.integers(0, max(0, len(tokens) - 1)))
        match draw(
            st.sampled_from(["drop line", "double line", "exchange", "cut", "drop", "replace", "insert", "append"])
        ):
            case "drop line":
                del lines[place]
            case "double line":
                lines.insert(place, lines[place])
            case "exchange":
                other = draw(st.integers(0, len(lines) - 1))
                lines[place], lines[other] = lines[other], lines[place]
            case "cut":
                lines[place:] = [lines[place][: draw(st.integers(0, len(lines[place])))]]
            case "drop" if tokens:
                lines[place] = " ".join(tokens[:token] + tokens[token + 1 :])
            case "replace" if tokens:
                lines[place] = " ".join([*tokens[:token], draw(st.sampled_from(words)), *tokens[token + 1 :]])
            case "insert":
                lines[place] = " ".join([*tokens[:token], draw(st.sampled_from(words)), *tokens[token:]])
            case "append" if tokens:
                lines[place] = " ".join(
                    [*tokens[:token], tokens[token] + draw(st.sampled_from(words)), *tokens[token + 1 :]]
                )
    return "\n".join(lines)


@st.composite
def mutated_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Content with up to four bytes changed, or cut off, or longer."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    end = draw(st.integers(0, len(changed) + 8)) if draw(st.booleans()) else len(changed)
    return bytes(changed[:end]) + bytes(max(0, end - len(changed)))


@st.composite
def mutated_tree(draw: st.DrawFn, content: dict[str, Any]) -> dict[str, Any]:
    """Mappings and lists with up to three entries left out, renamed, added or replaced, at any depth."""
    tree = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        parent: Any = tree
        while True:
            keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(parent[key], dict | list) and draw(st.integers(0, 3)):
                parent = parent[key]
                continue
            value = copy.deepcopy(draw(st.sampled_from(_VALUES)))
            match draw(st.sampled_from(["drop", "replace", "rename", "add"])):
                case "drop":
                    del parent[key]
                case "rename" if isinstance(parent, dict):
                    parent[draw(st.sampled_from(["abc", "", "a/b", "..", "\0", 1, None]))] = parent.pop(key)
                case "add" if isinstance(parent, list):
                    parent.append(value)
                case _:
                    parent[key] = value
            break
    return tree


def read_or_refused(read: Callable[[], object]) -> None:
    """Let `read` read or refuse its input; any other exception is a fault."""
    with suppress(InputError):
        read()
