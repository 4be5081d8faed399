"""The skill and the repository as they reach others: the files that git has, and copies of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from generate import REPOSITORY


def tracked(folder: Path) -> list[Path]:
  """The files below this folder that a commit of the working tree would have."""
  command = ["git", "ls-files", "-co", "--exclude-standard", "--", str(folder)]
  listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
  return [path for name in listed.stdout.splitlines() if (path := REPOSITORY / name).exists() or path.is_symlink()]


def copied(source: Path, target: Path) -> Path:
  """A copy of the skill's folder, or of the repository, at `target`. Links stay links."""
  for path in tracked(source):
    copy = target / path.relative_to(source)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, copy, follow_symlinks=False)
  return target
