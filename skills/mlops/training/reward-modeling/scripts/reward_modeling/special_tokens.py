"""Special tokens in what people and policies write are text: `<|im_end|>` in an answer ends no turn.

They are marked before rendering and tokenized as by `apply_chat_template(sanitize_control_tokens=True)`.
"""

import re
from itertools import chain
from typing import Any

from .chat_templates import template_text
from .hf import Tokenizer

_TAG = re.compile(r"</?\w+>")


class SpecialTokens:
    """Also other added tokens that the template writes, but not tags such as `<think>`, which answers hold rightly."""

    def __init__(self, tokenizer: Tokenizer):
        from transformers.utils import chat_template_utils as marking

        self.tokenizer, self._marking = tokenizer, marking
        written = template_text(tokenizer)
        self.tokens = tuple(
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if token.content.strip()
            and (token.special or (token.content in written and not _TAG.fullmatch(token.content)))
        )
        self._starts = {token[:2] for token in self.tokens}
        self._pattern = re.compile("|".join(map(re.escape, sorted(self.tokens, key=len, reverse=True))) or "(?!)")

    def inside(self, value: object) -> str | None:
        """The first special token in any of these texts."""
        if isinstance(value, str):
            found = any(start in value for start in self._starts) and self._pattern.search(value)
            return found[0] if found else None
        parts = chain(*value.items()) if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        return next(filter(None, map(self.inside, parts)), None)

    def marked(self, value: object) -> Any:
        if isinstance(value, dict):  # a key of a tool call's arguments is text of the policy too
            return {self.marked(key): self.marked(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.marked(item) for item in value]
        return self._marking.mark_control_tokens(value, self._pattern)

    def ids(self, marked: str) -> list[int]:
        try:
            return self._marking.encode_marked_chat(self.tokenizer, marked)
        except ValueError:  # a vocabulary that makes the token of its text too: break it after its first character
            first, last = self.marked(self.tokens[0]).split(self.tokens[0])
            pair = f"{first}({self._pattern.pattern}){last}"
            broken = re.sub(pair, lambda found: f"{found[1][0]}{first}{found[1][1:]}", marked)
            return self._marking.encode_marked_chat(self.tokenizer, broken)
