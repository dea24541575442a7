"""The files that are timed: subnets exported for a target, and what it opens of a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hwsearch.profiler.session import Subject
from hwsearch.progress import Progress
from hwsearch.records import SubnetConfig, Target
from hwsearch.runtime.gpus import is_on_gpu
from hwsearch.runtime.model_files import export_decoder_for, export_encoder_for, model_suffix
from hwsearch.supernet.supernet import Supernet
from hwsearch.workflow.scratch import scratch_folder


@contextmanager
def exported(
    supernet: Supernet,
    configs: Sequence[SubnetConfig],
    target: Target,
    progress: Progress,
    *,
    kept: Mapping[SubnetConfig, Path] | None = None,
) -> Iterator[list[Subject]]:
    """Subnets' files for a target in a temporary folder, one decoder for each resolution.

    Those of the subnets in `kept` are written into folders that stay, anew each time: what an older
    version or a killed session left there is not to be timed.
    """
    kept = kept or {}
    with scratch_folder() as folder:
        subjects: dict[SubnetConfig, Subject] = {}
        decoders: set[Path] = set()
        with progress.task("exporting", len(configs)) as advance:
            for config in configs:
                if config not in subjects:
                    place = kept.get(config, folder)
                    place.mkdir(parents=True, exist_ok=True)
                    subjects[config] = _export_subject(supernet, config, target, place, decoders)
                advance(1, config.id)
        yield [subjects[config] for config in configs]


def _export_subject(
    supernet: Supernet, config: SubnetConfig, target: Target, folder: Path, decoders: set[Path]
) -> Subject:
    """Write a subnet's encoder, and its resolution's decoder unless it is among `decoders`."""
    sam = supernet.extract(config)
    suffix = model_suffix(target)
    encoder = folder / f"{config.id}-encoder{suffix}"
    decoder = folder / f"decoder-{config.resolution}{suffix}"
    export_encoder_for(target, sam, encoder, name=config.id)
    if decoder not in decoders:
        export_decoder_for(target, sam, decoder, name=supernet.id)
        decoders.add(decoder)
    return Subject(subnet=config, encoder=encoder, decoder=decoder)


@contextmanager
def as_opened(subject: Subject, target: Target) -> Iterator[Subject]:
    """The files of a subject that its target opens.

    On a GPU, these are the engines beside the ONNX files. Where there are none, they are built in a
    temporary folder, since a bundle holds nothing that its manifest does not name.
    """
    if not is_on_gpu(target):
        yield subject
        return
    with scratch_folder() as folder:
        files = [_engine_or_link(path, folder) for path in (subject.encoder, subject.decoder)]
        yield replace(subject, encoder=files[0], decoder=files[1])


def _engine_or_link(path: Path, folder: Path) -> Path:
    engine = path.with_suffix(".engine")
    if engine.exists():
        return engine
    for part in path.parent.glob(f"{path.name}*"):  # and the weights beside it
        (folder / part.name).symlink_to(part.absolute())
    return folder / path.name
