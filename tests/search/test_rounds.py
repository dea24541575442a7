import json

import numpy as np
import pytest
from scipy import stats

from hwsearch.records import Deployment
from hwsearch.search.rounds import (
    FIRST_CONFIDENCE,
    LAST_CONFIDENCE,
    MOST_OCCASIONS,
    OCCASIONS,
    Round,
    careful_ms,
    hopeful_ms,
    occasions,
)


def rounds_of(deployments: list[Deployment], tables: np.ndarray) -> list[Round]:
    """A round for each (n, targets) table."""
    return [
        Round(latencies_ms=tuple(zip(deployments, map(tuple, table.tolist()), strict=True)))
        for table in tables
    ]


def test_what_was_measured_once_counts_as_it_is(deployments: list[Deployment]):
    one, other = deployments[:2]
    rounds = [Round(latencies_ms=((one, (10.1,)),)), Round(latencies_ms=((other, (7.3,)),))]
    assert careful_ms(rounds) == {one: (10.1,), other: (7.3,)}
    assert occasions(rounds) == {one: 1, other: 1}


def test_until_all_occasions_the_mean_counts_and_then_its_upper_bound(
    deployments: list[Deployment],
):
    tables = np.array([9.0, 11.0] * (OCCASIONS // 2)).reshape(-1, 1, 1)
    rounds = rounds_of(deployments[:1], tables)
    (before,) = careful_ms(rounds[:2]).values()
    (after,) = careful_ms(rounds).values()
    assert before == pytest.approx((10.0,))
    error = np.std(tables, ddof=1) / np.sqrt(OCCASIONS)
    expected = stats.t.ppf(FIRST_CONFIDENCE, OCCASIONS - 1, loc=10.0, scale=error)
    assert after == pytest.approx((expected,))


def test_targets_have_spreads_of_their_own_and_one_may_be_unknown(deployments: list[Deployment]):
    tables = np.array([[[10.0, 20.0, np.nan]], [[10.0, 22.0, np.nan]]] * (OCCASIONS // 2))
    (row,) = careful_ms(rounds_of(deployments[:1], tables)).values()
    assert row[0] == pytest.approx(10.0)
    assert row[1] > 21.0 * 1.02
    assert np.isnan(row[2])


def test_what_could_not_be_run_once_counts_as_such_and_spoils_no_other(
    deployments: list[Deployment],
):
    """Here the first of two, on the first of two targets."""
    fails = np.array([[[np.inf, 20.0], [30.0, 40.0]], [[11.0, 20.0], [31.0, 40.5]]])
    known = careful_ms(rounds_of(deployments[:2], np.concatenate([fails, fails])))
    runs = careful_ms(rounds_of(deployments[1:2], np.concatenate([fails, fails])[:, 1:]))
    assert known[deployments[0]][0] == np.inf
    assert known[deployments[1]] == pytest.approx(runs[deployments[1]])


@pytest.mark.parametrize("kept", ["as it is written", "as earlier versions wrote it"])
def test_a_round_is_kept_with_what_is_unknown(deployments: list[Deployment], kept: str):
    (measured,) = rounds_of(deployments[:2], np.array([[[1.5, np.nan], [np.inf, 2.5]]]))
    text = measured.to_json()
    if kept != "as it is written":
        text = text.replace('"NaN"', "null")
    read = Round.from_json(text)
    assert read.deployments == deployments[:2]
    assert np.array_equal(read.table, measured.table, equal_nan=True)
    json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize(("together", "common"), [(1, 0.0), (7, 0.0), (7, 0.4), (100, 0.0)])
@pytest.mark.parametrize(
    ("times", "confidence", "widest"),
    [(OCCASIONS, FIRST_CONFIDENCE, 1.035), (MOST_OCCASIONS, LAST_CONFIDENCE, 1.01)],
)
def test_the_truth_is_below_what_counts_as_often_as_promised(  # noqa: PLR0917 - parameters
    deployments: list[Deployment],
    together: int,
    common: float,
    times: int,
    confidence: float,
    widest: float,
):
    """Also where a part of the variance is common to all that is measured in a round."""
    rng = np.random.default_rng(0)
    covered, widths = [], []
    for _ in range(700 // together):
        truth = rng.uniform(5.0, 50.0, size=together)
        shared = np.sqrt(common) * rng.normal(0.0, 0.02, size=(times, 1, 1))
        own = np.sqrt(1 - common) * rng.normal(0.0, 0.02, size=(times, together, 1))
        scatter = np.exp(shared + own)
        known = careful_ms(rounds_of(deployments[:together], truth[:, None] * scatter))
        counts = np.array([known[one][0] for one in deployments[:together]])
        covered += (truth <= counts).tolist()
        widths += (counts / truth).tolist()
    assert np.mean(covered) == pytest.approx(confidence, abs=0.03)
    assert np.median(widths) < widest


def test_a_target_that_went_away_takes_no_figure_of_others_along(deployments: list[Deployment]):
    """The second target is measured in the first round and not in the second."""
    one, other, new = deployments[:3]
    rounds = [
        Round(latencies_ms=((one, (10.0, 20.0)), (other, (11.0, 22.0)))),
        Round(latencies_ms=((one, (10.2, np.nan)), (new, (12.0, np.nan)))),
    ]
    for known in (careful_ms(rounds), hopeful_ms(rounds)):
        assert known[other][1] == 22.0, "nothing tells how the second target scatters"
        assert np.isnan(known[one][1])
        assert np.isnan(known[new][1])
    assert careful_ms(rounds)[one][0] == pytest.approx(10.1)
    assert 11.0 / 1.1 < hopeful_ms(rounds)[other][0] < 11.0


def test_what_could_not_be_run_gives_no_hope_however_latencies_scatter(
    deployments: list[Deployment],
):
    one, failed, slow = deployments[:3]
    rounds = [
        Round(latencies_ms=((one, (10.0,)), (failed, (np.inf,)), (slow, (1000.0,)))),
        Round(latencies_ms=((one, (17.0,)),)),
    ]
    hopeful = hopeful_ms(rounds)
    assert hopeful[failed] == (np.inf,)
    assert 0 < hopeful[one][0] < 13.5
    assert hopeful[slow][0] > 300


def test_what_may_truly_be_is_as_far_below_the_mean_as_occasions_differ(
    deployments: list[Deployment],
):
    rng = np.random.default_rng(0)
    truth = rng.uniform(5.0, 50.0, size=100)
    for times in (2, OCCASIONS - 1):
        scatter = np.exp(rng.normal(0.0, 0.02, size=(times, 100, 1)))
        rounds = rounds_of(deployments[:100], truth[:, None] * scatter)
        hopeful = hopeful_ms(rounds)
        above = [real >= hopeful[one][0] for one, real in zip(deployments, truth, strict=False)]
        assert np.mean(above) == pytest.approx(LAST_CONFIDENCE, abs=0.05)
    once = hopeful_ms(rounds[:1])[deployments[0]]
    assert once == pytest.approx(rounds[0].latencies_ms[0][1]), "nothing tells the scatter yet"


def test_after_all_occasions_a_mean_beyond_the_limit_gives_no_hope(deployments: list[Deployment]):
    tables = np.array([9.0, 11.0] * (OCCASIONS // 2)).reshape(-1, 1, 1)
    (before,) = hopeful_ms(rounds_of(deployments[:1], tables[:-1])).values()
    (after,) = hopeful_ms(rounds_of(deployments[:1], tables)).values()
    assert before[0] < 9.0
    assert after == pytest.approx((10.0,))
