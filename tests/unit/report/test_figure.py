from pathlib import Path
from xml.etree import ElementTree

from posequant.base.model_spec import ModelSpec
from posequant.report.figure import draw
from posequant.report.page import Model, Row


def model() -> Model:
    spec = ModelSpec("net", (192, 256), (0, 0, 0), (1, 1, 1), True, 1.25, False, {}, "heatmap", True, "input", ("out",))
    rows = [
        Row(
            {"variant": variant, "backend": "ncnn", "precision": precision, "statistics": {"AP": 0.5}},
            {"latency": {"speedup": 1.5}, "size_bytes": 2_000_000},
            "log",
        )
        for variant, precision in (("ncnn", "fp32"), ("ncnn-int8", "int8"))
    ]
    return Model(spec, "Net", "operators.md", rows)


def test_picture_is_svg_and_repeats_byte_for_byte(tmp_path: Path) -> None:
    files = [tmp_path / "1.svg", tmp_path / "2.svg"]
    for file in files:
        draw([model(), model()], file)
    assert ElementTree.parse(files[0]).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert files[0].read_bytes() == files[1].read_bytes()
