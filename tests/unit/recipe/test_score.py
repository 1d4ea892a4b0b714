"""What networks lose by the evidence of all of them: by hand, in any order, and how often its bound holds."""

import itertools
import math

import numpy as np
import pytest

from posequant.base.signal import Powers
from posequant.recipe.score import Draws, Evidence, scores

PEOPLE = 12
DRAWS = Draws.of(np.arange(PEOPLE))


def evidence(loss: float, decibels: float | None, seed: int = 0) -> Evidence:
    """Of a network whose loss a few people make, with that much noise for everybody."""
    rng = np.random.default_rng(seed)
    losses = rng.exponential(size=PEOPLE)
    noise = 0.0 if decibels is None else 10 ** (-decibels / 10)
    return Evidence([Powers(1.0, noise)] * PEOPLE, 1 - loss * losses / losses.mean())


def test_expected_loss_is_the_amplitude_times_what_all_say_of_loss_and_amplitude() -> None:
    found = scores([evidence(0.04, 20), evidence(0.03, 26, seed=1)], DRAWS)
    amplitudes = [10 ** (-20 / 20), 10 ** (-26 / 20)]
    for score, loss, amplitude in zip(found, (0.04, 0.03), amplitudes, strict=True):
        assert score.oks_loss is not None
        assert score.oks_loss.value == pytest.approx(loss)
        assert score.expected_oks_loss is not None
        assert score.expected_oks_loss_bound is not None
        assert score.expected_oks_loss == pytest.approx(amplitude * 0.07 / sum(amplitudes))
        assert score.expected_oks_loss_bound > score.expected_oks_loss
        assert score.ap_loss is None


def test_amplitude_is_that_of_the_noise_of_all_by_the_signal_of_all() -> None:
    powers = [Powers(1.0, 0.04), Powers(3.0, 0.0)] * (PEOPLE // 2)
    (one, other) = scores([Evidence(powers, np.full(PEOPLE, 0.9)), evidence(0.1, 20)], DRAWS)
    assert one.expected_oks_loss == other.expected_oks_loss == pytest.approx(0.1)


def test_no_score_depends_on_the_order_of_the_networks() -> None:
    known = [(0.1, 17), (0.02, 30), (0.3, 5), (0.01, 33)]
    networks = [evidence(loss, noise, seed) for seed, (loss, noise) in enumerate(known)]
    expected = scores(networks, DRAWS)
    for order in itertools.permutations(range(len(networks))):
        found = scores([networks[place] for place in order], DRAWS)
        assert found == [expected[place] for place in order]


def test_saturated_networks_say_nothing_of_the_others() -> None:
    alone = scores([evidence(0.04, 20)], DRAWS)[0]
    beside, saturated = scores([evidence(0.04, 20), evidence(0.6, 5, seed=1)], DRAWS)
    assert beside == alone
    assert saturated.expected_oks_loss == pytest.approx(0.6)


def test_network_without_noise_loses_nothing() -> None:
    (score,) = scores([Evidence([Powers(1.0, 0.0)] * PEOPLE, np.ones(PEOPLE))], DRAWS)
    assert (score.expected_oks_loss, score.expected_oks_loss_bound) == (0, 0)


def test_people_whom_the_float_network_does_not_find_do_not_count() -> None:
    one = evidence(0.04, 20)
    oks = one.oks.copy()
    oks[:4] = np.nan
    (score,) = scores([Evidence(one.powers, oks)], DRAWS)
    assert score.oks_loss is not None
    assert score.oks_loss.value == pytest.approx(1 - oks[4:].mean())
    (nobody,) = scores([Evidence(one.powers, np.full(PEOPLE, np.nan))], DRAWS)
    assert (nobody.oks_loss, nobody.expected_oks_loss, nobody.expected_oks_loss_bound) == (None, None, None)


def test_draws_without_anybody_count_against_a_bound() -> None:
    # With one of twelve found, more than a third of the draws have nobody.
    oks = np.full(PEOPLE, np.nan)
    oks[0] = 0.9
    (score,) = scores([Evidence([Powers(1.0, 0.01)] * PEOPLE, oks)], DRAWS)
    assert score.oks_loss is not None
    assert 300 < score.oks_loss.left_out < 450
    assert score.expected_oks_loss == pytest.approx(0.1)
    assert score.expected_oks_loss_bound is None


def test_people_of_one_image_are_drawn_together() -> None:
    draws = Draws.of(np.array([5, 7, 5, 9]))
    np.testing.assert_array_equal(draws.drawn[0], 1)
    np.testing.assert_array_equal(draws.drawn[:, 0], draws.drawn[:, 2])
    np.testing.assert_array_equal(draws.drawn[1:, [0, 1, 3]].sum(axis=1), 3)
    np.testing.assert_array_equal(draws.without_one, [[0, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]])


def test_loss_of_ap_is_bounded_by_percentiles() -> None:
    losses = np.concatenate([[0.5], np.arange(1000) / 1000])
    one = evidence(0.04, 20)
    (score,) = scores([Evidence(one.powers, one.oks, losses)], DRAWS)
    assert score.ap_loss is not None
    assert (score.ap_loss.value, score.ap_loss_bound) == (0.5, 0.949)


def test_bound_holds_about_as_often_as_it_says_and_more_often_than_a_percentile() -> None:
    """Samples of people of whom few lose much, as poses do: losses of a log-normal distribution with a known mean."""
    rng = np.random.default_rng(0)
    people, spread, true = 64, 0.9, 0.02
    draws, samples = Draws.of(np.arange(people)), 300
    held = {"bound": 0, "percentile": 0}
    for _ in range(samples):
        losses = true * np.exp(rng.normal(-(spread**2) / 2, spread, people))
        powers = [Powers(1.0, noise) for noise in rng.uniform(0.005, 0.015, people)]
        (score,) = scores([Evidence(powers, 1 - losses)], draws)
        drawn = draws.drawn[1:] @ losses / people
        assert score.expected_oks_loss_bound is not None
        held["bound"] += score.expected_oks_loss_bound >= true
        held["percentile"] += float(np.percentile(drawn, 95)) >= true
    assert held["percentile"] < held["bound"]
    assert 0.9 <= held["bound"] / samples <= 0.95 + 3 * math.sqrt(0.95 * 0.05 / samples)
