"""How large errors are at each resolution, so that bounds are as wide as they have to be there.

What disturbs a measurement disturbs small inputs the most: on three of the four reference targets
errors at 128 px are 1.3 to 1.6 times those at 256 px, so that bounds of one width hold 80 to 85 %
there and 93 to 97 % elsewhere. Errors that count in the size that is expected of them are after
Papadopoulos, Gammerman and Vovk (Normalized nonconformity measures for regression conformal
prediction, 2008); that sizes are by kind, and drawn to that of all, is this project's.

Sizes are over the size of all the same errors: a single large one, which with few rows is the
bound, would else be counted in the size of the others, and laid out in one that it swells itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# How many errors of the size of all are believed in at each kind before its own are seen: without
# any, a kind of two rows would have bounds by two errors. Chosen on the four reference targets,
# whose coverage is told elsewhere: with 3, bounds of 32 subnets are 1 to 3 % narrower and hold 84 %
# of those on the front of int8, where it is 86 with 1; of 8 subnets they are 5 % narrower.
PRIOR_ERRORS = 1.0


def sizes_without_own(errors: Array, kinds: ArrayLike) -> Array:
    """The size to be expected of each row's errors, over that of all, as the others tell, (n,).

    A row's own errors are not in it, as those of a new subnet are not in `sizes_of`: else the
    largest would be told by themselves, and count for less than they are.

    Args:
        errors: (repeats, n) out-of-fold errors.
        kinds: (n,) what each row is, such as its resolution.
    """
    kinds, rows = np.asarray(kinds), np.arange(errors.shape[1])
    sizes = [_size(errors[:, rows != row], kinds[rows != row], kinds[row]) for row in rows]
    return np.array(sizes)


def sizes_of(errors: Array, kinds: ArrayLike, new: ArrayLike) -> Array:
    """The size to be expected of new rows' errors, over that of all that were seen, (m,).

    Args:
        errors: (repeats, n) out-of-fold errors.
        kinds: (n,) what each row is.
        new: (m,) what each new row is; of a kind that was not seen, errors are as large as all.
    """
    distinct, places = np.unique(np.asarray(new), return_inverse=True)
    sizes = np.array([_size(errors, np.asarray(kinds), kind) for kind in distinct])
    found: Array = sizes[places]
    return found


def _size(errors: Array, kinds: NDArray[np.int64], kind: int) -> float:
    """Root mean square of one kind's errors and `PRIOR_ERRORS` of the size of all, over all's."""
    squares = (errors**2).mean(axis=0)
    if not squares.any():
        return 1.0
    own = squares[kinds == kind] / squares.mean()
    return float(np.sqrt((PRIOR_ERRORS + own.sum()) / (PRIOR_ERRORS + len(own))))
