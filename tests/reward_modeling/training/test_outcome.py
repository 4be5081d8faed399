"""Our trainer is TRL's where TRL is right, and differs where a test here says so."""

import inspect
import json
import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import DECODERS, ENCODERS, toy_pairs
from reward_modeling import checkpoints, heads
from reward_modeling.data.records import Comparison, Origin, split_by_prompt
from reward_modeling.errors import DataError, RunError
from reward_modeling.precision import precision
from reward_modeling.rendering import Renderer
from reward_modeling.training import configuration, outcome, resuming
from reward_modeling.training.outcome import PaddedCollator
from reward_modeling.training.packed import packed_batches
from reward_modeling.training.pairs import Pairs, render_comparisons
from reward_modeling.training.settings import LoraSettings, Settings

LORA = LoraSettings(use_peft=True, lora_r=4, lora_alpha=8, lora_dropout=0.0)

logging.getLogger("transformers").setLevel(logging.ERROR)


def answer(text):
  return [{"role": "assistant", "content": text}]


def toy_comparisons(n=32):
  return [Comparison(row["prompt"], row["chosen"], row["rejected"]) for row in toy_pairs(n)]


def ranking_pairs(texts, scores, origin):
  """All pairs of one ranking, as records.comparisons makes them."""
  better = [(i, j) for i in range(len(texts)) for j in range(len(texts)) if scores[i] > scores[j]]
  prompt = [{"role": "user", "content": "hello"}]
  return [
    Comparison(prompt, answer(texts[i]), answer(texts[j]), weight=1 / len(better), origin=origin) for i, j in better
  ]


@pytest.fixture
def loaded(tiny):
  return checkpoints.load_for_training(str(tiny("qwen2")))


@pytest.fixture
def renderer(loaded):
  return Renderer(loaded.tokenizer, max_length=128)


def config(folder, **fields):
  from trl import RewardConfig

  base = {
    "per_device_train_batch_size": 8,
    "max_steps": 6,
    "logging_steps": 1,
    "learning_rate": 1e-3,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "max_length": None,
    "center_rewards_coefficient": 0.01,
    "disable_tqdm": True,
    **precision(),
  }
  return RewardConfig(str(folder), **{**base, **fields})


@pytest.mark.parametrize("method", ["_prepare_dataset", "_set_signature_columns_if_needed", "compute_loss"])
def test_overridden_methods_keep_trls_signature(method):
  from trl import RewardTrainer

  ours = list(inspect.signature(getattr(outcome.OutcomeTrainer, method)).parameters)
  assert ours == list(inspect.signature(getattr(RewardTrainer, method)).parameters)
  assert hasattr(RewardTrainer, "log") and "_metrics" in inspect.getsource(RewardTrainer.log)


def test_losses_metrics_and_weights_are_trls_on_plain_pairs(tiny, tmp_path, renderer):
  from datasets import Dataset
  from trl import RewardTrainer

  rows = render_comparisons(toy_comparisons(), renderer)
  pairs = Dataset.from_list(
    [{"chosen_ids": r["sequences"][0], "rejected_ids": r["sequences"][1]} for r in rows.dataset]
  )

  def run(trainer_class, dataset, folder, **kwargs):
    loaded = checkpoints.load_for_training(str(tiny("qwen2")))
    trainer = trainer_class(
            model=loaded.model, args=config(folder, remove_unused_columns=True), train_dataset=dataset,
            processing_class=loaded.tokenizer, **kwargs,
        )  # fmt: skip
    trainer.train()
    return trainer

  ours = run(outcome.OutcomeTrainer, rows.dataset, tmp_path / "a", data_collator=PaddedCollator(3))
  trls = run(RewardTrainer, pairs, tmp_path / "b")
  for mine, theirs in zip(ours.state.log_history[:-1], trls.state.log_history[:-1], strict=True):
    for name in (
      "loss",
      "accuracy",
      "margin",
      "mean_reward",
      "min_reward",
      "max_reward",
      "num_tokens",
      "grad_norm",
    ):
      assert mine[name] == pytest.approx(theirs[name], abs=1e-5), name
  for mine, theirs in zip(ours.model.parameters(), trls.model.parameters(), strict=True):
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_evaluation_metrics_are_means_over_pairs_and_ties_count_half(tmp_path, loaded, renderer):
  pairs = toy_comparisons(13)
  rows = render_comparisons(pairs, renderer)
  with torch.no_grad():
    loaded.model.score.weight.zero_()  # every pair ties

  def evaluate(batch):
    trainer = outcome.OutcomeTrainer(
            model=loaded.model, args=config(tmp_path, per_device_eval_batch_size=batch), train_dataset=rows.dataset,
            eval_dataset=rows.dataset, processing_class=loaded.tokenizer,
            data_collator=PaddedCollator(3),
        )  # fmt: skip
    return trainer.evaluate()

  assert evaluate(4)["eval_accuracy"] == 0.5, "TRL counts a tie as wrong"
  torch.nn.init.normal_(loaded.model.score.weight, generator=torch.Generator().manual_seed(1))
  small, large = evaluate(4), evaluate(13)
  for name in ("eval_accuracy", "eval_margin", "eval_mean_reward", "eval_min_reward", "eval_max_reward"):
    assert small[name] == pytest.approx(large[name], abs=1e-5), f"{name} depends on the batch size"


def test_a_ranking_is_one_row_in_which_each_completion_stands_once(renderer):
  pairs = ranking_pairs(["yes", "no", "maybe"], [3, 1, 2], Origin("f", 1))
  rows = render_comparisons([*pairs, *toy_comparisons(1)], renderer)
  first, second = rows.dataset
  assert len(first["sequences"]) == 3 and len(first["chosen"]) == 3 and len(second["sequences"]) == 2
  shown = [renderer.tokenizer.decode(ids).split("assistant\n")[1].split("<")[0] for ids in first["sequences"]]
  named = [(shown[c], shown[r]) for c, r in zip(first["chosen"], first["rejected"], strict=True)]
  assert sorted(named) == [("maybe", "no"), ("yes", "maybe"), ("yes", "no")]
  assert sum(first["weight"]) == pytest.approx(1)


def test_two_rankings_of_different_rows_stay_apart(renderer):
  pairs = [pair for row in (1, 2) for pair in ranking_pairs(["yes", "no", "maybe"], [3, 1, 2], Origin("f", row))]
  assert len(render_comparisons(pairs, renderer).dataset) == 2


def test_collator_by_hand():
  rows = [
    {"sequences": [[5, 6], [7]], "chosen": [0], "rejected": [1], "margin": [0.5], "weight": [1.0]},
    {
      "sequences": [[8], [9], [4, 4]],
      "chosen": [0, 0],
      "rejected": [1, 2],
      "margin": [0.0, 0.0],
      "weight": [0.5, 0.5],
    },
  ]
  batch = PaddedCollator(pad_token_id=3)(rows)
  assert batch["input_ids"].tolist() == [[5, 6], [7, 3], [8, 3], [9, 3], [4, 4]]
  assert batch["attention_mask"].tolist() == [[1, 1], [1, 0], [1, 0], [1, 0], [1, 1]]
  assert batch["chosen"].tolist() == [0, 2, 2] and batch["rejected"].tolist() == [1, 3, 4]
  # Three pairs of two prompts: scaled by 3/2, so that the mean over pairs is half the sum of weighted pairs.
  assert batch["weight"].tolist() == [1.5, 0.75, 0.75]


def test_what_cannot_teach_is_left_out_and_counted(loaded):
  prompt = [{"role": "user", "content": "hello"}]
  long = "one two three four five six " * 20
  pairs = [
    Comparison(prompt, answer("yes"), answer("no")),
    Comparison(prompt, answer("yes"), answer(long)),
    Comparison([{"role": "user", "content": long}], answer("yes"), answer("no")),
  ]
  short = Renderer(loaded.tokenizer, max_length=24, overlong="truncate_prompt")
  counts = render_comparisons(pairs, short).counts
  assert counts["dropped_over_length"] == 1 and counts["truncated_sides"] == 2 and counts["pairs_used"] == 2
  left = Renderer(loaded.tokenizer, max_length=8, overlong="truncate_left")
  same_end = [Comparison(prompt, answer("yes " + long), answer("no " + long)), pairs[0]]
  assert render_comparisons(same_end, left).counts["identical_after_truncation"] == 1
  with pytest.raises(DataError, match="no pair is left of 1: 1 are longer than 24"):
    render_comparisons(pairs[1:2], short)


@given(st.integers(0, 5), st.floats(0.1, 0.9))
def test_no_prompt_is_on_both_sides_of_a_split(seed, share):
  pairs = toy_comparisons(40) * 2
  train, held_out = split_by_prompt(pairs, share, seed)
  prompts = [{json.dumps(pair.prompt) for pair in side} for side in (train, held_out)]
  assert not prompts[0] & prompts[1] and len(train) + len(held_out) == 80
  assert split_by_prompt(pairs[:10], share, seed)[1] == [pair for pair in pairs[:10] if pair in held_out]


def test_split_takes_about_the_share_asked_for():
  pairs = [Comparison([{"role": "user", "content": str(i)}], answer("a"), answer("b")) for i in range(2000)]
  assert 150 < len(split_by_prompt(pairs, 0.1, 0)[1]) < 250


@pytest.mark.parametrize(
  ("parameters", "lora", "rate", "batch", "checkpointing"),
  [
    (22e6, False, 1e-4, 8, False),
    (5e8, False, 2e-5, 8, False),
    (3e9, False, 1e-5, 4, True),
    (8e9, False, 5e-6, 2, True),
    (8e9, True, 5e-5, 2, True),
  ],
)
def test_defaults_follow_the_size(parameters, lora, rate, batch, checkpointing):
  chosen, reason = configuration.default_arguments(int(parameters), lora)
  assert chosen["learning_rate"] == pytest.approx(rate)
  assert (chosen["per_device_train_batch_size"], chosen["gradient_checkpointing"]) == (batch, checkpointing)
  assert ("LoRA" in reason) is lora


def test_resuming_another_run_is_refused(tmp_path):
  (tmp_path / "run.json").write_text(json.dumps({"fingerprint": "f", "learning_rate": "0.1", "seed": "1"}))
  resuming.start_run(tmp_path, 0, {"learning_rate": "0.1", "seed": "1"}, "checkpoint-1")
  with pytest.raises(RunError, match=r"learning_rate \(0.1 -> 0.2\)"):
    resuming.start_run(tmp_path, 0, {"learning_rate": "0.2", "seed": "1"}, "checkpoint-1")


@pytest.mark.parametrize("family", ["qwen2", "bert"])
def test_lora_trains_and_saves_the_head(family, tiny, tmp_path):
  loaded = checkpoints.load_for_training(str(tiny(family)))
  renderer = Renderer(loaded.tokenizer, max_length=128, scored_at=checkpoints.scored_at(loaded.model))
  before = heads.head_projection(loaded.model).weight.detach().clone()
  rows = render_comparisons(toy_comparisons(), renderer)
  lora = configuration.lora_of(LORA, loaded.model)
  model, _ = Pairs().fit(
    loaded.model, renderer, rows, config(tmp_path, remove_unused_columns=False), head="new", peft_config=lora
  )
  trained = checkpoints.golden_scores(model, renderer)
  assert not torch.allclose(heads.head_projection(model).weight, before)
  card = checkpoints.save(model, renderer, tmp_path / "out", training={}, reward={})
  again = checkpoints.load(str(tmp_path / "out"))
  assert checkpoints.golden_scores(again.model, renderer) == pytest.approx(trained, abs=1e-5)
  assert card["reload_difference"] < 1e-5


def train_once(folder, tmp_path, pairs, *, packed, lora=False, **fields):
  """(losses, grad norms, parameters, what `packed_batches` yielded) of a short run on these pairs."""
  loaded = checkpoints.load_for_training(str(folder))
  renderer = Renderer(loaded.tokenizer, max_length=128)
  rows = render_comparisons(pairs, renderer)
  peft = configuration.lora_of(LORA, loaded.model) if lora else None
  torch.manual_seed(0)
  trainer = outcome.OutcomeTrainer(
        model=loaded.model, args=config(tmp_path, remove_unused_columns=False, **fields), train_dataset=rows.dataset,
        eval_dataset=rows.dataset, processing_class=loaded.tokenizer, data_collator=PaddedCollator(3),
        peft_config=peft, label_smoothing=0.1,
    )  # fmt: skip
  if packed:
    with packed_batches(trainer) as reason:
      assert reason is None
      trainer.train()
      evaluation = trainer.evaluate()
  else:
    trainer.train()
    evaluation = trainer.evaluate()
  log = [entry for entry in trainer.state.log_history if "loss" in entry]
  return log, evaluation, [parameter.detach().clone() for parameter in trainer.model.parameters()]


@pytest.mark.parametrize(
  ("family", "options"),
  [
    ("qwen2", {}),
    ("qwen3", {"gradient_checkpointing": True}),
    ("llama", {"lora": True}),
    ("llama", {"lora": True, "gradient_checkpointing": True}),
    ("gemma2", {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}),
  ],
)
def test_packed_batches_train_as_padded_ones_do(family, options, tiny, tmp_path):
  """Pairs, margins, a ranking of three, label smoothing, centering: the same losses, metrics and weights."""
  from dataclasses import replace

  pairs = [replace(pair, margin=0.1 * (i % 3)) for i, pair in enumerate(toy_comparisons(29))]
  for row in range(3):
    pairs += ranking_pairs(["yes please", "no", "thank you"], [2, 1, 3], Origin("r", row))
  folder = tiny(family)
  padded = train_once(folder, tmp_path / "a", pairs, packed=False, **options)
  packed = train_once(folder, tmp_path / "b", pairs, packed=True, **options)
  for mine, theirs in zip(packed[0], padded[0], strict=True):
    for name in ("loss", "grad_norm", "accuracy", "margin", "mean_reward", "num_tokens"):
      assert mine[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name
  assert packed[1]["eval_loss"] == pytest.approx(padded[1]["eval_loss"], abs=1e-5)
  assert packed[1]["eval_margin"] == pytest.approx(padded[1]["eval_margin"], abs=1e-4)
  for mine, theirs in zip(packed[2], padded[2], strict=True):
    assert torch.allclose(mine, theirs, atol=2e-5)


def test_packed_batches_leave_the_trainer_as_it_was(loaded, renderer, tmp_path):
  rows = render_comparisons(toy_comparisons(8), renderer)
  trainer = outcome.OutcomeTrainer(
        model=loaded.model, args=config(tmp_path), train_dataset=rows.dataset, processing_class=loaded.tokenizer,
        data_collator=PaddedCollator(3),
    )  # fmt: skip
  before = trainer.data_collator, loaded.model.config._attn_implementation
  with packed_batches(trainer):
    assert trainer.data_collator is not before[0]
  assert (trainer.data_collator, loaded.model.config._attn_implementation) == before
  assert not loaded.model._forward_hooks and not loaded.model.score._forward_hooks


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_every_family_trains_saves_reloads_and_scores_alike_alone_and_in_a_batch(family, tiny, tmp_path):
  from reward_modeling.scoring import RewardModel

  loaded = checkpoints.load_for_training(str(tiny(family)))
  renderer = Renderer(loaded.tokenizer, max_length=128, scored_at=checkpoints.scored_at(loaded.model))
  pairs = toy_comparisons()
  rows = render_comparisons(pairs, renderer)
  before = checkpoints.golden_scores(loaded.model, renderer)
  model, _ = Pairs().fit(loaded.model, renderer, rows, config(tmp_path, remove_unused_columns=False), head="new")
  assert checkpoints.golden_scores(model, renderer) != pytest.approx(before, abs=1e-3), "nothing was learned"
  in_memory = RewardModel(model.eval(), renderer).score([p.prompt for p in pairs], [p.chosen for p in pairs])
  checkpoints.save(model, renderer, tmp_path / "out", training={}, reward={})
  again = RewardModel.from_pretrained(str(tmp_path / "out"))
  together = again.score([p.prompt for p in pairs], [p.chosen for p in pairs])
  alone = [again.score([p.prompt], [p.chosen])[0] for p in pairs]
  assert together == pytest.approx(in_memory, abs=1e-5)
  assert alone == pytest.approx(together, abs=1e-5)


@pytest.mark.parametrize(("flags", "computes_in"), [({}, "no"), ({"bf16": True}, "bf16")])
def test_precision_is_that_of_the_flags_and_not_of_accelerate_launch(flags, computes_in, monkeypatch, tmp_path):
  """Which would compute in its own while the log says that bf16 and fp16 are off."""
  from transformers import TrainingArguments

  monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
  settings = Settings(model_name_or_path="m", dataset_name=["d"], output_dir=str(tmp_path), **flags)
  made, _ = configuration.trainer_config(TrainingArguments, settings, {"use_cpu": True}, 1000, has_eval=False)
  assert (made.mixed_precision, made.bf16, made.fp16) == (computes_in, computes_in == "bf16", False)
