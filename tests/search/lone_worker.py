"""A process that works on a study of the laboratory; tests start it, and kill it.

    python lone_worker.py STORAGE STUDY TOTAL DIARY HANG_AT SECONDS

It writes a line before and after each evaluation, which takes SECONDS, and never ends its
evaluation number HANG_AT (from 1; 0 for none).
"""

import os
import sys
import time
from pathlib import Path

from laboratory import Lab, laboratory_study, law_miou

from hwsearch.progress import SilentProgress
from hwsearch.records import Deployment
from hwsearch.search.storage import open_storage


class SlowLab(Lab):
    def __init__(self, diary: Path, hang_at: int, seconds: float) -> None:
        super().__init__()
        self.diary, self.hang_at, self.seconds = diary, hang_at, seconds

    def evaluate(self, deployment: Deployment) -> float:
        self.evaluated.append(deployment)
        self.note("begin", deployment)
        time.sleep(3600 if len(self.evaluated) == self.hang_at else self.seconds)
        self.note("end", deployment)
        return law_miou(deployment)

    def note(self, what: str, deployment: Deployment) -> None:
        with self.diary.open("a") as diary:
            diary.write(f"{what} {deployment.id} {os.getpid()}\n")


if __name__ == "__main__":
    url, name, total, diary_path, hang, pause = sys.argv[1:]
    lab = SlowLab(Path(diary_path), int(hang), float(pause))
    study = laboratory_study(open_storage(url), name, objectives=lab.objectives)
    study.run_until(int(total), progress=SilentProgress())
