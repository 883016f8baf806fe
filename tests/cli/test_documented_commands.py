"""Every command, file and link that README and docs name exists: commands are parsed as the program would, not run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer

from amden.cli.program import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
COMMAND = cast(Any, typer.main.get_command(app))
VERBS = COMMAND.commands


def shell_lines(text: str) -> Iterator[str]:
    """Lines of blocks of shell, comments off, continued lines joined."""
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield shlex.join(words)


def spans(text: str) -> Iterator[str]:
    """Code within a line of text."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`\n]+)`", outside):
        yield from (part.strip() for part in span.split(";"))


def whole_commands() -> list[str]:
    return sorted({line for page in PAGES for line in shell_lines(page.read_text()) if line.startswith("amden ")})


def mentions() -> list[str]:
    return sorted({span for page in PAGES for span in spans(page.read_text()) if span.startswith("amden ")})


def options_of(verb: str) -> set[str]:
    return {option for parameter in VERBS[verb].params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }


@pytest.mark.parametrize("line", whole_commands())
def test_command_of_a_block_is_one_that_runs(line):
    words = shlex.split(line)[1:]
    if words in (["VERB", "--help"], ["--help"]):
        return
    verb, context, rest = COMMAND.resolve_command(typer.Context(COMMAND), words)
    assert verb is not None
    assert context.make_context(verb, rest).params


@pytest.mark.parametrize("text", mentions())
def test_mentioned_verbs_and_options_exist(text):
    words = [word for word in re.split(r"[\s\[\]|]+", text) if word not in ("amden", "", "…")]
    own = {option for parameter in COMMAND.params for option in parameter.opts} | {"--help"}
    while words and words[0] in own:
        del words[0]
    if words[:1] in ([], ["VERB"]):
        return
    verbs = words if " | " in text else re.split("/", words[0])
    for verb in verbs:
        assert verb in VERBS
        for word in words:
            assert not word.startswith("--") or word.partition("=")[0] in options_of(verb)


def test_there_is_no_option_that_only_the_pages_know():
    """Options that stand alone, as `--restarts 5`, belong to some verb, or to a script that the pages name."""
    known = set().union(*map(options_of, VERBS), {"--debug", "--version", "--strict"})
    for page in PAGES:
        for span in spans(page.read_text()):
            if span.startswith("--"):
                for word in re.findall(r"(?<!\S)--[a-z-]+", span):
                    assert word in known, (page.name, span)


def test_scripts_and_recipes_that_are_named_exist():
    pattern = r"(?<![\w/])(?:benchmarks|recipes|examples|src|tests|docs)/[\w./-]*\w"
    for page in PAGES:
        for name in re.findall(pattern, page.read_text()):
            assert (ROOT / name).exists(), (page.name, name)


def test_options_of_benchmarks_that_are_named_exist():
    for page in PAGES:
        text = page.read_text()
        for line in (*shell_lines(text), *spans(text)):
            if found := re.search(r"python (benchmarks/\w+\.py)(.*)", line):
                source = (ROOT / found[1]).read_text()
                for option in re.findall(r"(?<!\S)--[a-z-]+", found[2]):
                    assert f'"{option}"' in source, (page.name, line)


def test_targets_of_make_that_are_named_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = page.read_text()
        for line in (*shell_lines(text), *spans(text)):
            if found := re.match(r"make ([a-z]+)$", line):
                assert found[1] in targets, (page.name, line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, link


def slug(heading: str) -> str:
    """The anchor of a heading, as hosts of code and the site make it alike."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())
