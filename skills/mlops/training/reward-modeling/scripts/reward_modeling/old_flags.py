"""Flags of other tools' command lines: what each is taken as, why it has no effect, or what replaces it.

An entry counts where the script has no flag of that name; those of OF_SCRIPT count even where the trainer has the field."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .terminal import warn

NOTHING = ("false", "no", "none", "null", "off")
"""Values by which a flag asks for nothing: it is then left out without a word."""


class Old(NamedTuple):
  """values: "?" of a flag that may stand alone, "+" of one that takes several. becomes: the flag that takes them. ignored: why.
  refused: what to do instead."""

  values: str
  becomes: str | None = None
  ignored: str | None = None
  refused: str | None = None


def _table(**answers: Mapping[str, str]) -> dict[str, Old]:
  """Of {new flag, reason or advice: old flags, with "?" or "+" as in Old.values}."""
  return {
    word.rstrip("?+"): Old("".join(filter("?+".count, word)), **{verb: said})
    for verb, table in answers.items()
    for said, words in table.items()
    for word in words.split()
  }


_LEFT_OUT = "leave it out (references/migration.md)"
_NO_EVALUATION = "nothing is evaluated during the run; sample completions are in OUT/log.jsonl"
_HUB = "nothing is uploaded during the run: afterwards, hf upload NAME OUT"
_REMOTE_CODE = "remote code is never run"
_SET = "the script sets it (references/migration.md)"
_TEMPLATE = "give the template with --chat_template_path"

EVERYWHERE = _table(
  becomes={
    "dtype": "torch_dtype",
    "normalize": "normalise?",
    "normalize_rewards": "normalise_rewards?",
    "max_length": "max_seq_length max_seq_len sequence_len cutoff_len max_len",
    "eval_strategy": "evaluation_strategy",
    "warmup_steps": "warmup_ratio lr_warmup_ratio",
    "val_set_size": "test_split_size val_size",
    "dataset_train_split": "dataset_split",
    "dataset_config": "dataset_config_name",
    "model_name_or_path": "base_model pretrain model_name",
    "report_to": "log_with",
    "num_train_epochs": "num_epochs max_epochs",
    "per_device_train_batch_size": "micro_batch_size micro_train_batch_size per_gpu_train_batch_size",
    "lr_scheduler_type": "lr_scheduler",
    "optim": "optimizer",
    "max_grad_norm": "max_norm",
    "lora_r": "lora_rank peft_lora_r",
    "lora_alpha": "peft_lora_alpha",
    "lora_target_modules": "lora_target target_modules",
  },
  ignored={
    "weights are fp32 in training, --bf16 or --fp16 choose the autocast": "dtype model_dtype precision",
    "scores are computed in fp32 unless --dtype says otherwise": "bf16? fp16?",
    "the model and the device choose it": "attn_implementation use_flash_attention_2? flash_attn? flash_attention? "
    "sample_packing? packing? packing_samples? pad_to_sequence_len? pad_to_multiple_of",
    _REMOTE_CODE: "trust_remote_code?",
    _SET: "num_labels lora_task_type task_type use_fast_tokenizer? use_fast? dataset_streaming? streaming? dataset_num_proc "
    "preprocessing_num_workers ignore_bias_buffers? remove_unused_columns? do_train? do_eval? do_predict? add_eos_token?",
    "--load_in_4bit is NF4, its scales quantized too": "bnb_4bit_quant_type use_bnb_nested_quant? bnb_4bit_quant_storage bnb_4bit_compute_dtype",
    "the run is named by --output_dir": "exp_name run_name tracker_project_name",
    _HUB: "push_to_hub? hub_model_id hub_strategy hub_private_repo?",
  },
  refused={
    f"{_LEFT_OUT}; --use_peft saves memory": "load_in_4bit? load_in_8bit? deepspeed fsdp fsdp_config",
    "use --train_sampling_strategy group_by_length": "group_by_length?",
    "leave it out: --load_best_model_at_end keeps the best": "early_stopping_patience early_stopping_threshold",
    "give the folder of that revision: hf download MODEL --revision REVISION --local-dir DIR": "model_revision revision",
    _LEFT_OUT: "lora_modules_to_save+ modules_to_save+ lora_target_parameters use_rslora? use_dora?",
    "give the files with --dataset_name A B": "datasets+ dataset_mixer+",
    "cut the file: head -n N": "max_samples max_train_samples max_eval_samples",
    _TEMPLATE: "template chat_template",
  },
)

_TRAINERS = _table(
  ignored={_SET: "remove_unused_columns? dataset_num_proc", _REMOTE_CODE: "trust_remote_code?", _HUB: "push_to_hub?"},
  refused={"leave it out: the model is read in fp32, without remote code": "model_init_kwargs"},
)
OF_SCRIPT = {
  "train.py": _TRAINERS
  | _table(
    ignored={_SET: "pad_to_multiple_of", "this script trains one": "reward_model? stage"},
    refused={
      "leave it out: one other than EOS is chosen or added": "pad_token",
      "give a template that ends answers with --chat_template_path": "eos_token",
      "use --label_smoothing": "label_smoothing_factor",
    },
  ),
  "train_process.py": _TRAINERS
  | _table(
    ignored={"this script trains one": "process_reward_model?"},
    refused={
      "write probabilities as labels, such as 0.9": "label_smoothing_factor",
      "leave it out: the labels are made here": "label_names+",
      "leave it out: it replaces the loss": "use_liger_kernel?",
    },
  ),
  "grpo.py": _TRAINERS
  | _table(
    becomes={"max_completion_length": "response_length max_new_tokens", "dataset_split": "dataset_train_split"},
    ignored={_NO_EVALUATION: "eval_strategy eval_steps per_device_eval_batch_size dataset_test_split"},
    refused={_TEMPLATE: "chat_template_kwargs"},
  ),
  "ppo.py": _table(
    becomes={
      "response_length": "max_new_tokens max_completion_length",
      "max_prompt_length": "query_length",
      "dataset_name": "query_dataset",
      "num_ppo_epochs": "ppo_epochs",
    },
    ignored={
      _NO_EVALUATION: "dataset_test_split eval_strategy eval_steps evaluation_strategy per_device_eval_batch_size",
      "every update is logged": "logging_strategy",
      "--save_steps says when": "save_strategy",
      "bf16 on a GPU that has it, otherwise fp32": "fp16?",
      "--missing_eos_penalty always penalizes an answer without an end": "non_eos_penalty?",
      _SET: "dataset_num_proc ds3_gather_for_generation?",
      "it follows from the other settings": "local_batch_size batch_size mini_batch_size local_mini_batch_size "
      "micro_batch_size num_total_batches world_size",
    },
    refused={
      "give a classifier with --reward_model_path": "reward_model",
      "give --total_episodes": "max_steps steps",
      "leave it out; --stop_token_id names another end than EOS": "stop_token",
      "it is --missing_eos_penalty now, a positive number": "penalty_reward_value",
      "it is --kl_coef now": "init_kl_coef",
      "give --target_kl KL, or leave it out for a fixed --kl_coef": "adap_kl_ctrl?",
      "leave it out: the adaptive controller has a fixed one": "horizon",
      "it is --kl_estimator k1 or k3 now": "kl_penalty",
    },
  ),
}

HARMLESS = {
  name: values.split()
  for names, values in {
    "torch_dtype": "auto",
    "lora_target target_modules": "all all-linear",
    "dtype model_dtype precision": "float32 fp32 auto",
    "attn_implementation use_flash_attention_2 flash_attn flash_attention": "auto eager sdpa",
    "model_revision revision": "main",
    "lora_modules_to_save modules_to_save": "score classifier",
    "label_smoothing_factor": "0 0.0",
    "max_steps steps": "-1",
    "stop_token": "eos",
  }.items()
  for name in names.split()
}
"""Old flag -> values that ask for what is done anyway: the flag is then left out in silence."""


def translated(
  words: list[str], script: str, known: Callable[[str], bool], where: str | None = None
) -> tuple[list[str], dict[str, str]]:
  """(the words in the flags of this script, {refused flag: what to do instead}).

  known: whether the script has a flag. where: the recipe of the words.
  """
  own = OF_SCRIPT.get(script, {})
  kept, refused = [], {}
  while words:
    word, *words = words
    if word == "--":
      return [*kept, word, *words], refused
    if not word.startswith("--"):
      kept.append(word)
      continue
    name, equals, value = word[2:].partition("=")
    if not known(name):
      name = name.replace("-", "_")  # as transformers' own parser takes them, and --no_NAME for --NAME false
      positive = name.removeprefix("no_")
      if positive != name and not equals and (known(positive) or positive in {**own, **EVERYWHERE}):
        name, equals, value = positive, "=", "false"
    entry = own.get(name) or (None if known(name) else EVERYWHERE.get(name))
    if entry is None:
      kept.append(f"--{name}{equals}{value}")
      continue
    count = 0 if equals else _count(entry.values, words)
    values, words = ([value] if equals else words[:count]), words[count:]
    kept += _answer(name, entry, values, known, refused, f" ({where})" if where else "")
  return kept, refused


def _count(values: str, words: list[str]) -> int:
  found = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
  if values == "?":
    return int(bool(found) and words[0].lower() in (*NOTHING, "true", "yes", "on", "0", "1"))
  return found if values else min(found, 1)


def _answer(
  name: str, entry: Old, values: list[str], known: Callable[[str], bool], refused: dict[str, str], where: str
) -> list[str]:
  nothing = [*HARMLESS.get(name, ())]
  while entry.becomes in EVERYWHERE and not known(entry.becomes):
    nothing += HARMLESS.get(entry.becomes, ())
    entry = EVERYWHERE[entry.becomes]
  if not entry.becomes:
    nothing += NOTHING
  if values and all(value.lower() in nothing for value in values):
    return []
  if entry.refused:
    refused[name] = entry.refused
  elif entry.ignored:
    warn(f"--{name} has no effect: {entry.ignored}{where}")
  elif known(entry.becomes):
    warn(f"--{name} is taken as --{entry.becomes}{where}")
    return [f"--{entry.becomes}", *values]
  else:
    return [f"--{name}", *values]
  return []
