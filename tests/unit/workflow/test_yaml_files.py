"""Configuration files: what YAML passes over in silence, and where a file is no YAML."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.fuzzing import fuzz

from posequant.base.errors import InputError
from posequant.workflow.yaml_files import check_yaml

ROOT = Path(__file__).parents[3]


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "my.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_shipped_config_is_good() -> None:
    check_yaml(ROOT / "config.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("study: a\nshards: 1\nstudy: b\n", r"my\.yaml:3: the key 'study' is in line 1 already"),
        (
            "studies:\n  demo:\n    shards: 1\n    shards: 2\n",
            r"my\.yaml:4: the key 'studies\.demo\.shards' is in line 3",
        ),
        ("recipes: {a: [{x: 1}, {y: 1,\n y: 2}]}\n", r"my\.yaml:2: the key 'recipes\.a\.1\.y' is in line 1"),
        ('{"study": "a",\n\t"study": "b"}', r"my\.yaml:2: the key 'study' is in line 1"),
        ("study: a\nstudies:\n  demo: [\n", r"my\.yaml:4: not valid YAML"),
        ("study: a\nstudies:\n\tdemo: 1\n", r"my\.yaml:3: not valid YAML: .*Indent by spaces"),
        ("study: 'a\n", r"my\.yaml:2: not valid YAML"),
        ("study: *nothing\n", r"my\.yaml:1: not valid YAML: found undefined alias"),
        ("- a\n- b\n", r"my\.yaml:1: holds no keys"),
        ("# nothing\n", r"my\.yaml:1: holds no keys"),
        ("", r"my\.yaml: the file is empty"),
        (b"study: \xff\xfe\n", r"my\.yaml: not text in UTF-8 \(byte 7\)"),
        ("study: \x07\n", r"my\.yaml: not valid YAML: .*special characters"),
        ("a: " + "[" * 100_000, r"my\.yaml: not valid YAML"),
    ],
)
def test_fault_is_named_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_yaml(written(tmp_path, content))


def test_every_doubled_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        check_yaml(written(tmp_path, "a: 1\nb: {c: 1, c: 2}\na: 2\n"))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    "content",
    [
        "a: {x: 1}\nb: {x: 1}\n",
        "1: a\n'1': b\n",
        "base: &base {x: 1}\na: {<<: *base, x: 2}\n",
        "a: &a\n  b: *a\n",
        '{"a":\t{"b": 1},\n\t"c": "d"}',
    ],
)
def test_what_yaml_allows_is_good(tmp_path: Path, content: str) -> None:
    check_yaml(written(tmp_path, content))


@fuzz
@given(content=st.text(st.sampled_from("ab:{}[],- \n\t'\"#&*!|>?1<")))
def test_any_text_is_good_or_refused(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    with suppress(InputError):
        check_yaml(written(tmp_path_factory.getbasetemp(), content))
