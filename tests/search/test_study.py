import os
from collections.abc import Callable
from dataclasses import replace

import optuna
import psutil
import pytest
from laboratory import TARGET_MS, Lab, laboratory_identity, laboratory_study
from threadpoolctl import threadpool_info, threadpool_limits

from hwsearch.errors import UsageError
from hwsearch.progress import SilentProgress
from hwsearch.records import Deployment
from hwsearch.search import sampler
from hwsearch.search.accuracy_cache import AccuracyContext
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.propose import propose
from hwsearch.search.storage import open_storage
from hwsearch.search.study import StudyIdentity, SubnetStudy
from hwsearch.search.trials import this_worker

OpenStudy = Callable[..., SubnetStudy]


@pytest.fixture
def identity():
    return laboratory_identity()


@pytest.fixture
def open_study(storage: str, lab: Lab):
    def open_(name: str = "leaves", **changes: object) -> SubnetStudy:
        arguments = {"storage": storage, "objectives": lab.objectives} | changes
        return laboratory_study(name=name, **arguments)

    return open_


def test_a_resumed_study_goes_on_as_an_uninterrupted_one(open_study: OpenStudy):
    whole = open_study("whole")
    whole.run_until(14, progress=SilentProgress())
    for total in (4, 9, 14):
        open_study("parts").run_until(total, progress=SilentProgress())
        assert len(open_study("parts").judged) == total
    assert open_study("parts").judged == whole.judged


def test_no_subnet_is_judged_twice_and_none_that_misses_the_target(
    open_study: OpenStudy, lab: Lab, space: DeploymentSpace
):
    study = open_study()
    study.run_until(18, progress=SilentProgress())
    subnets = [row.deployment for row in study.judged]
    assert len(set(subnets)) == len(subnets) == 18
    assert lab.evaluated == subnets
    extremes = {space.largest, space.smallest}
    assert all(r.upper_ms <= (TARGET_MS,) for r in study.judged if r.deployment not in extremes)
    assert extremes <= set(subnets)


def test_proposals_compute_with_one_thread(open_study: OpenStudy, monkeypatch: pytest.MonkeyPatch):
    threads = set()

    def watched(*arguments: object, **named: object) -> Deployment | None:
        threads.update(pool["num_threads"] for pool in _blas_pools())
        return propose(*arguments, **named)

    monkeypatch.setattr(sampler, "propose", watched)
    with threadpool_limits(2, user_api="blas"):
        open_study().run_until(14, progress=SilentProgress())
        assert {pool["num_threads"] for pool in _blas_pools()} == {2}, "given back"
    assert threads == {1}


def _blas_pools() -> list[dict[str, int]]:
    return [pool for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_a_finished_study_runs_nothing(open_study: OpenStudy, lab: Lab):
    open_study().run_until(6, progress=SilentProgress())
    asked = len(lab.evaluated)
    open_study().run_until(6, progress=SilentProgress())
    assert len(lab.evaluated) == asked


def test_an_exhausted_space_ends_the_study(
    open_study: OpenStudy,
    identity: StudyIdentity,
    lab: Lab,
    deployments: list[Deployment],
    space: DeploymentSpace,
):
    within = {config for config in deployments if lab.upper_cost([config])[0] <= 7.2}
    study = open_study(identity=identity.model_copy(update={"target_latencies_ms": (7.2,)}))
    study.run_until(100, progress=SilentProgress())
    assert 2 < len(within) < 10
    assert {row.deployment for row in study.judged} == {*within, space.largest}


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("space_digest", "another space digest"),
        ("target_fingerprints", "another target fingerprint"),
        ("target_latencies_ms", r"another target latency \(12 ms, now 13 ms\)"),
    ],
)
def test_a_study_for_another_purpose_is_refused(
    open_study: OpenStudy, identity: StudyIdentity, field: str, words: str
):
    open_study().run_until(1, progress=SilentProgress())
    changes = {
        "space_digest": "other",
        "target_fingerprints": ("other",),
        "target_latencies_ms": (13.0,),
    }
    with pytest.raises(UsageError, match=words):
        open_study(identity=identity.model_copy(update={field: changes[field]}))


def test_a_study_on_other_data_is_refused(
    open_study: OpenStudy, identity: StudyIdentity, context: AccuracyContext
):
    open_study().run_until(1, progress=SilentProgress())
    other = context.model_copy(update={"data_fingerprint": "ff"})
    with pytest.raises(UsageError, match=r"another data fingerprint \(bb, now ff\)"):
        open_study(identity=identity.model_copy(update={"accuracy": other}))


def test_a_study_without_trials_may_still_become_another(
    open_study: OpenStudy, identity: StudyIdentity
):
    """A target that nothing meets leaves an empty study; the next try has another target."""
    open_study()
    looser = identity.model_copy(update={"target_latencies_ms": (13.0,)})
    open_study(identity=looser).run_until(1, progress=SilentProgress())
    with pytest.raises(UsageError, match="another target latency"):
        open_study()


def test_a_study_that_another_process_has_just_begun_is_refused(
    open_study: OpenStudy, identity: StudyIdentity, storage: str
):
    """It has neither trials nor measurements yet, while it measures the smallest subnet."""
    open_study()
    stored = optuna.load_study(study_name="leaves", storage=storage)
    other = this_worker().model_copy(update={"pid": os.getppid(), "started": parent_started()})
    stored.set_user_attr("owner", other.to_json())
    with pytest.raises(UsageError, match="another target latency"):
        open_study(identity=identity.model_copy(update={"target_latencies_ms": (13.0,)}))
    gone = other.model_copy(update={"started": other.started - 1})
    stored.set_user_attr("owner", gone.to_json())
    open_study(identity=identity.model_copy(update={"target_latencies_ms": (13.0,)}))


def parent_started() -> float:
    return psutil.Process(os.getppid()).create_time()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_storage_that_would_be_gone_is_refused(url: str):
    with pytest.raises(UsageError, match="gone with the command"):
        open_storage(url)


def test_a_study_of_someone_else_is_refused(open_study: OpenStudy, storage: str):
    foreign = optuna.create_study(study_name="theirs", storage=storage)
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(UsageError, match="not made by hwsearch"):
        open_study("theirs")


@pytest.mark.parametrize(
    "url",
    [
        "study.db",
        "nope://x",
        "sqlite:////no/such/folder/study.db",
        "",
        "journal:///no/such/folder/study.log",
    ],
)
def test_an_unusable_storage_is_one_sentence(open_study: OpenStudy, url: str):
    with pytest.raises(UsageError, match="give an Optuna storage URL") as caught:
        open_study(storage=url)
    assert "\n" not in str(caught.value)


def test_a_failed_evaluation_is_tried_again(
    open_study: OpenStudy, lab: Lab, space: DeploymentSpace
):
    class Broken:
        def __init__(self) -> None:
            self.left = 1

        def __call__(self, config: Deployment) -> float:
            if self.left:
                self.left -= 1
                raise RuntimeError("out of memory")
            return lab.evaluate(config)

    objectives = replace(lab.objectives, evaluate=Broken())
    with pytest.raises(RuntimeError, match="out of memory"):
        open_study(objectives=objectives).run_until(4, progress=SilentProgress())
    open_study(objectives=objectives).run_until(4, progress=SilentProgress())
    assert open_study().judged[0].deployment == space.largest
