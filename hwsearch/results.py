"""Frozen records of what a search finds; they are built of those in `records`."""

from __future__ import annotations

from pydantic import PositiveInt

from hwsearch.records import (
    Deployment,
    Framing,
    Index,
    Milliseconds,
    Precision,
    Record,
    Scope,
    Share,
    SubnetConfig,
    Target,
)


class TargetLatency(Record):
    """What is known of a candidate on one target; `latency_ms` is as a `Candidate` has it."""

    predicted_ms: Milliseconds
    upper_ms: Milliseconds
    latency_ms: Milliseconds | None = None


class Candidate(Record):
    """A deployment that the search knows: its accuracy, its cost, and its latency.

    `latency_ms` was measured, or is None, and is never a prediction: the mean of all occasions, and
    where that is close to its limit the mean's one-sided 90 % upper bound. `miou` is the accuracy
    that the search saw (split `val`), `miou_final` the one on images that it never saw. `runs` is
    False where it was to be measured and the device could not run it. Of several
    targets the latencies are those of the first; `further_targets` has the others, in their order.
    """

    subnet: SubnetConfig
    precision: Precision = "fp32"
    params: PositiveInt
    macs: PositiveInt
    miou: Share
    miou_final: Share | None = None
    predicted_ms: Milliseconds | None = None
    upper_ms: Milliseconds | None = None
    latency_ms: Milliseconds | None = None
    runs: bool = True
    further_targets: tuple[TargetLatency, ...] = ()

    @property
    def deployment(self) -> Deployment:
        """The subnet with its precision."""
        return Deployment(subnet=self.subnet, precision=self.precision)


class FurtherTarget(Record):
    """Another target that the picks of a search keep to, in the precision of its pick.

    Where it could not be measured on the searching machine (`measured_here`), the upper bound of
    its predicted latency is what was held against the limit.
    """

    target: Target
    target_latency_ms: Milliseconds
    measured_here: bool
    noise_floor_percent: float | None
    predictor_model: str
    predictor_mape_percent: float


class SearchResult(Record):
    """What a search leaves: the measured front, the pick, and what it is compared with.

    `target` is the first target, in the precision of the pick; `precisions` are those that could be
    chosen, none in older files. `evaluated_on` is what torch found accuracies in fp32 on.
    """

    study: str
    supernet: str
    supernet_id: str
    weights_digest: str
    target: Target
    scope: Scope
    target_latency_ms: Milliseconds
    data: str
    framing: Framing
    max_views: PositiveInt
    seed: Index
    split: str
    final_split: str
    trials: PositiveInt
    noise_floor_percent: float | None
    predictor_model: str
    predictor_mape_percent: float
    largest: Candidate
    front: tuple[Candidate, ...]
    pick: Candidate
    precisions: tuple[Precision, ...] = ()
    further_targets: tuple[FurtherTarget, ...] = ()
    evaluated_on: str = "cpu"

    def target_of(self, candidate: Candidate) -> Target:
        """The first target, in the precision of a candidate."""
        if len(self.precisions) < 2:
            return self.target
        return self.target.model_copy(update={"precision": candidate.precision})
