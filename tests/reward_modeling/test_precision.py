"""What each processor computes in, and the one warning where it would have to emulate what was asked for."""

import pytest
import torch

from conftest import run_main
from reward_modeling import precision

AVX2 = {"architecture": "x86_64", "avx2": True, "amx_bf16": False, "avx512_bf16": False}
AVX512 = AVX2 | {"avx512_f": True}
ZEN4 = AVX512 | {"avx512_bf16": True}
AMX = ZEN4 | {"amx_bf16": True, "avx512_fp16": True}
GRAVITON2 = {"architecture": "arm64", "neon": True, "fp16_arith": True, "bf16": False}
GRAVITON3 = GRAVITON2 | {"bf16": True}


@pytest.fixture
def cpu(monkeypatch):
  """cpu(capabilities, **environment): pretend to be this processor, without a GPU."""

  def pretend(has, **environment):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
      monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
      monkeypatch.setenv(name, value)
    used = environment.get("ATEN_CPU_CAPABILITY", "avx512" if has.get("avx512_f") else "avx2").upper()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: used)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

  return pretend


@pytest.mark.parametrize(
  ("has", "environment", "bf16", "fp16"),
  [
    (AVX2, {}, "no bfloat16 instructions", "no float16 instructions"),
    (AVX512, {}, "no bfloat16 instructions", "no float16 instructions"),
    (ZEN4, {}, None, "no float16 instructions"),
    (AMX, {}, None, None),
    (AMX, {"DNNL_MAX_CPU_ISA": "AVX2"}, "DNNL_MAX_CPU_ISA=AVX2 switches", "DNNL_MAX_CPU_ISA=AVX2 switches"),
    (AMX, {"ONEDNN_MAX_CPU_ISA": "avx512_core"}, "ONEDNN_MAX_CPU_ISA=avx512_core", "ONEDNN_MAX_CPU_ISA"),
    (AMX, {"ONEDNN_MAX_CPU_ISA": "ALL", "DNNL_MAX_CPU_ISA": "AVX2"}, None, None),
    (AMX, {"DNNL_MAX_CPU_ISA": "AVX512_CORE_BF16"}, None, "DNNL_MAX_CPU_ISA=AVX512_CORE_BF16"),
    (AMX, {"DNNL_MAX_CPU_ISA": "AVX512_CORE_AMX"}, None, None),
    (AMX, {"ATEN_CPU_CAPABILITY": "avx2"}, "ATEN_CPU_CAPABILITY=avx2", "ATEN_CPU_CAPABILITY=avx2"),
    (GRAVITON2, {}, "no bfloat16 instructions", None),
    (GRAVITON3, {}, None, None),
  ],
)
def test_a_processor_computes_what_it_has_instructions_for(cpu, has, environment, bf16, fp16):
  cpu(has, **environment)
  for dtype, reason in (("bfloat16", bf16), ("float16", fp16), ("float32", None)):
    why = precision.why_emulated(dtype)
    assert why is None if reason is None else reason in why


def test_without_onednn_the_instructions_are_of_no_use(cpu, monkeypatch):
  cpu(AMX)
  monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
  assert "no oneDNN" in precision.why_emulated("bfloat16")


SMALL, LARGE = 1e6, 22e6


@pytest.mark.parametrize(
  ("has", "given", "parameters", "bf16"),
  [
    (AVX2, {}, LARGE, False),
    (AMX, {}, LARGE, True),
    (ZEN4, {}, LARGE, True),
    (AMX, {}, SMALL, False),
    (AMX, {}, 0, False),
    (AMX, {"bf16": False}, LARGE, False),
    (AMX, {"fp16": True}, LARGE, True),
    (AVX2, {"bf16": True}, SMALL, True),
    (AVX2, {"bf16": None}, LARGE, False),
    (AVX2, {"fp16": True}, LARGE, False),
  ],
)
def test_autocast_on_a_cpu(cpu, has, given, parameters, bf16):
  cpu(has)
  assert precision.precision(given, parameters) == {"bf16": bf16, "fp16": False, "use_cpu": True}


@pytest.mark.parametrize(
  ("has_bf16", "given", "expected"),
  [
    (True, {}, (True, False, False)),
    (False, {}, (False, True, False)),
    (True, {"fp16": True}, (False, True, False)),
    (True, {"bf16": False}, (False, False, False)),
    (False, {"bf16": True}, (True, False, False)),
    (True, {"use_cpu": True}, (False, False, True)),
  ],
)
def test_autocast_on_a_gpu(cpu, monkeypatch, has_bf16, given, expected):
  cpu(AVX2)
  monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
  monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
  assert tuple(precision.precision(given, LARGE).values()) == expected


ALL = ("--model_name_or_path", "M", "--dataset_name", "absent.jsonl")
ASKING = [
  ("train.py", (*ALL, "--output_dir", "OUT", "--bf16", "true"), "--bf16 true"),
  ("train.py", (*ALL, "--output_dir", "OUT", "--bf16_full_eval"), "--bf16_full_eval true"),
  ("train.py", (*ALL, "--output_dir", "OUT", "--fp16", "true"), "--fp16 true"),
  ("train_process.py", (*ALL, "--output_dir", "OUT", "--bf16"), "--bf16 true"),
  ("train_process.py", (*ALL, "--output_dir", "OUT", "--fp16=true"), "--fp16 true"),
  ("ppo.py", (*ALL, "--output_dir", "OUT", "--reward_model_path", "M", "--bf16", "true"), "--bf16 true"),
  (
    "ppo.py",
    (*ALL, "--output_dir", "OUT", "--reward_model_path", "M", "--reward_dtype", "float16"),
    "--reward_dtype",
  ),
  ("grpo.py", (*ALL, "--output_dir", "OUT", "--reward_model_path", "M", "--bf16"), "--bf16 true"),
  ("grpo.py", (*ALL, "--output_dir", "OUT", "--reward_model_path", "M", "--fp16"), "--fp16 true"),
  (
    "grpo.py",
    (*ALL, "--output_dir", "OUT", "--reward_model_path", "M", "--reward_dtype", "bfloat16"),
    "--reward_dtype",
  ),
  ("score.py", ("--model_name_or_path", "M", "--input", "absent.jsonl", "--dtype", "bfloat16"), "--dtype bfloat16"),
  ("score.py", ("--model_name_or_path", "M", "--input", "absent.jsonl", "--dtype", "float16"), "--dtype float16"),
  ("evaluate.py", (*ALL, "--dtype", "bfloat16"), "--dtype bfloat16"),
]


@pytest.mark.parametrize(("script", "words", "flag"), ASKING)
def test_one_warning_before_anything_starts(cpu, tmp_path, monkeypatch, script, words, flag):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "M").mkdir()  # a folder, so that no hub is asked
  cpu(AVX2)
  done = run_main(script, *words)
  assert done.returncode, "there is neither a model nor data"
  said = " ".join(done.stderr.split())
  assert said.startswith(f"warning: {flag}") and said.count("warning:") == 1
  assert "needs a GPU" in said if flag == "--fp16 true" else "this processor has no" in said
  assert "leave it out" in said or f"leave {flag}" in said


@pytest.mark.parametrize("device", ["cuda", None])
def test_no_warning_on_a_gpu_or_a_processor_that_has_it(cpu, capsys, monkeypatch, device):
  cpu(AVX2 if device else AMX)
  precision.warn_if_emulated({"dtype": "bfloat16", "device": device, "bf16_full_eval": "true"})
  precision.warn_if_emulated({"dtype": "float32", "bf16": False, "fp16": "no"})
  assert capsys.readouterr().err == ""


def test_a_gpu_that_is_not_used_does_not_count(cpu, capsys, monkeypatch):
  cpu(AVX2)
  monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
  precision.warn_if_emulated({"bf16": True, "use_cpu": "true"})
  precision.warn_if_emulated({"dtype": "bfloat16", "device": "cpu"})
  assert capsys.readouterr().err.count("warning:") == 2


def test_fp16_on_a_cpu_trains_in_fp32_and_says_so_in_the_result(tiny, toy_file, tmp_path):
  done = run_main(
    *(
      "train.py",
      "--model_name_or_path",
      tiny("qwen2"),
      "--dataset_name",
      toy_file,
      "--output_dir",
      tmp_path / "out",
    ),
    *("--max_steps", "1", "--fp16", "true", "--dry_run"),
  )
  assert done.returncode == 0, done.stderr
  assert (done.json["settings"]["fp16"], done.json["settings"]["bf16"]) == (False, False)
