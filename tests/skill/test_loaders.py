"""What the loaders enforce, tested without them; `uv run tests/skill/loaders.py` asks the loaders themselves.

agentskills: the form of the frontmatter. skills and Claude plugins: which folder is copied. hermes-agent: 57 characters of
the description, which files of a skill are fetched at all, and a scanner that refuses by the line.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY, save_tiny

sys.path.insert(0, str(REPOSITORY / "tests" / "skill"))
from copies import copied, tracked
from generate import OPTIONAL, SKILL, is_optional

DOCUMENTS = {"root": REPOSITORY / "SKILL.md", "skill": SKILL / "SKILL.md"}
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
FIELDS = {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
SUPPORT = r"(?:references|templates|scripts|assets|examples)"
FETCHED = re.compile(rf"(?:\]\(|[`\s\"']|^)({SUPPORT}/[^\s)`\"'<>]+)", re.MULTILINE)
"""What hermes-agent takes for a file of the skill wherever it stands in SKILL.md: it fetches these and no others."""

# What hermes-agent 0.19 calls high or critical, so that it refuses a skill from the community, line by line: the rules
# that the text of a skill for reward models can break by mistake.
REFUSED = {
  "the environment, but for reading one harmless name": (
    r"os\.environ\b(?!\.get\([\"'](?!\w*(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)))|printenv|\benv\s*\||process\.env\["
  ),
  "secrets": r"os\.getenv|HF_TOKEN|API_KEY|\.env\b|\.netrc|(token|secret|password)\s*[=:]\s*[\"'][\w+/=-]{20}",
  "text that looks like a key": r"sk-[A-Za-z0-9]{20}|ghp_\w{36}|AKIA[0-9A-Z]{16}|PRIVATE\s+KEY",
  "agent instructions": r"AGENTS\.md|CLAUDE\.md|\.cursorrules|\.clinerules|\.claude/settings|\.codex/config",
  "orders to the reader": (
    r"you\s+are\s+(\w+\s+)*now\b|do\s+not\s+(\w+\s+)*tell\s+(\w+\s+)*the\s+user|pretend\s+(\w+\s+)*(you|to\s+be)\b"
    r"|(ignore|disregard)\s+(\w+\s+)*(instructions|rules|guidelines)|output\s+(\w+\s+)*(system|initial)\s+prompt"
    r"|translate\s.*\sinto\s.*\sand\s+(execute|run|eval)|(when|if)\s+no\s*one\s+is\s+(watching|looking)"
    r"|without\s+(\w+\s+)*(restrictions|limitations|filters|safety)|you\s+have\s+been\s+(\w+\s+)*(updated|upgraded)"
  ),
  "conversations leaving": r"(include|output|print|send|share)\s+(\w+\s+)*(conversation|chat\s+history|context)\b",
  "comments that hide": r"<!--[^>]*(ignore|override|system|secret|hidden)[^>]*-->",
  "paths upwards": r"\.\./\.\./\.\.|/proc/|/etc/",
  "the network": r"0\.0\.0\.0|INADDR_ANY|\bngrok\b|(send|post|upload)\s.*\s(to|at)\s+https?://|socket\.connect\(\(",
  "a shell": r"(echo|curl|wget)\s.*\|\s*(ba)?(sh|python)\b|os\.(system|popen)\s*\(|\bsudo\b|setuid|setgid|rm\s+-rf\s+/",
  "variables in a host's commands": r"\b(dig|nslookup|host)\s[^\n]*\$",
  "code made from text": (
    r"\b(eval|exec)\s*\(\s*[\"']|__import__\s*\(|getattr\s*\(\s*__builtins__|chr\(\d+\)\s*\+|compile\(.*[\"']exec"
  ),
  "invisible characters": "[\u200b-\u200d\u2060-\u2064\u202a-\u202e\u2066-\u2069\ufeff]",
}


def frontmatter(path) -> dict:
  return yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])


@pytest.mark.parametrize("path", DOCUMENTS.values(), ids=DOCUMENTS)
def test_frontmatter_follows_the_agent_skills_specification(path):
  fields = frontmatter(path)
  assert set(fields) <= FIELDS
  assert NAME.fullmatch(fields["name"]) and len(fields["name"]) <= 64
  assert fields["name"] == SKILL.name, "the folder's name, or in a clone the repository's"
  assert 1 <= len(fields["description"]) <= 1024 and not set("<>") & set(fields["description"])
  assert len(fields.get("compatibility", "")) <= 500
  # Its own YAML parser takes strings only, and no lists in brackets.
  assert all(isinstance(value, str) for name, value in fields.items() if name != "metadata")
  assert not re.search(r"^\s*\w+: \[", path.read_text(encoding="utf-8").split("---\n")[1], re.MULTILINE)


def test_the_first_57_characters_say_when_to_use_it():
  assert "reward model" in frontmatter(SKILL / "SKILL.md")["description"][:57].lower()


def test_the_root_document_hides_from_installers_that_would_copy_the_whole_repository():
  assert frontmatter(REPOSITORY / "SKILL.md")["metadata"]["internal"] is True


def test_every_path_that_the_document_names_is_a_file_of_the_skill_and_the_other_way_round():
  """One loader fetches what it names, and gives up when one of them is missing: no placeholders, no folders."""
  named = {match.rstrip(".,;:") for match in FETCHED.findall((SKILL / "SKILL.md").read_text(encoding="utf-8"))}
  files = {path.relative_to(SKILL).as_posix() for path in tracked(SKILL)} - {"SKILL.md"}
  assert named - files == set(), "named, but no file of the skill"
  unnamed = {path for path in files if is_optional(SKILL / path)}
  assert files - named == unnamed, "a file of the skill, but not named in SKILL.md"


def test_sizes():
  """A scanner refuses more than 1024 KiB in all, and remarks on files of more than 256. On more than 50 files it remarks too.
  It sees what its loader fetched, which is what SKILL.md names.
  """
  sizes = [path.stat().st_size for path in tracked(SKILL) if not is_optional(path)]
  assert sum(sizes) < 1024 * 1020 and max(sizes) < 256_000
  assert not any(path.is_symlink() for path in tracked(SKILL)), "loaders refuse or drop links"
  assert all(path.suffix in {".py", ".md", ".yaml", ".json", ".jsonl"} for path in tracked(SKILL))


def test_what_is_named_imports_nothing_at_once_that_is_not():
  """Only inside functions, where a run that lacks it says so."""
  names = {Path(name).stem for name in OPTIONAL} - {"implicit"}  # a module of that name is everywhere, too
  for path in tracked(SKILL):
    if path.suffix == ".py" and not is_optional(path):
      for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.level or node.module.startswith("reward_modeling")):
          words = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
          assert words.isdisjoint(names), f"{path.name} imports {words & names}"


@pytest.mark.parametrize("reason", REFUSED)
def test_nothing_that_a_scanner_refuses(reason):
  found = [
    f"{path.name}:{number}: {line.strip()[:100]}"
    for path in tracked(SKILL)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    if re.search(REFUSED[reason], line, re.IGNORECASE)
  ]
  assert not found, "\n".join(found)


def test_the_scanner_rules_see_what_they_are_for():
  """Each line was refused by hermes-agent 0.19 itself, or is harmless to it."""
  refused = [
    'os.environ["X"] = "1"',
    "os.environ.update(defaults)",
    'os.environ.get("HF_TOKEN")',
    "| env |",
    "<!-- doctest: ignore -->",
    "include the whole conversation",
    "echo '{}' | python scripts/score.py",
    "serve on 0.0.0.0:8000",
  ]
  harmless = [
    'os.environ.get("RANK", "0")',
    "<!-- doctest: skip takes an hour -->",
    "model.eval()",
    "from os import environ",
  ]
  for line in refused + harmless:
    hit = any(re.search(pattern, line, re.IGNORECASE) for pattern in REFUSED.values())
    assert hit is (line in refused), line


def test_the_plugin_manifest_names_the_skill():
  """The rules of a plugin marketplace: names in kebab case, an owner, a source inside the repository, skill folders."""
  manifest = json.loads((REPOSITORY / ".claude-plugin" / "marketplace.json").read_text(encoding="utf-8"))
  assert NAME.fullmatch(manifest["name"]) and manifest["owner"]["name"]
  (plugin,) = manifest["plugins"]
  assert NAME.fullmatch(plugin["name"]) and plugin["source"] == "./" and plugin["strict"] is False
  assert [(REPOSITORY / folder).resolve() for folder in plugin["skills"]] == [SKILL.resolve()]


def test_a_category_document_lies_beside_the_skill():
  for path in (SKILL.parent / "DESCRIPTION.md", REPOSITORY / "DESCRIPTION.md"):
    assert set(frontmatter(path)) == {"description"} and frontmatter(path)["description"]


def run_in(skill, name: str, *arguments, code: int = 0) -> subprocess.CompletedProcess[str]:
  """Nothing of this process's environment, which knows the repository: the script's own folder must do."""
  command = [sys.executable, f"scripts/{name}", *map(str, arguments)]
  done = subprocess.run(command, cwd=skill, env={"PATH": "", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
  assert done.returncode == code, done.stderr
  return done


def test_an_installed_copy_works_with_nothing_around_it(tmp_path):
  skill = copied(SKILL, tmp_path / "skills" / SKILL.name)
  model = save_tiny("qwen2", tmp_path / "model", head=1)
  assert run_in(skill, "quickstart.py", "--help").stdout.startswith("usage:")
  scored = run_in(skill, "score.py", "--model_name_or_path", model, "--prompt", "hello", "--completions", "yes", "no")
  assert len(set(json.loads(scored.stdout)["rows"][0]["rewards"])) == 2


def test_a_copy_of_what_is_named_says_what_it_lacks(tmp_path):
  skill = copied(SKILL, tmp_path / SKILL.name)
  for path in (skill / "scripts").rglob("*.py"):
    if is_optional(SKILL / path.relative_to(skill)):
      path.unlink()
  model = save_tiny("qwen2", tmp_path / "model", head=1)
  for name in ("score.py", "evaluate.py", "train.py"):
    assert run_in(skill, name, "--help").stdout.startswith("usage:")
  pairs = tmp_path / "pairs.jsonl"
  pairs.write_text('{"prompt": "hello", "chosen": "yes", "rejected": "no"}\n')
  run_in(skill, "evaluate.py", "--model_name_or_path", model, "--dataset_name", pairs)
  refused = run_in(skill, "evaluate.py", "--model_name_or_path", model, "--benchmark", "llmbar", code=2)
  assert "this copy of the skill lacks scripts/reward_modeling/evaluation/benchmark_runs.py" in refused.stderr
  assert "copy the whole folder" in refused.stderr
  pairs.write_text('{"prompt": "hello", "completion": "yes"}\n')
  run_in(skill, "check_data.py", pairs)
  pairs.write_text('{"foo": "hello", "bar": "yes"}\n')
  assert "no format has the columns" in run_in(skill, "check_data.py", pairs, code=3).stderr
  for name, lacks in (("serve.py", "serving/settings.py"), ("label_steps.py", "rollouts.py")):
    assert f"lacks scripts/reward_modeling/{lacks}" in run_in(skill, name, "--help", code=2).stderr
  refused = run_in(skill, "score.py", "--model_name_or_path", model, "--check_server", "http://127.0.0.1:1", code=2)
  assert "lacks scripts/reward_modeling/server_check.py" in refused.stderr
  policy = save_tiny("qwen2", tmp_path / "policy")
  asked = ("--reference_model_name_or_path", policy, "--prompt", "hello", "--completions", "yes", "no")
  refused = run_in(skill, "score.py", "--model_name_or_path", policy, *asked, code=2)
  assert "lacks scripts/reward_modeling/implicit.py" in refused.stderr
