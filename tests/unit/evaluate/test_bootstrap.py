"""AP under repeated images beside pycocotools on a dataset in which they are repeated; intervals worked by hand."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.unit.evaluation_fixtures import draw_dataset

from posequant.data.dataset import Annotations, load_annotations
from posequant.evaluate.bootstrap import (
    Bootstrap,
    Comparison,
    Estimate,
    Matches,
    average_precision,
    bootstrap,
    corrected,
    draw_images,
    drawn_means,
    images_to_decide,
    interval,
    left_out,
    match,
    statistics,
    upper_bound,
    verdict,
)
from posequant.evaluate.keypoint_metrics import coco_statistics

Results = list[dict[str, Any]]
# How often each of the six images of the drawn dataset is taken.
MULTIPLICITIES = [[1, 1, 1, 1, 1, 1], [2, 1, 0, 3, 1, 1], [0, 0, 4, 1, 0, 1], [5, 2, 1, 1, 1, 2]]


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    return load_annotations(draw_dataset(tmp_path_factory.mktemp("dataset")).annotations)


def noisy_results(annotations: Annotations, seed: int) -> Results:
    """Two predictions of everybody, crowds included, one near and one farther off, with distinct scores."""
    generator = np.random.default_rng(seed)
    results = []
    for person in annotations.coco.anns.values():
        for spread in (generator.choice([1.0, 4, 8]), 25):
            keypoints = np.array(person["keypoints"], float).reshape(17, 3)
            keypoints[:, :2] += generator.normal(0, spread, (17, 2))
            results.append(
                {
                    "image_id": person["image_id"],
                    "category_id": 1,
                    "keypoints": keypoints.ravel().tolist(),
                    "score": float(generator.uniform()),
                    "bbox": person["bbox"],
                }
            )
    return results


def repeated(annotations: Annotations, results: Results, times: list[int], folder: Path) -> tuple[Annotations, Results]:
    """The dataset in which each image appears as often as `times` says, under a new id, with people and results."""
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": annotations.coco.dataset["categories"]}
    copies: Results = []
    for image, count in zip(sorted(annotations.coco.dataset["images"], key=lambda one: one["id"]), times, strict=True):
        for copied in range(count):
            identifier = 100 * image["id"] + copied
            content["images"].append(image | {"id": identifier})
            for person in annotations.coco.imgToAnns[image["id"]]:
                number = len(content["annotations"]) + 1
                plain = {key: value for key, value in person.items() if key not in ("ignore", "_ignore")}
                content["annotations"].append(plain | {"id": number, "image_id": identifier})
            copies += [one | {"image_id": identifier} for one in results if one["image_id"] == image["id"]]
    path = folder / "repeated.json"
    path.write_text(json.dumps(content))
    return load_annotations(path), copies


@pytest.mark.parametrize("times", MULTIPLICITIES)
@pytest.mark.parametrize("seed", range(3))
def test_repeated_images_score_as_pycocotools_scores_copies_of_them(
    annotations: Annotations, times: list[int], seed: int, tmp_path: Path
) -> None:
    results = noisy_results(annotations, seed)
    ours = statistics(match(annotations, copy.deepcopy(results)), np.array([times], np.int32))
    theirs, _ = coco_statistics(*repeated(annotations, results, times, tmp_path))
    for name in ("AP", "AP50", "AP75", "APM", "APL", "AR"):
        if theirs[name] is None:
            assert np.isnan(ours[name][0]), name
        else:
            assert ours[name][0] == pytest.approx(theirs[name], abs=1e-12), name


def test_draws_together_are_the_draws_alone(annotations: Annotations) -> None:
    matches = match(annotations, noisy_results(annotations, 0))["all"]
    draws = draw_images(6, 50, seed=3)
    together = average_precision(matches, draws)
    for index, draw in enumerate(draws):
        alone = average_precision(matches, draw[np.newaxis])
        np.testing.assert_array_equal([part[index] for part in together], [part[0] for part in alone])


def test_average_precision_by_hand() -> None:
    # One threshold; found, missed, found. Image 1 has two people, one of whom nobody finds.
    matches = Matches(
        images=np.array([0, 1, 1]),
        true=np.array([[True, False, True]]),
        counted=np.ones((1, 3), bool),
        people=np.array([1, 2]),
    )
    precision, recall = average_precision(matches, np.array([[1, 1], [2, 1], [0, 1], [1, 0], [0, 0]], np.int32))
    # Recall 1/3 at precision 1, 2/3 at 2/3: 34 and 33 of the 101 recalls.
    assert precision[0, 0] == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    # Recall 2/4 at precision 1, 3/4 at 3/4: 51 and 25.
    assert precision[1, 0] == pytest.approx((51 * 1 + 25 * 3 / 4) / 101)
    # Recall 1/2 at precision 1/2: 51.
    assert precision[2, 0] == pytest.approx(51 * 0.5 / 101)
    assert precision[3, 0] == pytest.approx(1)
    assert np.isnan(precision[4, 0])
    np.testing.assert_allclose(recall[:4, 0], [2 / 3, 3 / 4, 1 / 2, 1])


def test_people_to_be_ignored_do_not_count() -> None:
    matches = Matches(
        images=np.array([0, 0]),
        true=np.array([[False, True]]),
        counted=np.array([[False, True]]),
        people=np.array([1]),
    )
    assert average_precision(matches, np.array([[3]], np.int32))[0][0, 0] == pytest.approx(1)


def test_without_any_prediction_ap_is_zero() -> None:
    nothing = np.empty((1, 0), bool)
    matches = Matches(np.empty(0, np.int64), nothing, nothing, np.array([2, 1]))
    precision, recall = average_precision(matches, np.array([[1, 1], [0, 2]], np.int32))
    np.testing.assert_array_equal(precision, 0)
    np.testing.assert_array_equal(recall, 0)


def test_same_predictions_differ_by_nothing_for_sure(annotations: Annotations) -> None:
    matches = match(annotations, noisy_results(annotations, 0))
    same = bootstrap(matches, matches, resamples=100, seed=0, confidence=0.95)
    comparison = dict(same.comparisons())["AP"]
    assert (comparison.difference, comparison.interval) == (0, (0, 0))
    assert same.share_kept() == Estimate(1, (1, 1), 0)


def test_seed_decides_the_interval(annotations: Annotations) -> None:
    one, other = (match(annotations, noisy_results(annotations, seed)) for seed in (0, 1))
    found = [dict(bootstrap(one, other, 200, seed, 0.95).comparisons())["AP"] for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0].difference == found[2].difference
    assert found[0].interval != found[2].interval


def test_every_draw_has_as_many_images_as_the_dataset() -> None:
    draws = draw_images(40, 25, seed=0)
    assert draws.shape == (25, 40)
    np.testing.assert_array_equal(draws.sum(axis=1), 40)


def test_interval_by_hand() -> None:
    assert interval(np.append(np.arange(101.0), np.nan), 0.9) == pytest.approx((5, 95))
    assert interval(np.array([np.nan]), 0.9) is None


def test_draws_that_are_left_out_are_counted() -> None:
    drawn = np.append(np.arange(101.0), [np.nan] * 3)
    assert left_out(drawn) == 3
    assert Estimate.of(50.0, drawn, 0.5) == Estimate(50, (25, 75), 3)
    comparison = Comparison.of(np.array([1.0, 3.0]), np.stack([np.zeros(104), drawn]), 0.5)
    assert comparison == Comparison(1, 3, 2, (25, 75), 3)
    unknown = Comparison.of(np.full(2, np.nan), np.full((2, 7), np.nan), 0.5)
    assert unknown == Comparison(None, None, None, None, 7)


def test_draws_without_large_people_are_counted(annotations: Annotations) -> None:
    matches = match(annotations, noisy_results(annotations, 0))
    compared = dict(bootstrap(matches, matches, resamples=500, seed=0, confidence=0.95).comparisons())
    images = np.flatnonzero(matches["large"].people)
    draws = draw_images(len(matches["large"].people), 500, seed=0)
    without = int((draws[:, images].sum(axis=1) == 0).sum())
    assert 0 < without < 500
    assert compared["APL"].left_out == without
    assert compared["AP"].left_out == 0


def test_drawn_means_by_hand() -> None:
    draws = np.array([[1, 1, 1], [0, 2, 1], [0, 0, 3]], np.int32)
    means = drawn_means(np.array([1.0, 4, 0]), np.array([1, 2, 0]), draws)
    np.testing.assert_array_equal(means, [5 / 3, 8 / 4, np.nan])


def test_upper_bound_by_hand() -> None:
    values = np.arange(20.0)[::-1]
    assert upper_bound(values, 0.95) == 18
    assert upper_bound(values, 0.951) == 19
    assert upper_bound(values, 1.0) == 19
    assert upper_bound(values, 0.0) == 0
    # A draw that tells nothing exceeds any bound.
    assert upper_bound(np.append(values[1:], np.nan), 0.95) == 18
    assert upper_bound(np.append(values[2:], [np.nan] * 2), 0.95) is None


def test_corrected_share_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    sample = rng.exponential(size=40)
    draws = draw_images(40, 4000, seed=0)
    drawn, without_one = draws @ sample / 40, (sample.sum() - sample) / 39
    theirs = stats.bootstrap(
        (sample,), np.mean, confidence_level=0.95, alternative="less", method="BCa", vectorized=True,
        bootstrap_result=_Drawn(drawn), n_resamples=0,
    ).confidence_interval  # fmt: skip
    bound = upper_bound(drawn, corrected(0.95, sample.mean(), drawn, without_one))
    assert bound == pytest.approx(theirs.high, rel=1e-3)
    # The long tail is to the right: the plain percentile is too low.
    assert bound is not None
    assert bound > np.percentile(drawn, 95)


def test_corrected_share_of_what_does_not_vary_is_the_share_itself() -> None:
    assert corrected(0.95, 1.0, np.ones(100), np.ones(10)) == pytest.approx(0.95)
    assert corrected(0.95, 1.0, np.full(100, np.nan), np.ones(10)) == 0.95


def test_corrected_share_ends_on_the_side_of_the_bound() -> None:
    # All draws are above the figure, which one image alone pulls up: as strong a correction as there can be.
    drawn, without_one = np.ones(10**6), np.append(np.zeros(999), -1.0)
    assert corrected(0.025, 0.0, drawn, -without_one) == 0
    assert corrected(0.975, 0.0, -drawn, without_one) == 1


class _Drawn:
    """What scipy takes of an earlier bootstrap."""

    def __init__(self, drawn: np.ndarray[Any, Any]) -> None:
        self.bootstrap_distribution = drawn


def test_share_kept_leaves_out_draws_in_which_the_reference_has_no_ap() -> None:
    shares = Bootstrap(
        observed={"AP": np.array([0.5, 0.4])},
        drawn={"AP": np.array([[0.5, 0, 0.4, np.nan], [0.4, 0, 0.4, np.nan]])},
        draws=np.ones((4, 1), np.int32),
        confidence=1.0,
    )
    kept = shares.share_kept()
    assert kept is not None
    assert kept.interval is not None
    assert (kept.value, *kept.interval) == pytest.approx((0.8, 0.8, 1))
    assert kept.left_out == 2
    assert Bootstrap({"AP": np.zeros(2)}, shares.drawn, shares.draws, 0.95).share_kept() is None


@pytest.mark.parametrize(
    ("between", "expected"),
    [((0.99, 1.01), "met"), ((0.97, 0.9899), "not met"), ((0.98, 0.995), "undecided"), ((0.98, 0.99), "undecided")],
)
def test_verdict(between: tuple[float, float], expected: str) -> None:
    assert verdict(between, 0.99) == expected


def test_images_to_decide() -> None:
    # The interval must become a quarter as wide: 16 times as many images.
    assert images_to_decide(0.98, (0.96, 1.02), 0.99, images=100) == 1600
    assert images_to_decide(0.995, (0.985, 0.996), 0.99, images=100) == 400
    assert images_to_decide(0.99, (0.98, 1), 0.99, images=100) is None


def test_interval_holds_the_true_difference_about_as_often_as_it_says() -> None:
    """Samples of a population whose difference is known: people who are found with other chances by two networks."""
    generator = np.random.default_rng(0)
    population = _population(generator, images=20_000)
    everyone = np.ones((1, 20_000), np.int32)
    true = float(
        np.subtract(*(average_precision(_matches(population, network), everyone)[0] for network in (1, 0)))[0, 0]
    )
    assert -0.1 < true < -0.01
    held = 0
    for _ in range(200):
        sample = [column[generator.integers(0, 20_000, 150)] for column in population]
        draws = draw_images(150, 300, seed=int(generator.integers(1 << 30)))
        precisions = [average_precision(_matches(sample, network), draws)[0][:, 0] for network in (0, 1)]
        between = interval(precisions[1] - precisions[0], 0.95)
        assert between is not None
        held += between[0] <= true <= between[1]
    # Of 200 draws with a chance of 0.95, four standard deviations.
    assert abs(held - 190) <= 4 * (200 * 0.95 * 0.05) ** 0.5


def _population(generator: np.random.Generator, images: int) -> list[np.ndarray[Any, Any]]:
    """Scores and whether each of two networks finds the person: one person an image, ease shared by both networks."""
    ease = generator.uniform(size=images)
    scores = np.clip(ease + generator.normal(0, 0.3, images), 0, 1)
    luck = generator.uniform(size=images)
    other = np.where(generator.uniform(size=images) < 0.8, luck, generator.uniform(size=images))
    return [scores, luck < 0.3 + 0.6 * ease, other < 0.25 + 0.6 * ease]


def _matches(people: list[np.ndarray[Any, Any]], network: int) -> Matches:
    order = np.argsort(-people[0], kind="stable")
    return Matches(
        images=order,
        true=people[1 + network][order][np.newaxis],
        counted=np.ones((1, len(order)), bool),
        people=np.ones(len(order), np.int64),
    )
