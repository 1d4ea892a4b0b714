"""Networks of mmpose, by the names of their configs alone, through every stage: PyTorch to INT8 to keypoints."""

from pathlib import Path

import pytest

from posequant.survey.survey import STAGES, Record, markdown, survey

ROOT = Path(__file__).parents[3]
CONFIGS = [line for line in (ROOT / "models/survey.txt").read_text().splitlines() if not line.startswith("#")]
FAST = (
    "models/td-hm_res18_8xb64-210e_coco-256x192.py",
    "td-hm_mobilenetv2_8xb64-210e_coco-256x192",
    "td-hm_shufflenetv2_8xb64-210e_coco-256x192",
    "rtmpose-t_8xb256-420e_coco-256x192",
)
# What stops a network, a part of the message.
STOPPED = {
    "td-hm_hrformer-small_8xb32-210e_coco-256x192": "Tensor.reshape",
    "td-hm_swin-t-p4-w7_8xb32-210e_coco-256x192": "Tensor.reshape",
    "td-hm_pvt-s_8xb64-210e_coco-256x192": "aten::unflatten",
    "td-reg_res50_8xb64-210e_coco-256x192": "codec RegressionLabel is not supported",
}
# Each of its modules doubles some channels, and the scales of its depthwise convolutions are those of the largest.
LEAST_INT8_DB = {"td-hm_litehrnet-18_8xb64-210e_coco-256x192": 5}
# Layers in INT8: of a transformer all but its deconvolutions.
LEAST_QUANTIZED = {"td-hm_ViTPose-small_8xb64-210e_coco-256x192": 50}


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
    assert int8 > LEAST_INT8_DB.get(config, 10)
    assert len(record.quantized) >= LEAST_QUANTIZED.get(config, 10)
    # What is left in float is deconvolutions, of which only those in groups cannot be convolutions, and groups.
    grouped = {"grouped convolution", "DeconvolutionDepthWise"} & record.kept_float.keys()
    assert record.work.get("split", record.work["int8"]) > (0.3 if grouped else 0.999)
    assert ("split" in record.work) == ("Deconvolution" in record.kept_float)
    if "split" in record.work:
        split = record.sqnr_db["split"]
        assert split is not None
        assert record.work["split"] > record.work["int8"]
        assert split > int8 - 3


def test_page_tells_networks_that_came_through_from_those_that_did_not() -> None:
    whole = Record(
        "good",
        codec="MSRAHeatmap",
        input_size=(192, 256),
        parameters=1_500_000,
        sqnr_db={"fp32": 120.0, "bf16": None, "int8": 30.04, "split": 29.0},
        work={"int8": 0.914, "split": 0.998},
        quantized=["one", "two"],
        kept_float={"Deconvolution": 3, "Oddity": 1},
        seconds={"describe": 1.0},
    )
    page = markdown([whole, Record("bad", failed="export", reason="aten::a|b")])
    assert "1 of 2 reach INT8" in page
    done, stopped = page.split("## Stopped")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.splitlines() if "`good`" in line]
    kept = "3 Deconvolution, 1 Oddity"
    figures = ["1.50 M", "120.0 dB", "refused", "30.0 dB", "29.0 dB", "2 of 6", kept, "91%", "100%"]
    assert cells == [["`good`", "MSRAHeatmap", "192x256", *figures]]
    assert "| Deconvolution " in done
    assert "does not calibrate it" in done
    assert "bad" not in done
    assert "aten::a\\|b" in stopped


def test_unknown_config_is_a_record_too() -> None:
    record = survey("td-hm_nothing")
    assert record.failed == "describe"
    assert "no such config" in record.reason


def test_reasons_name_no_folders_of_this_machine(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text("model = dict(type='BottomupPoseEstimator')")
    assert survey(str(config)).reason.startswith("config.py: model.type is 'BottomupPoseEstimator'")
