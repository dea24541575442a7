"""Somebody who hears what a stage says as it goes."""

from hwsearch.progress import SilentProgress


class Listener(SilentProgress):
    """Shows no progress, and keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)
