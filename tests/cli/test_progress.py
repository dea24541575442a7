"""How long work tells how far it is."""

import pytest

from hwsearch.cli.progress import RichProgress


@pytest.mark.parametrize("forced", [False, True])
def test_lines_tell_how_far_tasks_are_where_no_bar_can_be_drawn(capsys, monkeypatch, forced):
    if forced:  # as a CI does, whose log is a file all the same
        monkeypatch.setenv("FORCE_COLOR", "1")
    with (
        RichProgress(seconds_between_lines=0) as progress,
        progress.task("measuring", 32) as measured,
        progress.task("group", 8) as timed,
    ):
        measured(8)
        timed(1.5, note="half-width [2.1 %]")

    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "measuring: 8 of 32; group: 0 of 8",
        "measuring: 8 of 32; group: 1.5 of 8, half-width [2.1 %]",
    ]
    assert not captured.out


def test_work_that_is_soon_done_tells_nothing(capsys):
    with RichProgress() as progress, progress.task("measuring", 2) as measured:
        measured()
        measured()

    assert not capsys.readouterr().err


def test_what_is_logged_stays_one_line_of_its_own_words(capsys):
    message = "A line of [more] than the eighty columns that a file is given by default, " * 2

    with RichProgress() as progress:
        progress.log(message)

    assert capsys.readouterr().err == f"{message}\n"
