"""What the README tells people to type exists."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

import hwsearch
from hwsearch.cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
FINDINGS = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("benchmarks/**/README.md"))]


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def command_lines(text: str) -> list[list[str]]:
    """The words of each line of the console blocks; comments dropped, continued lines joined."""
    lines = "\n".join(code_blocks(text, "console")).replace("\\\n", " ").splitlines()
    split = (shlex.split(line, comments=True) for line in lines)
    return [words for words in split if words]


APPLICATION = typer.main.get_command(app)
CALLS = [words for words in command_lines(README) if words[0].endswith("hwsearch")]
# And those in running text and tables, such as `hwsearch devices`.
CALLS += [shlex.split(call) for call in re.findall(r"`(hwsearch [a-z][^`]*)`", README)]


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, through its groups, and what is left of the words."""
    command, rest = APPLICATION, words[1:]
    while hasattr(command, "commands"):
        assert rest, f"{' '.join(words)}: a sub-command is missing"
        assert rest[0] in command.commands, f"{' '.join(words)}: there is no {rest[0]!r}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def leaves(command: Any, *names: str) -> list[tuple[str, ...]]:
    """Full names of all commands below a group."""
    if not hasattr(command, "commands"):
        return [names]
    return [leaf for name, sub in command.commands.items() for leaf in leaves(sub, *names, name)]


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_commands_and_their_options_exist(words: list[str]):
    command, rest = find_command(words)
    options = {
        name for p in command.params for name in (*p.opts, *p.secondary_opts) if name[0] == "-"
    }
    for word in rest:
        if word.startswith("-"):
            assert word.partition("=")[0] in options, f"{' '.join(words)}: there is no {word}"


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_no_argument_is_missing_or_too_much(words: list[str]):
    """Parsed by the command itself, without running it."""
    command, rest = find_command(words)
    if rest:  # `hwsearch fit` in running text is a name, not a whole command line
        command.make_context(command.name, rest)


def test_every_command_has_an_example():
    shown = [tuple(words[1:]) for words in command_lines(README)]
    for names in leaves(APPLICATION):
        assert any(words[: len(names)] == names for words in shown), " ".join(names)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document: str):
    text = (ROOT / document).read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[1] for words in command_lines(text) if words[0] == "make"}
    named |= set(re.findall(r"`make ([a-z]+)[^`]*`", text))
    assert named <= targets


@pytest.mark.parametrize("block", code_blocks(README, "python"))
def test_python_examples_use_public_names(block: str):
    used = {
        node.attr
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "hwsearch"
    }
    assert used
    assert used <= set(hwsearch.__all__)


def test_rooms_of_the_layout_exist():
    rows = re.findall(r"^\| (`.*?`) \|", README, re.MULTILINE)
    rooms = [name for row in rows for name in re.findall(r"`([\w/.]+)`", row)]
    assert len(rooms) > 10
    for name in rooms:
        assert (ROOT / name).exists() or (ROOT / "hwsearch" / name).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_exist(document: str):
    text = (ROOT / document).read_text()
    named = re.findall(r"`((?:tests|hwsearch)/[\w/]+\.py|[A-Za-z]+\.(?:md|toml|txt))`", text)
    assert named or document == "CHANGELOG.md"
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("document", ["README.md", *FINDINGS])
def test_benchmarks_and_their_findings_exist(document: str):
    """By their paths from the root or `benchmarks/`; and so do the files of a findings page."""
    text = (ROOT / document).read_text()
    named = re.findall(r"`((?:benchmarks|tables|results)/[\w/.-]+|bench_\w+\.py)`", text)
    if document in FINDINGS:
        named += re.findall(r"`([\w-]+\.(?:json|png))`", text)
    places = (ROOT, ROOT / "benchmarks", (ROOT / document).parent)
    assert named
    assert not [name for name in named if not any((place / name).exists() for place in places)]


@pytest.mark.parametrize("document", [*DOCUMENTS, *FINDINGS])
def test_links_lead_somewhere(document: str):
    linked = re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / document).read_text())
    assert not [name for name in linked if not (ROOT / document).parent.joinpath(name).exists()]


@pytest.mark.parametrize("extra", re.findall(r"hwsearch\[([\w-]+)\]", README))
def test_extras_exist(extra: str):
    assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
