"""The step `distill`: what it makes better, that it can be cut off, and what it leaves alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.unit.evaluation_fixtures import draw_dataset
from tests.unit.ncnn_fixtures import INPUT_SHAPE, draw_crops, small_network, write_crops
from tests.unit.pose_fixtures import SCALES, SPEC, draw_people, pose_network

from posequant.base.errors import InputError
from posequant.data.calibration_set import choose_calibration_set
from posequant.data.wide_crops import make_wide_crops
from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.ncnn2int8 import quantize
from posequant.recipe import distillation
from posequant.recipe.activation_scales import scale_activations
from posequant.recipe.distillation import distill
from posequant.recipe.draft import Draft
from posequant.recipe.judge import Judge
from posequant.recipe.page import render
from posequant.recipe.recipe import apply_recipe, apply_recipe_to_files
from posequant.recipe.training import Training
from posequant.recipe.weight_scales import scale_weights
from posequant.workflow.settings.recipe import ActivationsStep, DistillStep, Recipe, Steps, WeightsStep

Floats = NDArray[np.float32]


class DrawnCrops:
    """Noise, each time another."""

    def __init__(self) -> None:
        self.batches = 0

    def batch(self, generator: np.random.Generator, count: int) -> Floats:
        self.batches += 1
        return generator.normal(size=(count, *INPUT_SHAPE)).astype(np.float32)


class FewCrops(Judge):
    """A judge by the outputs alone: the small network has no poses."""

    def __init__(self, model: NcnnModel, crops: Floats) -> None:
        self.network = NcnnNetwork.of(model, "fp32", INPUT_SHAPE)
        self._crops = crops
        self._wanted = self.network.forward(crops)

    def macs(self, draft: Draft) -> dict[str, int]:
        return {"all": 1_000_000}

    def sqnr_db(self, draft: Draft) -> float:
        found = NcnnNetwork.of(quantize(draft.model, draft.table), "int8", INPUT_SHAPE).forward(self._crops)
        noise = sum(float(np.square(a - b).sum()) for a, b in zip(found, self._wanted, strict=True))
        return float(10 * np.log10(sum(float(np.square(b).sum()) for b in self._wanted) / noise))


@pytest.fixture(scope="module")
def start() -> Draft:
    """A draft with ranges that are much too wide."""
    draft = scale_weights(Draft.of(small_network().model()), (), 1, WeightsStep(bits=6))
    draft = scale_activations(draft, list(draw_crops(8)), 1, ActivationsStep(method="absmax"))
    wide = {name: np.float32(scale / 4) for name, scale in draft.activation_scales.items()}
    return replace(draft, activation_scales=wide, keep_float=frozenset({"conv_g"}))


@pytest.fixture(scope="module")
def judge(start: Draft) -> Judge:
    return FewCrops(start.reference, draw_crops(8, seed=9))


STEPS = DistillStep(steps=40, batch=4, rate=30.0)


@pytest.fixture(scope="module")
def trained(start: Draft, judge: Judge) -> Draft:
    return distill(start, Training(DrawnCrops(), judge), 1, STEPS)


def same(one: Draft, other: Draft) -> bool:
    scales = ("weight_scales", "activation_scales")
    return all(
        np.array_equal(getattr(one, kind)[name], getattr(other, kind)[name]) for kind in scales for name in one.names
    ) and all(
        np.array_equal(values, others[key])
        for weights, others in zip(one.model.weights, other.model.weights, strict=True)
        for key, values in weights.items()
    )


def test_training_makes_the_network_better(start: Draft, trained: Draft, judge: Judge) -> None:
    assert judge.sqnr_db(trained) > judge.sqnr_db(start) + 1
    assert trained.keep_float == start.keep_float
    assert trained.reference is start.reference


def test_weights_biases_and_scales_are_trained(start: Draft, trained: Draft) -> None:
    for name in start.names:
        assert trained.activation_scales[name] != start.activation_scales[name], name
        assert not np.array_equal(trained.weight_scales[name], start.weight_scales[name]), name
    for name in (*start.names, "conv_g"):
        before, after = start.model.named(name)[1], trained.model.named(name)[1]
        for key in before:
            assert not np.array_equal(before[key], after[key]), (name, key)


def test_readers_of_one_output_still_share_a_scale(trained: Draft) -> None:
    assert trained.activation_scales["convdw_c"] == trained.activation_scales["conv_d"]


def test_limit_of_six_bits_holds(trained: Draft) -> None:
    limited = [name for name, limit in trained.weight_limits.items() if limit == 31]
    assert limited
    for name in limited:
        int8 = quantize(trained.model, trained.table).named(name)[1]["weight"]
        assert np.abs(int8.astype(int)).max() <= 31


def test_same_inputs_give_the_same_draft(start: Draft, trained: Draft, judge: Judge) -> None:
    torch.rand(3)
    assert same(distill(start, Training(DrawnCrops(), judge), 1, STEPS), trained)


def test_batch_in_parts_trains_alike(
    start: Draft, trained: Draft, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "MEMORY", 1)
    parts = distill(start, Training(DrawnCrops(), judge), 1, STEPS)
    assert judge.sqnr_db(parts) == pytest.approx(judge.sqnr_db(trained), abs=1.0)


class CutOff(DrawnCrops):
    """Ends the training in the middle."""

    def batch(self, generator: np.random.Generator, count: int) -> Floats:
        if self.batches > 25:
            raise KeyboardInterrupt
        return super().batch(generator, count)


def test_training_goes_on_where_it_was_cut_off(
    start: Draft, trained: Draft, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "SAVED", 0.0)
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        distill(start, Training(CutOff(), judge, checkpoint), 1, STEPS)
    assert checkpoint.is_file()
    crops = DrawnCrops()
    assert same(distill(start, Training(crops, judge, checkpoint), 1, STEPS), trained)
    assert crops.batches < 25
    assert not list(tmp_path.iterdir())


def test_checkpoint_of_other_inputs_is_not_used(
    start: Draft, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "SAVED", 0.0)
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        distill(start, Training(CutOff(), judge, checkpoint), 1, STEPS)
    crops, few = DrawnCrops(), DistillStep(steps=3, batch=4)
    distill(start, Training(crops, judge, checkpoint), 1, few)
    assert crops.batches >= 3


def test_draft_that_is_best_stays(
    start: Draft, judge: Judge, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "sqnr_db", lambda draft: 30.0)
    assert distill(start, Training(DrawnCrops(), judge), 1, DistillStep(steps=2, batch=2)) is start
    assert "nothing better" in capsys.readouterr().err


def test_long_training_is_not_begun_without_a_gpu(
    start: Draft, judge: Judge, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "macs", lambda _: {"a": 20_000_000_000, "b": 8_600_000_000})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    crops = DrawnCrops()
    assert distill(start, Training(crops, judge), 2, DistillStep()) is start
    assert crops.batches == 0
    said = capsys.readouterr().err
    assert "1000 steps of 16 crops of 28.6 G multiply-accumulates each would take about 9 hours (threads: 2)" in said
    assert "at most 4475 crops in all, such as `steps: 1000, batch: 4`" in said


@pytest.mark.parametrize("settings", [DistillStep(steps=1, batch=4475), DistillStep(steps=1, batch=4476)])
def test_bound_is_on_the_work_of_the_whole_training(
    start: Draft, judge: Judge, monkeypatch: pytest.MonkeyPatch, settings: DistillStep
) -> None:
    monkeypatch.setattr(judge, "macs", lambda _: {"a": 28_600_000_000})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reasons = distillation._reasons_against(start, judge, 2, settings)
    assert bool(reasons) == (settings.batch == 4476)


def test_network_with_another_layer_is_left_alone(
    start: Draft, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = [replace(layer, type="Spectrogram") if layer.name == "add_h" else layer for layer in start.model.layers]
    draft = replace(start, reference=NcnnModel(layers, start.model.weights))
    assert distill(draft, Training(DrawnCrops(), judge), 1, STEPS) is draft
    assert "add_h is of type Spectrogram" in capsys.readouterr().err


# In a recipe


RECIPE: Steps = [*SCALES, {"distill": {"steps": 20, "batch": 4, "rate": 5.0}}]


class CountsThreads(DrawnCrops):
    """Notes how many threads PyTorch has."""

    threads = 0

    def batch(self, generator: np.random.Generator, count: int) -> Floats:
        self.threads = torch.get_num_threads()
        return super().batch(generator, count)


def test_step_of_a_recipe_is_measured_and_has_its_threads() -> None:
    judge = Judge(SPEC, pose_network(), draw_crops(8, seed=5), draw_people(8), 1)
    crops = CountsThreads()
    draft = apply_recipe(RECIPE, pose_network(), list(draw_crops(8)), 2, judge, training=Training(crops, judge))
    assert draft.standing.step == "distill"
    assert crops.threads == 2
    assert draft.standing.sqnr_db == pytest.approx(judge.sqnr_db(draft))
    assert (draft.standing.sqnr_db or 0) > (draft.rungs[0].sqnr_db or 0)


def test_step_without_crops_is_refused() -> None:
    with pytest.raises(InputError, match="distill needs crops to train on"):
        apply_recipe(RECIPE, pose_network(), list(draw_crops(8)), 1)


def test_step_before_the_scales_is_refused() -> None:
    with pytest.raises(InputError, match="'distill' must come after 'weights'"):
        Recipe.of([{"distill": {}}, *SCALES])


def test_step_takes_its_crops_from_files_and_others_decide(tmp_path: Path) -> None:
    training, val = draw_dataset(tmp_path / "train", seed=1, first_image=101), draw_dataset(tmp_path / "val")
    model, people, wide = tmp_path / "model.json", tmp_path / "people.json", tmp_path / "wide"
    SPEC.save(model)
    people.write_text(json.dumps(choose_calibration_set(training.annotations, val.annotations, people=6, seed=0)))
    make_wide_crops(model, people, training.images, wide)
    pose_network().write(tmp_path / "m.param", tmp_path / "m.bin")
    write_crops(tmp_path / "crops", draw_crops(8))
    draw_people(8).save(tmp_path / "crops")
    record = apply_recipe_to_files(
        RECIPE,
        model=model,
        param=tmp_path / "m.param",
        bin_=tmp_path / "m.bin",
        crops=tmp_path / "crops",
        threads=1,
        out=(tmp_path / "prepared.param", tmp_path / "prepared.bin"),
        table=tmp_path / "table",
        distillation=wide,
        checkpoint=tmp_path / "checkpoint",
    )
    assert record["people"] == {"calibrated": 4, "measured": 2, "telling": 2}
    assert record["rungs"][-1]["step"] == "distill"
    page = render(record, {})
    assert "people that no step saw" in page
    assert "on 2 people by whom nothing was chosen" in page
    assert not (tmp_path / "checkpoint").exists()


def test_nothing_of_pytorch_is_left_changed(start: Draft, judge: Judge) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    distill(start, Training(DrawnCrops(), judge), 1, DistillStep(steps=1, batch=1))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
