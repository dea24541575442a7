"""The figures that a training logs."""

import pytest
from tiny import Pictures, picture, rectangle, subnet, tiny_supernet

from hwsearch.evaluation import evaluate
from hwsearch.space import SearchSpace
from hwsearch.supernet.supernet import Supernet
from hwsearch.supernet.training import validation

SETS = {
    name: Pictures([picture([rectangle((64, 64), 8, 8, 8 + side, 40)])], name=name, split="val")
    for name, side in (("leaves", 20), ("nuclei", 44))
}


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_dataset(source: str, split: str) -> Pictures:
        assert split == "val"
        return SETS[source]

    monkeypatch.setattr(validation, "open_dataset", open_dataset)


def test_fixed_subnets_are_judged_on_each_source(supernet: Supernet):
    validate = validation.validation(["leaves", "nuclei"], framing="image", max_views=4)
    figures = validate(supernet)
    # In so small a space, a third and two thirds of the way up lie on the same subnet.
    assert supernet.space.between(1 / 3) == supernet.space.between(2 / 3)
    sizes = ("largest", "two_thirds", "smallest")
    assert figures.keys() == {f"{size}/{data}" for size in sizes for data in (*SETS, "mean")}
    for size, share in (("largest", 1.0), ("two_thirds", 2 / 3), ("smallest", 0.0)):
        config = supernet.space.between(share)
        (leaves,) = validation.validation_sets(["leaves"], framing="image", max_views=4)
        assert figures[f"{size}/leaves"] == evaluate(supernet.extract(config), leaves).miou
        both = [figures[f"{size}/{data}"] for data in SETS]
        assert figures[f"{size}/mean"] == pytest.approx(sum(both) / 2)


def test_a_space_of_one_subnet_is_judged_once():
    supernet = tiny_supernet()
    fields = supernet.space.model_dump()
    fields |= {"resolutions": (128,), "min_depth": 4}
    fields["layers"] = [layer | {"mlp_widths": (64,), "heads": (4,)} for layer in fields["layers"]]
    supernet.space = SearchSpace.model_validate(fields)
    assert supernet.space.smallest == subnet()
    figures = validation.validation(["leaves"], framing="image", max_views=4)(supernet)
    assert figures.keys() == {"largest/leaves", "largest/mean"}


def test_a_single_subnet_is_judged_where_it_alone_is_trained(supernet: Supernet):
    smallest = supernet.space.smallest
    validate = validation.validation(
        ["leaves"], framing="image", max_views=4, subnets={"subnet": smallest}
    )
    (leaves,) = validation.validation_sets(["leaves"], framing="image", max_views=4)
    miou = evaluate(supernet.extract(smallest), leaves).miou
    assert validate(supernet) == {"subnet/leaves": miou, "subnet/mean": miou}
