import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from laboratory import (
    Lab,
    Law,
    Search,
    every_deployment,
    laboratory_space,
    law_miou,
    law_ms,
    law_ms_of_wide_layers,
)

from hwsearch.errors import DataError, InfeasibleError, ProfileError, UsageError
from hwsearch.records import Deployment
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.run import MOST_BESIDE
from hwsearch.search.study import StudyIdentity, SubnetStudy
from hwsearch.search.verify import ROUNDS

TARGET_MS = 12.0


def best_within(deployments: list[Deployment], law: Law, limit_ms: float):
    miou, latency_ms = law
    return max(miou(config) for config in deployments if latency_ms(config) <= limit_ms)


@pytest.mark.parametrize("target_ms", [12.0, 18.0])
def test_few_trials_come_near_the_exhaustive_optimum(
    search: Search, lab: Lab, law: Law, deployments: list[Deployment], target_ms: float
):
    assert len(deployments) > 700
    outcome = search(lab, target_ms, trials=20)
    reachable = best_within(deployments, law, target_ms / 1.02)  # the upper bound has to fit
    assert outcome.pick.miou >= reachable - 0.01
    assert outcome.trials == 20


def test_the_front_is_measured_undominated_and_within_the_target(
    search: Search, lab: Lab, law: Law, space: DeploymentSpace
):
    miou, latency_ms = law
    outcome = search(lab, TARGET_MS)
    assert outcome.pick == outcome.front[-1]
    measured = {config for session in lab.sessions for config in session}
    for row in outcome.front:
        assert row.deployment in measured
        assert row.latency_ms == latency_ms(row.deployment) <= TARGET_MS
        assert row.miou == miou(row.deployment)
    mious = [row.miou for row in outcome.front]
    latencies = [row.latency_ms for row in outcome.front]
    assert mious == sorted(set(mious))
    assert latencies == sorted(set(latencies))
    assert outcome.largest.deployment == space.largest
    assert outcome.largest.latency_ms == latency_ms(space.largest)


def test_one_deployment_meets_every_target(search: Search, deployments: list[Deployment]):
    lab = Lab(laws=(law_ms, law_ms_of_wide_layers))
    alone = search(Lab(), 18.0, trials=30, name="alone")
    assert law_ms_of_wide_layers(alone.pick.deployment) > 14.0, "the second target would not bind"
    outcome = search(lab, 18.0, 14.0, trials=30)
    reachable = max(
        law_miou(one)
        for one in deployments
        if 1.02 * law_ms(one) <= 18.0 and 1.02 * law_ms_of_wide_layers(one) <= 14.0
    )
    assert outcome.pick.miou >= reachable - 0.01
    for row in outcome.front:
        assert row.latency_ms == law_ms(row.deployment) <= 18.0
        (further,) = row.further_targets
        assert further.latency_ms == law_ms_of_wide_layers(row.deployment) <= 14.0


@pytest.mark.parametrize("limit_ms", [16.0, 20.0])
def test_all_that_was_judged_is_told_of(search: Search, lab: Lab, limit_ms: float):
    """Also what was judged beside the study, and then was not worth measuring."""
    outcome = search(lab, limit_ms, trials=8)
    assert outcome.trials < len(outcome.candidates) <= outcome.trials + math.ceil(8 * MOST_BESIDE)
    assert {row.deployment for row in outcome.candidates} == set(lab.evaluated)


class WithoutMemory(Lab):
    """Two devices, the second of which runs nothing that is wide and large."""

    def measure(self, deployments: Sequence[Deployment]) -> np.ndarray:
        measured_ms = super().measure(deployments)
        measured_ms[[self.is_too_much(one) for one in deployments], -1] = np.inf
        return measured_ms

    def refit(self, deployments: Sequence[Deployment], latencies_ms: np.ndarray) -> None:
        super().refit(deployments, latencies_ms)
        assert not np.isnan(latencies_ms).any()

    @staticmethod
    def is_too_much(deployment: Deployment) -> bool:
        return deployment.subnet.resolution == 64 and deployment.subnet.depth > 2


@pytest.mark.parametrize("laws", [(law_ms,), (law_ms, law_ms_of_wide_layers)])
def test_what_does_not_run_is_no_pick_and_ends_no_search(
    search: Search, deployments: list[Deployment], laws: tuple[Callable[[Deployment], float], ...]
):
    lab = WithoutMemory(laws=laws)
    limits_ms = (30.0, 40.0)[: len(laws)]
    outcome = search(lab, *limits_ms, trials=30)
    tried = {one for session in lab.sessions for one in session}
    assert any(map(lab.is_too_much, tried))
    timed_in_vain = [one for session in lab.sessions for one in session if lab.is_too_much(one)]
    assert len(timed_in_vain) <= 12  # the largest, and one round of picks and of bold ones
    assert outcome.trials == 30
    assert not any(lab.is_too_much(row.deployment) for row in outcome.front)
    reachable = max(
        law_miou(one)
        for one in deployments
        if not lab.is_too_much(one)
        and all(1.02 * law(one) <= limit for law, limit in zip(laws, limits_ms, strict=True))
    )
    assert outcome.pick.miou >= reachable - 0.01
    largest = outcome.largest
    assert not largest.runs
    latencies_ms = [largest.latency_ms, *(row.latency_ms for row in largest.further_targets)]
    assert latencies_ms[-1] is None
    assert None not in latencies_ms[:-1]
    assert search(lab, *limits_ms, trials=30) == outcome


def test_a_device_that_runs_nothing_has_nothing_to_search(
    search: Search, monkeypatch: pytest.MonkeyPatch
):
    lab = WithoutMemory()
    monkeypatch.setattr(lab, "is_too_much", lambda _: True)
    with pytest.raises(ProfileError, match=r"None of the [12] subnets measured could be timed"):
        search(lab, TARGET_MS)
    assert lab.evaluated == []


def test_precision_is_a_choice_like_any_other(search: Search, lab: Lab):
    space = laboratory_space("fp32", "int8")
    outcome = search(lab, TARGET_MS, space=space, trials=30)
    everything = every_deployment(space)
    reachable = max(law_miou(one) for one in everything if 1.02 * law_ms(one) <= TARGET_MS)
    assert outcome.pick.precision == "int8", "half the latency for a point of mIoU"
    assert outcome.pick.miou >= reachable - 0.01
    assert outcome.largest.precision == "fp32"
    assert {row.precision for row in outcome.candidates} == {"fp32", "int8"}


def test_the_target_that_binds_is_named_where_nothing_meets_all(search: Search):
    lab = Lab(laws=(law_ms, law_ms_of_wide_layers))
    with pytest.raises(InfeasibleError, match="No subnet meets 2 ms on test-cpu-1"):
        search(lab, 18.0, 2.0)


def test_only_measured_candidates_have_a_latency(search: Search, lab: Lab):
    outcome = search(lab, TARGET_MS)
    measured = {config for session in lab.sessions for config in session}
    assert {row.deployment for row in outcome.candidates if row.latency_ms is not None} == measured


def test_a_second_run_only_measures(search: Search, lab: Lab):
    first = search(lab, TARGET_MS)
    asked = len(lab.evaluated)
    second = search(lab, TARGET_MS)
    assert len(lab.evaluated) == asked
    assert second == first


def test_what_was_measured_counts_until_it_is_forgotten(
    search: Search, lab: Lab, storage: str, space: DeploymentSpace
):
    """A search that was stopped between its picks and its result has nothing to measure again."""
    first = search(lab, TARGET_MS)
    sessions = len(lab.sessions)
    assert search(lab, TARGET_MS) == first
    assert len(lab.sessions) == sessions
    stored = optuna.load_study(study_name="leaves", storage=storage)
    SubnetStudy(
        name="leaves",
        storage=storage,
        identity=StudyIdentity.from_json(stored.user_attrs["identity"]),
        space=space,
        objectives=lab.objectives,
        seed=0,
        verifier="here",
    ).forget_picks()
    assert search(lab, TARGET_MS) == first
    assert len(lab.sessions) > sessions


def test_more_trials_than_were_asked_for_before_are_measured_too(search: Search, lab: Lab):
    """The first search was stopped after its picks; the second may find better ones."""
    first = search(lab, TARGET_MS, trials=4)
    sessions = len(lab.sessions)
    second = search(lab, TARGET_MS, trials=30)
    assert second.pick.miou > first.pick.miou
    measured = {config for session in lab.sessions[sessions:] for config in session}
    assert second.pick.deployment in measured


def test_a_machine_that_joins_measures_its_own_picks(search: Search, law: Law):
    """The other one, which is stopped as it verifies, is a sixth faster."""

    class Stopped(Lab):
        def measure(self, deployments: Sequence[Deployment]) -> np.ndarray:
            if len(self.sessions) == 2:
                raise KeyboardInterrupt
            return super().measure(deployments)

    there, here = Stopped(), Lab(bias=7 / 6)
    with pytest.raises(KeyboardInterrupt):
        search(there, TARGET_MS, verifier="there")
    outcome = search(here, TARGET_MS)
    measured = {config for session in here.sessions for config in session}
    _, latency_ms = law
    for row in outcome.front:
        assert row.deployment in measured
        assert row.latency_ms == pytest.approx(latency_ms(row.deployment) * 7 / 6)


def test_another_study_takes_accuracies_from_the_cache(search: Search, lab: Lab):
    first = search(lab, TARGET_MS)
    asked = len(lab.evaluated)
    second = search(lab, TARGET_MS, name="again")
    assert second.pick == first.pick
    assert len(lab.evaluated) == asked


def test_a_target_below_everything_is_infeasible_before_any_trial(
    search: Search, lab: Lab, law: Law, space: DeploymentSpace
):
    _, latency_ms = law
    smallest_ms = latency_ms(space.smallest)
    with pytest.raises(InfeasibleError) as caught:
        search(lab, 4.0)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert lab.evaluated == []
    for fact in ("No subnet meets 4 ms", space.smallest.subnet.id, f"{smallest_ms:.2f} ms"):
        assert fact in message
    assert f"{100 * (smallest_ms / 4 - 1):.1f} % over" in message
    advised = float(re.search(r"allow at least ([\d.]+) ms", message).group(1))
    assert smallest_ms <= advised < smallest_ms * 1.01


@pytest.mark.parametrize("round_number", [1, 2, 3])
def test_a_search_that_is_stopped_as_it_measures_goes_on_where_it_was(
    search: Search, tmp_path: Path, round_number: int
):
    """Picks are 10 % slower than predicted, so that rounds and more trials follow each other."""

    class Slow(Lab):
        def refit(self, deployments: Sequence[Deployment], latencies_ms: np.ndarray) -> None:
            super().refit(deployments, latencies_ms)
            self.correction = 1 + 0.04 * min(len(self.refits) - 1, 3)

    class Stopped(Slow):
        def measure(self, deployments: Sequence[Deployment]) -> np.ndarray:
            if len(self.sessions) == round_number:
                raise KeyboardInterrupt
            return super().measure(deployments)

    whole, first, second = Slow(bias=1.1), Stopped(bias=1.1), Slow(bias=1.1)
    through = search(whole, TARGET_MS, trials=20, name="through")
    with pytest.raises(KeyboardInterrupt):
        search(first, TARGET_MS, trials=20, name="parts", cache=tmp_path / "other.jsonl")
    parts = search(second, TARGET_MS, trials=20, name="parts", cache=tmp_path / "other.jsonl")
    assert parts == through
    assert len(whole.sessions) > 3
    assert [*first.sessions, *second.sessions] == whole.sessions


def test_what_fits_no_longer_when_it_is_timed_again_is_infeasible(
    search: Search, lab: Lab, law: Law, space: DeploymentSpace
):
    """The smallest fits by a hair at first, and not when it is measured once more."""
    _, latency_ms = law
    limit_ms = 1.01 * latency_ms(space.smallest)

    class Restless(Lab):
        def measure(self, deployments: Sequence[Deployment]) -> np.ndarray:
            self.bias = 1.0 if not self.sessions else 1.05
            return super().measure(deployments)

    with pytest.raises(InfeasibleError) as caught:
        search(Restless(laws=lab.laws), limit_ms, trials=6)
    assert "over" in str(caught.value)
    assert caught.value.details["nearest_id"] == space.smallest.id
    # Once the machine rests, the same search finds what fits.
    assert search(lab, limit_ms, trials=6).pick.deployment == space.smallest


def test_a_pick_over_the_target_gives_way_to_one_that_holds(
    search: Search, lab: Lab, law: Law, space: DeploymentSpace
):
    """Real latency of the most accurate picks is 10 % over; the predictor learns of it."""
    _, latency_ms = law
    lab.bias = 1.10

    def refit(configs: Sequence[Deployment], latencies_ms: np.ndarray) -> None:
        lab.refits.append(dict(zip(configs, latencies_ms[:, 0], strict=True)))
        if len(lab.refits) == 2:
            lab.correction = 1.10

    lab.refit = refit
    outcome = search(lab, TARGET_MS)
    first_round = lab.refits[1]
    missed = [ms for config, ms in first_round.items() if config != space.largest]
    assert max(missed) > TARGET_MS
    assert len(lab.sessions) >= 3
    assert outcome.pick.latency_ms == pytest.approx(1.10 * latency_ms(outcome.pick.deployment))
    assert outcome.pick.latency_ms <= TARGET_MS
    assert 12 < outcome.trials <= 12 + 3 * 2


def test_a_predictor_that_never_learns_ends_with_what_was_measured(search: Search, lab: Lab):
    lab.bias = 1.5
    outcome = search(lab, TARGET_MS)
    assert len(lab.sessions) <= 1 + ROUNDS
    assert outcome.pick.latency_ms <= TARGET_MS


def test_nonsense_is_refused(search: Search, lab: Lab):
    with pytest.raises(UsageError, match="0 trials"):
        search(lab, TARGET_MS, trials=0)
    with pytest.raises(UsageError, match="-1 ms"):
        search(lab, -1.0)
    lab.evaluate = lambda config: float("nan")
    with pytest.raises(DataError, match="came out as nan"):
        search(lab, TARGET_MS)
