"""Scores of a tiny supernet by every method, as the tests of scores and ordering want them."""

from collections.abc import Callable

from tiny import GEOMETRY, Pictures, picture, random_images, rectangle

from hwsearch.supernet.activations import activation_norms
from hwsearch.supernet.scores import LayerScores, magnitude_scores, wanda_scores
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.taylor import taylor_scores
from hwsearch.supernet.training.batches import BatchSettings, TrainingBatch, training_batches


def tiny_batches(*, images: int = 2, count: int = 1, seed: int = 0) -> list[TrainingBatch]:
    """Training batches of pictures with two rectangles each."""
    shape = (96, 128)
    samples = [
        picture(
            [rectangle(shape, 10 + shift, 20, 50, 60), rectangle(shape, 60, 30, 120 - shift, 90)],
            key=str(shift),
            ground=shift,
        )
        for shift in (0, 8, 16)
    ]
    batches = training_batches(
        [Pictures(samples)],
        resolution=GEOMETRY.image_size,
        mask_size=4 * GEOMETRY.image_size // GEOMETRY.patch_size,
        settings=BatchSettings(images=images, prompts=2),
        seed=seed,
        start=0,
        stop=count,
    )
    return list(batches)


def by_wanda(supernet: Supernet) -> tuple[LayerScores, ...]:
    """Wanda scores on two batches of noise."""

    def run() -> None:
        for seed in (1, 2):
            supernet.sam.image_encoder(random_images(128, seed=seed))

    return wanda_scores(supernet, activation_norms(supernet, run))


def by_taylor(supernet: Supernet) -> tuple[LayerScores, ...]:
    """Taylor scores on one batch."""
    return taylor_scores(supernet, tiny_batches())


METHODS: dict[str, Callable[[Supernet], tuple[LayerScores, ...]]] = {
    "magnitude": magnitude_scores,
    "wanda": by_wanda,
    "taylor": by_taylor,
}
