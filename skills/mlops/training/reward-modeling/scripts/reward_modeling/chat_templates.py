"""Run a chat template, a program that came with somebody's model: bounded, on a fixed day, its faults told."""

import threading
from collections.abc import Sequence

from .hf import Tokenizer
from .results import sorted_json

DATE_NOTE = "chat template: it writes today's date, which is fixed so that a score does not depend on the day"
_LOCK = threading.RLock()


class TemplateFaultError(Exception):
  """What a chat template did wrong, in a few words."""


def apply(
  tokenizer: Tokenizer, messages: Sequence[dict], tools: list[dict] | None = None, prompt_only: bool = False
) -> str:
  """What transformers would write, or TemplateFaultError."""
  from jinja2 import TemplateError
  from transformers.utils import chat_template_utils as theirs

  from .template_sandbox import WORK, TooMuchError, budget, compiled, environment

  with _LOCK:
    environment()  # made by their compiler, so before it is replaced
    budget.left = WORK
    own, theirs._compile_jinja_template = theirs._compile_jinja_template, compiled
    try:
      return tokenizer.apply_chat_template(
        list(messages), tools=tools or None, tokenize=False, add_generation_prompt=prompt_only
      )
    except Exception as error:  # a program of others raises what it likes
      words, kind = str(error).strip().partition("\n")[0], type(error).__name__
      if not isinstance(error, (TemplateError, TooMuchError)):
        words = words and f"{words} ({kind})"
      raise TemplateFaultError(words or kind) from error
    finally:
      theirs._compile_jinja_template = own


def template_text(tokenizer: Tokenizer) -> str:
  """Of several by name, all."""
  template = tokenizer.chat_template
  return sorted_json(template) if isinstance(template, dict) else template


def writes_the_date(tokenizer: Tokenizer) -> bool:
  return "strftime_now" in template_text(tokenizer)
