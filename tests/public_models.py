"""Tiny random checkpoints with the names, shapes and config fields of published reward models."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from conftest import tiny_tokenizer

HIDDEN = 16
LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def tokenizer(template=None, add_bos=False, tokens=()):
    """The tokenizer of the tests, with more tokens, and BOS of its own where asked."""
    from tokenizers import processors

    made = tiny_tokenizer("qwen2")
    made.model_max_length = 10**30
    if template is not None:
        made.chat_template = template
    made.add_tokens([*tokens, *(["<|begin_of_text|>"] if add_bos else [])], special_tokens=True)
    if add_bos:
        made.bos_token = "<|begin_of_text|>"
        own = (made.bos_token, made.bos_token_id)
        made._tokenizer.post_processor = processors.TemplateProcessing(single=f"{own[0]} $A", special_tokens=[own])
    return made


def trunk(folder: Path, model_type: str, made, *, causal=False, prefix="model.", **fields):
    """(a tiny trunk of transformers with random weights, its tensors under the names of a checkpoint)."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    sizes = {
        "vocab_size": len(made), "hidden_size": HIDDEN, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": None,
        "initializer_range": 0.3, "tie_word_embeddings": False,
    }  # fmt: skip
    config = AutoConfig.for_model(model_type, **{**sizes, **fields})
    torch.manual_seed(0)
    model = (AutoModelForCausalLM if causal else AutoModel).from_config(config).eval()
    own = model.state_dict()
    return model, {(name if causal else prefix + name): tensor.clone() for name, tensor in own.items()}


def save(folder: Path, config, tensors, made, **fields) -> Path:
    """Write a model folder: config.json with these fields, one safetensors file, the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {**config.to_dict(), **fields}
    (folder / "config.json").write_text(json.dumps(content))
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    made.save_pretrained(folder)
    return folder


def linear(*shape, seed=1):
    torch.manual_seed(seed)
    return torch.randn(*shape)
