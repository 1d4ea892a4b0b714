"""Networks of mmpose, by the names of their configs alone, through every stage: PyTorch to INT8 to keypoints."""

from pathlib import Path

import pytest

from posequant.survey import STAGES, Record, markdown, survey

ROOT = Path(__file__).parents[2]
CONFIGS = [line for line in (ROOT / "models/survey.txt").read_text().splitlines() if not line.startswith("#")]
FAST = (
    "models/td-hm_res18_8xb64-210e_coco-256x192.py",
    "td-hm_mobilenetv2_8xb64-210e_coco-256x192",
    "td-hm_shufflenetv2_8xb64-210e_coco-256x192",
    "rtmpose-t_8xb256-420e_coco-256x192",
)
# What stops a network, a part of the message.
STOPPED = {"td-hm_ViTPose-small_8xb64-210e_coco-256x192": "mmpretrain"}


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, marks=[] if config in FAST else pytest.mark.slow, id=Path(config).stem)
        for config in CONFIGS
    ],
)
def test_network_goes_all_the_way(config: str) -> None:
    record = survey(str(ROOT / config) if config.startswith("models/") else config)
    if config in STOPPED:
        assert record.failed
        assert STOPPED[config] in record.reason
        return
    assert not record.failed, f"{record.failed}: {record.reason}"
    assert tuple(record.seconds) == STAGES
    assert record.people > 0
    fp32, int8 = record.sqnr_db["fp32"], record.sqnr_db["int8"]
    assert fp32 is not None
    assert int8 is not None
    assert fp32 > 80
    assert int8 > 10
    assert len(record.quantized) > 10


def test_page_tells_networks_that_came_through_from_those_that_did_not() -> None:
    whole = Record(
        "good",
        codec="MSRAHeatmap",
        input_size=(192, 256),
        parameters=1_500_000,
        sqnr_db={"fp32": 120.0, "bf16": None, "int8": 30.04},
        quantized=["one", "two"],
        kept_float={"Gemm, not calibrated": 3},
        seconds={"describe": 1.0},
    )
    page = markdown([whole, Record("bad", failed="export", reason="aten::a|b")])
    done, stopped = page.split("## Stopped")
    assert "| 1.50 M " in done
    assert "| 120.0 " in done
    assert "| NaN " in done
    assert "| 30.0 " in done
    assert "| 3 Gemm, not calibrated |" in done
    assert "bad" not in done
    assert "aten::a\\|b" in stopped


def test_unknown_config_is_a_record_too() -> None:
    record = survey("td-hm_nothing")
    assert record.failed == "describe"
    assert "no such config" in record.reason
