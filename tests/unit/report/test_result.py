import json
from pathlib import Path

import pytest
from tests.unit.result_fixtures import small_result

from posequant.base.errors import InputError
from posequant.report.result import Result, schema_text, variant_title


def test_what_is_written_is_read(tmp_path: Path) -> None:
    small_result().write(tmp_path / "result.json")
    assert Result.read(tmp_path / "result.json") == small_result()


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("1.json", "2.json"):
        small_result().write(tmp_path / name)
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


@pytest.mark.parametrize(("content", "said"), [({}, "it has no version"), ({"schema": 99}, "its version is 99")])
def test_another_version_is_refused(tmp_path: Path, content: dict[str, int], said: str) -> None:
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"result\.json: {said}"):
        Result.read(tmp_path / "result.json")


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    small_result().write(tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text())
    content["networks"][0]["rows"][0]["precision"] = "int4"
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"networks\.0\.rows\.0\.precision: 'int4' is not"):
        Result.read(tmp_path / "result.json")


def test_schema_in_the_repository_is_that_of_the_classes() -> None:
    committed = Path(__file__).parents[3] / "docs" / "result.schema.json"
    assert committed.read_text() == schema_text(), "run `make schema`"


def test_schema_describes_what_is_written() -> None:
    schema = json.loads(schema_text())
    written = small_result().model_dump(mode="json", by_alias=True)
    assert set(schema["properties"]) == set(written)
    assert set(schema["$defs"]["Row"]["properties"]) == set(written["networks"][0]["rows"][0])


@pytest.mark.parametrize(
    ("variant", "backend", "precision", "title"),
    [
        ("ncnn", "ncnn", "fp32", "ncnn FP32"),
        ("ncnn-int8", "ncnn", "int8", "ncnn INT8"),
        ("ncnn-int8-aciq", "ncnn", "int8", "ncnn INT8 aciq"),
        ("onnxruntime", "onnxruntime", "fp32", "ONNX Runtime FP32"),
    ],
)
def test_title(variant: str, backend: str, precision: str, title: str) -> None:
    assert variant_title(variant, backend, precision) == title
