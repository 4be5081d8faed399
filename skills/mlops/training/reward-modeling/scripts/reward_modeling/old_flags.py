"""Flags of TRL's, transformers' and other tools' command lines: what each is taken as, why it has no effect, or what replaces it.

One table for every script, for command lines and recipes alike. An entry counts where the script has no flag of that
name; the entries of OF_SCRIPT count even where the trainer has the field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .console import warn

NOTHING = ("false", "no", "none", "null", "off")
"""Values by which a flag asks for nothing: it is then left out without a word."""
_SAID = (*NOTHING, "true", "yes", "on", "0", "1")


@dataclass(frozen=True)
class Old:
    """One answer to a flag: `becomes` is the flag that takes its values, `ignored` a reason, `refused` what to do instead.

    harmless: values that ask for what is done anyway: the flag is then left out in silence. many: it takes several values,
    where others take one.
    """

    becomes: str | None = None
    ignored: str | None = None
    refused: str | None = None
    harmless: tuple[str, ...] = ()
    many: bool = False


def _ignored(reason: str, *names: str, harmless: tuple[str, ...] = (), many: bool = False) -> dict[str, Old]:
    return {name: Old(ignored=reason, harmless=harmless, many=many) for name in names}


def _refused(advice: str, *names: str, harmless: tuple[str, ...] = (), many: bool = False) -> dict[str, Old]:
    return {name: Old(refused=advice, harmless=harmless, many=many) for name in names}


def _taken(name: str, *old: str, harmless: tuple[str, ...] = ()) -> dict[str, Old]:
    return {other: Old(becomes=name, harmless=harmless) for other in old}


_MIGRATION = "references/migration.md"
_NO_EVALUATION = "nothing is evaluated during the run; sample completions are in OUT/log.jsonl"
_HUB = "nothing is uploaded during the run: afterwards, hf upload NAME OUT"
_ENGINE = "it needs an engine made for it (references/scaling.md); --use_peft saves memory here"

EVERYWHERE: dict[str, Old] = {
    **_taken("dtype", "torch_dtype", harmless=("auto",)),
    **_taken("max_length", "max_seq_length", "max_seq_len", "sequence_len", "cutoff_len", "max_len"),
    **_taken("eval_strategy", "evaluation_strategy"),
    **_taken("warmup_steps", "warmup_ratio", "lr_warmup_ratio"),
    **_taken("val_set_size", "test_split_size", "val_size"),
    **_taken("dataset_train_split", "dataset_split"),
    **_taken("dataset_config", "dataset_config_name"),
    **_taken("model_name_or_path", "base_model", "pretrain"),
    **_taken("num_train_epochs", "num_epochs", "max_epochs"),
    **_taken("per_device_train_batch_size", "micro_batch_size", "micro_train_batch_size", "per_gpu_train_batch_size"),
    **_taken("lr_scheduler_type", "lr_scheduler"),
    **_taken("optim", "optimizer"),
    **_taken("max_grad_norm", "max_norm"),
    **_taken("lora_r", "lora_rank", "peft_lora_r"),
    **_taken("lora_alpha", "peft_lora_alpha"),
    **_taken("lora_target_modules", "lora_target", "target_modules", harmless=("all", "all-linear")),
    **_ignored(
        "weights are kept in fp32 in training, and --bf16 or --fp16 choose the autocast",
        *("dtype", "model_dtype", "precision"),
        harmless=("float32", "fp32", "auto"),
    ),
    **_ignored("scores are computed in fp32 unless --dtype says otherwise", "bf16", "fp16"),
    **_ignored(
        "the attention is chosen by the model and the device (references/scaling.md)",
        *("attn_implementation", "use_flash_attention_2", "flash_attn", "flash_attention"),
        harmless=("auto", "eager", "sdpa"),
    ),
    **_ignored("the fast tokenizer is used wherever there is one", "use_fast_tokenizer", "use_fast"),
    **_ignored("remote code is never run; a model that needs it is refused", "trust_remote_code"),
    **_ignored("it is set: one label for an outcome reward model, two for a process reward model", "num_labels"),
    **_ignored("it is set by the script", "lora_task_type", "task_type"),
    **_ignored("data is read in slices", "dataset_streaming", "streaming"),
    **_ignored("rows are read and rendered in one process", "dataset_num_proc", "preprocessing_num_workers"),
    **_ignored("the columns are chosen by the format of the data", "remove_unused_columns"),
    **_ignored("no buffer needs it", "ignore_bias_buffers"),
    **_ignored("nothing is quantized", "bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage"),
    **_ignored("nothing is quantized", "bnb_4bit_compute_dtype"),
    **_ignored("the run is named by --output_dir", "exp_name", "run_name"),
    **_ignored("batches are padded to their longest row, or packed", "pad_to_sequence_len", "pad_to_multiple_of"),
    **_ignored("rows are packed wherever the model allows it", "sample_packing", "packing", "packing_samples"),
    **_ignored("a training script trains: there is no other mode", "do_train", "do_eval", "do_predict"),
    **_ignored("the end of the text is the template's", "add_eos_token"),
    **_ignored(_HUB, "push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo"),
    **_refused(
        f"leave it out: weights are fp32, and --use_peft saves the memory of the optimizer ({_MIGRATION})",
        *("load_in_4bit", "load_in_8bit"),
    ),
    **_refused(
        f"leave it out: --load_best_model_at_end keeps the best of the evaluated checkpoints ({_MIGRATION})",
        *("early_stopping_patience", "early_stopping_threshold"),
    ),
    **_refused(
        "download that revision, and give its folder: hf download MODEL --revision REVISION --local-dir DIR",
        *("model_revision", "revision"),
        harmless=("main",),
    ),
    **_refused(
        f"leave it out: the head alone is trained and saved beside the adapter ({_MIGRATION})",
        *("lora_modules_to_save", "modules_to_save"),
        harmless=("score", "classifier"),
        many=True,
    ),
    **_refused(
        f"leave it out: the adapter is a plain LoRA ({_MIGRATION})",
        *("lora_target_parameters", "use_rslora", "use_dora"),
    ),
    **_refused("give the files with --dataset_name A B", "datasets", "dataset_mixer", many=True),
    **_refused("cut the file: head -n N", "max_samples", "max_train_samples", "max_eval_samples"),
    **_refused(f"give the template with --chat_template_path ({_MIGRATION})", "template", "chat_template"),
    **_refused(f"leave it out: {_ENGINE}", "deepspeed", "fsdp", "fsdp_config"),
}

_TRAINERS = {
    **_ignored("the columns are chosen by the format of the data", "remove_unused_columns"),
    **_ignored("the rows are rendered before the trainer sees them", "dataset_num_proc"),
    **_ignored("remote code is never run; a model that needs it is refused", "trust_remote_code"),
    **_ignored(_HUB, "push_to_hub"),
    **_refused("leave it out: the model is loaded in fp32, from safetensors, without remote code", "model_init_kwargs"),
}
OF_SCRIPT: dict[str, dict[str, Old]] = {
    "train.py": {
        **_TRAINERS,
        **_refused("leave it out: a pad token is chosen, or added, so that it is not EOS", "pad_token"),
        **_refused("give a template that ends answers with --chat_template_path", "eos_token"),
        **_ignored("batches are padded to their longest row", "pad_to_multiple_of"),
        **_refused("use --label_smoothing", "label_smoothing_factor", harmless=("0", "0.0")),
    },
    "train_process.py": {
        **_TRAINERS,
        **_refused(
            "write probabilities as labels: 0.9 for a step that is correct nine times in ten",
            "label_smoothing_factor",
            harmless=("0", "0.0"),
        ),
        **_refused("leave it out: the labels are made here", "label_names", many=True),
        **_refused("leave it out: it replaces the loss", "use_liger_kernel"),
    },
    "grpo.py": {
        **_TRAINERS,
        **_refused("give a template with --chat_template_path", "chat_template_kwargs"),
        **_ignored(f"{_NO_EVALUATION}: judge OUT with score.py --generate_with OUT", "eval_strategy", "eval_steps"),
        **_ignored("nothing is evaluated during the run", "per_device_eval_batch_size", "dataset_test_split"),
        **_taken("max_completion_length", "response_length", "max_new_tokens"),
        **_taken("dataset_split", "dataset_train_split"),
    },
    "ppo.py": {
        **_ignored(_NO_EVALUATION, "dataset_test_split", "eval_strategy", "eval_steps", "evaluation_strategy"),
        **_ignored("nothing is evaluated during the run", "per_device_eval_batch_size"),
        **_ignored("every update is logged", "logging_strategy"),
        **_ignored("--save_steps says when", "save_strategy"),
        **_ignored("prompts are rendered in one process", "dataset_num_proc"),
        **_ignored("bf16 on a GPU that has it, otherwise fp32", "fp16"),
        **_ignored("an answer that does not end is always penalised, by --missing_eos_penalty", "non_eos_penalty"),
        **_ignored("DeepSpeed is not used", "ds3_gather_for_generation"),
        **_ignored(
            "it follows from the other sizes",
            *("local_batch_size", "batch_size", "mini_batch_size", "local_mini_batch_size", "micro_batch_size"),
        ),
        **_ignored("it follows from --total_episodes", "num_total_batches"),
        **_ignored("it follows from the launcher", "world_size"),
        **_taken("response_length", "max_new_tokens", "max_completion_length"),
        **_taken("max_prompt_length", "query_length"),
        **_taken("dataset_name", "query_dataset"),
        **_taken("num_ppo_epochs", "ppo_epochs"),
        **_refused("give --total_episodes", "max_steps", "steps", harmless=("-1",)),
        **_refused("it is --missing_eos_penalty now, a positive number that is subtracted", "penalty_reward_value"),
        **_refused("it is --kl_coef now", "init_kl_coef"),
        **_refused(
            "give --target_kl KL for the adaptive controller, leave it out for a fixed --kl_coef", "adap_kl_ctrl"
        ),
        **_refused("leave it out: the adaptive controller takes a tenth of the error at each update", "horizon"),
        **_refused("it is --kl_estimator k1 or k3 now", "kl_penalty"),
    },
}


_SWITCHES = """
trust_remote_code use_fast_tokenizer use_fast dataset_streaming streaming remove_unused_columns ignore_bias_buffers
use_flash_attention_2 flash_attn flash_attention use_bnb_nested_quant push_to_hub hub_private_repo do_train do_eval
do_predict add_eos_token pad_to_sequence_len sample_packing packing packing_samples load_in_4bit load_in_8bit bf16 fp16
use_rslora use_dora use_liger_kernel non_eos_penalty ds3_gather_for_generation adap_kl_ctrl
"""
"""Flags that may stand without a value."""


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
            name = name.replace("-", "_")  # as transformers' own parser takes them
        entry = own.get(name) or (None if known(name) else EVERYWHERE.get(name))
        if entry is None or not word.startswith("--"):
            kept.append(f"--{name}{equals}{value}" if word.startswith("--") else word)
            continue
        count = 0 if equals else _values_of(name, entry, words)
        values, words = ([value] if equals else words[:count]), words[count:]
        kept += _answer(name, entry, values, known, refused, f" ({where})" if where else "")
    return kept, refused


def _values_of(name: str, entry: Old, words: list[str]) -> int:
    """How many of these words are the values of a flag that stands before them."""
    found = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    if name in _SWITCHES.split():
        return int(bool(found) and words[0].lower() in _SAID)
    return found if entry.many else min(found, 1)


def _answer(
    name: str, entry: Old, values: list[str], known: Callable[[str], bool], refused: dict[str, str], where: str
) -> list[str]:
    """The words that take the place of an old flag. A refused one goes into `refused`."""
    asked = [value.lower() for value in values]
    if asked and all(value in (*entry.harmless, *(() if entry.becomes else NOTHING)) for value in asked):
        return []
    if entry.becomes:
        if not known(entry.becomes):
            again = EVERYWHERE.get(entry.becomes)
            return _answer(name, again, values, known, refused, where) if again else [f"--{name}", *values]
        warn(f"--{name} is taken as --{entry.becomes}{where}")
        return [f"--{entry.becomes}", *values]
    if entry.refused:
        refused[name] = entry.refused
    else:
        warn(f"--{name} has no effect: {entry.ignored}{where}")
    return []
