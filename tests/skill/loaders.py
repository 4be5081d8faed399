"""Give the skill to the real loaders: `uv run tests/skill/loaders.py`. Needs a network, uv, npm and git.

Each tool is fetched into a throwaway environment and reads a commit of the working tree made in a scratch folder; nothing
is kept and nothing outside the scratch folder is written. Prints one line for each tool and ends with exit code 1 when one
of them refuses the skill. What the tools enforce is also tested without them, in test_loaders.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from copies import copied
from generate import REPOSITORY, SKILL, is_optional

SKILLS_REF, HERMES, SKILLS_CLI, CLAUDE = "skills-ref==0.1.1", "hermes-agent==0.19.0", "skills@1.7.4", "2.1.197"
NODE = "node@22"
"""The versions that were last tried. The `skills` command needs Node 22 or newer."""


class RefusedError(Exception):
  """A loader did not do with the skill what its documents promise."""


def run(*command: object, **options) -> str:
  """stdout of a command. Raises RefusedError with all it said when it fails."""
  done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=900, **options)
  if done.returncode:
    raise RefusedError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
  return done.stdout


def expect(what: str, found: object, wanted: object) -> None:
  if found != wanted:
    raise RefusedError(f"{what}: {found!r} and not {wanted!r}")


def clone_of_working_tree(scratch: Path) -> Path:
  """A repository with one commit that holds what the working tree holds, in a folder named as its SKILL.md says."""
  clone = copied(REPOSITORY, scratch / "clone" / SKILL.name)
  run("git", "init", "-q", cwd=clone)
  run("git", "add", "-A", cwd=clone)
  run(
    "git",
    "-c",
    "user.name=x",
    "-c",
    "user.email=x@example.org",
    "commit",
    "-q",
    "-m",
    "the working tree",
    cwd=clone,
  )
  return clone


def use(skill: Path) -> str:
  """The installed skill at work, from its own folder: the help of train.py, and a tiny model that scores."""
  from conftest import save_tiny

  model = save_tiny("qwen2", skill.parent / "model", head=1)
  expect("help", run(sys.executable, "scripts/train.py", "--help", cwd=skill)[:6], "usage:")
  command = ("scripts/score.py", "--model_name_or_path", model, "--prompt", "hello", "--completions", "yes", "no")
  rewards = json.loads(run(sys.executable, *command, cwd=skill))["rows"][0]["rewards"]
  return f"train --help answers, rewards {rewards}"


def npx(packages: tuple[str, ...], *command: object, scratch: Path, cwd: Path) -> str:
  """Run a command of npm packages with a scratch home."""
  named = [word for package in packages for word in ("-p", package)]
  env = {**os.environ, "HOME": str(scratch / "home"), "DISABLE_TELEMETRY": "1"}
  return run("npx", "--yes", *named, "--", *command, cwd=cwd, env=env)


def agentskills(clone: Path, scratch: Path) -> str:
  folders = clone, clone / SKILL.relative_to(REPOSITORY)
  command = ("uv", "tool", "run", "-q", "--from", SKILLS_REF, "agentskills", "validate")
  return "; ".join(run(*command, folder, cwd=scratch).strip().split(": ")[0] for folder in folders)


def skills_cli(clone: Path, scratch: Path) -> str:
  project = scratch / "project"
  project.mkdir()
  npx((NODE, SKILLS_CLI), "skills", "add", clone, "--yes", "--agent", "claude-code", scratch=scratch, cwd=project)
  installed = [path.parent for path in project.rglob("SKILL.md")]
  expect("skills installed", {path.name for path in installed}, {SKILL.name})
  source = clone / SKILL.relative_to(REPOSITORY)
  expect("files installed", files_below(installed[0]), files_below(source))
  return f"{len(files_below(source))} files; {use(installed[0])}"


def files_below(folder: Path) -> set[str]:
  return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def hermes(clone: Path, scratch: Path) -> str:
  home = scratch / "hermes"
  home.mkdir()
  (home / "config.yaml").write_text(f"skills:\n  external_dirs:\n    - {clone}/skills\n", encoding="utf-8")
  env = {**os.environ, "HERMES_HOME": str(home), "HOME": str(scratch / "home")}
  env["UV_CACHE_DIR"] = run("uv", "cache", "dir").strip()
  checks = Path(__file__).with_name("hermes_checks.py")
  skill = clone / SKILL.relative_to(REPOSITORY)
  command = ("uv", "run", "-q", "--no-project", "--with", HERMES, "python", checks, clone, skill)
  found = json.loads(run(*command, cwd=scratch, env=env).splitlines()[-1])
  expect("files that stop the installation", found["blocking"], [])
  expect(
    "verdict on a community source",
    (found["verdict"], found["trust"], found["allowed"]),
    ("safe", "community", True),
  )
  expect("category", [line.split(":")[0] for line in found["categories"]], ["mlops/training"])
  expect("files referenced that cannot be viewed", found["not viewable"], [])
  fetchable = {name for name in files_below(skill) if not is_optional(SKILL / name)}
  expect("files fetched", found["fetched"], len(fetchable))
  said = f"{found['why']}; {found['fetched']} files fetched, all can be viewed; {found['findings']}"
  return f"{said}; {found['categories']}; {found['index']}; {use(Path(found['installed']))}"


def claude(clone: Path, scratch: Path) -> str:
  package = f"@anthropic-ai/claude-code@{CLAUDE}"
  said = npx((package,), "claude", "plugin", "validate", "--strict", clone, scratch=scratch, cwd=scratch)
  return said.strip().splitlines()[-1]


LOADERS: dict[str, Callable[[Path, Path], str]] = {
  f"agentskills validate ({SKILLS_REF})": agentskills,
  f"skills add ({SKILLS_CLI})": skills_cli,
  f"hermes ({HERMES})": hermes,
  f"claude plugin validate ({CLAUDE})": claude,
}


def main() -> int:
  refused = 0
  with tempfile.TemporaryDirectory() as folder:
    scratch = Path(folder)
    (scratch / "home").mkdir()
    clone = clone_of_working_tree(scratch)
    for name, load in LOADERS.items():
      try:
        print(f"{name}: {load(clone, scratch)}", flush=True)
      except RefusedError as reason:
        refused += 1
        print(f"{name}: REFUSED: {reason}", flush=True)
  return int(refused > 0)


if __name__ == "__main__":
  raise SystemExit(main())
