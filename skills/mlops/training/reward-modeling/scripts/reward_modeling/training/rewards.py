"""What a policy is rewarded by: reward models, process reward models and functions, each with its weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

from .. import checkpoints, losses
from ..aggregation import STEP_FORMS
from ..data.records import Message
from ..ensemble import Rewards, check_weights, unique_names
from ..errors import ModelError, UsageError
from ..kinds import PROCESS
from ..process import ProcessRewardModel
from ..rendering import Conversation
from ..step_rendering import steps_and_ends
from ..terminal import log, warn
from .function_rewards import GIVEN, RewardFunction
from .policy import Policy
from .prompts import Prompt
from .settings import RewardSettings
from .step_rewards import Reward

UNSPLIT = 0.9
"""Share of answers without the end of a step from which on a run warns."""


def check_settings(settings: RewardSettings) -> None:
    functions, weights = settings.reward_functions or (), settings.reward_function_weights
    if not (settings.reward_model_path or functions):
        raise UsageError("--reward_model_path or --reward_functions is required")
    if weights and len(weights) != len(functions):
        raise UsageError(f"{len(weights)} reward function weights for {len(functions)} reward functions")


def scores_steps(settings: RewardSettings) -> list[bool]:
    """Of each reward model, whether it is a process reward model, as --step_rewards must say."""
    found = [checkpoints.kind_of(path) is PROCESS for path in settings.reward_model_path or ()]
    for path, steps in zip(settings.reward_model_path or (), found, strict=True):
        if steps and not settings.step_rewards:
            hint = f"say what its steps are worth: --step_rewards {', '.join(STEP_FORMS)}"
            raise ModelError(f"{path} is a process reward model: it scores steps, not whole answers", hint=hint)
    if settings.step_rewards and not any(found):
        raise UsageError("--step_rewards is for process reward models, and --reward_model_path names none")
    if any(found) and (settings.reward_combine != "sum" or settings.normalize_rewards):
        flag = "--normalize_rewards" if settings.normalize_rewards else f"--reward_combine {settings.reward_combine}"
        raise UsageError(
            f"{flag} is for outcome reward models", hint="leave it out, or leave out the process reward model"
        )
    return found


class PolicyRewards:
    """(prompts, replies, their ids) -> a Reward each. met: counts of what the process reward models were given."""

    def __init__(
        self,
        settings: RewardSettings,
        policy: Policy,
        prompts: Sequence[Prompt],
        *,
        device: str,
        more: Sequence[str] = (),
    ):
        """more: what the trainer gives to functions beside the columns of the data."""
        paths = [str(path) for path in settings.reward_model_path or ()]
        self.weights = check_weights(settings.reward_weights, len(paths), settings.reward_combine) if paths else []
        self.names, specs = unique_names(paths), settings.reward_functions or []
        self.settings, self.policy, self.met = settings, policy, Counter[str]()
        self.logs: dict[str, tuple[float, float]] = {}
        self.columns = sorted({name for prompt in prompts for name in prompt.metadata}.difference(GIVEN))
        functions = [RewardFunction.load(spec, settings.reward_function_seconds) for spec in specs]
        for function in functions:
            function.check([*GIVEN, *self.columns, *more])
        prices = settings.reward_function_weights or [1.0] * len(specs)
        self.functions = dict(
            zip(unique_names(specs, "reward function"), zip(prices, functions, strict=True), strict=True)
        )
        loading = {
            "dtype": settings.reward_dtype,
            "max_length": settings.reward_max_length,
            "max_tokens_per_batch": settings.reward_max_tokens_per_batch,
            "device": device,
        }
        steps = scores_steps(settings)
        whole = [place for place, of_steps in enumerate(steps) if not of_steps]
        self.models = None
        if whole:
            self.models = Rewards.from_pretrained(
                [paths[place] for place in whole],
                weights=settings.reward_weights and [self.weights[place] for place in whole],
                combine=settings.reward_combine,
                normalise=settings.normalize_rewards,
                **loading,
            )
        self.process_models = {}
        for name, path, weight, of_steps in zip(self.names, paths, self.weights, steps, strict=True):
            if of_steps:
                model = ProcessRewardModel.from_pretrained(path, overlong="truncate_prompt", **loading)
                self.process_models[name] = weight, model
                for note in model.notes:
                    log(f"reward model {name}: {note}")

    def __call__(
        self, prompts: Sequence[Prompt], replies: Sequence[list[Message]], ids: Sequence[list[int]], **more: Any
    ) -> list[Reward]:
        """more: by keyword to functions."""
        asked, by_source = [prompt.messages for prompt in prompts], {}
        if self.models:
            values = self.models(asked, replies, [prompt.tools for prompt in prompts])
            by_source[""] = 1.0, [Reward(value) for value in values]
        before = self.met.copy()
        for name, (weight, model) in self.process_models.items():
            by_source[name] = weight, self._of_steps(model, prompts, replies, ids)
        more |= {name: [prompt.metadata.get(name) for prompt in prompts] for name in self.columns}
        more |= dict(zip(GIVEN, (asked, replies, ids), strict=True))
        for name, (weight, function) in self.functions.items():
            values = function([prompt.origin for prompt in prompts], **more)
            by_source[name] = weight, [Reward(math.nan if value is None else value) for value in values]
        self._log(by_source, self.met - before)
        parts = zip(*([(weight, one) for one in found] for weight, found in by_source.values()), strict=True)
        return [_added(own) for own in parts]

    def _of_steps(
        self,
        model: ProcessRewardModel,
        prompts: Sequence[Prompt],
        replies: Sequence[list[Message]],
        ids: Sequence[list[int]],
    ) -> list[Reward]:
        """0 for an answer of which no step is scored, as before its first step."""
        form, found = STEP_FORMS[self.settings.step_rewards], []
        asked = [
            Conversation(one.messages, reply, None, one.origin) for one, reply in zip(prompts, replies, strict=True)
        ]
        for (steps, scores), reply, own in zip(model.score_in_steps(asked), replies, ids, strict=True):
            text, scored = reply[0]["content"], scores.logits if scores else []
            ends = [end for _, end in steps_and_ends(text, model.split_at)]
            self.met.update(
                answers=1,
                steps=len(steps),
                unscored=len(steps) - len(scored),
                empty=not steps,
                unsplit=bool(steps) and ends[0] > len(text),
            )
            if not scored:
                found.append(Reward(0.0))
            elif form is None:
                found.append(Reward(model.reward(scores)))
            else:
                earned = form([*map(scores.value, scored)], self.settings.step_temperature)
                tokens = self.policy.tokens_at(own, ends[: len(scored)])
                found.append(Reward(math.fsum(earned), tuple(zip(tokens, earned, strict=True))))
        return found

    def _log(self, by_source: dict[str, tuple[float, list[Reward]]], met: Counter[str]) -> None:
        known = {
            name: [one.total for one in own if not math.isnan(one.total)]
            for name, (_, own) in by_source.items()
            if name
        }
        self.logs = {name: (fmean(own), pstdev(own)) for name, own in known.items() if own}
        if self.models:
            self.logs |= {name: (mean, self.models.spreads[name]) for name, mean in self.models.parts.items()}
        self.steps = _shares(met)

    def logged(self, prefix: str) -> dict[str, float]:
        """Mean and standard deviation by source in the last call, where there are several, and what it had of steps."""
        several = self.logs if len(self.names) + len(self.functions) > 1 else {}
        named = {f"{prefix}/{name}": mean for name, (mean, _) in several.items()}
        spreads = {f"{prefix}/{name}/std": spread for name, (_, spread) in several.items()}
        return named | spreads | {f"steps/{name}": value for name, value in self.steps.items()}

    @property
    def identity(self) -> dict[str, str]:
        """What must be the same for a run to be resumed, beside the models."""
        names = ("reward_functions", "reward_function_weights", "step_rewards", "step_temperature")
        return {name: str(getattr(self.settings, name)) for name in names}

    def finish(self) -> dict[str, Any]:
        """The numbers for the summary, after warnings."""
        if self.models:
            self.models.warn_of_losses()
        truncated = self.models.truncated if self.models else 0
        for name, (_, model) in self.process_models.items():
            losses.warn_of(model.renderer, called=f"reward model {name}: ")
            truncated += model.truncated
        found = {"reward_inputs_truncated": truncated, "steps": _shares(self.met) or None}
        if self.met["unsplit"] >= UNSPLIT * max(1, self.met["answers"]):
            share = self.met["unsplit"] / self.met["answers"]
            warn(
                f"{share:.0%} of the answers end no step, so each is rewarded as one: teach the policy to write the separator"
            )
        return found


def _added(parts: Sequence[tuple[float, Reward]]) -> Reward:
    known = [(weight, one) for weight, one in parts if not math.isnan(one.total)]
    if not known:
        return Reward(math.nan)
    steps = tuple((token, weight * earned) for weight, one in known for token, earned in one.steps)
    return Reward(math.fsum(weight * one.total for weight, one in known), steps)


def _shares(met: Counter[str]) -> dict[str, float]:
    """Steps an answer, the share of answers that ended none, and how many steps and answers got no score."""
    answers = met["answers"]
    if not answers:
        return {}
    return {
        "mean": met["steps"] / answers,
        "unsplit": met["unsplit"] / answers,
        "unscored": met["unscored"],
        "empty": met["empty"],
    }
