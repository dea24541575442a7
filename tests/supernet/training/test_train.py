"""The training loop: what it changes, that it learns, and that it goes on where it stopped."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import GEOMETRY, Pictures, corner_piece, picture, rectangle, subnet, tiny_space
from torch import Tensor

from hwsearch.errors import CheckpointError, TrainingError, UsageError
from hwsearch.records import SubnetConfig
from hwsearch.sam import build_sam
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training.batches import BatchSettings
from hwsearch.supernet.training.log import LOG_NAME
from hwsearch.supernet.training.rules import DrawSubnets, alone, sandwich
from hwsearch.supernet.training.settings import TrainSettings
from hwsearch.supernet.training.state import CHECKPOINT_NAME
from hwsearch.supernet.training.train import train

SHAPE = (96, 128)
DATA = Pictures(
    [
        picture([corner_piece(SHAPE, 20, 20, 50), rectangle(SHAPE, 80, 30, 120, 70)], key="0"),
        picture([rectangle(SHAPE, 10, 40, 70, 90)], key="1", ground=90),
    ]
)
SHORT = TrainSettings(
    steps=4,
    learning_rate=1e-3,
    warmup_steps=1,
    ema_decay=0.5,
    bfloat16=False,
    checkpoint_every=2,
    validate_every=2,
    batch=BatchSettings(images=2, prompts=2),
)


def fresh() -> Supernet:
    """An untrained supernet, the same one each time."""
    torch.manual_seed(0)
    return Supernet(build_sam(GEOMETRY), GEOMETRY, tiny_space())


def rule() -> DrawSubnets:
    return sandwich(tiny_space(), {}, 1)


def run(
    directory: Path,
    *,
    settings: TrainSettings = SHORT,
    draw: DrawSubnets | None = None,
    validate: Callable[[Supernet], dict[str, float]] | None = None,
) -> tuple[Supernet, list[dict[str, float]]]:
    supernet = fresh()
    log = train(
        supernet,
        [DATA],
        settings=settings,
        draw_subnets=draw or rule(),
        directory=directory,
        validate=validate,
    )
    return supernet, log


def weights(supernet: Supernet) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in supernet.sam.state_dict().items()}


def smallest_alone(_: np.random.Generator) -> list[SubnetConfig]:
    """The quickest of all steps."""
    return [tiny_space().smallest]


def interrupted(steps: int, draw: DrawSubnets) -> DrawSubnets:
    """As `draw`, until somebody pulls the plug."""
    left = iter(range(steps))

    def until(rng: np.random.Generator) -> list[SubnetConfig]:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return draw(rng)

    return until


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory):
    """The weights that four steps of the sandwich rule leave."""
    return weights(run(tmp_path_factory.mktemp("undisturbed"))[0])


@pytest.mark.parametrize("done", [1, 3])
def test_a_resumed_run_ends_as_an_undisturbed_one(
    tmp_path: Path, undisturbed: dict[str, Tensor], done: int
):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, draw=interrupted(done, rule()))
    resumed = weights(run(tmp_path)[0])
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)
    assert steps_of(tmp_path) == [2, 4]


def lines_of(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / LOG_NAME).read_text().splitlines()]


def steps_of(directory: Path) -> list[float]:
    return [line["step"] for line in lines_of(directory)]


def test_a_finished_training_is_not_done_again(tmp_path: Path):
    first, _ = run(tmp_path, draw=smallest_alone)

    def never(rng: np.random.Generator) -> list[SubnetConfig]:
        raise AssertionError

    second, _ = run(tmp_path, draw=never)
    ours, theirs = weights(first), weights(second)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_log_is_returned_with_that_of_the_runs_before(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, draw=interrupted(3, smallest_alone))
    _, log = run(tmp_path, draw=smallest_alone)
    assert [line["step"] for line in log] == [2, 4]
    assert log == lines_of(tmp_path)
    for line in log:
        assert line["loss"] > 0
        assert line["images_per_s"] > 0
        activities = ("data", "encoder", "decoder", "optimizer")
        assert 0.2 < sum(line[f"{activity}_share"] for activity in activities) <= 1


ONE_STEP = replace(SHORT, steps=1, warmup_steps=0, weight_decay=0.0, batch=BatchSettings(images=1))


def moved(before: dict[str, Tensor], after: dict[str, Tensor], name: str) -> Tensor:
    return before[f"image_encoder.{name}"] != after[f"image_encoder.{name}"]


def test_what_the_smallest_subnet_lacks_learns_through_larger_ones_alone(tmp_path: Path):
    before = weights(fresh())
    after = weights(run(tmp_path / "a", settings=ONE_STEP, draw=smallest_alone)[0])
    # The smallest keeps layers 0 and 3; of layer 3 it keeps one head and 16 neurons.
    inside = moved(before, after, "blocks.3.mlp.lin1.weight")
    assert inside[:16].any()
    assert not inside[16:].any()
    of_heads = moved(before, after, "blocks.3.attn.proj.weight")
    assert of_heads[:, :8].any()
    assert not of_heads[:, 8:].any()
    assert not moved(before, after, "blocks.1.mlp.lin1.weight").any()
    both = weights(
        run(
            tmp_path / "b",
            settings=ONE_STEP,
            draw=lambda rng: [tiny_space().largest, *smallest_alone(rng)],
        )[0]
    )
    assert moved(before, both, "blocks.3.mlp.lin1.weight")[16:].any()
    assert moved(before, both, "blocks.3.attn.proj.weight")[:, 8:].any()
    assert moved(before, both, "blocks.1.mlp.lin1.weight").any()


@pytest.mark.parametrize("learns", [False, True])
def test_the_prompt_encoder_learns_only_where_it_is_asked_to(tmp_path: Path, learns: bool):
    before = weights(fresh())
    supernet, _ = run(tmp_path, settings=replace(ONE_STEP, train_prompt_encoder=learns))
    changed = [
        name
        for name, tensor in weights(supernet).items()
        if name.startswith("prompt_encoder") and not torch.equal(tensor, before[name])
    ]
    assert bool(changed) == learns
    assert not torch.equal(
        supernet.sam.mask_decoder.iou_token.weight, before["mask_decoder.iou_token.weight"]
    )


def test_the_loss_falls(tmp_path: Path):
    settings = replace(
        SHORT,
        steps=30,
        learning_rate=3e-3,
        warmup_steps=5,
        checkpoint_every=5,
        validate_every=1000,
    )
    run(tmp_path, settings=settings, draw=alone(tiny_space().largest))
    losses = [line["loss"] for line in lines_of(tmp_path)]
    assert np.mean(losses[-2:]) < 0.7 * losses[0]


def test_the_learning_rate_warms_up_and_falls_to_nothing(tmp_path: Path):
    settings = replace(SHORT, steps=20, warmup_steps=2, checkpoint_every=1, validate_every=100)
    run(tmp_path, settings=settings, draw=smallest_alone)
    rates = [line["learning_rate"] / settings.learning_rate for line in lines_of(tmp_path)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.1


def test_a_short_training_does_not_spend_itself_on_warming_up(tmp_path: Path):
    settings = replace(SHORT, steps=6, warmup_steps=100, checkpoint_every=1, validate_every=100)
    run(tmp_path, settings=settings, draw=smallest_alone)
    rates = [line["learning_rate"] / settings.learning_rate for line in lines_of(tmp_path)]
    assert rates[0] == pytest.approx(1.0)
    assert rates[-1] < 0.1


def test_validation_sees_the_average_and_leaves_the_running_weights(tmp_path: Path):
    """What it is shown at the end is what training leaves; the run goes on as if unwatched."""
    shown: list[dict[str, Tensor]] = []

    def validate(supernet: Supernet) -> dict[str, float]:
        assert not supernet.sam.training
        shown.append(weights(supernet))
        return {"miou": len(shown) / 10}

    watched, _ = run(tmp_path / "a", draw=smallest_alone, validate=validate)
    unwatched, _ = run(tmp_path / "b", draw=smallest_alone)
    assert [line["miou"] for line in lines_of(tmp_path / "a")] == [0.1, 0.2]
    final = weights(watched)
    assert all(torch.equal(final[name], shown[1][name]) for name in final)
    assert all(torch.equal(final[n], tensor) for n, tensor in weights(unwatched).items())
    assert not watched.sam.training


def test_training_leaves_the_moving_average(tmp_path: Path):
    """With a decay of d, the average after two steps is d·(first) + (1 − d)·(second).

    The decay is 2/11 at most after one update, so that the first weights don't stay for long.
    """
    settings = replace(SHORT, steps=2)

    def left_by(name: str, decay: float, draw: DrawSubnets) -> Tensor:
        supernet = fresh()
        with contextlib.suppress(KeyboardInterrupt):
            train(
                supernet,
                [DATA],
                settings=replace(settings, ema_decay=decay),
                draw_subnets=draw,
                directory=tmp_path / name,
            )
        return supernet.sam.image_encoder.blocks[0].mlp.lin1.weight.detach()

    first = left_by("first", 0.5, interrupted(1, smallest_alone))
    second = left_by("second", 0.0, smallest_alone)
    assert not torch.equal(first, second)
    for decay, share in ((0.1, 0.1), (0.998, 2 / 11)):
        averaged = left_by(f"averaged-{decay}", decay, smallest_alone)
        torch.testing.assert_close(averaged, share * first + (1 - share) * second)


@pytest.mark.parametrize(
    "settings", [replace(SHORT, learning_rate=2e-3), replace(SHORT, batch=BatchSettings(images=3))]
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path, settings: TrainSettings):
    run(tmp_path, draw=smallest_alone)
    with pytest.raises(CheckpointError, match="other settings"):
        run(tmp_path, settings=settings, draw=smallest_alone)


def test_a_checkpoint_of_another_space_is_refused(tmp_path: Path):
    run(tmp_path, draw=smallest_alone)
    narrower = fresh()
    narrower.space = narrower.space.model_copy(update={"min_depth": 3})
    with pytest.raises(CheckpointError, match="other settings"):
        train(narrower, [DATA], settings=SHORT, draw_subnets=smallest_alone, directory=tmp_path)


@pytest.mark.parametrize("kept", [0, 11, 1000, -1])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path, kept: int):
    run(tmp_path, settings=ONE_STEP, draw=smallest_alone)
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="damaged: delete it to start again"):
        run(tmp_path, settings=ONE_STEP, draw=smallest_alone)


def test_a_torn_last_line_of_the_log_does_not_stop_a_resume(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, draw=interrupted(3, smallest_alone))
    log = tmp_path / LOG_NAME
    with log.open("a") as file:
        file.write('{"step": 4, "lo')
    run(tmp_path, draw=smallest_alone)
    assert steps_of(tmp_path) == [2, 4]


def test_the_sandwich_rule():
    space = tiny_space()
    draw = sandwich(space, {2: 1.0}, 3)
    first, *between, last = draw(np.random.default_rng(0))
    assert (first, last) == (space.largest, space.smallest)
    assert len(between) == 3
    assert all(space.contains(config) for config in between)
    # Layer 2 is left out for sure, the others never are.
    assert {config.indices for config in between} == {(0, 1, 3)}
    assert len(set(between)) == 3
    assert alone(subnet())(np.random.default_rng(0)) == [subnet()]


def test_bfloat16_learns_too(tmp_path: Path):
    before = weights(fresh())
    supernet, _ = run(tmp_path, settings=replace(ONE_STEP, bfloat16=True))
    after = weights(supernet)
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
    assert moved(before, after, "blocks.0.mlp.lin1.weight").any()
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_two_trainings_in_one_directory_are_refused(tmp_path: Path):
    def draw(rng: np.random.Generator) -> list[SubnetConfig]:
        with pytest.raises(TrainingError, match="Another process"):
            run(tmp_path, draw=smallest_alone)
        return smallest_alone(rng)

    _, log = run(tmp_path, draw=draw)
    assert [line["step"] for line in log] == [2, 4]


def test_no_line_is_lost_between_log_and_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def pulled(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hwsearch.supernet.training.train.save_state", pulled)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, draw=smallest_alone)
    run(tmp_path, draw=smallest_alone)
    assert steps_of(tmp_path) == [2, 4]


@pytest.mark.parametrize("wrong", [{"validate_every": 0}, {"steps": 0}, {"checkpoint_every": -1}])
def test_settings_below_one_are_refused(wrong: dict[str, int]):
    with pytest.raises(UsageError):
        replace(SHORT, **wrong)
