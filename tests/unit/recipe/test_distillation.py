"""The step `distill`: what it makes better, that it can be cut off, and what it leaves alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.unit.ncnn_fixtures import INPUT_SHAPE, draw_crops, small_network

from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.ncnn2int8 import quantize
from posequant.recipe import distillation
from posequant.recipe.activation_scales import scale_activations
from posequant.recipe.distillation import distill
from posequant.recipe.draft import Draft
from posequant.recipe.judge import Judge
from posequant.recipe.training import Training
from posequant.recipe.weight_scales import scale_weights
from posequant.workflow.settings.recipe import ActivationsStep, DistillStep, WeightsStep

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


STEPS = DistillStep(steps=40, batch=4, rate=10.0)


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


def test_large_network_is_left_alone(
    start: Draft, judge: Judge, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "macs", lambda _: {"a": 20_000_000_000, "b": 8_600_000_000})
    assert distill(start, Training(DrawnCrops(), judge), 1, STEPS) is start
    assert "28.6 G multiply-accumulates" in capsys.readouterr().err


def test_network_with_another_layer_is_left_alone(
    start: Draft, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = [replace(layer, type="Spectrogram") if layer.name == "add_h" else layer for layer in start.model.layers]
    draft = replace(start, reference=NcnnModel(layers, start.model.weights))
    assert distill(draft, Training(DrawnCrops(), judge), 1, STEPS) is draft
    assert "add_h is of type Spectrogram" in capsys.readouterr().err


def test_nothing_of_pytorch_is_left_changed(trained: Draft) -> None:
    assert not torch.are_deterministic_algorithms_enabled()
