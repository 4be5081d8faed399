"""The documents say what the code does, and survive the loaders that copy and scan them."""

import ast
import json
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from conftest import REPOSITORY, SCRIPTS

sys.path.insert(0, str(REPOSITORY / "tests" / "skill"))
from generate import SKILL, documents, generated

ENTRY_POINTS = sorted(path.name for path in SCRIPTS.glob("*.py"))
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9_]*)")
# Flags of other programs that the documents mention.
FOREIGN_FLAGS = {"help", "nproc_per_node", "cpu", "data"}

# What hermes-agent's skills_guard refuses in a community skill (high or critical), line by line.
REFUSED = {
    "environment writes": r"os\.environ\[|os\.environ\.setdefault|os\.getenv",
    "secrets": r"HF_TOKEN|API_KEY|\.env\b",
    "table header named env": r"\|\s*env\s*\|",
    "agent instructions": r"AGENTS\.md|CLAUDE\.md|you are now|do not tell the user",
    "comments that hide": r"<!--[^>]*(ignore|override|system|secret|hidden)[^>]*-->",
    "paths upwards": r"\.\./\.\./\.\.",
    "open to the network": r"0\.0\.0\.0",
    "context leaks": r"include the (whole|entire) conversation|output .*context",
    "echo into python": r"echo .*\|\s*python",
    "root and eval": r"\bsudo\b|(?<![.\w])eval\([\"']",
    "visible devices": r"CUDA_VISIBLE_DEVICES",
}


def skill_files():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", str(SKILL)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [REPOSITORY / name for name in listed.stdout.splitlines()]


def flags_of(parser) -> set[str]:
    return {option[2:] for action in parser._actions for option in action.option_strings if option.startswith("--")}


def parser_of(name: str):
    import importlib.util

    spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), SCRIPTS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.parser()


def known_flags() -> set[str]:
    from reward_modeling.arguments import trainer_field_names

    known = FOREIGN_FLAGS | trainer_field_names() | {"config"}
    for name in ENTRY_POINTS:
        known |= flags_of(parser_of(name))
    return known


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_generated_parts_are_current(document):
    text = document.read_text(encoding="utf-8")
    assert generated(text) == text, "run: uv run python tests/skill/generate.py"


def test_every_flag_in_the_documents_exists():
    known = known_flags()
    for document in documents():
        unknown = set(FLAG.findall(document.read_text(encoding="utf-8"))) - known
        assert not unknown, f"{document.name} names flags that no script has: {sorted(unknown)}"


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_flag_in_a_scripts_docstring_exists(name):
    doc = ast.get_docstring(ast.parse((SCRIPTS / name).read_text(encoding="utf-8")))
    assert set(FLAG.findall(doc)) <= known_flags()


def test_every_relative_link_and_its_anchor_resolves():
    for document in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            file = (document.parent / path).resolve() if path else document
            assert file.exists(), f"{document.name} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{document.name} links to {target}"


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_script_declares_the_projects_dependencies(name):
    block = re.match(r"# /// script\n((?:# ?.*\n)*?)# ///\n", (SCRIPTS / name).read_text(encoding="utf-8"))
    assert block, f"{name} has no PEP 723 header"
    declared = tomllib.loads(
        "".join(line.removeprefix("# ").removeprefix("#") for line in block[1].splitlines(keepends=True))
    )
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert declared["dependencies"] == project["dependencies"]
    assert declared["requires-python"] == project["requires-python"]


def test_pins_lie_within_the_bounds():
    from packaging.requirements import Requirement

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    pins = {
        req.name: next(iter(req.specifier)).version
        for req in map(Requirement, project["tool"]["uv"]["constraint-dependencies"])
    }
    for requirement in map(Requirement, project["project"]["dependencies"]):
        assert pins[requirement.name] in requirement.specifier


def frontmatter(path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])


@pytest.mark.parametrize("path", [REPOSITORY / "SKILL.md", SKILL / "SKILL.md"], ids=["root", "skill"])
def test_frontmatter_follows_the_agent_skills_specification(path):
    fields = frontmatter(path)
    assert set(fields) <= {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
    assert fields["name"] == "reward-modeling" == SKILL.name
    assert 1 <= len(fields["description"]) <= 1024 and not set("<>") & set(fields["description"])
    assert len(fields.get("compatibility", "")) <= 500
    assert "reward model" in frontmatter(SKILL / "SKILL.md")["description"][:57].lower(), (
        "the index of one loader keeps 57 characters"
    )


def test_the_root_document_hides_from_installers():
    assert frontmatter(REPOSITORY / "SKILL.md")["metadata"]["internal"] is True


def test_sizes():
    files = skill_files()
    assert len(files) < 50
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert len((SKILL / "SKILL.md").read_text(encoding="utf-8").splitlines()) < 250
    for reference in (SKILL / "references").glob("*.md"):
        assert len(reference.read_text(encoding="utf-8").splitlines()) < 300, reference.name


def test_every_file_of_the_skill_is_named_in_its_document():
    text = (SKILL / "SKILL.md").read_text(encoding="utf-8")
    for path in skill_files():
        name = path.relative_to(SKILL).as_posix()
        assert name == "SKILL.md" or f"`{name}`" in text, f"SKILL.md does not name {name}: one loader would not copy it"


def test_nothing_that_a_scanner_refuses():
    for path in skill_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for reason, pattern in REFUSED.items():
                assert not re.search(pattern, line, re.IGNORECASE), f"{path.name}:{number}: {reason}: {line.strip()}"


def test_top_level_scripts_is_a_link_to_the_skills_scripts():
    assert (REPOSITORY / "scripts").resolve() == (SKILL / "scripts").resolve()


def test_marketplace_names_the_skill():
    plugin = json.loads((REPOSITORY / ".claude-plugin" / "marketplace.json").read_text(encoding="utf-8"))["plugins"][0]
    assert [(REPOSITORY / folder).resolve() for folder in plugin["skills"]] == [SKILL.resolve()]


@pytest.mark.parametrize("recipe", sorted((SKILL / "assets" / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_key_of_a_recipe_is_a_flag(recipe):
    from reward_modeling.arguments import parse

    args = parse(
        parser_of("train.py"),
        ["--config", str(recipe), "--dataset_name", "x", "--output_dir", "y"],
        trainer_fields=True,
    )
    keys = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    assert args.model_name_or_path == keys["model_name_or_path"] and args.learning_rate == keys["learning_rate"]
    assert "--save_steps" in args.trainer_arguments


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_help_answers_at_once(name):
    """In processor time, which a busy machine does not change; on an idle one it is the time on the clock."""
    import resource

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, SCRIPTS / name, "--help"], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0 and done.stdout.startswith("usage:") and not done.stderr
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < 0.5


def test_trainer_fields_read_from_source_are_the_real_ones():
    from dataclasses import fields

    from trl import RewardConfig

    from reward_modeling.arguments import trainer_field_names

    real = {field.name for field in fields(RewardConfig) if field.init and not field.name.startswith("_")}
    assert trainer_field_names() == real
