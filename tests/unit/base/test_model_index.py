"""mmpose's model index: every network that it lists, and where it contradicts itself."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from posequant.base.errors import InputError
from posequant.base.model_index import IndexedNetwork, find_network, networks
from posequant.base.openmmlab import load_config, shipped_folder
from posequant.workflow.sources import parse_source

HOURGLASS = "td-hm_hourglass52_8xb32-210e_coco-256x256"


def entries() -> list[tuple[str, str]]:
    """Name and config of every entry of the metafiles of 2D keypoints, read as plain YAML."""
    folder = shipped_folder()
    assert folder
    index = yaml.safe_load((folder / "model-index.yml").read_text())["Import"]
    metafiles = [path for path in index if "2d_keypoint" in path]
    assert len(metafiles) == 143
    contents = [yaml.load((folder / path).read_text(), Loader=yaml.CSafeLoader) for path in metafiles]
    return [(entry["Name"], Path(entry["Config"]).stem) for content in contents for entry in content["Models"]]


def test_every_entry_is_found_by_its_name_and_by_that_of_its_config() -> None:
    for name, config in entries():
        assert find_network(config).name == config
        assert find_network(name).name == config or find_network(name).name == name, name


def test_networks_are_those_of_the_entries_each_once() -> None:
    assert [network.name for network in networks()] == list(dict.fromkeys(config for _, config in entries()))


def test_everything_that_a_study_needs_is_there_but_for_three_faults_of_the_index() -> None:
    without_config = [network.name for network in networks() if network.config is None]
    without_checkpoint = [network.name for network in networks() if network.checkpoint is None]
    assert without_config == ["ipr_res50_debias--8xb64-210e_coco-256x256", "swin_b_p4_w7_fpn_coco_256x192"]
    assert without_checkpoint == ["td-hm_res101_8xb32-210e_coco-384x288"]
    for network in networks():
        assert network.config is None or (network.config.is_file() and network.config.stem == network.name)
        assert network.checkpoint is None or parse_source(network.checkpoint)
        assert network.architecture
        assert network.figures


def test_facts_of_a_network() -> None:
    network = find_network(HOURGLASS)
    assert network.architecture == ("Hourglass",)
    assert network.trained_on == ("COCO",)
    assert (network.approach, network.top_down, network.flip_test) == ("topdown_heatmap", True, True)
    assert (network.input_size, network.keypoints) == ((256, 256), 17)
    assert network.checkpoint
    assert network.checkpoint.endswith("hourglass52_coco_256x256-4ec713ba_20200709.pth")
    (published,) = network.published
    assert published.annotations == "person_keypoints_val2017.json"
    assert published.statistics == {"AP": 0.726, "AP50": 0.896, "AP75": 0.799, "AR": 0.78, "AR50": 0.934}


def test_figures_of_other_datasets_keep_their_boxes() -> None:
    of_hands = find_network("td-hm_res50_8xb32-210e_onehand10k-256x256").published
    assert [(one.annotations, one.boxes, one.statistics) for one in of_hands] == [
        ("onehand10k_test.json", "ground-truth", {"PCK": 0.989, "AUC": 0.555})
    ]
    of_art = find_network("td-hm_hrnet-w32_8xb64-210e_humanart-256x192").published
    assert {one.boxes: one.statistics["AP"] for one in of_art} == {"detections": 0.399, "ground-truth": 0.754}


def test_name_of_another_networks_config_finds_that_network() -> None:
    name = "rtmpose-t_8xb256-420e_coco-256x192"
    assert find_network(name).metafile == "rtmpose_coco.yml"
    assert name in find_network("rtmpose-m_8xb64-210e_crowdpose-256x192").other_names


def test_alias_finds_a_network() -> None:
    assert find_network("vitpose").name == "td-hm_ViTPose-base-simple_8xb64-210e_coco-256x192"


def test_config_that_is_listed_twice_is_one_network_with_both_results_and_no_published_figures() -> None:
    network = find_network("td-hm_hrnet-w32_8xb64-20e_posetrack18-256x192")
    assert [figures.dataset for figures in network.figures] == ["PoseTrack18", "PoseTrack18"]
    assert network.published == []


def test_of_a_dataset_whose_protocol_is_not_known_nothing_is_published() -> None:
    network = find_network("td-hm_hrnet-w32_8xb64-210e_ap10k-256x256")
    assert [figures.dataset for figures in network.figures] == ["AP-10K"]
    assert network.published == []


def test_config_whose_path_is_not_shipped_is_the_one_of_that_name() -> None:
    config = find_network("td-hm_cpm_8xb32-40e_jhmdb-sub1-368x368").config
    assert config
    assert config.parent.parent.name == "topdown_heatmap"


def test_networks_without_boxes_have_no_published_figures() -> None:
    network = find_network("dekr_hrnet-w32_8xb10-140e_coco-512x512")
    assert not network.top_down
    assert network.published == []


def test_unknown_name_is_an_error_with_the_nearest() -> None:
    with pytest.raises(InputError, match=rf"no network 'td-hm_hourglas52_coco-256x256'\. The nearest are {HOURGLASS}"):
        find_network("td-hm_hourglas52_coco-256x256")


@pytest.mark.parametrize(
    "name",
    [
        HOURGLASS,
        "td-hm_hrnet-w32_fp16-8xb64-210e_coco-256x192",  # says it in the config that it inherits
        "td-hm_hrnet-w32_udp-regress-8xb64-210e_coco-256x192",  # three channels a keypoint
        "cspnext-tiny_udp_8xb256-210e_aic-coco-256x192",  # no flip test
        "rtmpose-m_8xb64-270e_coco-wholebody-256x192",
        "td-reg_res50_8xb64-210e_wflw-256x256",
    ],
)
def test_what_is_read_of_a_config_is_what_mmengine_reads(name: str) -> None:
    network = find_network(name)
    content = load_config(name, to_build=False)
    head = content.model.head
    assert network.flip_test == content.model.test_cfg.flip_test
    assert network.input_size == tuple(content.codec.input_size)
    channels = head.get("out_channels", head.get("num_joints"))
    assert network.keypoints == (channels // 3 if "udp-regress" in name else channels)


def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from posequant.base.model_index import find_network\n"
        f"assert find_network('{HOURGLASS}').flip_test\n"
        "print([name for name in ('mmpose', 'mmengine', 'torch', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_top_down_network_of_coco_has_its_figures() -> None:
    def on_coco(network: IndexedNetwork) -> bool:
        return network.top_down and any(figures.dataset == "COCO" for figures in network.figures)

    found = [network for network in networks() if on_coco(network)]
    assert len(found) == 152
    assert all({"AP", "AP50", "AP75", "AR", "AR50"} <= network.published[0].statistics.keys() for network in found)
