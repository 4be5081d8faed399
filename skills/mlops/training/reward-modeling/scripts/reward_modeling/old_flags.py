"""Flags of TRL's, transformers' and other tools' command lines: what each is taken as, why it has no effect, or what replaces it.

An entry counts, on command lines and in recipes, where the script has no flag of that name; those of OF_SCRIPT count even
where the trainer has the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .console import warn

NOTHING = ("false", "no", "none", "null", "off")
"""Values by which a flag asks for nothing: it is then left out without a word."""


class Old(NamedTuple):
    """One answer to a flag: `becomes` is the flag that takes its values, `ignored` a reason, `refused` what to do instead.

    values: "?" of a flag that may stand alone, "+" of one that takes several.
    """

    values: str
    becomes: str | None = None
    ignored: str | None = None
    refused: str | None = None


def _table(**answers: Mapping[str, str]) -> dict[str, Old]:
    """Of {new flag, reason or advice: the old flags that it answers, with "?" or "+" after those that are not of one value}."""
    return {
        word.rstrip("?+"): Old("".join(filter("?+".count, word)), **{verb: said})
        for verb, table in answers.items()
        for said, words in table.items()
        for word in words.split()
    }


_MIGRATION = "references/migration.md"
_NO_EVALUATION = "nothing is evaluated during the run; sample completions are in OUT/log.jsonl"
_HUB = "nothing is uploaded during the run: afterwards, hf upload NAME OUT"
_COLUMNS = "the columns are chosen by the format of the data"
_REMOTE_CODE = "remote code is never run; a model that needs it is refused"

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
        "weights are kept in fp32 in training, and --bf16 or --fp16 choose the autocast": "dtype model_dtype precision",
        "scores are computed in fp32 unless --dtype says otherwise": "bf16? fp16?",
        "the model and the device choose it (references/scaling.md)": "attn_implementation use_flash_attention_2? flash_attn? flash_attention?",
        "the fast tokenizer is used wherever there is one": "use_fast_tokenizer? use_fast?",
        _REMOTE_CODE: "trust_remote_code?",
        "it is set: one label for an outcome reward model, two for a process reward model": "num_labels",
        "it is set by the script": "lora_task_type task_type",
        "data is read in slices": "dataset_streaming? streaming?",
        "rows are read and rendered in one process": "dataset_num_proc preprocessing_num_workers",
        _COLUMNS: "remove_unused_columns?",
        "no buffer needs it": "ignore_bias_buffers?",
        "nothing is quantized": "bnb_4bit_quant_type use_bnb_nested_quant? bnb_4bit_quant_storage bnb_4bit_compute_dtype",
        "the run is named by --output_dir": "exp_name run_name tracker_project_name",
        "batches are padded to their longest row, or packed": "pad_to_sequence_len? pad_to_multiple_of",
        "rows are packed wherever the model allows it": "sample_packing? packing? packing_samples?",
        "a training script trains: there is no other mode": "do_train? do_eval? do_predict?",
        "the end of the text is the template's": "add_eos_token?",
        _HUB: "push_to_hub? hub_model_id hub_strategy hub_private_repo?",
    },
    refused={
        f"leave it out: weights are fp32, and --use_peft saves the memory of the optimizer ({_MIGRATION})": "load_in_4bit? load_in_8bit?",
        f"leave it out: --load_best_model_at_end keeps the best checkpoint ({_MIGRATION})": "early_stopping_patience early_stopping_threshold",
        "download that revision, and give its folder: hf download MODEL --revision REVISION --local-dir DIR": "model_revision revision",
        f"leave it out: the head alone is trained and saved beside the adapter ({_MIGRATION})": "lora_modules_to_save+ modules_to_save+",
        f"leave it out: the adapter is a plain LoRA ({_MIGRATION})": "lora_target_parameters use_rslora? use_dora?",
        "give the files with --dataset_name A B": "datasets+ dataset_mixer+",
        "cut the file: head -n N": "max_samples max_train_samples max_eval_samples",
        f"give the template with --chat_template_path ({_MIGRATION})": "template chat_template",
        "leave it out: it needs an engine made for it (references/scaling.md); --use_peft saves memory here": "deepspeed fsdp fsdp_config",
    },
)

_TRAINERS = _table(
    ignored={
        _COLUMNS: "remove_unused_columns?",
        "the rows are rendered before the trainer sees them": "dataset_num_proc",
        _REMOTE_CODE: "trust_remote_code?",
        _HUB: "push_to_hub?",
    },
    refused={
        "leave it out: the model is loaded in fp32, from safetensors, without remote code": "model_init_kwargs",
    },
)
OF_SCRIPT: dict[str, dict[str, Old]] = {
    "train.py": _TRAINERS
    | _table(
        ignored={
            "batches are padded to their longest row": "pad_to_multiple_of",
        },
        refused={
            "leave it out: a pad token is chosen, or added, so that it is not EOS": "pad_token",
            "give a template that ends answers with --chat_template_path": "eos_token",
            "use --label_smoothing": "label_smoothing_factor",
        },
    ),
    "train_process.py": _TRAINERS
    | _table(
        refused={
            "write probabilities as labels: 0.9 for a step that is correct nine times in ten": "label_smoothing_factor",
            "leave it out: the labels are made here": "label_names+",
            "leave it out: it replaces the loss": "use_liger_kernel?",
        },
    ),
    "grpo.py": _TRAINERS
    | _table(
        becomes={
            "max_completion_length": "response_length max_new_tokens",
            "dataset_split": "dataset_train_split",
        },
        ignored={
            f"{_NO_EVALUATION}: evaluate OUT with score.py --generate_with OUT": "eval_strategy eval_steps",
            "nothing is evaluated during the run": "per_device_eval_batch_size dataset_test_split",
        },
        refused={
            "give a template with --chat_template_path": "chat_template_kwargs",
        },
    ),
    "ppo.py": _table(
        becomes={
            "response_length": "max_new_tokens max_completion_length",
            "max_prompt_length": "query_length",
            "dataset_name": "query_dataset",
            "num_ppo_epochs": "ppo_epochs",
        },
        ignored={
            _NO_EVALUATION: "dataset_test_split eval_strategy eval_steps evaluation_strategy",
            "nothing is evaluated during the run": "per_device_eval_batch_size",
            "every update is logged": "logging_strategy",
            "--save_steps says when": "save_strategy",
            "prompts are rendered in one process": "dataset_num_proc",
            "bf16 on a GPU that has it, otherwise fp32": "fp16?",
            "an answer that does not end is always penalized, by --missing_eos_penalty": "non_eos_penalty?",
            "DeepSpeed is not used": "ds3_gather_for_generation?",
            "it follows from the other sizes": "local_batch_size batch_size mini_batch_size local_mini_batch_size micro_batch_size",
            "it follows from --total_episodes": "num_total_batches",
            "it follows from the launcher": "world_size",
        },
        refused={
            "give the folder or hub id of a classifier with --reward_model_path": "reward_model",
            "give --total_episodes": "max_steps steps",
            "leave it out: answers end at their end token; --stop_token_id names another": "stop_token",
            "it is --missing_eos_penalty now, a positive number that is subtracted": "penalty_reward_value",
            "it is --kl_coef now": "init_kl_coef",
            "give --target_kl KL for the adaptive controller, leave it out for a fixed --kl_coef": "adap_kl_ctrl?",
            "leave it out: the adaptive controller takes a tenth of the error at each update": "horizon",
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
    """(the words of a command line in the flags of this script, {refused flag: what to do instead}).

    known: whether the script has a flag of this name. where: the recipe that the words are from. What is taken, or left
    out, is said in a warning.
    """
    own = OF_SCRIPT.get(script, {})
    kept: list[str] = []
    refused: dict[str, str] = {}
    while words:
        word, *words = words
        if word == "--":
            return [*kept, word, *words], refused
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and not known(name):
            name = name.replace("-", "_")  # as transformers' own parser takes them, and --no_NAME for --NAME false
            positive = name.removeprefix("no_")
            if positive != name and not equals and (known(positive) or positive in {**own, **EVERYWHERE}):
                name, equals, value = positive, "=", "false"
        entry = own.get(name) or (None if known(name) else EVERYWHERE.get(name))
        if entry is None or not word.startswith("--"):
            kept.append(f"--{name}{equals}{value}" if word.startswith("--") else word)
            continue
        count = 0 if equals else _count(entry.values, words)
        values, words = ([value] if equals else words[:count]), words[count:]
        kept += _answer(name, entry, values, known, refused, f" ({where})" if where else "")
    return kept, refused


def _count(values: str, words: list[str]) -> int:
    """How many of these words are the values of a flag that stands before them."""
    found = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    if values == "?":
        return int(bool(found) and words[0].lower() in (*NOTHING, "true", "yes", "on", "0", "1"))
    return found if values else min(found, 1)


def _answer(
    name: str, entry: Old, values: list[str], known: Callable[[str], bool], refused: dict[str, str], where: str
) -> list[str]:
    """The words that take the place of an old flag. A refused one goes into `refused`."""
    if _asks_for_nothing(name, entry, values):
        return []
    if entry.becomes:
        if not known(entry.becomes):
            again = EVERYWHERE.get(entry.becomes)
            if again is None:
                return [f"--{name}", *values]
            nothing = _asks_for_nothing(entry.becomes, again, values)
            return [] if nothing else _answer(name, again, values, known, refused, where)
        warn(f"--{name} is taken as --{entry.becomes}{where}")
        return [f"--{entry.becomes}", *values]
    if entry.refused:
        refused[name] = entry.refused
    else:
        warn(f"--{name} has no effect: {entry.ignored}{where}")
    return []


def _asks_for_nothing(name: str, entry: Old, values: list[str]) -> bool:
    nothing = (*HARMLESS.get(name, ()), *(() if entry.becomes else NOTHING))
    return bool(values) and all(value.lower() in nothing for value in values)
