"""Typed settings of the training scripts: one frozen dataclass a group, whose fields are named as their flags are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..cli import flag, fraction, non_negative_number
from ..console import UsageError
from ..output_folder import claim
from ..settings import DTYPES, EVALUATE_ON, ReadingSettings, RewardsSettings, TextSettings, split_flag

if TYPE_CHECKING:
    from trl import GRPOConfig, RLOOConfig


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Where a run writes, and how it starts."""

    group: ClassVar = "run"
    output_dir: str = flag(None, "where the model goes", metavar="OUT")
    overwrite_output_dir: bool = flag(False, "replace a model that is there; files that no run wrote stay beside it")
    resume_from_checkpoint: str | bool | None = flag(
        None,
        "continue from this checkpoint, or from the newest complete one of --output_dir",
        nargs="?",
        const=True,
        metavar="CHECKPOINT",
    )
    dry_run: bool = flag(False, "read, audit and render the data, load the model, show the settings; train nothing")

    def begin(self, *inputs: str) -> tuple[Path, str | None]:
        """(the output folder, locked for this run, the checkpoint to continue from). inputs: paths and hub ids that it reads."""
        from .resuming import resume_point

        resume = self.resume_from_checkpoint
        more = {"overwrite": self.overwrite_output_dir, "dry_run": self.dry_run, "inputs": inputs}
        return claim(self.output_dir, resuming=bool(resume), **more), resume_point(resume, self.output_dir)


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """An adapter, where one is wanted. Raises UsageError for settings of one that was not asked for."""

    group: ClassVar = "LoRA"
    use_peft: bool = flag(
        False, "train a LoRA adapter and the head; merged into the model on saving, kept beside it in OUT/adapter"
    )
    lora_r: int | None = flag(None, "rank (16)", metavar="R")
    lora_alpha: int | None = flag(None, "scale (32)", metavar="A")
    lora_dropout: float | None = flag(None, "dropout (0.05)", type=fraction, metavar="P")
    lora_target_modules: Sequence[str] | None = flag(None, "layers that get an adapter (all-linear)", metavar="NAME")

    def __post_init__(self) -> None:
        names = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
        given = [f"--{name}" for name in names if getattr(self, name) is not None]
        if given and not self.use_peft:  # the whole model would be trained
            verb = "does" if len(given) == 1 else "do"
            raise UsageError(
                f"{' and '.join(given)} {verb} nothing without --use_peft",
                hint="add --use_peft for LoRA, or leave it out",
            )


@dataclass(frozen=True, kw_only=True)
class DataSettings(ReadingSettings, TextSettings):
    """What to train and to evaluate on."""

    group: ClassVar = "data"
    dataset_train_split: str = flag("train", "split to train on", metavar="SPLIT")
    dataset_test_split: str | None = flag(None, "split to evaluate on, when there is one", metavar="SPLIT")
    eval_dataset_name: Sequence[str] | None = flag(None, "held-out data, read as --dataset_name is", metavar="DATA")
    val_set_size: float = flag(
        0.0,
        "share of the prompts held out from training when there is no other evaluation data",
        type=fraction,
        metavar="SHARE",
    )
    report: str | None = flag(
        None,
        "folder for a page (report.html) and a model card about the held-out rows, as of evaluate.py",
        metavar="DIR",
    )
    audit: str = flag(
        "stop",
        "what to do with rows in which check_data.py finds errors, or which the chat template refuses",
        choices=("stop", "drop", "warn"),
    )
    seed: int = flag(42, "of the head, the order and the split", type=int, group="chosen by model size unless given")

    @property
    def has_evaluation(self) -> bool:
        return bool(self.val_set_size or self.names_evaluation)

    @property
    def names_evaluation(self) -> bool:
        """Whether the data to evaluate on is data of its own, and not split off."""
        return bool(self.eval_dataset_name or self.dataset_test_split)

    @property
    def drop_refused(self) -> bool:
        """Whether what the chat template refuses is left out, rather than an error."""
        return self.audit == "drop"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What to start from, and how much it reads."""

    group: ClassVar = "model"
    model_name_or_path: str = flag(
        None, "folder or hub id of a base, instruct or reward model; a trained reward head is kept", metavar="MODEL"
    )
    chat_template_path: str | None = flag(None, "a .jinja file, or a model whose chat template to use", metavar="PATH")
    max_length: int | None = flag(
        None, "longest rendered conversation (1024, or what the model can read)", metavar="TOKENS"
    )


@dataclass(frozen=True, kw_only=True)
class SizeSettings:
    """What has a default for each size of model (`configuration.SIZES`)."""

    group: ClassVar = "chosen by model size unless given"
    learning_rate: float | None = flag(
        None, "1e-4 below 100M, 2e-5 to 1B, 1e-5 to 7B, 5e-6 above; ten times that with LoRA"
    )
    per_device_train_batch_size: int | None = flag(
        None, "pairs, rankings or solutions in one forward pass (8 below 1B, 4 to 7B, 2 above)"
    )
    num_train_epochs: float | None = flag(None, "2 below 1B, 1 above")
    gradient_checkpointing: bool | None = flag(None, "from 1B parameters on")
    bf16: bool | None = flag(None, "bfloat16 autocast (on a GPU or a CPU that has it)")
    eval_steps: float | None = flag(None, "evaluate every so many steps (once an epoch)")


@dataclass(frozen=True, kw_only=True)
class Settings(ModelSettings, DataSettings, OutputSettings, LoraSettings, SizeSettings):
    """A training run of a reward model of any kind."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_steps is not None and not self.has_evaluation:
            raise UsageError(
                "--eval_steps needs something to evaluate on",
                hint=f"{EVALUATE_ON}, or leave --eval_steps out of the command line and the recipe",
            )

        if self.report and not (self.has_evaluation or getattr(self, "folds", None)):
            raise UsageError(
                "--report needs something to evaluate on", hint=f"{EVALUATE_ON}, or evaluate.py --report later"
            )

    @property
    def inputs(self) -> Iterable[str]:
        """Paths and hub ids that the run reads."""
        return (self.model_name_or_path, *self.dataset_name, *(self.eval_dataset_name or ()))


@dataclass(frozen=True, kw_only=True)
class RewardSettings(RewardsSettings):
    """The reward of a reinforcement learning run."""

    group: ClassVar = "reward"
    normalize_rewards: bool = flag(
        False, "subtract the mean and divide by the standard deviation saved with each model"
    )
    reward_dtype: str = flag("float32", "precision of the reward models' weights", choices=DTYPES)
    reward_max_length: int | None = flag(
        None,
        "longest conversation a reward model reads (what it was trained with); the start of longer ones is cut",
        metavar="TOKENS",
    )
    reward_max_tokens_per_batch: int | None = flag(
        None, "tokens in one forward pass of a reward model (chosen from the data)", metavar="TOKENS"
    )


@dataclass(frozen=True, kw_only=True)
class PolicySettings(ReadingSettings, RewardSettings, OutputSettings, LoraSettings):
    """A reinforcement learning run."""

    group: ClassVar = "policy"
    model_name_or_path: str = flag(
        None, "folder or hub id of the policy to start from, also the reference", metavar="MODEL"
    )
    chat_template_path: str | None = flag(None, "a .jinja file, or a model whose chat template to use", metavar="PATH")
    stop_token_id: int | None = flag(None, "the one token that ends an answer", type=int, metavar="ID")
    max_prompt_length: int | None = flag(
        None,
        "longest rendered prompt (what the policy's context leaves beside the answer)",
        group="data",
        metavar="TOKENS",
    )
    overlong: str = flag("error", "what to do with longer prompts", group="data", choices=("error", "drop"))
    seed: int = flag(42, "of prompts, answers and adapters", group="run", type=int)

    @property
    def inputs(self) -> Iterable[str]:
        """Paths and hub ids that the run reads."""
        return (self.model_name_or_path, *self.reward_model_path, *self.dataset_name)


@dataclass(frozen=True, kw_only=True)
class GRPOSettings(PolicySettings):
    """A run by one of `grpo.ALGORITHMS`."""

    group: ClassVar = "policy"
    algorithm: str = flag("grpo", "trainer of TRL", choices=("grpo", "rloo"))
    missing_eos_penalty: float = flag(
        1.0, "taken from the reward of an answer that did not end", group="reward", type=non_negative_number
    )
    dataset_split: str | None = split_flag("train")

    @staticmethod
    def config_classes() -> dict[str, type[GRPOConfig | RLOOConfig]]:
        """Algorithm -> TRL's configuration of it."""
        import trl

        return {"grpo": trl.GRPOConfig, "rloo": trl.RLOOConfig}

    def config_class(self) -> type[GRPOConfig | RLOOConfig]:
        return self.config_classes()[self.algorithm]
