"""The numbers that the authors' own code gives for tiny checkpoints of public reward models.

Run in a throwaway environment with the transformers of that code's time, never in that of this project:

    uv venv /tmp/ref && uv pip install --python /tmp/ref/bin/python rewardbench==0.1.4 trl==0.19.1 peft==0.15.2 # transformers 4.51.0
    uv run benchmarks/public_models.py --make_checkpoints /tmp/tiny                        # with this project
    /tmp/ref/bin/python benchmarks/public_routes.py --sources /tmp/sources --checkpoints /tmp/tiny --output routes.json
    uv run benchmarks/public_models.py --compare routes.json --checkpoints /tmp/tiny       # with this project

SOURCES holds one folder for each repository that is named below, at the commit of benchmarks/public_models.md. Their code is
run as it is; what they need beyond torch and transformers (deepspeed, a GPU) is replaced by a stand-in that does nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
import types
from pathlib import Path

import public_outcome_routes
import torch
from public_routes_inputs import ANSWERS, SOLUTIONS
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForTokenClassification, AutoTokenizer
from trl import PRMConfig, PRMTrainer

TAKEN = ["input_ids", "attention_mask"]
"""By these models: the tiny tokenizers' class gives `token_type_ids` too."""


def stand_in(name: str, **attributes) -> None:
  module = types.ModuleType(name)
  for key, value in attributes.items():
    setattr(module, key, value)
  sys.modules[name] = module


def source(folder: Path, name: str):
  """A module of the authors, from its folder."""
  sys.path.insert(0, str(folder))
  try:
    return importlib.import_module(name)
  finally:
    sys.path.remove(str(folder))


def causal(path: Path):
  return AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(
    path
  )


def search_and_learn(sources: Path):
  stand_in("sal", __path__=[str(sources / "sal/src/sal")])
  stand_in("sal.config", Config=object)
  return source(sources / "sal/src", "sal.models.reward_models")


def qwen_prm(path: Path, sources: Path) -> list:
  """Qwen's class (a copy of its repository's), read by search-and-learn's `Qwen_2_5_Math.score`."""
  sal, own = search_and_learn(sources), source(sources / "authors", "qwen_prm")
  reader = object.__new__(sal.Qwen_2_5_Math)
  reader.model, reader.tokenizer = (
    own.Qwen2ForProcessRewardModel.from_pretrained(path).eval(),
    AutoTokenizer.from_pretrained(path),
  )
  return [reader.score([question], [["\n\n".join(steps)]])[0][0] for question, steps in SOLUTIONS]


def math_shepherd(path: Path, sources: Path) -> list:
  """OpenR's `_math_shepherd_infer_fn` on the text of the model card."""
  openr, (model, tokenizer) = source(sources / "authors", "openr_infer_fns"), causal(path)
  texts = [f"{question} " + "\n".join(f"{step} ки" for step in steps) for question, steps in SOLUTIONS]
  return [openr._math_shepherd_infer_fn(text, model, tokenizer, "cpu").tolist() for text in texts]


def rlhflow(path: Path, sources: Path) -> list:
  """RLHFlow's `select_sample` of math-rm/prm_evaluate."""
  own, (model, tokenizer) = source(sources / "rlhflow/math-rm", "prm_evaluate"), causal(path)
  tokens = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]
  arguments = argparse.Namespace(num_n=1, model_type="Deepseek")
  scores = []
  for question, steps in SOLUTIONS:
    sample = {"prompt": question, "answers": ["\n\n".join(steps)], "label": [1]}
    scores += own.select_sample(arguments, sample, model, tokenizer, tokens, "cpu")[1]["step_scores"]
  return scores


def skywork_o1(path: Path, sources: Path) -> list:
  """Skywork's `PRM_MODEL` and `prepare_input`."""
  own, read = source(sources / "sko", "model_utils.prm_model"), source(sources / "sko", "model_utils.io_utils")
  tokenizer = AutoTokenizer.from_pretrained(path)
  model = own.PRM_MODEL.from_pretrained(str(path), torch_dtype=torch.float32).eval()
  scores = []
  for question, steps in SOLUTIONS:
    ids, _, flags = read.prepare_input(question, "\n".join(steps), tokenizer=tokenizer, step_token="\n")
    ids, mask, flags = read.prepare_batch_input_for_model([ids], [flags], tokenizer.pad_token_id)
    with torch.no_grad():
      _, _, rewards = model(input_ids=ids, attention_mask=mask, return_probs=True)
    scores += read.derive_step_rewards(rewards, flags)
  return scores


def versa(path: Path, sources: Path) -> list:
  """VersaPRM's `LlamaPRM` on the text of its `get_rewards_reasoning_step`; only its tag's id is that of the tiny tokenizer."""
  own = source(sources / "authors", "versa.prm_llama")
  _, tokenizer = causal(path)
  tag = tokenizer.encode(" \n\n\n\n")[-1]
  code = Path(own.__file__).read_text().replace("23535", str(tag))
  code = code.replace("[12, 10]", str([tokenizer.encode("-")[-1], tokenizer.encode("+")[-1]]))
  exec(compile(code, own.__file__, "exec"), own.__dict__)
  reader = own.LlamaPRM(model_id=str(path), device="cpu")
  texts = [f"{question} \n\n" + "".join(f"{step} \n\n\n\n" for step in steps) for question, steps in SOLUTIONS]
  return [one.score for one in reader(texts)]


def math_psa(path: Path, sources: Path) -> list:
  """OpenR's `_qwen_math_infer_fn` on the text of VersaPRM's `get_rewards_reasoning_step`, which numbers the steps too."""
  openr, (model, tokenizer) = source(sources / "authors", "openr_infer_fns"), causal(path)
  texts = [f"{question} \n\n" + "".join(f"{step} \n\n\n\n\n " for step in steps) for question, steps in SOLUTIONS]
  return [openr._qwen_math_infer_fn(text, model, tokenizer, "cpu").tolist() for text in texts]


def trl_prm(path: Path, sources: Path, separator: str = "\n\n") -> list:
  """TRL's `PRMTrainer.tokenize_row` and the plain model, softmax at each label."""
  model = AutoModelForTokenClassification.from_pretrained(path, torch_dtype=torch.float32).eval()
  return [logits.softmax(-1)[:, 1].tolist() for logits in at_labels(path, model, separator)]


def trl_default(path: Path, sources: Path) -> list:
  return trl_prm(path, sources, PRMConfig.step_separator)


def pure(path: Path, sources: Path) -> list:
  """Tokenized by the trainer that PURE's PRM/finetune.py runs, with its separator; valued by `turn_process_reward_logits_to_reward`
  of its RL code, whose equal weights sum to 1. The class is that of Qwen's repository."""
  for name in ("openrlhf", "openrlhf.utils"):  # whose own files import ray and deepspeed
    stand_in(name, __path__=[str(sources / "pure" / name.replace(".", "/"))])
  own = source(sources / "pure", "openrlhf.utils.utils")
  model = source(sources / "authors", "qwen_prm").Qwen2ForProcessRewardModel.from_pretrained(path).eval()
  found = []
  for logits in at_labels(path, model, PRMConfig.step_separator):
    mask = torch.ones(1, len(logits), dtype=torch.bool)
    shared = own.turn_process_reward_logits_to_reward(logits[None], mask, disable_weighted_reward=True)
    found.append((shared[0] * len(logits)).tolist())
  return found


def at_labels(path: Path, model, separator: str) -> list:
  """Of each solution the logits where TRL puts labels."""
  tokenizer = AutoTokenizer.from_pretrained(path)
  found = []
  for question, steps in SOLUTIONS:
    row = PRMTrainer.tokenize_row(
      {"prompt": question, "completions": steps, "labels": [True] * len(steps)},
      tokenizer=tokenizer,
      step_separator=separator,
      max_length=None,
      max_prompt_length=None,
      max_completion_length=None,
      train_on_last_step_only=False,
      is_eval=False,
    )
    with torch.no_grad():
      logits = model(torch.tensor([row["input_ids"]])).logits[0]
    found.append(logits[[i for i, label in enumerate(row["labels"]) if label != -100]])
  return found


def reason_flux(path: Path, sources: Path) -> list:
  """The lines of ReasonFlux-PRM's README, from the messages to the printed rewards."""
  folder = sources / "reasonflux/ReasonFlux_PRM"
  code = next(part for part in (folder / "README.md").read_text().split("```python")[1:] if "make_step_rewards" in part)
  code = code.partition("```")[0]
  code = code[code.index("messages = [") :].replace("print(step_reward[0])", "")
  model = source(sources / "authors", "qwen_prm").Qwen2ForProcessRewardModel.from_pretrained(path).eval()
  rewards = source(folder, "utils.rm_utils").make_step_rewards
  there = {
    "model": model,
    "tokenizer": AutoTokenizer.from_pretrained(path),
    "make_step_rewards": rewards,
    "torch": torch,
  }
  found = []
  for question, steps in SOLUTIONS:
    names = there | {"problem": question, "completion": steps}
    exec(compile(code, "README.md", "exec"), names)
    found.append(names["step_reward"][0])
  return found


def implicit(path: Path, sources: Path) -> list:
  """PRIME's eval/processbench: `build_item_tensors`, `get_logps` and the lines of `inference` that sum them up."""
  own = source(sources / "iprm/eval", "processbench")
  model, tokenizer = causal(path)
  reference, _ = causal(path.parent / "Qwen--Qwen2.5-Math-7B-Instruct")
  scores = []
  for question, steps in SOLUTIONS:
    ids, mask, labels, places = own.build_item_tensors({"query": question, "answer": steps}, tokenizer)
    inputs = {"input_ids": ids[None], "attention_mask": mask[None], "labels": labels[None]}
    raw = own.get_logps(model, inputs) - own.get_logps(reference, inputs)
    counted = torch.zeros(raw.shape[1])
    counted[places[0] :] = 1.0
    summed = (0.001 * raw[0] * counted).cumsum(-1)
    scores.append(summed.gather(-1, torch.tensor(places[1:]).clamp(0, raw.shape[1] - 1)).tolist())
  return scores


def pair_rm(path: Path, sources: Path) -> list:
  """LLM-Blender's class, with reward-bench's `tokenize_pair`: the logit of A against B, and of B against A."""
  own = source(sources / "rb/rewardbench/models", "pairrm")
  tokenizer, model = AutoTokenizer.from_pretrained(path), own.DebertaV2PairRM.from_pretrained(path).eval()
  rows = [row for question, a, b in ANSWERS for row in ((question, a, b), (question, b, a))]
  with torch.no_grad():
    return [model(**own.tokenize_pair(tokenizer, *([text] for text in row))).logits.tolist() for row in rows]


def pair_preference(path: Path, sources: Path) -> list:
  """reward-bench's `SlicPairPMPipeline`: the probability of A, mean over both orders."""
  own, (model, tokenizer) = source(sources / "rb/rewardbench/models", "slicpairpm"), causal(path)
  kept, torch.Tensor.cuda = torch.Tensor.cuda, lambda self: self
  seen, plain = [], torch.tensor
  own.AutoTokenizer = types.SimpleNamespace(from_pretrained=lambda *_, **__: AutoTokenizer.from_pretrained(path))
  mean = own.np.mean
  own.np = types.SimpleNamespace(exp=own.np.exp, mean=lambda values: seen.append(float(mean(values))) or mean(values))
  pipeline = own.SlicPairPMPipeline("", model, tokenizer)
  turns = [
    [[{"role": "user", "content": q}, {"role": "assistant", "content": x}] for x in pair] for q, *pair in ANSWERS
  ]
  pipeline([a for a, _ in turns], [b for _, b in turns])
  torch.Tensor.cuda, torch.tensor = kept, plain
  return seen


def dpo(path: Path, sources: Path) -> list:
  """reward-bench's `get_batch_logps` on rows made as its `tokenize_row` does: template without BOS, then EOS."""
  stand_in("trl.trainer.utils", DPODataCollatorWithPadding=object)
  own = source(sources / "rb/rewardbench", "dpo")
  model, tokenizer = causal(path)
  reference, _ = causal(path.parent / "Qwen--Qwen2.5-Math-7B-Instruct")
  scores = []
  for question, *answers in ANSWERS:
    for answer in answers:
      turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
      prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
      whole = tokenizer.apply_chat_template(turns, tokenize=False)
      ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
      start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
      labels = torch.tensor([[-100] * start + ids[start:]])
      with torch.no_grad():
        both = [one(torch.tensor([ids])).logits for one in (model, reference)]
      own_, its = (own.DPOInference.get_batch_logps(logits, labels.clone()) for logits in both)
      scores.append((own_ - its).item())
  return scores


def reason_eval(path: Path, sources: Path) -> list:
  """GAIR's `get_results`, which prints its numbers."""
  own, found = source(sources / "reason-eval/codes", "examples"), []
  arguments = argparse.Namespace(model_name_or_path=str(path), model_size=path.name.rpartition("-")[2])
  for question, steps in SOLUTIONS:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      own.get_results(arguments, question, steps)
    found.append(json.loads(printed.getvalue().splitlines()[0].partition(": ")[2]))
  return found


def gpm(path: Path, sources: Path) -> list:
  """reward-bench's `GPMPipeline`, as it was at 1e06640: the result over tau of both orders."""
  own = source(sources / "authors", "gpm")
  how = {"torch_dtype": torch.float32, "attn_implementation": "eager"}
  pipeline, found = own.GPMPipeline(str(path), device=torch.device("cpu"), **how), []
  pipeline.tokenizer.model_input_names = TAKEN
  for question, a, b in ANSWERS:
    for pair in ((a, b), (b, a)):
      turns = [[{"role": "user", "content": question}, {"role": "assistant", "content": one}] for one in pair]
      chosen, asked = pipeline(turns[:1], return_prompt=True)
      result = pipeline.generate_high_dim_result_with_prompt(chosen, pipeline(turns[1:]), asked)
      found.append((result / pipeline.tau).tolist())
  return found


def steam_shp(path: Path, sources: Path) -> list:
  """The text of reward-bench's `SHPPipeline`: the probability of A against B when a token is generated, mean over both orders."""
  own = source(sources / "rb/rewardbench/models", "shp")
  own.random = types.SimpleNamespace(shuffle=lambda answers: None)
  model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
  tokenizer.model_input_names = TAKEN
  pipeline, found = own.SHPPipeline("", model, tokenizer), []
  letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "AB"]
  for question, a, b in ANSWERS:
    first = []
    for pair in ((a, b), (b, a)):
      text, _ = pipeline._format_input(question, *pair)
      how = {"max_new_tokens": 1, "output_scores": True, "return_dict_in_generate": True}
      made = model.generate(**tokenizer([text], return_tensors="pt"), **how)
      first.append(made.scores[0][0, letters].softmax(-1)[0].item())
    found.append((first[0] + 1 - first[1]) / 2)
  return found


ROUTES = {
  "Qwen/Qwen2.5-Math-PRM-7B": qwen_prm,
  "peiyi9979/math-shepherd-mistral-7b-prm": math_shepherd,
  "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data": rlhflow,
  "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B": skywork_o1,
  "UW-Madison-Lee-Lab/VersaPRM": versa,
  "openreasoner/Math-psa": math_psa,
  "HuggingFaceH4/Qwen2.5-Math-1.5B-Instruct-PRM-0.2": trl_prm,
  "TRL": trl_default,
  "jinachris/PURE-PRM-7B": pure,
  "Gen-Verse/ReasonFlux-PRM-7B": reason_flux,
  "PRIME-RL/EurusPRM-Stage2": implicit,
  "GAIR/ReasonEval-7B": reason_eval,
  "GAIR/ReasonEval-34B": reason_eval,
  "general-preference/GPM-Llama-3.1-8B": gpm,
  "stanfordnlp/SteamSHP-flan-t5-large": steam_shp,
  "llm-blender/PairRM-hf": pair_rm,
  "RLHFlow/pair-preference-model-LLaMA3-8B": pair_preference,
  "DPO": dpo,
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--sources", type=Path, required=True)
  parser.add_argument("--checkpoints", type=Path, required=True)
  parser.add_argument("--output", type=Path, required=True)
  names = (*ROUTES, *public_outcome_routes.NAMES)
  parser.add_argument("--models", nargs="+", default=names, choices=names)
  args = parser.parse_args()
  found = {}
  for name in args.models:
    same = {"DPO": "PRIME-RL/EurusPRM-Stage2", "TRL": "HuggingFaceH4/Qwen2.5-Math-1.5B-Instruct-PRM-0.2"}
    folder = args.checkpoints / same.get(name, name).replace("/", "--")
    if name in ROUTES:
      found[name] = ROUTES[name](folder, args.sources)
    else:
      found[name] = public_outcome_routes.run(name, next(folder.iterdir()), args.sources)
    print(name, json.dumps(found[name]), file=sys.stderr)
  args.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
  main()
