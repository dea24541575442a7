"""What is known of a supernet's layers, neurons and heads: as lines, as JSON, as a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hwsearch.errors import UsageError
from hwsearch.records import LayerImportance, LayerSpread, ScoreMethod
from hwsearch.report.importance import write_importance_page
from hwsearch.supernet.store import SupernetManifest, load_manifest

METHODS: tuple[ScoreMethod, ...] = ("magnitude", "wanda", "taylor")
DASH = "–"


@dataclass(frozen=True)
class Inspection:
    """The importance that a supernet's manifest holds."""

    supernet: str
    manifest: SupernetManifest

    def as_json(self) -> dict[str, object]:
        """The records that are stored."""
        manifest = self.manifest
        return {
            "supernet": self.supernet,
            "ordering": manifest.ordering,
            "trainings": len(manifest.history),
            "importance": [layer.model_dump() for layer in manifest.importance],
            "scores": [layer.model_dump() for layer in manifest.scores],
        }

    def lines(self) -> list[str]:
        """A table of all layers, and what its columns mean."""
        manifest = self.manifest
        importance = {layer.index: layer for layer in manifest.importance}
        spreads = {layer.index: layer for layer in manifest.scores}
        return [
            f"{'layer':>5}  {'attention':9}  {'no layer':>8}  {'no MLP':>6}  {'removed':>7}  "
            + "  ".join(f"{method:>9}" for method in METHODS),
            *(
                f"{index:>5}  {_kind(manifest, index)}  {_measured(importance.get(index))}  "
                f"{_first_halves(spreads.get(index))}"
                for index in range(manifest.geometry.depth)
            ),
            "no layer, no MLP: points of mIoU lost without the layer, and without its MLP alone; "
            "removed: how often a random subnet of the training leaves it out;",
            f"{', '.join(METHODS)}: share of the neurons' score that the first half holds "
            f"(ordered by: {manifest.ordering}).",
            *self._notes(),
        ]

    def write_page(self, out: Path) -> None:
        """Write an HTML page with the plot."""
        write_importance_page(
            out,
            name=self.supernet,
            geometry=self.manifest.geometry,
            importance=self.manifest.importance,
            scores=self.manifest.scores,
            ordering=self.manifest.ordering,
            notes=self._notes(),
        )

    def _notes(self) -> list[str]:
        notes = []
        if self.manifest.history:
            notes.append("All of it was found when the supernet was built, before its training.")
        if not self.manifest.scores:
            notes.append(
                "It was built before scores of neurons and heads were kept: build it again with "
                "'hwsearch supernet build' to see them."
            )
        return notes


def inspect_supernet(source: Path | str) -> Inspection:
    """Read what is known of a supernet's layers.

    Args:
        source: a supernet directory, or `demo`.

    Raises:
        CheckpointError: it can't be read.
        UsageError: it holds no importance.
    """
    manifest = load_manifest(source)
    if not manifest.importance:
        raise UsageError(
            f"{source} holds no importance of its layers: build it again with "
            "'hwsearch supernet build', which finds it."
        )
    return Inspection(str(source), manifest)


def _kind(manifest: SupernetManifest, index: int) -> str:
    return f"{'global' if manifest.geometry.is_global(index) else 'windowed':9}"


def _measured(layer: LayerImportance | None) -> str:
    if layer is None:
        return f"{DASH:>8}  {DASH:>6}  {'never':>7}"
    mlp = DASH if layer.mlp_drop is None else f"{100 * layer.mlp_drop:z.1f}"
    removed = f"{100 * layer.removal_probability:.0f} %"
    return f"{100 * layer.miou_drop:>z8.1f}  {mlp:>6}  {removed:>7}"


def _first_halves(spread: LayerSpread | None) -> str:
    if spread is None:
        return "  ".join(f"{DASH:>9}" for _ in METHODS)
    cells = (
        f"{100 * spread.first_half(method):.0f} %" if method in spread.methods else DASH
        for method in METHODS
    )
    return "  ".join(f"{cell:>9}" for cell in cells)
