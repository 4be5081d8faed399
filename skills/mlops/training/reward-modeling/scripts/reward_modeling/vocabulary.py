"""Whether a tokenizer tells texts apart, and a model has an embedding for each token that a text can become."""

from itertools import chain

from .errors import ModelError
from .hf import Tokenizer

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
