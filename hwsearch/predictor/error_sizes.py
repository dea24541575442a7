"""How large errors are at each resolution, so that bounds are as wide as they have to be there.

What disturbs a measurement disturbs small inputs the most: on three of the four reference targets
errors at 128 px are 1.3 to 1.6 times those at 256 px, so that bounds of one width hold 80 to 85 %
there and 93 to 97 % elsewhere. Errors that count in the size of their own kind are Papadopoulos,
Gammerman and Vovk's (Normalized nonconformity measures for regression conformal prediction, 2008).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# How many errors of the size of all are believed in at each kind before its own are seen: without
# any, a kind of two rows would have bounds by two errors.
PRIOR_ERRORS = 3.0
_LEAST = 1e-12  # nothing is predicted better: errors of nothing have a size


def sizes_without_own(errors: Array, kinds: ArrayLike) -> Array:
    """The size that each row's errors were to be expected to have, as all other rows tell, (n,).

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
    """The size that errors of new rows are to be expected to have, (m,).

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
    """Root of the mean square of one kind's errors and `PRIOR_ERRORS` of the size of all."""
    squares = (errors**2).mean(axis=0)
    own = squares[kinds == kind]
    total = PRIOR_ERRORS * squares.mean() + own.sum()
    return max(float(np.sqrt(total / (PRIOR_ERRORS + len(own)))), _LEAST)
