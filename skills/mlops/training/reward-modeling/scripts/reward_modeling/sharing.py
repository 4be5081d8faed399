"""Which models may be run on packed rows, and how.

A model that mixes tokens in any way other than causal attention (recurrent layers, ALiBi, attention sinks, two
directions) would give wrong rewards on a packed row without any error. So a model is used only if

1. it reads its score from the last token (`score` head) and every layer type it names is full or sliding attention,
2. its attention calls ours in every layer and asks it for nothing unknown, and
3. a shrunken model of the same class, with random float64 weights, gives the rewards of one-at-a-time scoring.

`reason_against` names what speaks against a model, or nothing. Prior work shares prefixes by patching models:
arXiv:2410.20305 (preference optimisation with FlexAttention), flash-pref (CUDA).
"""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import torch

from .attention import Layout, UnsupportedAttentionError, shared_prefix
from .packing import PackedRow, pack_together

LAYER_TYPES = frozenset(("full_attention", "sliding_attention"))
TOLERANCE = 1e-6
"""In float64; transformers computes some norms in float32, which leaves 1e-7. Wrong models differ by 1e-4 and more."""
WINDOW = 6
VOCABULARY = 64


def rewards(model: Any, row: PackedRow, layout: Layout | None = None) -> torch.Tensor:
    """[sequences of the row] rewards in fp32 (or float64), in the order of `row.sequences`. Gradients flow.

    Inside a `shared_prefix(model)` block. `layout`: of this row, for a caller that reads its count of calls.
    """
    device = next(model.parameters()).device
    body = getattr(model, model.base_model_prefix)
    hidden = body(
        input_ids=torch.tensor([row.ids], device=device),
        position_ids=torch.tensor([row.positions], device=device),
        use_cache=False,
        layout=layout or Layout(row),
    ).last_hidden_state
    scores = model.score(hidden[0, row.ends])[:, 0]
    return scores if scores.dtype == torch.float64 else scores.float()


def reason_against(model: Any) -> str | None:
    """Why this model is not run on packed rows, in a few words, or None when it is. Takes about a tenth of a second.

    Not on a GPU: this attention makes one call a segment and layer, which was only measured on CPUs.
    """
    config = model.config
    if not hasattr(model, "score") or not hasattr(model, "base_model_prefix"):
        return "it reads its score from the whole text, as encoders do"
    if next(model.parameters()).device.type != "cpu":
        return "not measured on this device"
    foreign = set(getattr(config, "layer_types", None) or ()) - LAYER_TYPES
    if foreign:
        return f"it has layers of the type {', '.join(sorted(foreign))}"
    try:
        difference = self_check(type(model), shrunken(config))
    except UnsupportedAttentionError as error:
        return f"its attention asks for {error}"
    except Exception as error:
        return f"a small model of its class could not be checked ({type(error).__name__})"
    if not difference <= TOLERANCE:
        return f"a small model of its class gives other rewards on packed rows (by {difference:.0e})"
    return None


def self_check(model_class: type, config: Any) -> float:
    """Largest difference of rewards, relative to their spread, between packed rows and one at a time. float64.

    Raises UnsupportedAttentionError when the model's attention asks for something unknown or never calls ours.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config).double().eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=1 / math.sqrt(parameter.shape[-1]))
        sequences = _sequences()
    row = pack_together(sequences)
    layout = Layout(row)
    with torch.no_grad():
        alone = torch.stack([_alone(model, sequence) for sequence in sequences])
        packed = torch.empty_like(alone)
        with shared_prefix(model):
            packed[row.sequences] = rewards(model, row, layout)
    if layout.calls != config.num_hidden_layers:
        raise UnsupportedAttentionError(f"nothing in {config.num_hidden_layers - layout.calls} of its layers")
    return ((packed - alone).abs().max() / alone.std()).item()


def shrunken(config: Any) -> Any:
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
        "head_dim": 16,
        "hidden_size": 32 * groups,
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


def _sequences() -> list[list[int]]:
    """Sequences that share beginnings at two depths, longer than the window; one is a prefix of another."""
    drawn = torch.randint(1, VOCABULARY, (5, 12)).tolist()
    stem, left, right = drawn[0], drawn[0] + drawn[1], drawn[0] + drawn[2]
    return [stem, left, left + drawn[3], left + drawn[4][:3], right, drawn[4]]


def _alone(model: Any, sequence: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([sequence])).logits[0, 0]
