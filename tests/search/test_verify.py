from laboratory import Lab, Law

from hwsearch.progress import SilentProgress
from hwsearch.records import Deployment
from hwsearch.search.objectives import Limits
from hwsearch.search.verify import BEST, ROUNDS, SPREAD, feasible_front, verify_front

LIMITS = Limits((15.0,))


def verify(lab: Lab, judged: dict[Deployment, float], target_ms: float) -> list[int]:
    rounds: list[int] = []
    verify_front(
        lambda: judged,
        objectives=lab.objectives,
        limits=Limits((target_ms,)),
        measured_ms={},
        companions=[],
        search_on=rounds.append,
        progress=SilentProgress(),
    )
    return rounds


def test_a_front_that_holds_is_measured_in_one_session(
    lab: Lab, law: Law, deployments: list[Deployment]
):
    judged = {config: law[0](config) for config in deployments}
    assert verify(lab, judged, 15.0) == []
    (session,) = lab.sessions
    front = feasible_front(judged, objectives=lab.objectives, limits=LIMITS, measured_ms={})
    assert session[:BEST] == front[:BEST]
    assert len(session) == len(set(session)) == BEST + SPREAD
    assert set(session) <= set(front)


def test_rounds_are_bounded_where_every_pick_misses(
    lab: Lab, law: Law, deployments: list[Deployment]
):
    lab.bias = 10.0
    judged = {config: law[0](config) for config in deployments}
    assert verify(lab, judged, 15.0) == list(range(1, ROUNDS))
    measured = [config for session in lab.sessions for config in session]
    assert len(set(measured)) == len(measured)
    assert len(lab.sessions) == len(lab.refits) == ROUNDS


def test_a_measurement_overrules_the_prediction(lab: Lab, law: Law, deployments: list[Deployment]):
    judged = {config: law[0](config) for config in deployments}
    best, *_ = feasible_front(judged, objectives=lab.objectives, limits=LIMITS, measured_ms={})
    after = feasible_front(
        judged, objectives=lab.objectives, limits=LIMITS, measured_ms={best: (15.1,)}
    )
    assert best not in after
    slow = max(deployments, key=law[1])
    kept = feasible_front(
        judged, objectives=lab.objectives, limits=LIMITS, measured_ms={slow: (14.9,)}
    )
    assert kept[0] == slow
