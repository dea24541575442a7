"""Sizes of errors by kind: what is seen counts, as far as it is much, and never one's own."""

import numpy as np
import pytest

from hwsearch.predictor.calibration import two_sided
from hwsearch.predictor.error_sizes import sizes_of, sizes_without_own


def errors_by_kind(rng, counts, sizes):
    kinds = np.repeat(np.arange(len(counts)), counts)
    return np.array(sizes)[kinds] * rng.standard_normal((1, len(kinds))), kinds


def test_many_errors_tell_their_kind_s_size():
    errors, kinds = errors_by_kind(np.random.default_rng(0), [3000, 3000], [0.01, 0.03])
    of_all = np.sqrt((0.01**2 + 0.03**2) / 2)
    sizes = sizes_of(errors, kinds, [0, 1, 1])
    assert sizes == pytest.approx(np.array([0.01, 0.03, 0.03]) / of_all, rel=0.05)


def test_few_errors_are_believed_as_far_as_they_are_many():
    """Nine errors of 1 and one of 4, 2.5 squared on the whole: (1 + 6.4) / 2 and (1 + 3.6) / 10."""
    errors, kinds = np.array([[1.0] * 9 + [4.0]]), [0] * 9 + [1]
    assert sizes_of(errors, kinds, [1, 0]) == pytest.approx(np.sqrt([3.7, 0.46]))


def test_what_was_not_seen_errs_as_all_do():
    errors = np.array([[0.01, -0.02, 0.03], [0.02, 0.02, -0.01]])
    assert sizes_of(errors, [64, 64, 128], [256]) == pytest.approx([1.0])


def test_a_row_s_own_errors_do_not_tell_its_size():
    rng = np.random.default_rng(1)
    errors, kinds = errors_by_kind(rng, [5, 5], [1.0, 2.0])
    larger = errors.copy()
    larger[0, 3] *= 100
    before, after = (sizes_without_own(table, kinds) for table in (errors, larger))
    assert after[3] == before[3]
    assert (after[[0, 1, 2, 4]] > before[[0, 1, 2, 4]]).all()
    assert (after[5:] < before[5:]).all()
    assert sizes_without_own(errors[:, 1:], kinds[1:]) == pytest.approx(
        [
            sizes_of(np.delete(errors, [0, row], 1), np.delete(kinds, [0, row]), [kinds[row]])[0]
            for row in range(1, 10)
        ]
    )


def test_errors_of_nothing_have_a_size():
    assert sizes_without_own(np.zeros((2, 4)), [0, 0, 1, 1]).tolist() == [1.0] * 4


def test_where_there_is_one_kind_nothing_changes():
    errors = np.random.default_rng(3).standard_normal((2, 8))
    assert sizes_without_own(errors, [64] * 8) == pytest.approx(np.ones(8))
    assert sizes_of(errors, [64] * 8, [64]) == pytest.approx([1.0])


def test_one_outlier_among_few_does_not_blow_up_the_bounds():
    errors = 0.01 * np.random.default_rng(4).standard_normal((1, 8))
    errors[0, 2] = 0.3
    kinds = [64, 64, 64, 128, 128, 128, 256, 256]
    plain = two_sided(errors, 0.9).size
    bound = two_sided(errors / sizes_without_own(errors, kinds), 0.9).size
    assert (bound * sizes_of(errors, kinds, kinds) < 2 * plain).all()


@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 1.0, 2.0)])
def test_bounds_hold_as_much_of_each_kind(sizes):
    """From 32 rows; one bound for all would hold 70 % of the kind that errs twice as far."""
    rng = np.random.default_rng(2)
    held = []
    for _ in range(300):
        errors, kinds = errors_by_kind(rng, [14, 7, 11], sizes)
        bound = two_sided(errors / sizes_without_own(errors, kinds), 0.9).size
        new, new_kinds = errors_by_kind(rng, [40, 40, 40], sizes)
        inside = np.abs(new[0]) <= bound * sizes_of(errors, kinds, new_kinds)
        held.append(inside.reshape(3, -1).mean(axis=1))
    assert np.mean(held, axis=0) == pytest.approx([0.91] * 3, abs=0.05)
