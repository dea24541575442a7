"""A search's workers around a tiny supernet whose latencies are known without a measurement.

    python crew.py WORKSPACE TOTAL

runs the trials of a study with two workers, until it is done or stopped.
"""

import signal
import sys
from pathlib import Path

import numpy as np
from tiny import tiny_supernet

from hwsearch.costs import encoder_macs
from hwsearch.data.scenes.write import write_scenes
from hwsearch.errors import StoppedError
from hwsearch.predictor.latency_predictor import LatencyPredictor
from hwsearch.predictor.store import save_latency_predictor
from hwsearch.progress import SilentProgress
from hwsearch.records import Target
from hwsearch.search.study import SubnetStudy
from hwsearch.supernet.store import SupernetManifest, load_supernet, save_supernet
from hwsearch.workflow.prepare import SearchRequest, prepare_search
from hwsearch.workflow.targets import single_target
from hwsearch.workflow.workers import Crew
from hwsearch.workflow.workspace import Workspace

TARGET = Target(
    device="cpu", device_name="test", runtime="onnxruntime", runtime_version="1", threads=1
)


def prepare(workspace: Workspace) -> None:
    """Write a supernet, a few scenes, and a latency predictor."""
    supernet = tiny_supernet()
    root = workspace.root
    manifest = SupernetManifest(geometry=supernet.geometry, space=supernet.space)
    save_supernet(root / "tiny", supernet, manifest)
    write_scenes(root / "data", counts={"val": 3, "test": 2}, seed=1, size=(96, 128))
    rng = np.random.default_rng(0)
    configs = list(dict.fromkeys(supernet.space.sample(rng) for _ in range(40)))
    latencies = [1 + encoder_macs(supernet.geometry, config) / 1e6 for config in configs]
    predictor = LatencyPredictor(supernet.geometry, TARGET, supernet.id).fit(configs, latencies)
    save_latency_predictor(predictor, workspace.predictor(TARGET, supernet.id))


def open_crew(workspace: Workspace, *, workers: int = 2) -> tuple[Crew, SubnetStudy]:
    """Workers, and the study that they are to work on."""
    request = SearchRequest(
        supernet_name=str(workspace.root / "tiny"),
        targets=(single_target(TARGET, 1000.0),),
        data=str(workspace.root / "data"),
        framing="image",
        study="tiny",
        workers=workers,
        allow_stale=True,
    )
    supernet = load_supernet(request.supernet_name)
    prepared = prepare_search(supernet, request, workspace=workspace, progress=SilentProgress())
    return Crew(request, workspace), prepared.plan.open(prepared.objectives)


if __name__ == "__main__":
    # A shell's background job, which the tests may be, is deaf to Ctrl-C; this is not to be.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    crew, study = open_crew(Workspace(Path(sys.argv[1])))
    try:
        crew.run_trials(study, int(sys.argv[2]), progress=SilentProgress())
    except KeyboardInterrupt:
        sys.exit(StoppedError.exit_code)
