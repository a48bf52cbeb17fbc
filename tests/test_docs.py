"""What the pages say there is, is there: commands, flags, links, imports."""

import ast
import importlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import typer

from striate import cli
from striate.runtime import ENGINES
from striate.serve.flags import MEANINGLESS, REFUSED, flags, parse
from striate.train.recipe import Group, Normalise, Recipe

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "serving/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
    *sorted((ROOT / "native").glob("*.md")),
]
RECIPES = sorted((ROOT / "src/striate/recipes").glob("*.yaml"))
SCRIPTS = [
    *(ROOT / "benchmarks").rglob("*.py"),
    *(ROOT / "examples").glob("*.py"),
    *(ROOT / "serving").glob("*.py"),
]
# Lines about other programs, whose flags are theirs.
OTHERS = re.compile(r"^.*\b(pip|pytest|curl|git|python -m|cc|make|npm)\b.*$", re.M)
PROGRAM = typer.main.get_command(cli.app)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    """The code between fences of that language; "" for fences without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    return [code for named, code in found if named == language]


def commands(text: str) -> list[str]:
    """The lines that begin with `striate VERB`, without comments, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [line for line in lines if re.match(r"(KERAS_BACKEND=\w+ )?striate [a-z]", line)]
    return [re.split(r"\s+#|[|>&]", line.split("striate ", 1)[1])[0] for line in found]


def parsed(line: str) -> None:
    """Read a command line as the program does, and do nothing; a mistake raises."""
    name, *arguments = shlex.split(line)
    if name == "serve":
        parse(arguments)
        return
    command = PROGRAM.commands[name]
    if hasattr(command, "commands"):  # `ensemble` and `search`
        name = arguments.pop(0) if arguments[0] in command.commands else "join"
        command = command.commands[name]
    command.make_context(name, arguments).close()


def leaves(command=PROGRAM):
    """The program's verbs, those of `ensemble` and `search` each for itself."""
    if not hasattr(command, "commands"):
        return [command]
    return [leaf for part in command.commands.values() for leaf in leaves(part)]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_command_of_a_page_can_be_given(page):
    for line in (line for block in blocks(page, "") for line in commands(block)):
        parsed(line)


@pages
def test_every_command_in_a_sentence_is_one(page):
    for quoted in re.findall(r"`(striate [^`]*)`", page.read_text("utf-8")):
        verb, *rest = commands(quoted)[0].split()
        options = {option for leaf in leaves(PROGRAM.commands[verb]) for option in opts(leaf)}
        asked = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert verb == "serve" or asked <= options


def test_every_command_of_a_recipe_can_be_given():
    for recipe in RECIPES:
        told = commands(re.sub(r"^# (Command:)? *", "", recipe.read_text("utf-8"), flags=re.M))
        assert told, recipe.name
        for line in told:
            parsed(line)


@pages
def test_every_flag_of_a_page_exists(page):
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+(?![\w*])", OTHERS.sub("", page.read_text())))
    assert named - known_flags() == set()


def known_flags() -> set[str]:
    """Those of the verbs, of the server, and of the scripts."""
    verbs = {option for leaf in leaves() for option in opts(leaf)}
    served = {f"--{no}{name}" for name in (*flags(), *MEANINGLESS, *REFUSED) for no in ("", "no")}
    scripts = "".join(script.read_text("utf-8") for script in SCRIPTS)
    return verbs | served | {"--version"} | set(re.findall(r'"(--[a-z][a-z-]+)"', scripts))


def test_every_flag_of_a_verb_is_on_a_page():
    text = "".join(page.read_text("utf-8") for page in PAGES)
    told = {"--help", "--output", *re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    assert {
        (leaf.name, parameter.opts[0])
        for leaf in leaves()
        for parameter in leaf.params
        if parameter.param_type_name == "option" and not told & set(parameter.opts)
    } == set()


def test_the_keys_of_a_recipe_are_on_the_page_about_recipes():
    told = [quoted(row) for row in table("docs/finetune.md", "group | keys")]
    by_itself = {"reason"}  # `auto` writes why it chose
    for name, field in Recipe.model_fields.items():
        kind = field.annotation
        grouped = isinstance(kind, type) and issubclass(kind, Group)
        keys = {name, *kind.model_fields} - by_itself if grouped else {name}
        assert any(keys <= row for row in told), name
    assert any(set(get_args(Normalise)) <= row for row in told)


def test_every_engine_is_on_the_page_about_forms():
    rows = table("docs/export.md", "engine | file | made by")
    assert set(ENGINES) == set().union(*(quoted(row.split("|")[1]) for row in rows))


def test_every_extra_of_the_package_is_on_the_first_page():
    with open(ROOT / "pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    rows = table("docs/README.md", "extra | brings")
    assert set(extras) == set().union(*(quoted(row.split("|")[1]) for row in rows))


def table(page: str, head: str) -> list[str]:
    """The rows below the head of a table."""
    text = (ROOT / page).read_text("utf-8").split(f"\n| {head} |\n", 1)[1]
    return text.split("\n\n", 1)[0].splitlines()[1:]


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def opts(command) -> list[str]:
    return [name for p in command.params for name in (*p.opts, *p.secondary_opts)]


@pages
def test_every_link_of_a_page_leads_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pages
def test_the_python_of_a_page_is_python_and_imports_what_there_is(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if not isinstance(node, ast.ImportFrom) or not node.module.startswith("striate"):
                continue
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")
