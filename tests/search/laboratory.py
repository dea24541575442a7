"""A small space with a made-up law of accuracy and latency, so that the optimum is known."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hwsearch.records import Deployment, LayerConfig, SamGeometry, SubnetConfig
from hwsearch.search.accuracy_cache import AccuracyContext
from hwsearch.search.deployments import DeploymentSpace
from hwsearch.search.objectives import Objectives
from hwsearch.search.run import SearchOutcome
from hwsearch.search.study import StudyIdentity, SubnetStudy
from hwsearch.space import SearchSpace, default_space

TARGET_MS = 12.0
Law = tuple[Callable[[Deployment], float], Callable[[Deployment], float]]
Search = Callable[..., SearchOutcome]

GEOMETRY = SamGeometry(
    model="custom",
    image_size=64,
    patch_size=16,
    embed_dim=32,
    depth=4,
    heads=2,
    mlp_width=64,
    window_size=4,
    global_layers=(1, 3),
    prompt_dim=16,
)
IMPORTANCE = (0.30, 0.04, 0.12, 0.07)


def laboratory_space(*precisions: str) -> DeploymentSpace:
    return DeploymentSpace(
        subnets=default_space(
            GEOMETRY,
            resolutions=(32, 48, 64),
            width_ratios=(0.25, 0.5, 1.0),
            head_ratios=(0.5, 1.0),
            min_depth=2,
            removal_order=(1, 3, 2),
        ),
        precisions=precisions or ("fp32",),
    )


def law_miou(deployment: Deployment) -> float:
    config = deployment.subnet
    kept = {layer.index: layer for layer in config.layers}
    lost = 0.1 * (1 - config.resolution / 64) + 0.01 * (deployment.precision == "int8")
    for index, importance in enumerate(IMPORTANCE):
        layer = kept.get(index)
        if layer is None:
            lost += importance
        else:
            narrowness = 0.7 * (1 - layer.mlp_width / 64) + 0.3 * (1 - layer.heads / 2)
            lost += 0.6 * importance * narrowness
    return 0.8 - lost


def law_ms(deployment: Deployment) -> float:
    config = deployment.subnet
    share = (config.resolution / 64) ** 2
    work = sum(1 + share * (layer.mlp_width / 16 + 2 * layer.heads) for layer in config.layers)
    return 2 + (0.5 if deployment.precision == "int8" else 1.0) * work


def law_ms_of_wide_layers(deployment: Deployment) -> float:
    """Another device: its latency hangs on the MLP widths alone."""
    return 1 + sum(layer.mlp_width / 8 for layer in deployment.subnet.layers)


@dataclass
class Lab:
    """Fake devices and a data set that count what they are asked."""

    laws: tuple[Callable[[Deployment], float], ...] = (law_ms,)  # one a target
    bias: float = 1.0  # measured latency ÷ predicted latency
    evaluated: list[Deployment] = field(default_factory=list)
    sessions: list[list[Deployment]] = field(default_factory=list)
    refits: list[dict[Deployment, float]] = field(default_factory=list)
    correction: float = 1.0

    def evaluate(self, deployment: Deployment) -> float:
        self.evaluated.append(deployment)
        return law_miou(deployment)

    def predict(self, deployments: Sequence[Deployment]) -> np.ndarray:
        return self.correction * self._truth(deployments)

    def upper(self, deployments: Sequence[Deployment]) -> np.ndarray:
        return 1.02 * self.predict(deployments)

    def measure(self, deployments: Sequence[Deployment]) -> np.ndarray:
        self.sessions.append(list(deployments))
        return self.bias * self._truth(deployments)

    def refit(self, deployments: Sequence[Deployment], latencies_ms: np.ndarray) -> None:
        assert latencies_ms.shape == (len(deployments), len(self.laws))
        self.refits.append(dict(zip(deployments, latencies_ms[:, 0], strict=True)))

    def cost(self, deployments: Sequence[Deployment]) -> np.ndarray:
        return self.predict(deployments)[:, 0]

    def upper_cost(self, deployments: Sequence[Deployment]) -> np.ndarray:
        return self.upper(deployments)[:, 0]

    @property
    def objectives(self) -> Objectives:
        return Objectives(
            evaluate=self.evaluate,
            predict=self.predict,
            upper=self.upper,
            measure=self.measure,
            refit=self.refit,
        )

    def _truth(self, deployments: Sequence[Deployment]) -> np.ndarray:
        return np.array([[law(one) for law in self.laws] for one in deployments])


CONTEXT = AccuracyContext(
    supernet_id="custom-1",
    weights_digest="aa",
    data="leaves",
    data_fingerprint="bb",
    split="val",
    framing="object",
)


def laboratory_identity(*limits_ms: float) -> StudyIdentity:
    return StudyIdentity(
        accuracy=CONTEXT,
        space_digest="cc",
        target_fingerprints=("dd",) * (len(limits_ms) or 1),
        scope="full",
        target_latencies_ms=limits_ms or (TARGET_MS,),
    )


def laboratory_study(storage: object, name: str = "leaves", **changes: object) -> SubnetStudy:
    arguments = {
        "identity": laboratory_identity(),
        "space": laboratory_space(),
        "objectives": Lab().objectives,
        "seed": 0,
    }
    return SubnetStudy(name=name, storage=storage, **(arguments | changes))


def every_deployment(space: DeploymentSpace) -> list[Deployment]:
    return space.in_each_precision(every_subnet(space.subnets))


def every_subnet(space: SearchSpace) -> Iterator[SubnetConfig]:
    choices = [
        [
            *(
                LayerConfig(index=layer.index, mlp_width=width, heads=heads)
                for width, heads in itertools.product(layer.mlp_widths, layer.heads)
            ),
            *([None] if layer.removable else []),
        ]
        for layer in space.layers
    ]
    for resolution, *layers in itertools.product(space.resolutions, *choices):
        kept = tuple(layer for layer in layers if layer is not None)
        if len(kept) >= space.min_depth:
            yield SubnetConfig(resolution=resolution, layers=kept)
