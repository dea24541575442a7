import re
from collections.abc import Sequence

import pytest
from laboratory import Lab, Law, Search

from hwsearch.errors import DataError, InfeasibleError, UsageError
from hwsearch.records import SubnetConfig
from hwsearch.space import SearchSpace

TARGET_MS = 12.0


def best_within(subnets: list[SubnetConfig], law: Law, limit_ms: float):
    miou, latency_ms = law
    return max(miou(config) for config in subnets if latency_ms(config) <= limit_ms)


@pytest.mark.parametrize("target_ms", [12.0, 18.0])
def test_few_trials_come_near_the_exhaustive_optimum(
    search: Search, lab: Lab, law: Law, subnets: list[SubnetConfig], target_ms: float
):
    assert len(subnets) > 700
    outcome = search(lab, target_ms, trials=20)
    reachable = best_within(subnets, law, target_ms / 1.02)  # the upper bound has to fit
    assert outcome.pick.miou >= reachable - 0.01
    assert outcome.trials == 20


def test_the_front_is_measured_undominated_and_within_the_target(
    search: Search, lab: Lab, law: Law, space: SearchSpace
):
    miou, latency_ms = law
    outcome = search(lab, TARGET_MS)
    assert outcome.pick == outcome.front[-1]
    measured = {config for session in lab.sessions for config in session}
    for row in outcome.front:
        assert row.subnet in measured
        assert row.latency_ms == latency_ms(row.subnet) <= TARGET_MS
        assert row.miou == miou(row.subnet)
    mious = [row.miou for row in outcome.front]
    latencies = [row.latency_ms for row in outcome.front]
    assert mious == sorted(set(mious))
    assert latencies == sorted(set(latencies))
    assert outcome.largest.subnet == space.largest
    assert outcome.largest.latency_ms == latency_ms(space.largest)


def test_only_measured_candidates_have_a_latency(search: Search, lab: Lab):
    outcome = search(lab, TARGET_MS)
    measured = {config for session in lab.sessions for config in session}
    assert {row.subnet for row in outcome.candidates if row.latency_ms is not None} == measured


def test_a_second_run_only_measures(search: Search, lab: Lab):
    first = search(lab, TARGET_MS)
    asked = len(lab.evaluated)
    second = search(lab, TARGET_MS)
    assert len(lab.evaluated) == asked
    assert second == first


def test_another_study_takes_accuracies_from_the_cache(search: Search, lab: Lab):
    first = search(lab, TARGET_MS)
    asked = len(lab.evaluated)
    second = search(lab, TARGET_MS, study="again")
    assert second.pick == first.pick
    assert len(lab.evaluated) == asked


def test_a_target_below_everything_is_infeasible_before_any_trial(
    search: Search, lab: Lab, law: Law, space: SearchSpace
):
    _, latency_ms = law
    smallest_ms = latency_ms(space.smallest)
    with pytest.raises(InfeasibleError) as caught:
        search(lab, 4.0)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert lab.evaluated == []
    for fact in ("No subnet meets 4 ms", space.smallest.id, f"{smallest_ms:.2f} ms"):
        assert fact in message
    assert f"{100 * (smallest_ms / 4 - 1):.1f} % over" in message
    advised = float(re.search(r"allow at least ([\d.]+) ms", message).group(1))
    assert smallest_ms <= advised < smallest_ms * 1.01


def test_a_pick_over_the_target_gives_way_to_one_that_holds(
    search: Search, lab: Lab, law: Law, space: SearchSpace
):
    """Real latency of the most accurate picks is 10 % over; the predictor learns of it."""
    _, latency_ms = law
    lab.bias = 1.10

    def refit(configs: Sequence[SubnetConfig], latencies_ms: Sequence[float]) -> None:
        lab.refits.append(dict(zip(configs, latencies_ms, strict=True)))
        if len(lab.refits) == 2:
            lab.correction = 1.10

    lab.refit = refit
    outcome = search(lab, TARGET_MS)
    first_round = lab.refits[1]
    missed = [ms for config, ms in first_round.items() if config != space.largest]
    assert max(missed) > TARGET_MS
    assert len(lab.sessions) >= 3
    assert outcome.pick.latency_ms == pytest.approx(1.10 * latency_ms(outcome.pick.subnet))
    assert outcome.pick.latency_ms <= TARGET_MS
    assert 12 < outcome.trials <= 12 + 3 * 2


def test_a_predictor_that_never_learns_ends_with_what_was_measured(search: Search, lab: Lab):
    lab.bias = 1.5
    outcome = search(lab, TARGET_MS)
    assert len(lab.sessions) <= 5
    assert outcome.pick.latency_ms <= TARGET_MS


def test_nonsense_is_refused(search: Search, lab: Lab):
    with pytest.raises(UsageError, match="0 trials"):
        search(lab, TARGET_MS, trials=0)
    with pytest.raises(UsageError, match="-1 ms"):
        search(lab, -1.0)
    lab.evaluate = lambda config: float("nan")
    with pytest.raises(DataError, match="came out as nan"):
        search(lab, TARGET_MS)
