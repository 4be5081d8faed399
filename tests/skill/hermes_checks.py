"""What hermes-agent makes of the skill, by its own functions. Run by loaders.py in an environment that has hermes-agent.

    hermes_checks.py REPOSITORY SKILL        folders of a clone: the whole, and the skill inside it. Prints one JSON object.

GitHub is not asked: the two methods that would ask it read the clone instead. HERMES_HOME is a scratch folder whose
config.yaml names the clone's `skills` as an external directory.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from agent.prompt_builder import build_skills_system_prompt
from tools import skills_hub
from tools.skills_guard import scan_skill, should_allow_install
from tools.skills_tool import skill_view


class Clone(skills_hub.GitHubSource):
  """The hub's GitHub source with a folder in the place of GitHub."""

  def __init__(self, root: Path):
    super().__init__(skills_hub.GitHubAuth())
    self.root = root

  def _get_repo_tree(self, repo):
    listed = subprocess.run(["git", "ls-tree", "-r", "HEAD"], cwd=self.root, capture_output=True, text=True, check=True)
    entries = []
    for line in listed.stdout.splitlines():
      about, path = line.split("\t")
      mode, kind, _ = about.split()
      entries.append({"path": path, "mode": mode, "type": kind})
    return "main", entries

  def _fetch_file_bytes(self, repo, path):
    file = self.root / path
    return file.read_bytes() if file.is_file() else None


def main(root: Path, skill: Path) -> dict:
  inside = skill.relative_to(root).as_posix()
  referenced = skills_hub._referenced_support_paths((skill / "SKILL.md").read_text(encoding="utf-8"))
  prompt = build_skills_system_prompt()
  views = {name: json.loads(skill_view(skill.name, file_path=name)) for name in sorted(referenced)}
  bundle = Clone(root).fetch(f"someone/reward-modeling/{inside}")
  quarantined = skills_hub.quarantine_bundle(bundle)
  scan = scan_skill(quarantined, source=bundle.identifier)
  allowed, why = should_allow_install(scan)
  installed = skills_hub.install_from_quarantine(quarantined, bundle.name, "mlops/training", bundle, scan)
  return {
    "categories": [line.strip() for line in prompt.splitlines() if "mlops" in line],
    "index": [line.strip() for line in prompt.splitlines() if skill.name in line],
    "referenced": len(referenced),
    "not viewable": [name for name, view in views.items() if not view.get("success")],
    "fetched": len(bundle.files),
    "verdict": scan.verdict,
    "trust": scan.trust_level,
    "allowed": allowed,
    "why": why,
    "findings": dict(Counter(f"{finding.severity} {finding.pattern_id}" for finding in scan.findings)),
    "blocking": [
      f"{finding.file}:{finding.line}: {finding.pattern_id}"
      for finding in scan.findings
      if finding.severity in ("high", "critical")
    ],
    "installed": str(installed),
  }


if __name__ == "__main__":
  print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
