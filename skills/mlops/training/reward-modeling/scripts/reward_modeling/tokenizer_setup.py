"""Give a tokenizer what `rendering` needs: a chat template, an end token, a pad token of its own, a fixed date."""

import json
from itertools import chain

from .chat_templates import DATE_NOTE, template_text, writes_the_date
from .errors import ModelError
from .hf import Tokenizer

# The generation prompt is a prefix of the finished conversation: a prompt is tokenized alike with and without an answer.
DEFAULT_TEMPLATE = (
  "{{ START }}{%- for message in messages -%}{%- if message['role'] == 'assistant' -%}{{ 'Assistant: ' + message['content'] + END }}"
  "{%- else -%}{{ message['role'].capitalize() + ': ' + message['content'] + '\\n\\n' }}{%- endif -%}"
  "{%- if message['role'] == 'assistant' and not loop.last -%}{{ '\\n\\n' }}{%- endif -%}{%- endfor -%}"
  "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)

# Set aside for padding by model families.
PAD_CANDIDATES = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|fim_pad|>", "<|PAD_TOKEN|>")

# Put before a template that writes today's date, which would make a score depend on the day.
FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"


def prepare_tokenizer(tokenizer: Tokenizer, chat_template: str | None = None) -> list[str]:
  """In place; one sentence for each change. The embeddings must follow a pad token that had to be added."""
  notes = []
  if chat_template:
    tokenizer.chat_template = chat_template
    notes.append("chat template: the one given")
  if not tokenizer.chat_template:
    tokenizer.chat_template = default_template(tokenizer)
    notes.append("chat template: the tokenizer has none, so the project's default is used and saved")
  if writes_the_date(tokenizer) and FIXED_DATE not in template_text(tokenizer):
    named = tokenizer.chat_template  # saved so, for other readers of the model
    tokenizer.chat_template = (
      {name: FIXED_DATE + own for name, own in named.items()} if isinstance(named, dict) else FIXED_DATE + named
    )
    notes.append(DATE_NOTE)
  pad = tokenizer.pad_token
  if pad is None or pad == tokenizer.eos_token:
    known = tokenizer.get_vocab().keys() - {tokenizer.eos_token}
    own = next(filter(known.__contains__, PAD_CANDIDATES), None)
    if own:
      tokenizer.pad_token = own
    else:
      tokenizer.add_special_tokens({"pad_token": PAD_CANDIDATES[0]})
    why = "missing" if pad is None else "the same as EOS, which hides EOS from the model"
    notes.append(f"pad token: {tokenizer.pad_token} (it was {why})")
  tokenizer.padding_side = "right"
  return notes


def default_template(tokenizer: Tokenizer) -> str:
  """With this tokenizer's start (CLS, or BOS where it would put it) and end (EOS or SEP)."""
  end = tokenizer.eos_token or tokenizer.sep_token
  if not end:
    what = "the tokenizer has neither a chat template nor an EOS or SEP token: nothing would tell the model where an answer ends"
    raise ModelError(what, hint="give a template with --chat_template_path, or use a tokenizer with an EOS token")
  opening = tokenizer.convert_ids_to_tokens(tokenizer("a")["input_ids"][0])
  start = opening if opening in (tokenizer.cls_token, tokenizer.bos_token) else ""
  return DEFAULT_TEMPLATE.replace("START", json.dumps(start)).replace("END", json.dumps(end))


SAMPLED = 64


def check_tells_apart(path: str, tokenizer: Tokenizer) -> None:
  """Raises ModelError for a tokenizer that gives different texts the same ids."""
  added = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
  texts = _sampled(tokenizer, [token for token in tokenizer.get_vocab() if token not in added])
  if len(set(map(tuple, _ids(tokenizer, list(dict.fromkeys(texts)))))) < 2:
    raise ModelError(
      f"the tokenizer of {path} gives different texts the same tokens: it came without its vocabulary",
      hint="restore tokenizer.json (or vocab.json and merges.txt, vocab.txt, tokenizer.model) beside tokenizer_config.json",
    )


def check_embedded(path: str, tokenizer: Tokenizer, rows: int) -> None:
  """Raises ModelError when a text can become a token beyond the `rows` of the embeddings."""
  beyond = [token for token, number in tokenizer.get_vocab().items() if number >= rows]
  found = chain(*_ids(tokenizer, _sampled(tokenizer, beyond)))
  reached = [number for number in found if number >= rows and number != tokenizer.pad_token_id]
  if reached:
    raise ModelError(
      f"the tokenizer of {path} has token {max(reached)}, but the model has {rows} embeddings: it is another model's",
      hint="give the tokenizer that was saved with the weights",
    )


def _sampled(tokenizer: Tokenizer, tokens: list[str]) -> list[str]:
  some = sorted(tokens)[:: max(1, len(tokens) // SAMPLED)]
  return [text for token in some if (text := tokenizer.convert_tokens_to_string([token]).strip())]


def _ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
  return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
