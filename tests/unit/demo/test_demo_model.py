import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.openmmlab import build_model, forward_tensors, load_config, make_importable
from posequant.demo.scenes import write_dataset
from posequant.demo.training import save_weights, train

MODELS = Path(__file__).parents[3] / "models"
MODEL = MODELS / "hourglass_demo"
HAND = MODELS / "hand_demo"
CARRIED = pytest.mark.parametrize("model", [MODEL, HAND], ids=lambda model: model.name)


@CARRIED
def test_the_checkpoint_fits_the_config_key_by_key(model: Path) -> None:
    network = build_model(load_config(model / "config.py"), None)
    content = torch.load(model / "checkpoint.pth", weights_only=True)
    assert set(content) == {"meta", "state_dict"}
    missing, unexpected = network.load_state_dict(content["state_dict"])
    assert not missing
    assert not unexpected
    assert all(value.isfinite().all() for value in content["state_dict"].values())


@pytest.mark.parametrize(("model", "most"), [(MODEL, 5_000_000), (HAND, 1_500_000)], ids=lambda value: str(value))
def test_the_checkpoint_is_small_enough_to_carry(model: Path, most: int) -> None:
    assert (model / "checkpoint.pth").stat().st_size <= most


@CARRIED
def test_the_readme_names_this_very_checkpoint(model: Path) -> None:
    named = re.findall(r"\b[0-9a-f]{64}\b", (model / "README.md").read_text())
    assert named == [sha256(model / "checkpoint.pth")]


@pytest.mark.parametrize(("model", "side", "keypoints"), [(MODEL, 128, 17), (HAND, 96, 21)])
def test_the_output_is_a_heatmap_per_keypoint_at_a_quarter_of_the_resolution(
    model: Path, side: int, keypoints: int
) -> None:
    network = build_model(load_config(model / "config.py"), model / "checkpoint.pth")
    (heatmaps,) = forward_tensors(network, torch.zeros(2, 3, side, side))
    assert heatmaps.shape == (2, keypoints, side // 4, side // 4)


def test_the_network_for_hands_is_that_for_people_but_narrower() -> None:
    hands, people = (load_config(model / "config.py") for model in (HAND, MODEL))
    for backbone in (hands.model.backbone, people.model.backbone):
        for width in ("stem_channels", "stage_channels", "feat_channel"):
            del backbone[width]
    assert hands.model.backbone == people.model.backbone
    assert hands.model.data_preprocessor == people.model.data_preprocessor
    assert hands.model.test_cfg == people.model.test_cfg
    assert [step["type"] for step in hands.val_pipeline] == [step["type"] for step in people.val_pipeline]


def test_the_config_follows_the_published_hourglass52() -> None:
    ours = load_config(MODEL / "config.py")
    upstream = load_config("td-hm_hourglass52_8xb32-210e_coco-256x256")
    for setting in ("model.data_preprocessor", "model.test_cfg", "model.head.type", "model.head.loss", "val_pipeline"):
        pair = [ours, upstream]
        for name in setting.split("."):
            pair = [config[name] for config in pair]
        if setting == "val_pipeline":
            pair = [[step["type"] for step in pipeline] for pipeline in pair]
        assert pair[0] == pair[1], setting


def test_the_large_config_is_the_published_hourglass52_for_synthetic_people() -> None:
    large = load_config(MODEL.parent / "hourglass52_synthetic" / "config.py")
    upstream = load_config("td-hm_hourglass52_8xb32-210e_coco-256x256")
    backbones = [
        {name: value for name, value in config.model.backbone.items() if name != "init_cfg"}
        for config in (large, upstream)
    ]
    assert backbones[0] == backbones[1]
    assert large.model.head.in_channels == upstream.model.head.in_channels
    demo = load_config(MODEL / "config.py")
    assert large.val_dataloader == demo.val_dataloader
    assert large.train_dataloader.dataset.ann_file == demo.train_dataloader.dataset.ann_file


def test_with_mmposes_own_stem_width_the_backbone_is_mmposes_own() -> None:
    make_importable()
    from mmpose.models.backbones import HourglassNet

    from posequant.demo.backbone import SlimHourglassNet

    options = {"downsample_times": 1, "num_stacks": 1, "stage_channels": (256, 16), "stage_blocks": (1, 1)}
    theirs = HourglassNet(**options)
    ours = SlimHourglassNet(stem_channels=128, **options)
    ours.load_state_dict(theirs.state_dict())
    ours.eval()
    theirs.eval()
    crops = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(crops)[0], theirs(crops)[0], rtol=0, atol=0)


@pytest.fixture
def torch_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A loader that is thrown away waits this long (seconds) for a worker that has nothing to do anyway.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.usefixtures("torch_settings")
@pytest.mark.filterwarnings("ignore")
def test_training_is_reproducible_and_leaves_weights_alone(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {"train": 10, "val": 2}, seed=0)
    runs = [train(MODEL / "config.py", tmp_path / "data", tmp_path / f"run{n}", epochs=1) for n in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    untrained = build_model(load_config(MODEL / "config.py"), None).state_dict()
    assert any(not torch.equal(runs[0][name], untrained[name]) for name in untrained)
    for number, weights in enumerate(runs):
        save_weights(weights, tmp_path / str(number) / "checkpoint.pth")
    assert sha256(tmp_path / "0" / "checkpoint.pth") == sha256(tmp_path / "1" / "checkpoint.pth")
    assert set(torch.load(tmp_path / "0" / "checkpoint.pth", weights_only=True)) == {"meta", "state_dict"}
    # A finished run that is started again resumes at its end.
    again = train(MODEL / "config.py", tmp_path / "data", tmp_path / "run0", epochs=1)
    assert all(torch.equal(again[name], runs[0][name]) for name in again)


def test_training_without_data_says_how_to_draw_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"demo_dataset\.py"):
        train(MODEL / "config.py", tmp_path, tmp_path / "work")
    with pytest.raises(InputError, match="0 epochs"):
        train(MODEL / "config.py", tmp_path, tmp_path / "work", epochs=0)
