import signal

import pytest

from hwsearch.search.interrupts import Interrupts


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_held_back_until_a_place_is_opened_for_it():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []

    def work(interrupts: Interrupts) -> None:
        ctrl_c()
        reached.append("still here")
        with interrupts.opened():
            reached.append("not here")

    try:
        with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
            work(interrupts)
        assert reached == ["still here"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_heard_at_once_in_an_open_place_and_at_the_latest_in_the_end():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt), interrupts.opened():
            ctrl_c()
        held = Interrupts()
        held.__enter__()
        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            held.__exit__(None)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts, interrupts.opened():
            ctrl_c()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
