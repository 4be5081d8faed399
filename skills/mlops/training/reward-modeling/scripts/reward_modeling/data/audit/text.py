"""What can be wrong with a text: wrong encodings, turns that leaked in, templates written twice. In time linear in the text."""

import re
from collections.abc import Iterable, Sequence

from ..records import Message

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
# UTF-8 read as Latin-1 or Windows-1252: a two-byte letter (Ã©, Â£), the start of a typographic sign (â€™), of an emoji (ðŸ˜€).
_MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2(?:\u20ac|\u0080)|\u00f0(?:\u0178|\u009f)")
# What begins or ends a turn: of HH transcripts, of ChatML, Llama 3 and DeepSeek, of Gemma, of Llama 2, of Alpaca and Vicuna.
_TURN = re.compile(
    r"(?:\A\s*|\n\n(?:\w+ )?)(?:Human|Assistant):|<[|｜][\w▁]+[|｜]>|<(?:start|end)_of_turn>|\[/?INST\]|</s>\s*\Z"
    r"|^###\s?(?:Instruction|Response|Human|Assistant|User)\b",
    re.MULTILINE,
)
# What a chat template writes before a turn. A question may name such a token: one counts only where it opens a line, and
# one that closes a turn only where it ends the text.
_FIRST = (
    r"<s>|<bos>|<[|｜](?:begin_of_text|begin▁of▁sentence|startoftext|endoftext)[|｜]>|\[gMASK\]\s?<sop>|<BOS_TOKEN>"
)
_OPENS = (
    r"<\|im_start\|>\s*(?:system|developer|user|human|assistant|tool)\b|<\|START_OF_TURN_TOKEN\|>"
    r"|<\|(?:start_header_id|header_start)\|>\s*\w+\s*<\|(?:end_header_id|header_end)\|>"
    r"|<start_of_turn>\s*(?:user|model)\b|<\|turn>\s*(?:system|user|model)\b"
    r"|<\|start\|>(?:system|developer|user|assistant)\b"
    r"|<[|｜](?i:system|user|human|assistant|prompter|observation)[|｜]>"
    r"|###\s?(?:Instruction|Response|Human|Assistant|User):"
)
_TEMPLATED = re.compile(
    rf"^[^\S\n]*(?:(?:{_FIRST})\s*)?(?:{_OPENS})|\A\s*<[|｜](?:begin_of_text|begin▁of▁sentence)[|｜]>"
    r"|(?:<\|(?:im_end|eot_id|eot|end|return|end_of_text|endoftext)\|>|<end_of_turn>|<｜end▁of▁sentence｜>)\s*\Z",
    re.MULTILINE,
)
_LLAMA2 = re.compile(r"\A\s*(?:<s>\s*)?(?:\[SYSTEM_PROMPT\]|\[INST\]|<<SYS>>)")
# "Human: ... Assistant:", "USER: ... ASSISTANT:", without the empty lines that stand between the turns of a transcript.
_ASKS = re.compile(r"(?:\A|\s)(?:Human|USER|User):\s")
_REPLIES = re.compile(r"\s(?:Assistant|ASSISTANT):(?:\s|\Z)")
_REPLY_IS_NEXT = re.compile(r"\s(?:Assistant|ASSISTANT):\s*\Z")


def is_garbled(texts: Iterable[str]) -> bool:
    return any(_CONTROL.search(text) or (not text.isascii() and _MOJIBAKE.search(text)) for text in texts)


def leaks_turn(texts: Iterable[str]) -> bool:
    """An answer with the marker of another turn: generation went on, or a template stands in the text."""
    return any(_TURN.search(text) or _goes_on(text) for text in texts)


def is_templated(texts: Iterable[str]) -> bool:
    """A prompt that is what a chat template makes of a conversation, and would be templated twice."""
    return any(map(_is_templated, texts))


def _is_templated(text: str) -> bool:
    if _TEMPLATED.search(text) or (_LLAMA2.match(text) and "[/" in text):
        return True
    asked = _ASKS.search(text)
    if asked is None or not _REPLIES.search(text, asked.end()):
        return False
    return not text[: asked.start()].strip() or bool(_REPLY_IS_NEXT.search(text[-40:]))


def _goes_on(answer: str) -> bool:
    asked = answer.find(" Human: ")
    return asked >= 0 and answer.find(" Assistant: ", asked) >= 0


def contents(messages: Sequence[Message], role: str | None = None) -> list[str]:
    return [message["content"] for message in messages if role in (None, message["role"])]
