"""A file of accuracies that all studies share, so that no subnet is judged twice.

One JSON line an accuracy, only ever appended. The key is a digest of everything that the accuracy
depends on. A torn line, left by a process that was stopped, is passed over with a warning: its
subnet is judged again.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from pydantic import Field, ValidationError

from hwsearch.errors import DataError
from hwsearch.records import Deployment, Framing, Precision, Record, Share, short_digest
from hwsearch.search.objectives import Evaluate


class AccuracyContext(Record):
    """What an accuracy depends on besides the deployment.

    `weights_digest` and `data_fingerprint` are digests of the supernet's weights and of the
    images and annotations that were used. `runtimes` names what computes each lower precision; the
    others are judged in PyTorch, in float32, on whatever device: they differ in the order of sums.
    """

    supernet_id: str
    weights_digest: str
    data: str
    data_fingerprint: str
    split: str
    framing: Framing
    runtimes: dict[Precision, str] = Field(default_factory=dict)

    def key(self, deployment: Deployment) -> str:
        """Twenty hexadecimal digits for this deployment's accuracy in this context."""
        context = self.model_dump(exclude={"runtimes"}) | {"precision": deployment.precision}
        if deployment.precision in self.runtimes:
            context["runtime"] = self.runtimes[deployment.precision]
        text = json.dumps(context, separators=(",", ":"), ensure_ascii=False)
        return short_digest(f"{text} {deployment.subnet.to_json()}", 20)


class CachedAccuracy(Record):
    """One line of the cache; all but `key` and `miou` is for people who read the file."""

    key: str
    supernet_id: str
    subnet_id: str
    precision: Precision = "fp32"
    data: str
    miou: Share


class AccuracyCache:
    """Accuracies by deployment in one context, backed by a file.

    Lines that other processes append are seen when the file is next looked at.

    Args:
        path: the JSON-lines file; it and its folder are made when first needed.
        context: what the accuracies depend on besides the subnet.
    """

    def __init__(self, path: Path, context: AccuracyContext) -> None:
        self.path = path
        self.context = context
        self._known: dict[str, float] = {}
        self._read_bytes = 0

    def get(self, deployment: Deployment) -> float | None:
        """The known mIoU of a deployment, or None."""
        key = self.context.key(deployment)
        if key not in self._known:
            self._read_on()
        return self._known.get(key)

    def put(self, deployment: Deployment, miou: float) -> None:
        """Append an accuracy to the file."""
        line = CachedAccuracy(
            key=self.context.key(deployment),
            supernet_id=self.context.supernet_id,
            subnet_id=deployment.subnet.id,
            precision=deployment.precision,
            data=self.context.data,
            miou=miou,
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _append_line(self.path, line.to_json())
        self._known[line.key] = miou

    def remember(self, evaluate: Evaluate) -> Evaluate:
        """`evaluate`, but asked only for deployments that the file does not know.

        The function returned raises DataError where an mIoU is not between 0 and 1.
        """

        def judge(deployment: Deployment) -> float:
            known = self.get(deployment)
            if known is not None:
                return known
            miou = evaluate(deployment)
            if not 0 <= miou <= 1:
                raise DataError(
                    f"The mIoU of subnet {deployment.id} came out as {miou}, which is not between "
                    "0 and 1: check the supernet's weights and the masks."
                )
            self.put(deployment, miou)
            return miou

        return judge

    def _read_on(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            fresh = file.read()
        whole, end, _ = fresh.rpartition(b"\n")
        for line in whole.splitlines():
            try:
                accuracy = CachedAccuracy.model_validate_json(line)
            except ValidationError:
                warnings.warn(
                    f"A damaged line of {self.path} is passed over: {line[:60]!r}.", stacklevel=2
                )
                continue
            self._known[accuracy.key] = accuracy.miou
        self._read_bytes += len(whole) + len(end)


def _append_line(path: Path, text: str) -> None:
    """Append in one write, on a line of its own even after a torn one."""
    with path.open("ab+") as file:
        torn = False
        if file.tell():
            file.seek(-1, 2)
            torn = file.read(1) != b"\n"
        file.write(b"\n" * torn + text.encode() + b"\n")
