"""Studies whose workers are killed, fall silent, or stop: nothing is lost, nothing done twice."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from laboratory import Lab, laboratory_space, laboratory_study, law_ms
from optuna.trial import TrialState
from workers import Diary, kill_in_trial, start_worker

from hwsearch.progress import SilentProgress
from hwsearch.records import Deployment
from hwsearch.search import sampler as sampler_module
from hwsearch.search.encoding import encode
from hwsearch.search.sampler import SubnetSampler, distributions
from hwsearch.search.storage import CHOSEN, WORKER, open_storage
from hwsearch.search.trials import LostTrials, Worker, this_worker

TOTAL = 21
ELSEWHERE = Worker(machine="another machine", pid=1, started=0.0).to_json()


def states(storage: str, name: str) -> Counter[TrialState]:
    study = optuna.load_study(study_name=name, storage=open_storage(storage))
    return Counter(trial.state for trial in study.trials)


@pytest.mark.slow
@pytest.mark.parametrize("evaluation", [3, 19], ids=["in the start", "among proposals"])
def test_a_study_that_was_killed_and_resumed_is_the_one_that_ran_through(
    storage: str, tmp_path: Path, evaluation: int
):
    whole = laboratory_study(storage, "whole")
    whole.run_until(TOTAL, progress=SilentProgress())
    diary = Diary(tmp_path / "diary")
    worker = start_worker(storage, "parts", TOTAL, diary, hang_at=evaluation)
    kill_in_trial(worker, diary, evaluation)
    assert states(storage, "parts")[TrialState.RUNNING] == 1
    lab = Lab()
    parts = laboratory_study(storage, "parts", objectives=lab.objectives)
    parts.run_until(TOTAL, progress=SilentProgress())
    assert parts.judged == whole.judged
    assert len(diary.of("end")) == evaluation - 1
    assert len(lab.evaluated) == TOTAL - (evaluation - 1)
    assert lab.evaluated[0].id == diary.of("begin")[-1], "the killed trial goes first"
    counted = states(storage, "parts")
    assert counted[TrialState.FAIL] == 1
    assert counted[TrialState.RUNNING] == counted[TrialState.WAITING] == 0


@pytest.mark.slow
def test_a_study_that_was_stopped_by_ctrl_c_goes_on_as_one_that_ran_through(storage: str):
    whole = laboratory_study(storage, "whole")
    whole.run_until(TOTAL, progress=SilentProgress())
    lab = Lab()

    def evaluate(deployment: Deployment) -> float:
        if len(lab.evaluated) == TOTAL - 3:
            raise KeyboardInterrupt
        return lab.evaluate(deployment)

    stopped = replace(lab.objectives, evaluate=evaluate)
    with pytest.raises(KeyboardInterrupt):
        laboratory_study(storage, "parts", objectives=stopped).run_until(
            TOTAL, progress=SilentProgress()
        )
    parts = laboratory_study(storage, "parts")
    parts.run_until(TOTAL, progress=SilentProgress())
    assert parts.judged == whole.judged


def leave_running(storage: object, worker: str, *, beat: bool) -> optuna.Study:
    """A study whose first trial was begun, by a worker that is not heard of again."""
    laboratory_study(storage)
    study = optuna.load_study(study_name="leaves", storage=storage)
    space = laboratory_space()
    study.enqueue_trial(encode(space, space.largest))
    trial = study.ask(distributions(space))
    trial.set_user_attr(WORKER, worker)
    trial.set_user_attr(CHOSEN, space.largest.subnet.to_json())
    if beat:
        storage.record_heartbeat(trial._trial_id)
    return study


def test_a_worker_of_another_machine_that_falls_silent_is_replaced(storage: str):
    kept = open_storage(storage, heartbeat_s=1, grace_s=1)
    study = leave_running(kept, ELSEWHERE, beat=True)
    (lost,) = study.trials
    laboratory_study(kept).run_until(3, progress=SilentProgress())
    ended = Counter(trial.state for trial in study.trials)
    assert ended == {TrialState.COMPLETE: 3, TrialState.FAIL: 1}
    assert lost.params in [t.params for t in study.trials if t.state == TrialState.COMPLETE]


def test_a_worker_that_nobody_can_ask_about_does_not_block_the_end(tmp_path: Path):
    journal = open_storage(f"journal://{tmp_path / 'study.log'}")
    study = leave_running(journal, ELSEWHERE, beat=False)
    (silent,) = study.trials
    laboratory_study(journal).run_until(3, progress=SilentProgress())
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert len(done) == 3
    assert silent.params not in [trial.params for trial in done], "it may still be at work"


def test_a_worker_that_ended_before_it_chose_does_not_block_the_end(
    storage: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sampler_module, "PATIENCE_S", 0.1)
    laboratory_study(storage)
    study = optuna.load_study(study_name="leaves", storage=storage)
    study._storage.create_new_trial(study._study_id)
    ours = laboratory_study(storage)
    ours._lost = LostTrials(ours._study, patience_s=0.5)
    ours.run_until(3, progress=SilentProgress())
    ended = Counter(trial.state for trial in study.trials)
    assert ended == {TrialState.COMPLETE: 3, TrialState.FAIL: 1}


def test_what_a_killed_worker_had_not_chosen_to_the_end_is_chosen_anew(storage: str):
    whole = laboratory_study(storage, "whole")
    whole.run_until(6, progress=SilentProgress())
    laboratory_study(storage, "parts").run_until(3, progress=SilentProgress())
    study = optuna.load_study(study_name="parts", storage=storage)
    half_way = study.ask()
    half_way.set_user_attr(WORKER, this_worker().model_copy(update={"started": 1.0}).to_json())
    half_way.suggest_int(next(iter(distributions(laboratory_space()))), 0, 2)
    parts = laboratory_study(storage, "parts")
    parts.run_until(6, progress=SilentProgress())
    assert parts.judged == whole.judged


def test_what_a_worker_chose_while_others_looked_for_it_is_done_again(
    storage: str, monkeypatch: pytest.MonkeyPatch
):
    """It was at work on its choice as the trials were read, and killed before it was looked for."""
    laboratory_study(storage)
    study = optuna.load_study(study_name="leaves", storage=storage)
    trial = study.ask()
    trial.set_user_attr(WORKER, this_worker().model_copy(update={"started": 1.0}).to_json())
    read_too_early = study.get_trials()
    for name, where in distributions(laboratory_space()).items():
        trial.suggest_int(name, where.low, where.high)
    trial.set_user_attr(CHOSEN, "all of it")
    with monkeypatch.context() as patch:
        patch.setattr(study, "get_trials", lambda **_: read_too_early)
        LostTrials(study).retry()
    (failed, queued) = study.trials
    assert (failed.state, queued.state) == (TrialState.FAIL, TrialState.WAITING)
    assert queued.params == trial.params != {}


def test_a_worker_whose_trial_others_gave_up_goes_on(storage: str):
    """A machine that slept for a while comes back: its trial was queued for somebody else."""
    lab = Lab()

    def evaluate(deployment: Deployment) -> float:
        if len(lab.evaluated) == 1:
            others = optuna.load_study(study_name="leaves", storage=storage)
            (running,) = others.get_trials(states=(TrialState.RUNNING,))
            others.tell(running.number, state=TrialState.FAIL)
        return lab.evaluate(deployment)

    ours = laboratory_study(storage, objectives=replace(lab.objectives, evaluate=evaluate))
    ours.run_until(4, progress=SilentProgress())
    assert len(ours.judged) == 4
    assert states(storage, "leaves") == {TrialState.COMPLETE: 4, TrialState.FAIL: 1}


def test_an_evaluation_that_fails_is_not_taken_for_a_trial_that_was_given_up(storage: str):
    def evaluate(deployment: Deployment) -> float:
        raise ValueError("no such image")

    ours = laboratory_study(storage, objectives=replace(Lab().objectives, evaluate=evaluate))
    with pytest.raises(ValueError, match="no such image"):
        ours.run_until(4, progress=SilentProgress())


def test_a_trial_that_is_being_chosen_is_left_alone(storage: str):
    laboratory_study(storage)
    study = optuna.load_study(study_name="leaves", storage=storage)
    study._storage.create_new_trial(study._study_id)
    lost = LostTrials(study, patience_s=30.0)
    lost.retry()
    lost.retry()
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]


def test_a_trial_that_ends_every_worker_is_given_up(storage: str):
    kept = open_storage(storage)
    gone = this_worker().model_copy(update={"started": 1.0})
    study = leave_running(kept, gone.to_json(), beat=True)
    first = study.trials[0].params
    for _ in range(4):
        retry = next((t for t in study.trials if t.state == TrialState.WAITING), None)
        if retry is not None:
            assert retry.params == first
            again = study.ask()
            again.set_user_attr(WORKER, gone.to_json())
        LostTrials(study).retry()
    laboratory_study(kept).run_until(4, progress=SilentProgress())
    ended = Counter(trial.state for trial in study.trials)
    assert ended == {TrialState.FAIL: 4, TrialState.COMPLETE: 4}
    assert all(t.params != first for t in study.trials if t.state == TrialState.COMPLETE)


def test_anybody_can_continue_a_study_with_optuna_alone(storage: str):
    lab, space = Lab(), laboratory_space()
    laboratory_study(storage).run_until(18, progress=SilentProgress())
    sampler = SubnetSampler(space, upper=lab.upper_cost, limit=12.0, seed=0)
    study = optuna.load_study(study_name="leaves", storage=storage, sampler=sampler)
    before = [trial.params for trial in study.trials]

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        for name, where in distributions(space).items():
            trial.suggest_int(name, where.low, where.high)
        return 0.5, 10.0

    study.optimize(objective, n_trials=4)
    fresh = [trial.params for trial in study.trials[len(before) :]]
    assert len(fresh) == 4
    assert all(params not in before for params in fresh)
    ours = laboratory_study(storage)
    assert [encode(space, row.deployment) for row in ours.judged][18:] == fresh
    assert ours.judged[-1].predicted_ms == (law_ms(ours.judged[-1].deployment),)


def test_a_trial_with_a_deployment_that_another_has_is_pruned(storage: str, lab: Lab):
    """Two workers chose the same at the same time: the earlier trial judges it."""
    space = laboratory_space()
    laboratory_study(storage)
    study = optuna.load_study(study_name="leaves", storage=storage)
    for _ in range(2):
        study.enqueue_trial(encode(space, space.largest))
    first = study.ask(distributions(space))
    first.set_user_attr(WORKER, this_worker().to_json())
    ours = laboratory_study(storage, objectives=lab.objectives)
    second = study.ask()
    with pytest.raises(optuna.TrialPruned):
        ours.try_deployment(second)
    assert lab.evaluated == []
    ours.try_deployment(first)
    assert lab.evaluated == [space.largest]


def test_constraints_are_one_a_target(storage: str):
    ours = laboratory_study(storage)
    ours.run_until(5, progress=SilentProgress())
    study = optuna.load_study(study_name="leaves", storage=storage)
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        (upper_ms,) = trial.user_attrs["upper_ms"]
        assert trial.constraints == {"latency_over_limit_1_ms": pytest.approx(upper_ms - 12.0)}
    assert study.best_trials, "Optuna sees which are feasible"
