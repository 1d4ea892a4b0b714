"""Building networks from mmpose configs, against mmpose's own way, and what is refused."""

import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from tests.unit.export_fixtures import SIMCC, random_crops, write_checkpoint, write_config

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.openmmlab import (
    build_model,
    extract_weights,
    forward_tensors,
    load_config,
    make_importable,
    read_weights,
)

SHIPPED = "td-hm_hourglass52_8xb32-210e_coco-256x256"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path)


def test_import_is_silent_and_compiled_operators_raise_on_use() -> None:
    program = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from posequant.base.openmmlab import make_importable; make_importable(); make_importable()\n"
        "import mmpose.apis, torch\n"
        "from mmcv.ops import nms\n"
        "try: nms(torch.zeros(1, 4), torch.zeros(1), 0.5)\n"
        "except Exception as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert "compiled operator 'nms'" in run.stdout


def test_shipped_config_by_name() -> None:
    assert load_config(SHIPPED).codec.heatmap_size == (64, 64)
    assert load_config(SHIPPED + ".py").model.backbone.type == "HourglassNet"


def test_unknown_config_names_the_nearest() -> None:
    with pytest.raises(InputError, match=rf"no such config.*'{SHIPPED}'"):
        load_config("td-hm_hourglass52_8xb32-210e_coco-255x255")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = (", "cannot be read"),
        ("model = dict(type='BottomupPoseEstimator')", "TopdownPoseEstimator"),
        ("", "None"),
        ("model = 'abc'", "model is 'abc'"),
        ("model = ['abc']", r"model is \['abc'\]"),
        ("x = 1\nraise RuntimeError", r"broken\.py, line 2: RuntimeError"),
        ("import torch\nx = torch.ones(1)", r"broken\.py, line 2: what a config imports cannot be called"),
    ],
)
def test_config_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(InputError, match=rf"broken\.py: .*{message}"):
        load_config(tmp_path / "broken.py")


@pytest.mark.parametrize(
    ("old", "new"),
    [("depth=18", "depth='deep'"), ("base_channels=4", "base_channels=-4"), ("depth=18", "deepness=18")],
)
def test_layer_of_other_settings_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = write_config(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=r"config\.py: mmpose cannot build the network: \S+") as caught:
        build_model(load_config(path), None)
    assert "\n" not in str(caught.value)


def test_random_weights_follow_the_seed_and_leave_the_generator_alone(config: Path) -> None:
    content = load_config(config)
    before = torch.random.get_rng_state()
    same, other = build_model(content, None, seed=3).state_dict(), build_model(content, None, seed=4).state_dict()
    again = build_model(content, None, seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(again[key], same[key]) for key in same)
    assert not torch.equal(same["backbone.conv1.weight"], other["backbone.conv1.weight"])


def test_output_is_that_of_mmpose(config: Path, tmp_path: Path) -> None:
    make_importable()
    from mmpose.apis import init_model

    checkpoint = write_checkpoint(config, tmp_path / "checkpoint.pth")
    crops = torch.from_numpy(random_crops())
    reference = init_model(str(config), str(checkpoint), device="cpu")
    with torch.no_grad():
        expected = reference.head.forward(reference.extract_feat(crops))
    (found,) = forward_tensors(build_model(load_config(config), checkpoint), crops)
    assert found.shape == (2, 17, 24, 16)
    assert torch.equal(found, expected)


def test_simcc_gives_two_tensors(tmp_path: Path) -> None:
    model = build_model(load_config(write_config(tmp_path, SIMCC)), None)
    x, y = forward_tensors(model, torch.from_numpy(random_crops()))
    assert (x.shape, y.shape) == ((2, 17, 128), (2, 17, 192))


def test_last_stage_of_a_stacked_hourglass() -> None:
    content = load_config(SHIPPED)
    content.model.backbone.update(
        num_stacks=2, downsample_times=1, stage_channels=(256, 8), stage_blocks=(1, 1), feat_channel=8
    )
    content.model.head.update(num_stages=2, in_channels=8)
    model: Any = build_model(content, None)
    crops = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        stages = model.head.forward(model.extract_feat(crops))
    (found,) = forward_tensors(model, crops)
    assert len(stages) == 2
    assert torch.equal(found, stages[-1])


def test_checkpoint_of_the_runner_and_of_old_numpy(config: Path, tmp_path: Path) -> None:
    content = load_config(config)
    state = build_model(content, None, seed=5).state_dict()
    extras = {"message_hub": {"loss": HistoryBuffer([1.0, 2.0], [1, 1])}, "best": np.float64(0.5), "step": np.int64(3)}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, **extras}, tmp_path / "c.pth")
    loaded = build_model(content, tmp_path / "c.pth").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


class _Runs:
    def __init__(self, function: Callable[..., Any], argument: str) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class _Program:
    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (Path, "cwd"))


def test_checkpoint_that_does_not_fit(config: Path, tmp_path: Path) -> None:
    content = load_config(config)
    state = build_model(content, None).state_dict()
    path = tmp_path / "checkpoint.pth"
    cases: list[tuple[Any, str]] = [
        (
            {key: value for key, value in state.items() if key != "backbone.conv1.weight"},
            "lacks 'backbone.conv1.weight'",
        ),
        (state | {"neck.extra": torch.zeros(1)}, "has, and the network has not, 'neck.extra'"),
        (state | {"backbone.conv1.weight": torch.zeros(1)}, "size mismatch for backbone.conv1.weight"),
        ({"state_dict": {}}, "holds no state_dict"),
        ({"state_dict": state, "meta": _Program()}, r"holds code .*: it would call pathlib\.Path"),
    ]
    for saved, message in cases:
        torch.save(saved, path)
        with pytest.raises(InputError, match=rf"checkpoint\.pth: .*{message}"):
            build_model(content, path)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_named_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    # PyTorch's own switch is for whoever calls it without saying what he wants.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, ran = tmp_path / "checkpoint.pth", tmp_path / "ran"
    weights = {"a.weight": torch.ones(3)}
    content = {"state_dict": weights, "meta": _Runs(exec, f"open({str(ran)!r}, 'w').close()")}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        InputError, match=r"checkpoint\.pth: holds code .* call builtins\.exec .* Nothing of it was run"
    ) as caught:
        read_weights(path)
    assert "weights_only" not in str(caught.value)
    found, code = extract_weights(path)
    assert code == ["builtins.exec"]
    assert found.keys() == weights.keys()
    assert torch.equal(found["a.weight"], weights["a.weight"])
    assert not ran.exists()


def test_weights_are_not_taken_from_a_file_that_runs_programs(tmp_path: Path) -> None:
    path, ran = tmp_path / "checkpoint.pth", tmp_path / "ran"
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": _Runs(os.system, f"touch {ran}")}, path)
    with pytest.raises(InputError, match=r"checkpoint\.pth: would call posix\.system"):
        extract_weights(path)
    assert not ran.exists()


def test_script_copies_the_weights_alone_and_says_so(tmp_path: Path) -> None:
    path, plain = tmp_path / "old.pth", tmp_path / "plain.pth"
    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": Namespace(lr=0.1)}, path)
    command = [sys.executable, "scripts/plain_checkpoint.py", "--checkpoint", str(path), "--out", str(plain)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"warning: {path}: what would call argparse.Namespace was left out")
    assert read_weights(plain) == {"a": torch.ones(1)}


def test_change_inside_a_tensor_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    weights = torch.arange(4096, dtype=torch.float32)
    torch.save({"a": weights}, path)
    content = bytearray(path.read_bytes())
    start = content.find(weights.numpy().tobytes())
    content[start + 4096 : start + 8192] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"checkpoint\.pth: damaged: the check sum of 'checkpoint/data/0' in it is wrong"
    ):
        read_weights(path)


def test_old_file_has_no_check_sums_and_a_notice_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    read_weights(path)
    assert capsys.readouterr().out.startswith(f"notice: {path}: an old file without check sums")
    named = path.rename(tmp_path / f"net-{sha256(path)[:8]}_20200709.pth")
    read_weights(named)
    assert capsys.readouterr().out == ""


def test_hash_in_a_name_is_held_to(tmp_path: Path) -> None:
    path = tmp_path / "net-0123abcd_20200709.pth"
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(InputError, match=r"net-0123abcd_20200709\.pth: by its name its SHA-256 begins with 0123abcd"):
        read_weights(path)


def test_damaged_checkpoint(config: Path, tmp_path: Path) -> None:
    content, path = load_config(config), tmp_path / "checkpoint.pth"
    with pytest.raises(InputError, match="no such file"):
        build_model(content, path)
    torch.save(build_model(content, None).state_dict(), path)
    for damaged in (path.read_bytes()[:5000], b"<html>not found</html>"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"checkpoint\.pth: not a PyTorch checkpoint, or damaged"):
            build_model(content, path)
