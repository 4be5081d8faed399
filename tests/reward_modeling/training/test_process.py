"""The loss of process reward models, their rows, and the trainer around them."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import build, exact
from reward_modeling import checkpoints, heads
from reward_modeling.data.records import Solution
from reward_modeling.errors import DataError, RunError
from reward_modeling.kinds import PROCESS
from reward_modeling.precision import precision
from reward_modeling.step_rendering import StepRenderer, default_separator
from reward_modeling.training import configuration, data
from reward_modeling.training.packed import packed_batches
from reward_modeling.training.process import IGNORED, StepCollator, class_weights, step_loss
from reward_modeling.training.settings import LoraSettings
from reward_modeling.training.steps import StepLabels, render_solutions

LORA = LoraSettings(use_peft=True, lora_r=4, lora_alpha=8, lora_dropout=0.0)

PROMPT = [{"role": "user", "content": "hello world"}]
LABELLED = [
  Solution(PROMPT, ["one two", "three"], [1.0, 0.0]),
  Solution(PROMPT, ["one", "two", "three four"], [1.0, 1.0, 1.0]),
  Solution(PROMPT, ["six", "five"], [0.0, None]),
]


def made(tiny, family="qwen2", **kwargs):
  loaded = checkpoints.load_for_training(str(tiny(family)), kind=PROCESS)
  kwargs = {"max_length": 128, "step_separator": default_separator(loaded.tokenizer), **kwargs}
  return loaded.model, StepRenderer(loaded.tokenizer, scored_at=checkpoints.scored_at(loaded.model), **kwargs)


def test_the_loss_by_hand():
  """Logits 0 and log 3 give p = 3/4: -log(3/4) for a correct step, -log(1/4) for a wrong one, half of each for 1/2."""
  logits = torch.tensor([[[0.0, math.log(3)]] * 4])
  quarter, rest = -math.log(1 / 4), -math.log(3 / 4)
  assert step_loss(logits, torch.tensor([[1.0, 0.0, 0.5, IGNORED]])).item() == pytest.approx(
    (rest + quarter + (rest + quarter) / 2) / 3
  )
  weighted = step_loss(logits, torch.tensor([[1.0, 0.0, IGNORED, IGNORED]]), weights=(3.0, 1.0), count=4)
  assert weighted.item() == pytest.approx((rest + 3 * quarter) / 4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-8, 8), st.floats(-8, 8), st.sampled_from([0, 1, None])), min_size=1, max_size=8))
def test_hard_labels_give_the_token_classification_loss_of_transformers(tokens):
  """The second route, and the loss of TRL's PRMTrainer: cross-entropy with index -100 ignored."""
  if all(label is None for *_, label in tokens):
    return
  logits = torch.tensor([[[a, b] for a, b, _ in tokens]])
  labels = torch.tensor([[IGNORED if label is None else float(label) for *_, label in tokens]])
  reference = torch.nn.functional.cross_entropy(logits[0], labels[0].long(), ignore_index=-100)
  assert step_loss(logits, labels).item() == pytest.approx(reference.item(), abs=1e-5)


def test_balanced_classes_weigh_alike():
  labels = [[1, 1, 1, 0], [1, 1, 0.5, 0.5]]  # six correct steps in eight
  wrong, correct = class_weights(labels, "balanced")
  assert (wrong * 2, correct * 6) == (4, 4)
  assert class_weights(labels, "none") == (1.0, 1.0)
  with pytest.raises(DataError, match="nothing to balance"):
    class_weights([[1, 1]], "balanced")


def test_labels_stand_at_the_last_separator_token_and_nothing_follows_the_last_one(tiny):
  _, renderer = made(tiny)
  rows = render_solutions(LABELLED, renderer)
  for row, solution in zip(rows.dataset, LABELLED, strict=True):
    judged = [label for label in solution.labels if label is not None]
    assert row["labels"] == judged and row["positions"][-1] == len(row["input_ids"]) - 1
    assert all(row["input_ids"][place] == renderer.separator_ids[-1] for place in row["positions"])
  assert rows.counts["steps"] == 7 and rows.counts["steps_unlabeled"] == 1 and rows.counts["labels_used"] == 6


def test_an_encoder_learns_one_step_from_a_row_and_never_sees_the_next(tiny):
  _, renderer = made(tiny, "bert")
  rows = render_solutions(LABELLED, renderer)
  assert len(rows.dataset) == 6
  text = renderer.tokenizer.decode(rows.dataset[0]["input_ids"])
  assert "one two" in text and "three" not in text


def test_which_labels_are_used(tiny):
  _, renderer = made(tiny)
  last = render_solutions(LABELLED, renderer, last_step_only=True)
  assert [row["labels"] for row in last.dataset] == [[0.0], [1.0], [0.0]]
  one = render_solutions(LABELLED, renderer, steps_per_solution=1)
  assert one.counts["labels_used"] == 3 and one.counts["labels_not_drawn"] == 3
  again = render_solutions(LABELLED, renderer, steps_per_solution=1)
  assert list(again.dataset) == list(one.dataset)


def test_steps_that_do_not_fit_are_counted(tiny):
  _, renderer = made(tiny)
  long = Solution(PROMPT, ["one two three"] * 60, [1.0] * 59 + [0.0])
  rows = render_solutions([long], renderer)
  assert rows.counts["steps_dropped_over_length"] == 60 - rows.counts["labels_used"] > 0
  assert set(rows.dataset[0]["labels"]) == {1.0}
  with pytest.raises(DataError, match="no labeled step is left of 1 solutions"):
    render_solutions([long], made(tiny, max_length=5)[1])


def test_the_first_solution_that_is_refused_is_told_first(tiny, monkeypatch):
  """Whichever part of the data it lies in: a place is counted from the start of its part."""
  monkeypatch.setattr(data, "CHUNK", 2)
  bad = [Solution(PROMPT, ["one", " "], [1.0, 0.0], origin=f"rows.jsonl:{number}") for number in (2, 3)]
  with pytest.raises(DataError, match="2 of 4 conversations") as refused:
    render_solutions([LABELLED[0], *bad, LABELLED[1]], made(tiny)[1])
  assert refused.value.where == "rows.jsonl:2"


def settings_for(folder, **kwargs):
  from transformers import TrainingArguments

  fields = {"learning_rate": 1e-3, "max_steps": 2, "report_to": "none", "remove_unused_columns": False}
  return TrainingArguments(output_dir=str(folder), **precision(), **(fields | kwargs))


def test_gradient_accumulation_is_the_mean_over_all_labeled_steps(tiny, tmp_path):
  """Two micro-batches of 1 and 3 labels weigh by their labels. TRL's PRMTrainer adds the means of micro-batches."""

  def trained(folder, **sizes):
    folder.mkdir()
    model, renderer = made(tiny)
    rows = render_solutions(LABELLED[:2] * 4, renderer)
    arguments = settings_for(folder, optim="sgd", max_grad_norm=0.0, learning_rate=0.1, save_strategy="no", **sizes)
    return StepLabels().fit(model, renderer, rows, arguments, head="new")[0].state_dict()

  whole = trained(tmp_path / "a", per_device_train_batch_size=4)
  parts = trained(tmp_path / "b", per_device_train_batch_size=1, gradient_accumulation_steps=4)
  assert max((whole[name] - parts[name]).abs().max().item() for name in whole) < 1e-6


@st.composite
def labeled_rows(draw):
  """Solutions that share prompts and first steps, some equal, with soft and hard labels at any places."""
  stems = draw(st.lists(st.lists(st.integers(1, 63), min_size=1, max_size=24), min_size=1, max_size=3))
  rows = []
  for _ in range(draw(st.integers(1, 6))):
    ids = draw(st.sampled_from(stems)) + draw(st.lists(st.integers(1, 63), max_size=12))
    places = sorted(draw(st.sets(st.integers(0, len(ids) - 1), min_size=1, max_size=4)))
    labels = draw(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=len(places), max_size=len(places)))
    rows.append({"input_ids": ids, "positions": places, "labels": labels})
  return rows


@pytest.fixture(scope="module")
def classifier():
  model = exact(build("qwen2", {}, auto="AutoModelForTokenClassification", labels=2))
  return model.eval()


@settings(max_examples=25, deadline=None)
@given(labeled_rows())
def test_the_loss_and_gradients_of_packed_solutions_are_those_of_padded_ones(classifier, rows):
  arguments = SimpleNamespace(neftune_noise_alpha=None, gradient_checkpointing=False)
  trainer = SimpleNamespace(model=classifier, data_collator=StepCollator(0), args=arguments)

  def losses_and_gradients():
    classifier.zero_grad()
    batch = trainer.data_collator(rows)
    labels = batch.pop("labels")
    loss = step_loss(classifier(**batch).logits, labels.double(), weights=(2.0, 0.5))
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in classifier.parameters())]

  padded = losses_and_gradients()
  with packed_batches(trainer, True) as reason:
    assert reason is None
    packed = losses_and_gradients()
  for one, two in zip(padded, packed, strict=True):
    assert torch.allclose(one, two, atol=1e-10 * (1 + one.abs().max().item()), rtol=0)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gpt2", "bert"])
@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True, "gradient_accumulation_steps": 2}])
def test_packed_batches_train_as_padded_ones_do(family, options, tiny, tmp_path):
  solutions = [
    replace(one, prompt=[{"role": "user", "content": f"hello {'world ' * i}"}]) for i in range(4) for one in LABELLED
  ]
  found = []
  for shared in (True, False):
    model, renderer = made(tiny, family)
    rows, held_out = render_solutions(solutions, renderer), render_solutions(solutions[:5], renderer)
    fields = {"max_steps": 6, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 3, "save_strategy": "no"}
    fields |= {"per_device_train_batch_size": 4}
    config = settings_for(tmp_path / str(shared), **(fields | options))
    kind = StepLabels(shared_prefix=shared)
    trained, summary = kind.fit(model, renderer, rows, config, head="new", eval_rows=held_out)
    assert summary["batches"].startswith("packed" if shared and family != "bert" else "padded"), summary["batches"]
    found.append((summary["log"], trained.state_dict()))
  for packed, padded in zip(found[0][0], found[1][0], strict=True):
    for name in {"loss", "grad_norm", "eval_loss", "eval_accuracy", "eval_all_correct"} & padded.keys():
      assert packed[name] == pytest.approx(padded[name], rel=1e-5, abs=1e-5), name
  assert any("eval_accuracy" in entry for entry in found[0][0])
  for name, weight in found[0][1].items():
    if "c_attn.bias" in name:  # of keys, whose gradient is rounding, by which AdamW steps as by any other
      continue
    assert torch.allclose(weight, found[1][1][name], atol=2e-5), name


def test_a_loss_that_is_no_number_stops(tiny, tmp_path):
  model, renderer = made(tiny)
  torch.nn.init.constant_(model.score.weight, float("nan"))
  rows = render_solutions(LABELLED, renderer)
  with pytest.raises(RunError, match="the loss became nan at step 1"):
    StepLabels().fit(model, renderer, rows, settings_for(tmp_path), head="new")


def test_nothing_is_saved_after_such_a_loss_though_losses_are_read_when_they_are_logged(tiny, tmp_path):
  model, renderer = made(tiny)
  rows = render_solutions(LABELLED, renderer)
  fields = {"learning_rate": 1e30, "max_steps": 9, "save_steps": 3, "logging_steps": 100}
  with pytest.raises(RunError, match=r"the loss became (nan|inf) at step [123]$"):
    StepLabels().fit(model, renderer, rows, settings_for(tmp_path, **fields), head="new")
  assert not [*tmp_path.glob("checkpoint-*")]


@pytest.mark.parametrize("family", ["qwen2", "bert"])
def test_lora_trains_saves_and_merges_the_head(family, tiny, tmp_path):
  model, renderer = made(tiny, family)
  before = heads.head_projection(model).weight.detach().clone()
  lora = configuration.lora_of(LORA, model)
  rows = render_solutions(LABELLED, renderer)
  trained, _ = StepLabels().fit(model, renderer, rows, settings_for(tmp_path), head="new", peft_config=lora)
  golden = checkpoints.golden_scores(trained, renderer)
  checkpoints.save(trained, renderer, tmp_path / "out", training={}, reward={})
  loaded = checkpoints.load(str(tmp_path / "out"), device="cpu", kind=checkpoints.PROCESS)
  assert not torch.allclose(heads.head_projection(loaded.model).weight, before)
  assert checkpoints.check_golden(checkpoints.golden_scores(loaded.model, renderer), golden, 1e-5) <= 1e-5
  assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
