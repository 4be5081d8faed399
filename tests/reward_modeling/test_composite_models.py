"""Base models of text and images, and those with linear attention: trained on their text part, scored as one at a time."""

import random

import pytest
import torch

from conftest import tiny_tokenizer
from reward_modeling import checkpoints
from reward_modeling.errors import ModelError
from reward_modeling.rendering import Renderer
from reward_modeling.scoring import RewardModel

TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "eos_token_id": 2,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 3, "bos_token_id": None,
}  # fmt: skip
IMAGES = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14, "depth": 1, "num_heads": 2, "out_hidden_size": 32,
}  # fmt: skip
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
OWN = {"gemma3": {"sliding_window": 8, "query_pre_attn_scalar": 8}, "qwen3_5": LINEAR, "qwen3_5_text": LINEAR}
NO_CLASS = ("granite", "mistral3")


@pytest.fixture
def base(tmp_path):
  def make(family):
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    tokenizer = tiny_tokenizer("qwen2")
    text = {"vocab_size": len(tokenizer), **TEXT, **OWN.get(family, {})}
    torch.manual_seed(0)
    if family.endswith("_text") or family == "granite":
      model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **text))
    else:
      named = {**text, "model_type": "mistral"} if family == "mistral3" else text
      model = AutoModelForImageTextToText.from_config(
        AutoConfig.for_model(family, text_config=named, vision_config=IMAGES)
      )
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)

  return make


@pytest.mark.parametrize("family", OWN)
def test_rewards_are_those_of_one_at_a_time(family, base):
  loaded = checkpoints.load_for_training(base(family))
  model = loaded.model.eval()
  torch.manual_seed(0)
  for parameter in model.parameters():
    if parameter.dim() > 1:
      torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
  scorer = RewardModel(model, Renderer(loaded.tokenizer, max_length=128, scored_at=checkpoints.scored_at(model)))
  rng = random.Random(0)
  rows = [[" ".join(["one", "two", "red"][: rng.randint(1, 3)] * rng.randint(1, n)) for n in (6, 9)] for _ in range(9)]
  alone = []
  for prompt, answer in rows:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    ids = loaded.tokenizer(scorer.renderer.text(messages), add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
      alone.append(model(input_ids=ids["input_ids"]).logits[0, 0].item())
  assert torch.tensor(alone).std() > 0.05
  linear = "it has layers of the type linear_attention"
  assert scorer.why_padded == (None if family == "gemma3" else linear)
  together = scorer.score([prompt for prompt, _ in rows], [answer for _, answer in rows])
  assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("family", NO_CLASS)
def test_an_architecture_without_a_class_that_scores_is_an_error_that_names_others(family, base):
  with pytest.raises(ModelError, match="Unrecognized configuration class") as raised:
    checkpoints.load_for_training(base(family))
  assert "no class of this architecture that gives scores" in raised.value.hint
