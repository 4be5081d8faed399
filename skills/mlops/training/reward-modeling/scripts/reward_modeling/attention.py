"""Attention over a packed row: each segment attends to the path that leads to it and to itself.

Registered with transformers' `AttentionInterface`, so no model code is patched. Linear layers, norms and embeddings see
one flat row [1, T] of unique tokens and need no knowledge of the layout; only attention does. Under this name transformers
builds no mask, and hands the keyword `layout` down to every attention layer.

A model that mixes tokens in any other way (recurrent layers, ALiBi, attention sinks, two directions) would give wrong
rewards on a packed row without any error. So every argument that is not implemented raises, and `reason_against` lets a
model through only if

1. it reads its score from the last token (`score` head) and every layer type it names is full or sliding attention,
2. its attention calls ours in every layer and asks it for nothing unknown, and
3. a shrunken model of the same class, with random float64 weights, gives the rewards of one-at-a-time scoring.

Two ways give the same numbers: on a CPU PyTorch's own attention is called once a segment, on a GPU FlexAttention once a layer.

Prior work shares prefixes by patching models: arXiv:2410.20305 (preference optimisation with FlexAttention), flash-pref (CUDA).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from .packing import PackedRow, pack_together

NAME = "reward_modeling_shared_prefix"
BLOCK_DEVICES = ("cuda",)
"""Where FlexAttention is called once a layer: a call a segment would leave a GPU idle."""
BLOCK = 128
"""Tokens in a block of FlexAttention: its own default."""

# What models pass along and what changes nothing here: positions are in the rotary embedding already, and `ends` is for
# the hook that reads the scores in training.
HARMLESS = frozenset(
    (
        "position_ids",
        "cache_position",
        "use_cache",
        "output_attentions",
        "is_causal",
        "position_embeddings",
        "ends",
    )
)


class UnsupportedAttentionError(ValueError):
    """A model asks its attention for something that this one does not do."""


class Layout:
    """What attention needs to know of a packed row, computed once for all layers.

    callers: the attention modules that have followed this layout.
    """

    def __init__(self, row: PackedRow):
        self.sizes, self.keys = row.pieces()
        self.segments = row.segments
        self.length = len(row.ids)
        self._row = row
        self.callers: set[int] = set()
        self._made: dict[Any, Any] = {}

    def mask(self, segment: int, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        """Additive mask [queries, keys] of a segment, or None where plain causal attention says the same.

        A token at offset i of a segment at depth d sees the keys 0 to d + i, the last `window` of them where there is one.
        """
        depth, size = self.segments[segment].depth, self.segments[segment].size
        if depth == 0 and (window is None or size <= window):
            return None

        def made() -> torch.Tensor:
            keys = torch.arange(depth + size, device=like.device)[None]
            query = keys.mT[depth:]
            seen = keys <= query
            if window is not None:
                seen = seen & (query - keys < window)
            mask = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
            return mask.masked_fill_(~seen, float("-inf"))

        return self._once((segment, window, like.dtype, like.device), made)

    def blocks(self, window: int | None, device: torch.device) -> Any:
        """The BlockMask of the whole row for FlexAttention: which blocks of queries see which blocks of keys."""

        def made() -> Any:
            until, positions = (
                torch.tensor(numbers, device=device) for numbers in (self._row.until(), self._row.positions)
            )
            return block_mask(until, positions, window)

        return self._once(("blocks", window, device), made)

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention along each sequence of a packed row. query: [1, H, T, D]; key, value: [1, K, T, D].

    Returns [1, T, H, D]. Raises UnsupportedAttentionError for any argument it does not implement, and for dropout, which
    would draw one mask for tokens that several sequences share.
    """
    if layout is None or attention_mask is not None:
        raise UnsupportedAttentionError("called without a layout, or with a mask of its own")
    if dropout:
        raise UnsupportedAttentionError("attention dropout")
    unknown = [name for name, given in others.items() if given is not None and name not in HARMLESS]
    if unknown:
        raise UnsupportedAttentionError(", ".join(sorted(unknown)))
    layout.callers.add(id(module))
    if query.device.type in BLOCK_DEVICES:
        return _by_blocks(query, key, value, layout, scaling, sliding_window, softcap), None
    return _by_segment(query, key, value, layout, scaling, sliding_window, softcap), None


def _by_segment(query, key, value, layout: Layout, scaling: float | None, window: int | None, softcap: float | None):
    """`shared_prefix_attention` with one call of PyTorch's attention a segment."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    # split, not slicing: its backward is one concatenation instead of a zero-filled tensor for each slice.
    queries = query.split([segment.size for segment in layout.segments], 2)
    keys, values = key.split(layout.sizes, 2), value.split(layout.sizes, 2)
    outputs = []
    for i, q in enumerate(queries):
        k, v = _gathered(keys, layout.keys[i]), _gathered(values, layout.keys[i])
        mask = layout.mask(i, window, query)
        if softcap is None:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling)
        else:
            out = _softcapped(q, k, v, mask, scaling, softcap)
        outputs.append(out)
    return torch.cat(outputs, 2).transpose(1, 2).contiguous()


def _by_blocks(query, key, value, layout: Layout, scaling: float | None, window: int | None, softcap: float | None):
    """`shared_prefix_attention` with one call of PyTorch's FlexAttention (arXiv:2412.05496), compiled on a GPU."""
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    missing = -layout.length % BLOCK
    query, key, value = (F.pad(tensor, (0, 0, 0, missing)) for tensor in (query, key, value))
    options = {"block_mask": layout.blocks(window, query.device), "scale": scaling, "enable_gqa": True}
    out = _flex_attention(query.is_cuda)(query, key, value, score_mod=_capped_at(softcap, query.device), **options)
    return out[:, :, : layout.length].transpose(1, 2).contiguous()


@functools.cache
def _flex_attention(compiled: bool) -> Callable:
    from torch.nn.attention.flex_attention import flex_attention

    # From the second length on the compiler makes one kernel for rows of all lengths.
    return torch.compile(flex_attention) if compiled else flex_attention


@functools.cache
def _capped_at(softcap: float | None, device: torch.device) -> Callable | None:
    """The score_mod of FlexAttention that bounds scores as `_softcapped` does; the same object at each call, or kernels
    would be compiled anew."""
    if softcap is None:
        return None
    # A captured number would be a symbol to the compiler, which it refuses. It is kept, so training must be able to use it too.
    with torch.inference_mode(False):
        cap = torch.tensor(softcap, device=device)

    def capped(score, batch, head, query, key):
        return cap * torch.tanh(score / cap)

    return capped


def block_mask(until: torch.Tensor, positions: torch.Tensor, window: int | None) -> Any:
    """FlexAttention's BlockMask of a row, without making the [T, T] mask. until: [T], of `PackedRow.until`; positions: [T].

    A block of keys that lies before a block of queries is seen in part when some key's `until` reaches into it, and in
    full when every key's does to its end. The row is filled up to whole blocks with tokens that see and are seen by none
    but themselves.
    """
    from torch.nn.attention.flex_attention import BlockMask

    missing = -len(until) % BLOCK
    fill = torch.arange(len(until), len(until) + missing, device=until.device)
    until, positions = torch.cat([until, fill + 1]), torch.cat([positions, fill - fill])
    ends, places = until.view(-1, BLOCK), positions.view(-1, BLOCK)
    blocks = torch.arange(len(ends), device=until.device)
    first, last = blocks[:, None] * BLOCK, blocks[:, None] * BLOCK + BLOCK - 1
    before, same = blocks[None] < blocks[:, None], blocks[None] == blocks[:, None]
    full = before & (ends.amin(1)[None] > last)
    seen = same | (before & (ends.amax(1)[None] > first))
    if window is not None:
        full &= places.amax(1)[:, None] - places.amin(1)[None] < window
        seen &= same | (places.amin(1)[:, None] - places.amax(1)[None] < window)

    def visible(batch, head, query, key):
        mask = (key <= query) & (query < until[key])
        return mask if window is None else mask & (positions[query] - positions[key] < window)

    def listed(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        order = chosen.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        return chosen.sum(1, dtype=torch.int32)[None, None], order.to(torch.int32)[None, None]

    lengths = (len(until), len(until))
    return BlockMask.from_kv_blocks(
        *listed(seen & ~full), *listed(full), BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=lengths
    )


def _gathered(pieces: tuple[torch.Tensor, ...], which: list[int]) -> torch.Tensor:
    return pieces[which[0]] if len(which) == 1 else torch.cat([pieces[i] for i in which], -2)


def _softcapped(q, k, v, mask, scaling: float | None, softcap: float) -> torch.Tensor:
    """Attention whose logits are bounded by softcap * tanh(logits / softcap), as Gemma 2 does (arXiv:2408.00118)."""
    logits = q @ k.transpose(2, 3) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    logits = torch.tanh(logits / softcap) * softcap
    if mask is None:
        size = q.shape[2]
        mask = torch.full((size, size), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    return torch.softmax((logits + mask).float(), -1).to(q.dtype) @ v


AttentionInterface.register(NAME, shared_prefix_attention)


@contextlib.contextmanager
def shared_prefix(model: Any) -> Iterator[None]:
    """Run the model with this attention inside the block. The choice lives in the model's config: not thread-safe."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


# ---- which models may be run this way ---------------------------------------------------------------------------------


LAYER_TYPES = frozenset(("full_attention", "sliding_attention"))
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""In float64 transformers computes some norms in float32, which leaves 1e-7, and wrong models differ by 1e-4 and more. The
other precisions only show whether a device computes what the float64 check has found right."""
WINDOW = 6
VOCABULARY = 64


def outputs_at(
    model: Any, head: Any, row: PackedRow, places: Sequence[int], layout: Layout | None = None
) -> torch.Tensor:
    """[places, labels] outputs of a model's head at places of a packed row. Inside a `shared_prefix(model)` block.

    Gradients flow. layout: of this row, for a caller that looks at its callers. Equal places give the same number to the
    last bit, which a product of all of them would not: equal completions tie.
    """
    device = next(model.parameters()).device
    hidden = getattr(model, model.base_model_prefix)(
        input_ids=torch.tensor([row.ids], device=device),
        position_ids=torch.tensor([row.positions], device=device),
        use_cache=False,
        layout=layout or Layout(row),
    ).last_hidden_state
    distinct, which = torch.tensor(places, device=hidden.device).unique(return_inverse=True)
    return head(hidden[0, distinct])[which]


def reason_against(model: Any, wanted: bool | None = None, scored_at: str = "last_token") -> str | None:
    """Why this model is not run on packed rows, or None when it is. Takes about a tenth of a second.

    wanted: None for wherever it was measured, which is on CPUs; False for nowhere; True also on a GPU. There a small model
    in the precision of this one must give the rewards of one-at-a-time scoring too, which compiles the kernel.
    scored_at: of its renderer. Of a token classifier the sequence classifier of the same architecture is checked: only
    its head differs, and a token's head reads nothing but that token.
    """
    if scored_at == "prefix":
        return "it reads in both directions, as encoders do"
    if type(model).__name__.endswith("ForTokenClassification"):
        try:
            sibling = _sequence_classifier(model)
        except Exception as error:
            return f"a small model of its architecture could not be made ({type(error).__name__})"
        trunks = [type(getattr(one, one.base_model_prefix)) for one in (model, sibling)]
        if trunks[0] is not trunks[1]:
            return f"its trunk {trunks[0].__name__} is not that of a sequence classifier"
        model = sibling
    config, weights = model.config, next(model.parameters())
    if wanted is False:
        return "--shared_prefix false asks for it"
    if not hasattr(model, "score") or not hasattr(model, "base_model_prefix"):
        return "it reads its score from the whole text, as encoders do"
    device = weights.device.type
    if device != "cpu" and not (wanted and device in BLOCK_DEVICES):
        untried = "it is not measured on this device"
        return f"{untried} (try --shared_prefix true)" if device in BLOCK_DEVICES else untried
    foreign = set(getattr(config, "layer_types", None) or ()) - LAYER_TYPES
    if foreign:
        return f"it has layers of the type {', '.join(sorted(foreign))}"
    likes = {"": torch.empty(0, dtype=torch.float64)}
    if device in BLOCK_DEVICES:
        likes[f" on {device}"] = weights
    for where, like in likes.items():
        try:
            difference = self_check(type(model), config, like)
        except UnsupportedAttentionError as error:
            return f"its attention asks for {error}"
        except Exception as error:
            return f"a small model of its class could not be checked{where} ({type(error).__name__})"
        if not difference <= TOLERANCES[like.dtype]:
            return f"a small model of its class gives other rewards on packed rows{where} (by {difference:.0e})"
    return None


def _sequence_classifier(model: Any) -> Any:
    """A small sequence classifier with the architecture of this token classifier, in its precision and on its device."""
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng(devices=[]):
        small = shrunken(model.config, head_dim=head_width(model.config))
        return AutoModelForSequenceClassification.from_config(small).to(model.device, model.dtype)


def self_check(model_class: type, config: Any, like: torch.Tensor) -> float:
    """Largest difference of rewards, relative to their spread, between packed rows and one at a time, of a shrunken model
    in the precision and on the device of `like`.

    Where FlexAttention runs, heads keep their width and sequences fill several blocks: both choose the kernel. Raises
    UnsupportedAttentionError when the model's attention asks for something unknown or never calls ours.
    """
    length = 12
    if like.device.type in BLOCK_DEVICES:
        length = min(BLOCK, (getattr(config, "max_position_embeddings", None) or 3 * BLOCK) // 3)
        config = shrunken(config, head_dim=head_width(config))
    else:
        config = shrunken(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=1 / math.sqrt(parameter.shape[-1]))
        sequences = _sequences(length)
    model = model.to(like.device, like.dtype)
    row = pack_together(sequences)
    layout = Layout(row)
    with torch.no_grad():
        alone = torch.stack([_alone(model, sequence) for sequence in sequences])
        packed = torch.empty_like(alone)
        with shared_prefix(model):
            packed[row.sequences] = outputs_at(model, model.score, row, row.ends, layout)[:, 0].to(packed.dtype)
    if len(layout.callers) != config.num_hidden_layers:
        raise UnsupportedAttentionError(f"nothing in {config.num_hidden_layers - len(layout.callers)} of its layers")
    return ((packed - alone).abs().max() / alone.std()).item()


def head_width(config: Any) -> int:
    """Numbers in an attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def shrunken(config: Any, head_dim: int = 16) -> Any:
    """The same architecture with small layers: every layer type is there, heads are grouped as they were."""
    small = copy.deepcopy(config)
    kinds = list(getattr(config, "layer_types", None) or ())
    layers = len(kinds[: max(kinds.index(kind) for kind in set(kinds)) + 1]) if kinds else 2
    layers = max(2, min(layers, config.num_hidden_layers))
    groups = max(
        1, config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    )
    sizes = {
        "vocab_size": VOCABULARY,
        "num_hidden_layers": layers,
        "num_attention_heads": 2 * groups,
        "num_key_value_heads": 2,
        "head_dim": head_dim,
        "hidden_size": 2 * head_dim * groups,
        "intermediate_size": 32,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "num_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "query_pre_attn_scalar": 16,
    }
    for name, size in sizes.items():
        if getattr(small, name, None) is not None:
            with contextlib.suppress(AttributeError):  # a property of some configs, derived from the others
                setattr(small, name, size)
    if getattr(small, "sliding_window", None) is not None:
        small.sliding_window = WINDOW
    if kinds:
        small.layer_types = kinds[:layers]
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if getattr(small, name, None) is not None:
            setattr(small, name, 0)
    small.num_labels = 1
    # The fast paths of expert layers take no float64; which one runs has nothing to do with the layout.
    small._experts_implementation = "eager"
    return small


def _sequences(length: int) -> list[list[int]]:
    """Sequences that share beginnings at two depths, longer than the window; one is a prefix of another."""
    drawn = torch.randint(1, VOCABULARY, (5, length)).tolist()
    stem, left, right = drawn[0], drawn[0] + drawn[1], drawn[0] + drawn[2]
    return [stem, left, left + drawn[3], left + drawn[4][:3], right, drawn[4]]


def _alone(model: Any, sequence: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([sequence], device=model.device)).logits[0, 0]
