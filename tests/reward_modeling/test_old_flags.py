"""Flags of other tools: taken, left out with a reason, or answered with what replaces them; on command lines and in recipes."""

import importlib

import pytest
import yaml

from reward_modeling.errors import UsageError
from reward_modeling.old_flags import EVERYWHERE, OF_SCRIPT, translated


def parse(script: str, words: list[str], recipe=None):
  """The namespace of a script for this command line, or for a recipe that says the same."""
  if recipe is not None:
    said: dict = {}
    for word in words:
      if word.startswith("--"):
        name = word[2:]
        said[name] = True
      else:
        said[name] = word if said[name] is True else [said[name], word]
    recipe.write_text(yaml.safe_dump(said))
    words = ["--config", str(recipe)]
  parser = importlib.import_module(script).parser()
  parser.required = ()
  return parser.parse(words)


@pytest.fixture(params=["command line", "recipe"])
def recipe(request, tmp_path):
  """None, or the file in which the same flags are given as keys."""
  return tmp_path / "recipe.yaml" if request.param == "recipe" else None


@pytest.mark.parametrize(
  ("script", "words", "name", "value"),
  [
    ("train", "--max_seq_length 512", "max_length", 512),
    ("train", "--warmup_ratio 0.03", "trainer_arguments", ["--warmup_steps", "0.03"]),
    ("train", "--evaluation_strategy steps", "trainer_arguments", ["--eval_strategy", "steps"]),
    ("train", "--lora_rank 4 --use_peft", "lora_r", 4),
    ("train_process", "--micro_batch_size 3", "per_device_train_batch_size", 3),
    ("score", "--torch_dtype bfloat16", "dtype", "bfloat16"),
    ("score", "--normalise", "normalize", True),
    ("ppo", "--normalise_rewards true", "normalize_rewards", True),
    ("evaluate", "--max_seq_length 64", "max_length", 64),
    ("ppo", "--query_dataset a.jsonl b.jsonl", "dataset_name", ["a.jsonl", "b.jsonl"]),
    ("ppo", "--ppo_epochs 2", "num_ppo_epochs", 2),
    ("ppo", "--max_new_tokens 9", "response_length", 9),
    ("grpo", "--response_length 9", "trainer_arguments", ["--max_completion_length", "9"]),
    ("grpo", "--dataset_train_split a", "dataset_split", "a"),
  ],
)
def test_an_old_name_is_taken_as_the_new_one(script, words, name, value, recipe, capsys):
  words = words.split()
  assert getattr(parse(script, words, recipe), name) == value
  said = " ".join(capsys.readouterr().err.split())
  assert f"warning: {words[0]} is taken as --" in said
  assert (str(recipe) in said) == (recipe is not None)


@pytest.mark.parametrize(
  ("script", "words"),
  [
    ("train", "--torch_dtype bfloat16"),
    ("train", "--dtype bfloat16"),
    ("train", "--attn_implementation flash_attention_2"),
    ("train", "--use_fast_tokenizer"),
    ("train", "--num_labels 1"),
    ("train", "--lora_task_type SEQ_CLS"),
    ("train", "--dataset_num_proc 4"),
    ("train", "--push_to_hub"),
    ("train", "--trust_remote_code true"),
    ("score", "--attn_implementation flash_attention_2"),
    ("score", "--trust_remote_code"),
    ("check_data", "--trust_remote_code"),
    ("grpo", "--eval_strategy steps"),
    ("ppo", "--eval_steps 100"),
    ("ppo", "--fp16"),
    ("ppo", "--local_batch_size 4"),
  ],
)
def test_what_has_no_effect_is_left_out_with_its_reason(script, words, recipe, capsys):
  args = parse(script, words.split(), recipe)
  assert getattr(args, "trainer_arguments", []) == []
  name = words.split()[0]
  said = capsys.readouterr().err
  assert f"warning: {name} has no effect: " in said and len(said.splitlines()) == 1, said


@pytest.mark.parametrize(
  ("script", "words"),
  [
    ("train", "--remove_unused_columns false"),
    ("train", "--load_in_4bit false"),
    ("train", "--torch_dtype float32"),
    ("train", "--attn_implementation sdpa"),
    ("train", "--model_revision main"),
    ("train", "--label_smoothing_factor 0.0"),
    ("train", "--lora_modules_to_save score --use_peft"),
    ("ppo", "--eval_strategy no"),
    ("ppo", "--adap_kl_ctrl false"),
  ],
)
def test_what_asks_for_nothing_is_left_out_in_silence(script, words, recipe, capsys):
  parse(script, words.split(), recipe)
  assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
  ("script", "words", "hint"),
  [
    ("train", "--load_in_8bit", "references/migration.md"),
    ("train", "--early_stopping_patience 3", "--load_best_model_at_end"),
    ("train", "--model_revision abc", "hf download MODEL --revision"),
    ("train", "--use_dora", "references/migration.md"),
    ("train", "--label_smoothing_factor 0.1", "use --label_smoothing"),
    ("train_process", "--use_liger_kernel", "it replaces the loss"),
    ("train", "--weigth_decay 0.1", "did you mean --weight_decay?"),
    ("ppo", "--init_kl_coef 0.2", "it is --kl_coef now"),
    ("ppo", "--adap_kl_ctrl true", "--target_kl"),
    ("ppo", "--load_in_8bit", "--use_peft"),
    ("ppo", "--kl_coeff 0.2", "did you mean --kl_coef"),
    ("ppo", "--adam_beta1 0.9", "a setting of transformers' trainer"),
    ("score", "--weight_decay 0.1", "a setting of transformers' trainer"),
  ],
)
def test_what_cannot_be_done_is_answered_with_what_to_do(script, words, hint, recipe):
  with pytest.raises(UsageError) as caught:
    parse(script, words.split(), recipe)
  assert caught.value.message == f"unknown flag {words.split()[0]}"
  assert hint in caught.value.hint
  assert caught.value.where == (recipe and str(recipe))


def test_all_unknown_flags_are_told_at_once_each_with_its_advice(recipe):
  with pytest.raises(UsageError) as caught:
    parse("train", ["--stepps", "3", "--load_in_8bit", "--weigth_decay", "0.1", "--max_length", "8", "--qqq"], recipe)
  lines = caught.value.render().splitlines()
  assert lines[0] in (  # a recipe's keys come in the order of the alphabet here
    "error: unknown flags --load_in_8bit, --stepps, --weigth_decay, --qqq",
    "error: unknown flags --load_in_8bit, --qqq, --stepps, --weigth_decay",
  )
  advice = "\n".join(lines)
  assert "--weigth_decay: did you mean --weight_decay?" in advice and "--load_in_8bit: leave it out" in advice
  assert "--qqq: train.py --help lists every flag" in advice and "hint: --load_in_8bit" in advice


def test_a_flag_without_a_value_does_not_take_the_next_word(capsys):
  assert parse("check_data", ["--trust_remote_code", "pairs.jsonl"]).data == ["pairs.jsonl"]
  assert parse("check_data", ["a.jsonl", "--torch_dtype", "bfloat16", "b.jsonl"]).data == ["a.jsonl", "b.jsonl"]
  assert parse("score", ["--prompt", "x", "--completions", "a", "--trust_remote_code=True"]).completions == ["a"]


def test_no_before_a_name_is_false(capsys):
  args = parse("train", ["--no_remove_unused_columns", "--no_gradient_checkpointing", "--no_dataloader_pin_memory"])
  assert args.gradient_checkpointing is False and args.trainer_arguments == ["--dataloader_pin_memory=false"]
  assert capsys.readouterr().err == ""


def test_every_command_of_trls_documentation_is_taken():
  """Of the reward, PPO and GRPO pages and scripts of TRL 0.7 to 1.16; what has no counterpart is refused with its reason."""
  where = "--model_name_or_path m --dataset_name d --output_dir o"
  peft = "--use_peft --lora_task_type SEQ_CLS --lora_r 32 --lora_alpha 16"
  common = "--per_device_train_batch_size 8 --num_train_epochs 1 --gradient_checkpointing True --logging_steps 25"
  parse(
    "train",
    f"{where} {common} --learning_rate 1.0e-5 --eval_strategy steps --eval_steps 50 --max_length 2048".split(),
  )
  parse("train", f"{where} {common} {peft} --torch_dtype bfloat16 --attn_implementation sdpa --push_to_hub".split())
  parse("train_process", f"{where} {common} --eval_strategy steps --eval_steps 50 --no_remove_unused_columns".split())
  parse("grpo", f"{where} --reward_model_path r --dtype bfloat16 --max_prompt_length 128 --num_generations 8".split())
  old = (
    "--reward_model_path r --exp_name ppo --log_with tensorboard --mini_batch_size 1 --ppo_epochs 4 --non_eos_penalty"
  )
  parse("ppo", f"{where} {old} --stop_token eos --kl_coef 0.1 --local_rollout_forward_batch_size 1".split())
  with pytest.raises(UsageError, match="unknown flags --reward_model, --init_kl_coef, --steps"):
    parse("ppo", f"{where} --reward_model a:b --init_kl_coef 0.2 --steps 20000 --log_with none".split())


def test_a_name_with_dashes_is_the_name_with_underscores():
  args = parse("train", ["--output-dir", "out", "--weight-decay=0.1", "--max-seq-length", "7"])
  assert (args.output_dir, args.trainer_arguments, args.max_length) == ("out", ["--weight_decay=0.1"], 7)


@pytest.mark.parametrize("script", ["train", "train_process", "grpo", "ppo", "score", "evaluate", "check_data"])
def test_no_entry_shadows_a_flag_and_what_is_taken_exists(script):
  parser = importlib.import_module(script).parser()
  own = {option[2:] for option in parser._option_string_actions if option.startswith("--")}
  for name, entry in OF_SCRIPT.get(f"{script}.py", {}).items():
    assert entry.ignored or name not in own, "the parser has it"
    assert entry.becomes is None or parser._knows(entry.becomes), name
  for name, entry in {**EVERYWHERE, **OF_SCRIPT.get(f"{script}.py", {})}.items():
    assert sum(map(bool, (entry.becomes, entry.ignored, entry.refused))) == 1, name


@pytest.mark.parametrize(
  "script, words", [("train.py", "--reward_model true"), ("train_process.py", "--process_reward_model true")]
)
def test_what_a_recipe_of_axolotl_trains_is_what_the_script_does(script, words, capsys):
  assert translated([*words.split(), "--seed", "1"], script, {"seed"}.__contains__) == (["--seed", "1"], {})
  assert "has no effect: this script trains one" in capsys.readouterr().err
