"""An accuracy as lines for people: prompt and mask selection stand beside every number."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwsearch.records import Accuracy
    from hwsearch.workflow.evaluate import SubnetAccuracy


def accuracy_lines(found: SubnetAccuracy) -> list[str]:
    """What `hwsearch supernet evaluate` prints: each set, the mean over sets, the encoder."""
    lines = [
        line
        for name, accuracy in found.sets.items()
        for line in _set_lines(name, accuracy, found.box_floors[name])
    ]
    if len(found.sets) > 1:
        lines.append(f"mean over {len(found.sets)} sets, each weighing alike")
        lines.append(_box_line(found.miou, found.miou_interval, found.miou_by_size))
        lines.append(
            f"  box prompt, best mask by ground truth (oracle): mIoU {found.miou_oracle:.4f}"
        )
        lines += _click_lines(found.one_click_miou, found.one_click_miou_oracle)
    lines.append(f"encoder: {found.params / 1e6:.2f} M parameters, {found.macs / 1e9:.2f} GMACs")
    return lines


def _set_lines(name: str, accuracy: Accuracy, box_floor: float) -> list[str]:
    lines = [
        f"{name} ({accuracy.split}, framing {accuracy.framing}): {accuracy.instances} objects "
        f"on {accuracy.images} images",
        _box_line(accuracy.miou, accuracy.miou_interval, accuracy.miou_by_size),
        f"  box prompt, best mask by ground truth (oracle): mIoU {accuracy.miou_oracle:.4f}",
        f"  box prompt, the filled box as the mask: mIoU {box_floor:.4f}",
        *_click_lines(accuracy.one_click_miou, accuracy.one_click_miou_oracle),
    ]
    if accuracy.ap is not None and accuracy.ap50 is not None:
        lines.append(
            f"  box prompt, mask and score by predicted IoU, no detector: AP {accuracy.ap:.4f}, "
            f"AP50 {accuracy.ap50:.4f}"
        )
    return lines


def _box_line(
    miou: float, interval: tuple[float, float] | None, by_size: Mapping[str, float]
) -> str:
    sizes = ", ".join(f"{size} {value:.4f}" for size, value in by_size.items())
    bounds = (
        f"; 95 % interval over images {interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
    )
    return f"  box prompt, mask by predicted IoU: mIoU {miou:.4f} ({sizes}{bounds})"


def _click_lines(miou: float | None, oracle: float | None) -> list[str]:
    if miou is None or oracle is None:
        return []
    return [
        f"  one click, mask by predicted IoU: mIoU {miou:.4f}",
        f"  one click, best mask by ground truth (oracle): mIoU {oracle:.4f}",
    ]
