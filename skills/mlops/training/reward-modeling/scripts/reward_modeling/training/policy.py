"""A policy: the language model that reinforcement learning trains, and how its prompts and answers are written.

policy = Policy.from_pretrained("runs/sft")
prompts = [policy.prompt_ids([{"role": "user", "content": "What is 2 + 2?"}])]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import checkpoints
from ..console import ModelError, log, to_json
from ..data.records import Message, Origin
from ..heads import unwrapped
from ..lengths import positions
from ..output_folder import staged
from ..rendering import Renderer
from .loop import without_dropout

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

SUMMARY = "ppo.json"
_ASKED = {"role": "user", "content": "Is it?"}
_ANSWERED = "Indeed"


@dataclass
class Policy:
    """A causal language model (or a PEFT model around one), in fp32, without dropout, and what surrounds its answers.

    end_tokens: any of them ends an answer. gap: what the chat template writes between the generation prompt and an answer,
    such as a space. generation_config: as it came, put back on saving.
    """

    model: PreTrainedModel | PeftModel
    renderer: Renderer
    end_tokens: tuple[int, ...]
    gap: str
    generation_config: GenerationConfig

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        chat_template_path: str | None = None,
        stop_token_id: int | None = None,
        device: str | None = None,
    ) -> Policy:
        """Load from a folder or hub id, or from the folder of a LoRA adapter, as a checkpoint is with --use_peft: merged.

        stop_token_id: the only token that ends an answer, instead of all known ones.
        Raises ModelError when it is not a causal language model, has no chat template or nothing that ends an answer.
        """
        from transformers import GenerationConfig

        adapter, path = path, _base_of(path)
        architecture = checkpoints.architecture_of(checkpoints.read_config(path))
        if "ForSequenceClassification" in architecture or "ForTokenClassification" in architecture:
            raise ModelError(
                f"{path} is not a policy: its architecture is {architecture}, which writes no text",
                hint="give the model to be optimized here, and the reward model as --reward_model_path",
            )
        tokenizer = checkpoints.read_tokenizer(adapter if (Path(adapter) / "tokenizer_config.json").exists() else path)
        tokenizer.chat_template = checkpoints.read_chat_template(chat_template_path) or tokenizer.chat_template
        if not tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of {path} has no chat template: how the policy was asked in its fine-tuning is not known",
                hint="name that template with --chat_template_path (a .jinja file, or a model that has it)",
            )
        model, notes = _read(path)
        checkpoints.check_embedded(path, tokenizer, model.get_input_embeddings().num_embeddings)
        for note in notes:
            log(f"policy {path}: {note}")
        if adapter != path:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        renderer = Renderer(tokenizer, max_length=None)
        known = [stop_token_id] if stop_token_id is not None else _end_tokens(tokenizer, model.generation_config)
        gap, after = _around_answer(renderer)
        if stop_token_id is None and after is not None:
            known.append(after)
        if not known:
            raise ModelError(
                f"{path} has no EOS token: nothing would end an answer",
                hint="name the token that ends its answers with --stop_token_id",
            )
        if tokenizer.pad_token is None:  # only ever masked
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(known[0])
        without_dropout(model).eval().to(device or checkpoints.best_device())
        own, model.generation_config = model.generation_config, GenerationConfig()  # nothing but what `sample` asks for
        return cls(model, renderer, tuple(dict.fromkeys(known)), gap, own)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.renderer.tokenizer

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def context(self) -> int | None:
        """How many tokens, prompt and answer together, the model can read."""
        return positions(unwrapped(self.model))

    def prompt_ids(
        self, messages: Sequence[Message], tools: list[dict] | None = None, where: Origin | None = None
    ) -> list[int]:
        """The conversation so far, up to where the answer begins."""
        return self.renderer.prompt_ids(messages, tools, where=where)

    def finished(self, ids: Sequence[int]) -> bool:
        """Whether an answer ended by itself, rather than at a limit on new tokens."""
        return bool(ids) and ids[-1] in self.end_tokens

    def reply(self, ids: Sequence[int]) -> list[Message]:
        """An answer as one assistant message: without the end token and other special tokens, and without the gap."""
        text = self.tokenizer.decode(list(ids)[: -1 if self.finished(ids) else None], skip_special_tokens=True)
        return [{"role": "assistant", "content": text.removeprefix(self.gap) if self.gap else text}]

    def write(self, folder: Path) -> None:
        """The policy as it is now, a plain causal language model or the adapter of one, with its tokenizer."""
        sampling, self.model.generation_config = self.model.generation_config, self.generation_config
        self.model.save_pretrained(folder)
        self.model.generation_config = sampling
        self.tokenizer.save_pretrained(folder)

    def read(self, folder: Path) -> None:
        """Give the model in memory the weights that `write` left."""
        if hasattr(self.model, "merge_and_unload"):
            from peft import set_peft_model_state_dict
            from safetensors.torch import load_file

            set_peft_model_state_dict(self.model, load_file(folder / "adapter_model.safetensors"))
        else:
            self.model.load_state_dict(_read(str(folder))[0].state_dict())


def _read(path: str) -> tuple[PreTrainedModel, list[str]]:
    """(the causal language model of this folder or hub id in fp32, notes). Raises ModelError when it is not whole."""
    from transformers import AutoModelForCausalLM

    model, missing, notes = checkpoints.read_model(
        AutoModelForCausalLM, path, scores=False, strict=True, dtype=torch.float32
    )
    if missing:
        raise ModelError(f"{path} lacks the weights of {len(missing)} layers ({missing[0]}): they would be random")
    return model, notes


def _base_of(path: str) -> str:
    """The model that the causal adapter in this folder belongs to; the path itself where there is none."""
    adapter = Path(path) / "adapter_config.json"
    if not adapter.is_file() or (Path(path) / "config.json").is_file():
        return path
    config = json.loads(adapter.read_text(encoding="utf-8"))
    return config["base_model_name_or_path"] if config.get("task_type") == "CAUSAL_LM" else path


def _end_tokens(tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig) -> list[int]:
    listed = generation_config.eos_token_id
    several = listed if isinstance(listed, list) else [listed]
    return [token for token in (tokenizer.eos_token_id, *several) if token is not None]


def _around_answer(renderer: Renderer) -> tuple[str, int | None]:
    """(what the template writes before an answer, the special token it writes after one, if any)."""
    head = renderer.text([_ASKED], prompt_only=True)
    whole = renderer.text([_ASKED, {"role": "assistant", "content": _ANSWERED}])
    before, _, behind = whole.rpartition(_ANSWERED)
    ids = renderer.tokenizer(behind, add_special_tokens=False)["input_ids"] if behind else []
    after = ids[0] if ids and ids[0] in renderer.tokenizer.all_special_ids else None
    return (before.removeprefix(head) if before.startswith(head) else ""), after


def save(policy: Policy, output_dir: str | Path, summary: object, name: str = SUMMARY) -> None:
    """Save the policy as a plain causal language model, its adapter merged (and kept in `adapter`), with its summary.

    Of what is in the folder, only a model saved before is replaced (`output_folder.staged`).
    """
    with staged(output_dir) as folder:
        if hasattr(policy.model, "merge_and_unload"):
            policy.model.save_pretrained(folder / checkpoints.ADAPTER)
            policy = replace(policy, model=policy.model.merge_and_unload())
        policy.write(folder)
        (folder / name).write_text(to_json(summary, indent=2) + "\n", encoding="utf-8")
