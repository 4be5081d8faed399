"""Train an outcome reward model: one score for a whole answer, from comparisons, by the Bradley-Terry loss.

TRL's RewardTrainer runs the loop. Overridden, each for one reason that a test holds it to:

- `_prepare_dataset`: the rows are rendered already, by the project's own contract, and none is dropped in silence.
- `_set_signature_columns_if_needed`: the rows carry weights and rankings of any length.
- `compute_loss`: weights, label smoothing, rankings; metrics are means over pairs, not over batches, ties count half.

One row of the training set is one prompt with all its completions and all their pairs: a completion that takes part in
several pairs is computed once, as InstructGPT does (arXiv:2203.02155, section 3.5).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from ..console import DataError, ModelError, RunError, log, write_whole
from ..records import Comparison
from ..rendering import Renderer
from .batches import PAIR_FIELDS, PaddedCollator, packed_batches
from .losses import bradley_terry, centering

# ---- choices made for the user ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SizeDefaults:
    """What to start from for models below `parameters`; LoRA multiplies the learning rate by ten."""

    name: str
    parameters: float
    learning_rate: float
    per_device_train_batch_size: int
    num_train_epochs: int


SIZES = (
    SizeDefaults("under 1B", 1e9, 2e-5, 8, 2),
    SizeDefaults("1B to 7B", 7e9, 1e-5, 4, 1),
    SizeDefaults("7B and more", float("inf"), 5e-6, 2, 1),
)
LORA_LEARNING_RATE_FACTOR = 10
CHECKPOINT_ACTIVATIONS_FROM = 1e9


def default_arguments(parameters: int, lora: bool) -> tuple[dict[str, Any], str]:
    """Learning rate, batch size, epochs and activation checkpointing for a model of this many parameters, and why."""
    size = next(size for size in SIZES if parameters < size.parameters)
    rate = size.learning_rate * (LORA_LEARNING_RATE_FACTOR if lora else 1)
    chosen = {
        "learning_rate": rate,
        "per_device_train_batch_size": size.per_device_train_batch_size,
        "num_train_epochs": size.num_train_epochs,
        "gradient_checkpointing": parameters >= CHECKPOINT_ACTIVATIONS_FROM,
    }
    return chosen, f"{parameters / 1e6:.1f}M parameters ({size.name}{', LoRA' if lora else ''})"


def precision() -> dict[str, bool]:
    """bf16 autocast on a GPU that has it, fp16 on one that has not, fp32 on a CPU. Weights stay fp32."""
    if not torch.cuda.is_available():
        return {"bf16": False, "fp16": False, "use_cpu": not torch.backends.mps.is_available()}
    has_bf16 = torch.cuda.is_bf16_supported()
    return {"bf16": has_bf16, "fp16": not has_bf16, "use_cpu": False}


# ---- rows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """A rendered training set. `pairs` is what is left of the comparisons, `counts` what happened on the way."""

    dataset: Dataset
    pairs: list[Comparison]
    counts: dict[str, int]


def render_comparisons(comparisons: Sequence[Comparison], renderer: Renderer, chunk: int = 1024) -> Rows:
    """Render comparisons into rows of token ids, one row for each prompt of a ranking and one for each other pair.

    A pair is left out, and counted, when the over-length policy leaves out one of its sides, or when truncation made
    both sides the same (it would teach nothing). Raises DataError when no pair is left.
    """
    groups: dict[Any, list[Comparison]] = defaultdict(list)
    for place, pair in enumerate(comparisons):
        groups[pair.origin if pair.weight != 1.0 and pair.origin else place].append(pair)
    counts = {
        "pairs": len(comparisons),
        "dropped_over_length": 0,
        "identical_after_truncation": 0,
        "truncated_sides": 0,
    }
    rows, kept = [], []
    ordered = list(groups.values())
    for start in range(0, len(ordered), chunk):
        for row, pairs in _render_groups(ordered[start : start + chunk], renderer, counts):
            rows.append(row)
            kept += pairs
    if not rows:
        raise DataError(
            f"no pair is left of {len(comparisons)}: {counts['dropped_over_length']} are longer than {renderer.max_length} tokens",
            hint="raise --max_length, or choose --overlong truncate_left, which cuts long answers too",
        )
    counts["pairs_used"] = len(kept)
    return Rows(Dataset.from_list(rows), kept, counts)


def _render_groups(groups: list[list[Comparison]], renderer: Renderer, counts: dict[str, int]):
    """(row, pairs kept) for each group that has a pair left. Each distinct completion of a group is rendered once."""
    conversations, where_is = [], {}
    for g, group in enumerate(groups):
        for pair in group:
            for completion in (pair.chosen, pair.rejected):
                key = (g, json.dumps(completion, sort_keys=True, default=str))
                if key not in where_is:
                    where_is[key] = len(conversations)
                    conversations.append((pair.prompt, completion, pair.tools, pair.origin))
    rendered = renderer.render_all(conversations)
    for g, group in enumerate(groups):
        row: dict[str, list] = {"sequences": [], "chosen": [], "rejected": [], "margin": [], "weight": []}
        places: dict[int, int] = {}
        kept = []
        for pair in group:
            sides = [
                where_is[(g, json.dumps(side, sort_keys=True, default=str))] for side in (pair.chosen, pair.rejected)
            ]
            chosen, rejected = (rendered[side] for side in sides)
            if chosen is None or rejected is None:
                counts["dropped_over_length"] += 1
                continue
            if chosen.ids == rejected.ids:
                counts["identical_after_truncation"] += 1
                continue
            counts["truncated_sides"] += bool(chosen.cut) + bool(rejected.cut)
            for name, side in zip(("chosen", "rejected"), sides, strict=True):
                if side not in places:
                    places[side] = len(row["sequences"])
                    row["sequences"].append(rendered[side].ids)
                row[name].append(places[side])
            row["margin"].append(pair.margin or 0.0)
            row["weight"].append(pair.weight)
            kept.append(pair)
        if kept:
            yield row, kept


# ---- the trainer --------------------------------------------------------------------------------------------------


class OutcomeTrainer(RewardTrainer):
    """TRL's RewardTrainer on rendered rows. `label_smoothing`: see `bradley_terry`."""

    def __init__(self, *args: Any, label_smoothing: float = 0.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.label_smoothing = label_smoothing

    def _prepare_dataset(
        self, dataset: Dataset, processing_class: Any, args: RewardConfig, dataset_name: str
    ) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["sequences", "chosen", "rejected", "margin", "weight"]

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ):
        pairs = {name: inputs.pop(name) for name in PAIR_FIELDS}
        tokens = inputs.pop("tokens")
        outputs = model(**inputs, use_cache=False)
        rewards = outputs.logits.squeeze(-1).float()
        chosen, rejected = rewards[pairs["chosen"]], rewards[pairs["rejected"]]
        loss = bradley_terry(
            chosen, rejected, margin=pairs["margin"], weight=pairs["weight"], label_smoothing=self.label_smoothing
        )
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * centering(chosen, rejected, pairs["weight"])
        if model.training and not torch.isfinite(loss):
            # Checked at every step: transformers logs the mean of the losses before instead of one that is no number.
            raise RunError(
                f"the loss became {loss.item()} at step {self.state.global_step + 1}",
                hint="lower --learning_rate, or continue from the last checkpoint with --resume_from_checkpoint",
            )
        self._collect_metrics(rewards.detach(), (chosen - rejected).detach(), tokens)
        return (loss, outputs) if return_outputs else loss

    def _collect_metrics(self, rewards: torch.Tensor, difference: torch.Tensor, tokens: torch.Tensor) -> None:
        """Keep one value for each pair and each reward: TRL's `log` averages the lists, so its means are over pairs."""
        mode = "train" if self.model.training else "eval"
        metrics = self._metrics[mode]
        if mode == "train":
            self._total_train_tokens += self.accelerator.gather(tokens).sum().item()
        metrics["num_tokens"] = [self._total_train_tokens]
        difference, rewards = self._gather_ragged(difference), self._gather_ragged(rewards)
        metrics["accuracy"] += ((difference > 0).float() + 0.5 * (difference == 0).float()).tolist()
        metrics["margin"] += difference.tolist()
        metrics["mean_reward"] += rewards.tolist()
        metrics["min_reward"] = [min([*metrics["min_reward"], rewards.min().item()])]
        metrics["max_reward"] = [max([*metrics["max_reward"], rewards.max().item()])]

    def _gather_ragged(self, values: torch.Tensor) -> torch.Tensor:
        """The values of all processes, which may hold different numbers of them: padded with NaN, gathered, cleaned."""
        if self.accelerator.num_processes == 1:
            return values
        gathered = self.accelerator.gather(self.accelerator.pad_across_processes(values, pad_index=float("nan")))
        return gathered[~gathered.isnan()]


def lora_config(head: str, *, r: int, alpha: int, dropout: float, target_modules: str | list[str]) -> Any:
    """A LoRA configuration that trains and saves the head. Without it the head would stay random, and be lost on saving."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="SEQ_CLS",
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules,
        modules_to_save=[head],
    )


# ---- resuming -----------------------------------------------------------------------------------------------------


def checkpoints(output_dir: str | Path) -> list[Path]:
    """The checkpoints in a folder, oldest first, complete or not."""
    found = [folder for folder in Path(output_dir).glob("checkpoint-*") if folder.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]))


def is_complete_checkpoint(folder: str | Path) -> bool:
    """Whether it was written to its end: trainer_state.json is written last, so a killed run leaves none, or half of it."""
    try:
        json.loads((Path(folder) / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any(Path(folder).glob("*.safetensors"))


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The newest checkpoint that was written to its end."""
    complete = [folder for folder in checkpoints(output_dir) if is_complete_checkpoint(folder)]
    return str(complete[-1]) if complete else None


def discard_checkpoints(output_dir: str | Path, *, only_incomplete: bool) -> None:
    """Remove what a killed run left half-written, or everything an earlier run left, which could be resumed by mistake."""
    for folder in checkpoints(output_dir):
        if not (only_incomplete and is_complete_checkpoint(folder)):
            shutil.rmtree(folder, ignore_errors=True)


def run_identity(
    arguments: RewardConfig,
    rows: Rows,
    renderer: Renderer,
    head: str,
    *,
    peft_config: Any = None,
    label_smoothing: float = 0.0,
) -> dict[str, Any]:
    """What must be the same for a resumed run to end where the undisturbed one would have."""
    digest = hashlib.sha256()
    for row in rows.dataset:
        digest.update(json.dumps(row, sort_keys=True).encode())
    names = (
        "seed",
        "learning_rate",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_train_epochs",
        "max_steps",
        "lr_scheduler_type",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
        "optim",
        "center_rewards_coefficient",
        "bf16",
        "fp16",
        "world_size",
    )
    settings = {name: str(getattr(arguments, name)) for name in names} | {"label_smoothing": str(label_smoothing)}
    settings["lora"] = str(peft_config and _lora_summary(peft_config))
    return {"data_sha256": digest.hexdigest()[:16], "fingerprint": renderer.fingerprint, "head": head, **settings}


def _lora_summary(config: Any) -> list[Any]:
    targets = config.target_modules
    return [config.r, config.lora_alpha, config.lora_dropout, targets if isinstance(targets, str) else sorted(targets)]


def check_same_run(output_dir: Path, identity: dict[str, Any]) -> None:
    """Raises RunError when the run in `output_dir` was started with other data or settings."""
    file = output_dir / "run.json"
    if not file.is_file():
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    changed = [
        f"{name} ({before[name]} -> {value})"
        for name, value in identity.items()
        if name in before and before[name] != value
    ]
    if changed:
        raise RunError(
            f"cannot resume: {', '.join(changed)}",
            where=str(file),
            hint="repeat the flags of the first run; to train its model further, give it as --model_name_or_path with a new --output_dir",
        )


# ---- one call -----------------------------------------------------------------------------------------------------


def fit(
    model: Any,
    renderer: Renderer,
    rows: Rows,
    arguments: RewardConfig,
    *,
    head: str,
    eval_rows: Rows | None = None,
    peft_config: Any = None,
    label_smoothing: float = 0.0,
    resume: str | None = None,
    shared_prefix: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """Train. Returns the model in memory (a PEFT model when `peft_config` is given) and a summary of the run.

    With `shared_prefix` the beginning that the sides of a pair share is computed once where the model allows it: the
    same loss and gradients in less time (see `batches.packed_batches`).

    Raises ModelError when the trainer refuses the model, RunError when the loss is no number.
    """
    from .progress import ProgressLog

    output_dir = Path(arguments.output_dir)
    identity = run_identity(arguments, rows, renderer, head, peft_config=peft_config, label_smoothing=label_smoothing)
    if resume:
        check_same_run(output_dir, identity)
    if arguments.process_index == 0:
        discard_checkpoints(output_dir, only_incomplete=bool(resume))
        write_whole(output_dir / "run.json", [json.dumps(identity, indent=2)])
    try:
        trainer = OutcomeTrainer(
            model=model,
            args=arguments,
            data_collator=PaddedCollator(renderer.tokenizer.pad_token_id),
            train_dataset=rows.dataset,
            eval_dataset=eval_rows.dataset if eval_rows else None,
            processing_class=renderer.tokenizer,
            peft_config=peft_config,
            label_smoothing=label_smoothing,
        )
    except (ValueError, TypeError) as error:
        raise ModelError(f"the model cannot be trained: {error}") from error
    ProgressLog.install(trainer)
    if arguments.bf16 or arguments.fp16:
        from ..checkpoints import keep_head_in_float32

        keep_head_in_float32(trainer.model)
    log(f"training: {len(rows.pairs)} pairs in {len(rows.dataset)} rows, {arguments.world_size} process(es)")
    packing = packed_batches(trainer) if shared_prefix else contextlib.nullcontext()
    try:
        with packing:
            result = trainer.train(resume_from_checkpoint=resume)
    except BaseException:  # Ctrl-C and a full disk included: what was being written then is of no use
        if arguments.process_index == 0:
            discard_checkpoints(output_dir, only_incomplete=True)
        raise
    summary = {
        "train_loss": result.training_loss,
        "steps": result.global_step,
        "seconds": result.metrics.get("train_runtime"),
        "log": [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry],
        **{
            name: getattr(arguments, name)
            for name in (
                "learning_rate",
                "per_device_train_batch_size",
                "gradient_accumulation_steps",
                "num_train_epochs",
                "bf16",
                "fp16",
                "seed",
            )
        },
        "world_size": arguments.world_size,
    }
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False), summary
