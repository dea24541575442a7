"""Accuracy as deployed: what the files of a target answer, run in the target's runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hwsearch.data.dataset import Pixels
from hwsearch.errors import DeviceError
from hwsearch.evaluation import EvaluationSet, SamSegmenter, Segmenter, evaluate_segmenter
from hwsearch.export.parity import preprocessing_of
from hwsearch.records import SubnetConfig, Target
from hwsearch.runtime.gpus import is_on_gpu
from hwsearch.runtime.model_files import export_decoder_for, export_encoder_for, model_suffix
from hwsearch.runtime.open import open_runner
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.bundle_segmenter import BundleSegmenter
from hwsearch.workflow.scratch import scratch_folder

CPU = torch.device("cpu")
EXACT_RUNTIME = "torch-fp32"


class OnePromptAtATime:
    """A segmenter whose decoder takes a single prompt, as an engine of one shape does."""

    def __init__(self, inner: Segmenter) -> None:
        self._inner = inner

    @property
    def resolution(self) -> int:
        """Side of the input frame in pixels."""
        return self._inner.resolution

    def encode(self, images: Sequence[Pixels]) -> Tensor:
        """See `Segmenter.encode`."""
        return self._inner.encode(images)

    def decode(self, embeddings: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """See `Segmenter.decode`."""
        prompts = zip(points.split(1, dim=1), labels.split(1, dim=1), strict=True)
        parts = [self._inner.decode(embeddings, point, label) for point, label in prompts]
        logits, ious = zip(*parts, strict=True)
        return torch.cat(logits, dim=1), torch.cat(ious, dim=1)


@contextmanager
def open_deployed(supernet: Supernet, subnet: SubnetConfig, target: Target) -> Iterator[Segmenter]:
    """The files of a subnet for a target, opened in its runtime, in a form to be evaluated.

    Raises:
        ExportError: a file can't be written, or no engine be built from it.
        DeviceError: the runtime or the device is not here.
    """
    # Images are judged one by one, and workers of one search share its threads.
    threads = min(target.threads, torch.get_num_threads())
    one = target.model_copy(update={"batch": 1, "threads": threads})
    sam = supernet.extract(subnet)
    suffix = model_suffix(one)
    with scratch_folder() as folder:
        encoder = export_encoder_for(one, sam, folder / f"encoder{suffix}", name=subnet.id)
        decoder = export_decoder_for(one, sam, folder / f"decoder{suffix}", name=supernet.id)
        with open_runner(one, encoder) as encoding, open_runner(one, decoder) as decoding:
            segmenter = BundleSegmenter(preprocessing_of(sam), encoder=encoding, decoder=decoding)
            yield OnePromptAtATime(segmenter) if is_on_gpu(one) else segmenter


@contextmanager
def open_judged(
    supernet: Supernet, subnet: SubnetConfig, target: Target, *, device: torch.device = CPU
) -> Iterator[Segmenter]:
    """What a subnet's accuracy on a target is found with: in fp32 the model, else the files.

    Args:
        supernet: whose subnet it is.
        subnet: what is judged.
        target: where it is to run.
        device: what torch computes the model on; files run in their runtime.

    Raises:
        ExportError: as `open_deployed`.
        DeviceError: as `open_deployed`; or a GPU's memory is too small.
    """
    if target.precision == "fp32":
        try:
            yield SamSegmenter(supernet.extract(subnet).to(device))
        except torch.OutOfMemoryError:
            raise DeviceError(
                f"The memory of {device} does not hold the evaluation of subnet {subnet.id}: take "
                "fewer --workers, or --evaluate-on cpu."
            ) from None
        return
    with open_deployed(supernet, subnet, target) as segmenter:
        yield segmenter


def deployed_accuracy(
    supernet: Supernet,
    chosen: EvaluationSet,
    targets: Sequence[Target],
    *,
    device: torch.device = CPU,
) -> Callable[[SubnetConfig], float]:
    """A function from a subnet to its mIoU as these targets compute it, the least of theirs.

    In fp32 all runtimes compute what PyTorch does, to within the parity gate of a bundle: there the
    model itself is judged. Any other precision is run: the files as they are timed, in their
    runtime.

    Args:
        supernet: whose subnets are judged.
        chosen: what they are judged on.
        targets: where they are to run.
        device: what torch computes on in fp32.
    """
    distinct = {runtime_of(target): target for target in targets}

    def judge(subnet: SubnetConfig) -> float:
        found = []
        for target in distinct.values():
            with open_judged(supernet, subnet, target, device=device) as segmenter:
                found.append(evaluate_segmenter(segmenter, chosen).miou)
        return min(found)

    return judge


def runtime_of(target: Target) -> str:
    """What has computed an accuracy, such as `onnxruntime-1.32.0-int8`; `torch-fp32` for any fp32.

    On a GPU its name belongs to it.
    """
    if target.precision == "fp32":
        return EXACT_RUNTIME
    device = [target.device_name] if is_on_gpu(target) else []
    return "-".join([target.runtime, target.runtime_version, *device, target.precision])
