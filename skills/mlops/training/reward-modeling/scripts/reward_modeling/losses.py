"""What a renderer could not give to the model: how many, of how many, and what to do."""

from .base_rendering import BaseRenderer
from .terminal import warn

OF_TEXTS = ("not_rendered", "special_tokens_in_content")  # "templated" is a finding of the audit in training
COUNTED = ("dropped", "truncated", "steps_dropped", "without_steps", *OF_TEXTS, "templated", "refused")


def warn_of(
  renderer: BaseRenderer, before: dict[str, int] | None = None, called: str = "", only: tuple[str, ...] = COUNTED
) -> None:
  """before: a copy of `renderer.counts`."""
  lost = {name: count - (before or {}).get(name, 0) for name, count in renderer.counts.items()}
  for sentence in _sentences(renderer, lost, only):
    warn(called + sentence)


def _sentences(renderer: BaseRenderer, counts: dict[str, int], only: tuple[str, ...] = COUNTED) -> list[str]:
  rendered = counts.get("rendered", 0)
  total = rendered + counts.get("without_steps", 0) + counts.get("refused", 0)
  over = f"longer than {renderer.max_length} tokens under --overlong {renderer.overlong}. {_advice(renderer)}"
  read = "text"
  if renderer.special_tokens_in_content != "text":
    read = "turns, as in the training of this model: whoever writes them moves its rewards"
  words = {
    "dropped": f"{{}} of {total} completions are unscored: {over}",
    "truncated": f"{{}} of {total} completions are scored with their start cut off: {over}",
    "steps_dropped": f"{{}} steps at the end of {total} solutions are unscored: {over}",
    "without_steps": f"{{}} of {total} completions are unscored: there is no step in them",
    "not_rendered": f"{{}} of {rendered} completions reach the model in part: its chat template leaves out {{}}. "
    "Use a model whose template writes them, or move them into `content`",
    "refused": f"{{}} of {total} completions are unscored: they cannot be rendered (the first: {{}})",
    "templated": f"{{}} of {rendered} conversations have a prompt that is templated already, and are templated twice "
    "(the first: {}). Give the messages alone, or take the texts as they are with --text_format rendered",
    "special_tokens_in_content": f"{{}} of {rendered} conversations hold special tokens in their texts, read as {read} "
    "(the first: {})",
  }
  return [words[name].format(n, renderer.first.get(name, "no row")) for name in only if (n := counts.get(name, 0))]


def _advice(renderer: BaseRenderer) -> str:
  most, limit = renderer.longest, renderer.max_length
  longer = f"Raise --max_length (the model reads {most})" if most and limit and most > limit else "Shorten them"
  other = "truncate_prompt" if hasattr(renderer, "step_separator") else "truncate_left"
  choice = "leave them out with --overlong drop" if renderer.overlong == other else f"choose --overlong {other}"
  return f"{longer}, or {choice}"
