"""What the subnets of a session came out too slow by, as the others of it tell.

A session holds its subnets against one reference, and whatever befalls that alone, or falls to its
share otherwise than to theirs, moves all of them together. And what slows a machine slows alike
what is alike: a neighbour in its caches costs a small subnet less than one whose weights just
fitted in. So a session's subnets err together, the more so the nearer they are in latency and, by
and large, of one resolution. No further round shows it. The subnets themselves do: each was
expected to take so long, by a predictor that had not seen it, and what those like it exceed that
by, in this session and not in others, is the session's error. In the words of experimental design,
sessions are blocks; that works where chance has put together what is in them.

From few sessions it is told the less surely: what a predictor expects wrongly of a region that one
session's subnets alone came from looks like that session's error. So errors are believed in where
they explain measurements better than chance mostly does.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, WhiteKernel

from hwsearch.records import Measurement

Floats = NDArray[np.float64]

MIN_SESSIONS = 3  # fewer don't tell how much sessions differ
# About how many are learnt from at once: the work grows with their third power.
MOST_ROWS = 512
# By how much log-likelihood has to grow for two variances more, as by Akaike's criterion. Where no
# session has errors, both variances are at their bound, and twice the growth is a half of a χ² of
# one degree and a quarter of one of two (Self and Liang, JASA 82, 1987, case 7): 6 % pass.
MIN_GAIN = 2.0
# How far errors reach, in standard deviations of log latency and log resolution. Four profiles of
# 273 to 290 measurements are most likely at 0.35 (two of them) or 0.5; at 0.7 all are less so. Of
# three resolutions, neighbours are about one such deviation apart: little of it reaches over.
REACH = 0.4
# Variances, as shares of that of all errors.
_VARIANCES, _SCATTER = (1e-6, 10.0), (1e-4, 10.0)
# Sessions stand in the last column, a step apart: nothing to a kernel of latencies and resolutions,
# the whole difference to the one that asks whether two measurements are of the same session.
_STEP = 1e-6
_SAME_SESSION = RBF([1 / _STEP, 1 / _STEP, _STEP / 100], "fixed")
_DIGITS = 6


def learn_session_errors(
    measurements: Iterable[Measurement], expected_ms: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """The error of each session, for each of its subnets as the others of it tell.

    With r = ln(measured / expected) = μ + f(x) + s + g(x) + e, where x is the logarithms of the
    expected latency and of the resolution, f is what is expected wrongly in all sessions alike, s
    and g belong to the session and e to the measurement: f and g are Gaussian processes, s and e
    normal, and their variances those under which the measurements are most likely. A session's
    error is the posterior mean of s + g(x) given all other measurements than the subnet's own in
    this session, so that its correction does not flatter it; it has a small part in μ, in the
    variances, in what the others were expected to take, and in whether errors are believed in.
    More than about `MOST_ROWS` measurements are learnt from in parts, each by itself.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), sections 2.2
    (the posterior), 5.4.1 (the likelihood) and 5.4.2 (equation 5.12, a case's residual without it),
    and the inverse of a partitioned matrix, appendix A.3. Without f and g it is the one-way layout
    with random effects.

    Args:
        measurements: what failed, is marked, or is of a session that is known not to have been
            put together by chance, tells nothing.
        expected_ms: what each subnet takes, by its id, as a predictor has it that did not see it.

    Returns:
        Of the sessions with two such subnets at least; none where they are fewer than
        `MIN_SESSIONS`, nor of a part whose measurements are explained about as well without.
    """
    sessions: defaultdict[str, dict[str, Measurement]] = defaultdict(dict)
    for row in measurements:
        is_told = row.error is None and not row.drifted and row.drawn is not False
        if is_told and row.subnet_id in expected_ms:
            sessions[row.session_id][row.subnet_id] = row
    told = [session for session, rows in sessions.items() if len(rows) > 1]
    if len(told) < MIN_SESSIONS:
        return {}
    found: dict[str, dict[str, float]] = {}
    for part in _parts([[*sessions[session].values()] for session in told]):
        rows = [row for session in part for row in session]
        errors = _errors(rows, expected_ms)
        if errors is not None:
            for row, error in zip(rows, errors.tolist(), strict=True):
                found.setdefault(row.session_id, {})[row.subnet_id] = round(error, _DIGITS)
    return found


def _parts(sessions: list[list[Measurement]]) -> list[list[list[Measurement]]]:
    """Sessions in parts of much the same size, none of fewer sessions than tell how they differ."""
    total = sum(map(len, sessions))
    enough = total / math.ceil(total / MOST_ROWS)
    parts: list[list[list[Measurement]]] = [[]]
    for place, session in enumerate(sessions):
        is_full = sum(map(len, parts[-1])) >= enough and len(parts[-1]) >= MIN_SESSIONS
        if is_full and len(sessions) - place >= MIN_SESSIONS:
            parts.append([])
        parts[-1].append(session)
    return parts


def told_by_others(part: Floats, inverse: Floats, values: Floats) -> Floats:
    """The posterior mean of a part of a Gaussian process at each case, as the others tell, (n,).

    Args:
        part: (n, n) covariances of the part.
        inverse: (n, n) the inverse of the covariances of what was observed, noise included.
        values: (n,) what was observed.
    """
    weights = inverse @ values
    # Without case i, the weights of the others are those with it less inverse[:, i] times this.
    own = weights / np.diag(inverse)
    told: Floats = part @ weights - own * np.einsum("ij,ji->i", part, inverse)
    return told


def _errors(rows: list[Measurement], expected_ms: Mapping[str, float]) -> Floats | None:
    """Each measurement's session error, (n,), found from the others; None without such errors."""
    expected = np.array([expected_ms[row.subnet_id] for row in rows])
    ratios = np.log(np.array([row.latency_ms() for row in rows]) / expected)
    spread = float(ratios.std())
    if spread == 0:
        return None
    resolutions = np.array([row.subnet.resolution for row in rows])
    places = _in_deviations(np.log(np.column_stack([expected, resolutions])))
    _, sessions = np.unique([row.session_id for row in rows], return_inverse=True)
    inputs = np.column_stack([places, _STEP * sessions])
    ratios = (ratios - ratios.mean()) / spread
    near = RBF(REACH, "fixed")
    in_all: Kernel = ConstantKernel(0.1, _VARIANCES) * near
    in_one: Kernel = _SAME_SESSION * (
        ConstantKernel(0.3, _VARIANCES) + ConstantKernel(0.3, _VARIANCES) * near
    )
    scatter = WhiteKernel(0.5, _SCATTER)
    without = _most_likely(in_all + scatter, inputs, ratios)
    process = _most_likely(in_all + in_one + scatter, inputs, ratios)
    gain = process.log_marginal_likelihood_value_ - without.log_marginal_likelihood_value_
    if gain <= MIN_GAIN:
        return None
    inverse: Floats = cho_solve((process.L_, True), np.eye(len(rows)))
    of_session: Floats = process.kernel_.k1.k2(inputs)
    return spread * told_by_others(of_session, inverse, ratios)


def _most_likely(kernel: Kernel, inputs: Floats, ratios: Floats) -> GaussianProcessRegressor:
    """The process with the variances under which the ratios are the most likely."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a variance of nothing is an answer
        return GaussianProcessRegressor(kernel).fit(inputs, ratios)


def _in_deviations(columns: Floats) -> Floats:
    """Columns in units of their standard deviation, about their mean."""
    deviations = columns.std(axis=0)
    standardised: Floats = (columns - columns.mean(axis=0)) / np.where(deviations, deviations, 1)
    return standardised
