"""What befalls a subject or its worker, in one line."""

from __future__ import annotations

from hwsearch.errors import HwsearchError, ProfileError

_LONGEST = 300
_NO_ANSWER = "gave no answer in"


class WorkerError(ProfileError):
    """A worker process died, hung, or reported an error that is not one of hwsearch's own."""


class NurseryError(ProfileError):
    """No worker process can be had any more, so that nothing can be timed."""


class NoProcessError(NurseryError):
    """The system starts no more processes for now."""


def no_answer(seconds: float) -> str:
    """What befell a worker that hangs."""
    return f"{_NO_ANSWER} {seconds:g} s and was ended"


def is_hang(sentence: str) -> bool:
    """Whether a stored failure is that of a worker that hung: it costs its deadline each time."""
    return _NO_ANSWER in sentence


def reason(error: BaseException) -> str:
    """The sentence of an error of hwsearch, else the type and the first line of the message."""
    if isinstance(error, HwsearchError):
        return str(error)
    return f"{type(error).__name__}: {first_line(str(error))}".rstrip(": ")


def first_line(text: str) -> str:
    """The first line with something in it, cut where it gets too long."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:_LONGEST]
