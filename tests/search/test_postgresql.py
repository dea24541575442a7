"""Many workers on a real PostgreSQL server, some of them killed; and Optuna's dashboard on it."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from laboratory import laboratory_space, laboratory_study
from optuna.trial import TrialState
from postgresql import postgresql
from workers import Diary, kill_in_trial, start_worker

from hwsearch.errors import HwsearchError, UsageError
from hwsearch.progress import SilentProgress
from hwsearch.search.storage import open_storage
from hwsearch.search.trials import deployment_of

pytestmark = pytest.mark.slow

TOTAL = 30


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as url:
        yield url


def test_four_workers_of_which_two_are_killed_lose_nothing_and_do_nothing_twice(
    server: str, tmp_path: Path
):
    space, diary = laboratory_space(), Diary(tmp_path / "diary")
    laboratory_study(server, "four")  # the first to come makes the tables and the study
    doomed = [start_worker(server, "four", TOTAL, diary, hang_at=2, seconds=0.2) for _ in range(2)]
    others = [start_worker(server, "four", TOTAL, diary, seconds=0.2) for _ in range(2)]
    for worker in doomed:
        kill_in_trial(worker, diary, 2)
    assert [worker.wait(120) for worker in others] == [0, 0]
    study = optuna.load_study(study_name="four", storage=open_storage(server))
    counted = Counter(trial.state for trial in study.trials)
    assert counted[TrialState.COMPLETE] == TOTAL
    assert counted[TrialState.FAIL] == len(doomed), "the trials that were killed"
    assert counted[TrialState.RUNNING] == counted[TrialState.WAITING] == 0
    judged = [
        deployment_of(space, trial).id for trial in study.get_trials(states=(TrialState.COMPLETE,))
    ]
    killed = [
        deployment_of(space, trial).id for trial in study.get_trials(states=(TrialState.FAIL,))
    ]
    assert len(set(judged)) == TOTAL, "a deployment was judged in two trials"
    assert Counter(diary.of("end")) == Counter(judged), "an evaluation was lost or done twice"
    assert set(killed) <= set(judged), "a killed trial was not done again"
    assert sorted(set(diary.of("begin"))) == sorted(judged)
    writers = {writer for word, _, writer in diary.lines if word == "end"}
    assert len(writers) == 4, "all four took part"


def test_the_dashboard_opens_a_study(server: str):
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    ours = laboratory_study(server, "shown")
    ours.run_until(6, progress=SilentProgress())
    app = dashboard.wsgi(open_storage(server))

    def get(path: str) -> dict[str, object]:
        answered: list[str] = []
        environment: dict[str, object] = {}
        setup_testing_defaults(environment)
        environment["PATH_INFO"] = path
        body = b"".join(app(environment, lambda status, *_: answered.append(status)))
        assert answered[0].startswith("200"), body
        return json.loads(body)

    listed = {row["study_name"]: row["study_id"] for row in get("/api/studies")["study_summaries"]}
    shown = get(f"/api/studies/{listed['shown']}")
    complete = [row for row in shown["trials"] if row["state"] == "Complete"]
    assert len(complete) == 6
    assert sorted(row["values"][0] for row in complete) == sorted(r.miou for r in ours.judged)


def test_a_server_that_goes_away_is_one_sentence():
    with postgresql() as url:
        study = laboratory_study(url)
        study.run_until(2, progress=SilentProgress())
    with pytest.raises(HwsearchError, match="the same command goes on") as caught:
        study.run_until(4, progress=SilentProgress())
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_sentence(server: str):
    nowhere = server.rsplit(":", 1)[0] + ":1/postgres"
    with pytest.raises(UsageError, match="can't be used") as caught:
        open_storage(nowhere)
    assert "\n" not in str(caught.value)
