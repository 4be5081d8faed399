"""A policy: the language model that reinforcement learning trains, its prompts, its answers and their probabilities.

    policy = Policy.from_pretrained("runs/sft")
    prompts = [policy.prompt_ids([{"role": "user", "content": "What is 2 + 2?"}])]
    answers = sample(policy, prompts, max_new_tokens=32, seed=0)        # token ids; policy.reply(ids) are the messages

Layout of a batch, [B, P + N]: prompts padded on the left to P, answers on the right to N, a mask and position ids for
both, so that answers start in one column. Padding is told from lengths, never from a token that an answer may hold.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

from .. import checkpoints
from ..checkpoints import unwrapped
from ..console import DataError, ModelError, UsageError, log, progress, to_json, warn
from ..data.records import Message, Ranking
from ..lengths import positions
from ..output_folder import staged
from ..rendering import Renderer, refused_together
from . import runs
from .runs import without_dropout

SUMMARY = "ppo.json"
_ASKED = {"role": "user", "content": "Is it?"}
_ANSWERED = "Indeed"

# ---- the policy ---------------------------------------------------------------------------------------------------


@dataclass
class Policy:
    """A causal language model (or a PEFT model around one), in fp32, without dropout, and what surrounds its answers.

    end_tokens: any of them ends an answer. gap: what the chat template writes between the generation prompt and an
    answer, such as a blank; it is no part of the answer. generation_config: as it came, put back on saving.
    """

    model: Any
    renderer: Renderer
    end_tokens: tuple[int, ...]
    gap: str
    generation_config: Any

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        chat_template_path: str | None = None,
        stop_token_id: int | None = None,
        device: str | None = None,
    ) -> Policy:
        """Load from a folder or hub id. stop_token_id: the only token that ends an answer, instead of all known ones.

        Raises ModelError when it is no causal language model, has no chat template or nothing that ends an answer.
        """
        from transformers import AutoModelForCausalLM, GenerationConfig

        architecture = checkpoints.architecture_of(checkpoints.read_config(path))
        if "ForSequenceClassification" in architecture or "ForTokenClassification" in architecture:
            raise ModelError(
                f"{path} is no policy: its architecture is {architecture}, which writes no text",
                hint="give the model to be optimised here, and the reward model as --reward_model_path",
            )
        tokenizer = checkpoints.read_tokenizer(path)
        tokenizer.chat_template = checkpoints.read_chat_template(chat_template_path) or tokenizer.chat_template
        if not tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of {path} has no chat template: how the policy was asked in its fine-tuning is not known",
                hint="name that template with --chat_template_path (a .jinja file, or a model that has it)",
            )
        model, missing, notes = checkpoints.read_model(
            AutoModelForCausalLM, path, scores=False, strict=True, dtype=torch.float32
        )
        if missing:
            raise ModelError(f"{path} lacks the weights of {len(missing)} layers ({missing[0]}): they would be random")
        checkpoints.check_embedded(path, tokenizer, model.get_input_embeddings().num_embeddings)
        for note in notes:
            log(f"policy {path}: {note}")
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
        if tokenizer.pad_token is None:  # only ever behind a mask
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(known[0])
        without_dropout(model).eval().to(device or checkpoints.best_device())
        own, model.generation_config = model.generation_config, GenerationConfig()  # nothing but what `sample` asks for
        return cls(model, renderer, tuple(dict.fromkeys(known)), gap, own)

    @property
    def tokenizer(self) -> Any:
        return self.renderer.tokenizer

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def context(self) -> int | None:
        """How many tokens, prompt and answer together, the model can read."""
        return positions(unwrapped(self.model))

    def prompt_ids(self, messages: Sequence[Message], tools: list[dict] | None = None, where: Any = None) -> list[int]:
        """The conversation so far, up to where the answer begins."""
        return self.renderer.prompt_ids(messages, tools, where=where)

    def finished(self, ids: Sequence[int]) -> bool:
        """Whether an answer ended by itself, rather than at a limit on new tokens."""
        return bool(ids) and ids[-1] in self.end_tokens

    def reply(self, ids: Sequence[int]) -> list[Message]:
        """An answer as one assistant message: without the end token and other special tokens, and without the gap."""
        text = self.tokenizer.decode(list(ids)[: -1 if self.finished(ids) else None], skip_special_tokens=True)
        return [{"role": "assistant", "content": text.removeprefix(self.gap) if self.gap else text}]

    @contextlib.contextmanager
    def reference(self) -> Iterator[Any]:
        """The model with its adapters switched off: a LoRA policy is its own reference, without a second copy."""
        with self.model.disable_adapter():
            yield self.model


def _end_tokens(tokenizer: Any, generation_config: Any) -> list[int]:
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


# ---- prompts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """One prompt as the policy reads it and as a reward model gets it."""

    ids: list[int]
    messages: list[Message]
    tools: list[dict] | None = None


def read_prompts(args: Any, split: str | None, sources: list[str] | None = None) -> list[Ranking]:
    """The prompts of the data that the flags of `arguments.add_dataset_arguments` name, as records."""
    from ..data.audit import warn_of_templates
    from ..data.reading import load_prompts

    records = load_prompts(
        sources or args.dataset_name,
        split=split,
        config=args.dataset_config,
        format=args.format,
        columns=args.columns,
    )
    log(f"{len(records.rows)} rows of format {records.format}")
    warn_of_templates(records.rows)
    return records.rows


def new_tokens(policy: Policy, given: int | None, default: int, flag: str) -> int:
    """The longest answer in tokens: as given, else the default, or half the context of a policy too small for it."""
    if given is not None or policy.context is None or 2 * default <= policy.context:
        return default if given is None else given
    half = max(1, policy.context // 2)
    log(f"{flag} {half}: half of the {policy.context} tokens that the policy reads (otherwise {default})")
    return half


def render_prompts(
    records: Sequence[Ranking],
    policy: Policy,
    max_new_tokens: int,
    *,
    longest: int | None = None,
    overlong: str = "error",
    limit: str = "--response_length",
) -> list[Prompt]:
    """The prompts as the policy reads them, in input order.

    longest: tokens of a prompt, at most what the context leaves beside the answer. overlong: "error" or "drop" for longer
    ones, which is counted. limit: the flag that sets max_new_tokens, for messages. Raises DataError for long prompts.
    """
    room = None if policy.context is None else policy.context - max_new_tokens
    if room is not None and room < 1:
        raise UsageError(
            f"{limit} {max_new_tokens} leaves no room for a prompt: the policy reads {policy.context} tokens"
        )
    longest = min(filter(None, (longest, room)), default=None)
    prompts, refused = [], []
    for place, record in enumerate(records):
        try:
            ids = policy.prompt_ids(record.prompt, record.tools, record.origin)
            prompts.append(Prompt(ids, record.prompt, record.tools))
        except DataError as error:
            refused.append((place, error))
    if refused:
        raise refused_together(refused, len(records))
    over = [place for place, prompt in enumerate(prompts) if longest is not None and len(prompt.ids) > longest]
    if over and (overlong == "error" or len(over) == len(prompts)):
        first = over[0]
        raise DataError(
            f"{len(over)} of {len(prompts)} prompts are longer than {longest} tokens, the first has {len(prompts[first].ids)}",
            where=str(records[first].origin),
            hint=f"leave them out with --overlong drop, or lower {limit}"
            if len(over) < len(prompts)
            else f"lower {limit}, raise --max_prompt_length, or use a policy with a longer context",
        )
    if over:
        warn(f"left out {len(over)} of {len(prompts)} prompts, longer than {longest} tokens")
    gone = set(over)
    return [prompt for place, prompt in enumerate(prompts) if place not in gone]


def lora_from_arguments(args: Any) -> Any:
    """The LoRA configuration that the flags describe for a policy, without dropout, or None without --use_peft."""
    if not args.use_peft:
        return None
    from accelerate.utils import set_seed

    set_seed(args.seed)
    return runs.lora_from_arguments(args, "CAUSAL_LM", None, dropout=0.0)


# ---- sampling -----------------------------------------------------------------------------------------------------


class Draw:
    """A logits processor that draws the next token itself, by one uniform number a row and step.

    All other tokens are set to minus infinity, so that greedy search takes the drawn one. A row's answer then depends on
    its own numbers only: not on the other rows, the size of the batch or the number of processes.
    """

    def __init__(self, uniforms: torch.Tensor, temperature: float):
        self.uniforms, self.temperature, self.step = uniforms, temperature, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        cumulative = torch.softmax(scores.float() / self.temperature, dim=-1).cumsum(dim=-1)
        threshold = self.uniforms[:, self.step, None] * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, threshold, right=True).clamp(max=scores.shape[-1] - 1)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def uniforms(seed: int, number: int, count: int) -> torch.Tensor:
    """[count] numbers in [0, 1) that belong to answer `number` of a run with this seed, wherever it is computed."""
    return torch.from_numpy(numpy.random.default_rng([seed, number]).random(count, dtype=numpy.float32))


def _generate_with_transformers(
    policy: Policy, prompts: list[list[int]], max_new_tokens: int, temperature: float, draws: torch.Tensor
) -> list[list[int]]:
    from transformers import GenerationConfig, LogitsProcessorList

    ids, mask = left_padded(prompts, policy.tokenizer.pad_token_id)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(policy.end_tokens),
        pad_token_id=policy.tokenizer.pad_token_id,
    )
    drawing = [Draw(draws.to(policy.device), temperature)] if temperature else []
    written = unwrapped(policy.model).generate(
        input_ids=ids.to(policy.device),
        attention_mask=mask.to(policy.device),
        generation_config=config,
        logits_processor=LogitsProcessorList(drawing),
    )
    return written[:, ids.shape[1] :].tolist()


@dataclass(frozen=True)
class Sampler:
    """A way to generate. generate: (policy, prompts, max_new_tokens, temperature, draws [B, N]) -> B rows of ids."""

    generate: Callable[..., list[list[int]]]
    description: str


SAMPLERS: dict[str, Sampler] = {
    "transformers": Sampler(_generate_with_transformers, "model.generate with its key-value cache, on every device"),
}
"""Another engine goes in here. vLLM wants a GPU and a copy of weights that change at every update; transformers' continuous
batching (`generate_batch`) took a hundred times as long on a CPU. Neither draws by numbers given, as `Draw` does."""


def sample(
    policy: Policy,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    batch_size: int = 64,
    sampler: str = "transformers",
    label: str | None = None,
) -> list[list[int]]:
    """One answer for each prompt, as token ids with the end token where it came. In input order.

    prompts: rendered by `Policy.prompt_ids`; for several answers repeat a prompt. numbers: what names each answer's
    random draws (0, 1, 2, ... unless given): the same seed and number give the same answer in any batch, up to
    differences in the last digit of a probability. temperature 0 takes the most likely token.
    Batches are made of prompts of like length. label: of a progress bar, if one is wanted.
    """
    numbers = range(len(prompts)) if numbers is None else numbers
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    answers: list[list[int]] = [[] for _ in prompts]
    bar = progress(label, len(prompts)) if label else contextlib.nullcontext(lambda done: None)
    with torch.inference_mode(), bar as advance:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            draws = torch.stack([uniforms(seed, numbers[place], max_new_tokens) for place in places])
            rows = SAMPLERS[sampler].generate(
                policy, [prompts[place] for place in places], max_new_tokens, temperature, draws
            )
            for place, row in zip(places, rows, strict=True):
                answers[place] = up_to_end(row, policy.end_tokens)
            advance(len(places))
    return answers


def up_to_end(row: list[int], end_tokens: Sequence[int]) -> list[int]:
    """The row up to and with its first end token; what follows in a batch is padding."""
    return next((row[: place + 1] for place, token in enumerate(row) if token in end_tokens), row)


# ---- batches ------------------------------------------------------------------------------------------------------


def left_padded(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both [rows, longest row]: every row ends in the last column."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_token_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[place, width - len(row) :] = 1
    return ids, mask


def joined(
    prompts: Sequence[list[int]], answers: Sequence[list[int]], pad_token_id: int
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """(ids [B, P + N], mask [B, P + N], N) of prompts with their answers, in the layout of this file."""
    from ..packing import right_padded

    first, first_mask = left_padded(prompts, pad_token_id)
    second, second_mask = right_padded(answers, pad_token_id)
    return torch.cat([first, second], 1), torch.cat([first_mask, second_mask], 1), second.shape[1]


def _accepted(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs that this architecture takes: some know no position ids, some compute all logits or none."""
    parameters = inspect.signature(unwrapped(model).forward).parameters
    return {name: value for name, value in inputs.items() if name in parameters}


def answer_logits(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, width: int, *, hidden: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(logits [B, N, V] in fp32 that predict the last `width` = N columns, the hidden states [B, N, d] behind them)."""
    inputs = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0), "use_cache": False, "logits_to_keep": width + 1}
    out = model(input_ids=ids, attention_mask=mask, output_hidden_states=hidden, **_accepted(model, inputs))
    states = out.hidden_states[-1][:, -width - 1 : -1] if hidden else None
    return out.logits[:, -width - 1 : -1].float(), states


def log_probs_and_entropy(
    logits: torch.Tensor, answers: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probability of each answer token, entropy of each step in nats), both [B, N].

    logits: [B, N, V]; answers: [B, N]. Of the distribution that was sampled from: softmax(logits / temperature).
    """
    log_p = torch.log_softmax(logits / temperature, dim=-1)
    return log_p.gather(-1, answers[..., None]).squeeze(-1), -(log_p.exp() * log_p).sum(-1)


# ---- policy and value in one forward pass -------------------------------------------------------------------------


class ActorCritic(torch.nn.Module):
    """The policy and its value function. forward(ids, mask, N) -> (log_probs, entropy, values), each [B, N].

    values[:, t] is the value before answer token t is written. trunk: the value model's own decoder, or None when the
    value head reads the policy's hidden states (a shared trunk). One module, so that one distributed wrapper holds both.
    """

    def __init__(self, policy: Any, trunk: Any, head: torch.nn.Module, temperature: float):
        super().__init__()
        self.policy, self.trunk, self.head, self.temperature = policy, trunk, head, temperature

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, width: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits, states = answer_logits(self.policy, ids, mask, width, hidden=self.trunk is None)
        if self.trunk is not None:
            inputs = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0), "use_cache": False}
            out = self.trunk(input_ids=ids, attention_mask=mask, **_accepted(self.trunk, inputs))
            states = out.last_hidden_state[:, -width - 1 : -1]
        values = self.head(states).squeeze(-1).float()
        return *log_probs_and_entropy(logits, ids[:, -width:], self.temperature), values


def actor_critic(policy: Policy, value_model: str, temperature: float, peft_config: Any = None) -> ActorCritic:
    """The policy with a value function made as `value_model` says, and with adapters where a LoRA config is given.

    value_model: "policy" (a copy of its trunk with a head of zeros), "shared" (such a head on the policy's own trunk), or
    the path of a decoder with one label, as a reward model is. Raises UsageError when it has another tokenizer.
    """
    base = policy.model
    width = base.config.get_text_config().hidden_size
    head = torch.nn.Linear(width, 1, bias=False)
    torch.nn.init.zeros_(head.weight)
    trunk = copy.deepcopy(base.base_model) if value_model == "policy" else None
    if value_model not in ("policy", "shared"):
        trunk, head = _value_from(value_model, policy)
    if peft_config is not None:
        from peft import get_peft_model

        policy.model = get_peft_model(base, copy.deepcopy(peft_config))
        if trunk is not None:
            value_config = copy.deepcopy(peft_config)
            value_config.task_type = None
            trunk = get_peft_model(trunk, value_config)
    return without_dropout(ActorCritic(policy.model, trunk, head, temperature)).to(policy.device).eval()


def _value_from(path: str, policy: Policy) -> tuple[Any, Any]:
    """(trunk, head) of a scalar model at this path."""
    loaded = checkpoints.load(path, device="cpu")
    if checkpoints.scored_at(loaded.model) != "last_token":
        raise UsageError(
            f"{path} is an encoder, which sees the whole answer at once and so gives no value for its beginning",
            hint="leave --value_model out: the value model is then made from the policy",
        )
    if loaded.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise UsageError(
            f"{path} has another tokenizer than the policy, so it cannot read the policy's tokens as a value model",
            hint="leave --value_model out: the value model is then made from the policy",
        )
    return loaded.model.base_model, loaded.model.score


def reference_of(policy: Policy) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """A function that opens the reference policy: a frozen copy, or a LoRA policy with its adapters switched off."""
    if hasattr(policy.model, "disable_adapter"):
        return policy.reference
    frozen = copy.deepcopy(policy.model).requires_grad_(False)
    return lambda: contextlib.nullcontext(frozen)


# ---- saving -------------------------------------------------------------------------------------------------------


def save(policy: Policy, output_dir: str | Path, summary: dict[str, Any], name: str = SUMMARY) -> None:
    """Save the policy as a plain causal language model, its adapter merged (and kept in `adapter`), with its summary.

    Of what is in the folder, only a model saved before is replaced (`output_folder.staged`).
    """
    model = policy.model
    with staged(output_dir) as folder:
        if hasattr(model, "merge_and_unload"):
            model.save_pretrained(folder / checkpoints.ADAPTER)
            model = model.merge_and_unload()
        model.generation_config = policy.generation_config
        model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
        (folder / name).write_text(to_json(summary, indent=2) + "\n", encoding="utf-8")
