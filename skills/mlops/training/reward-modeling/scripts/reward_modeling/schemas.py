"""JSON Schemas of what each script writes to stdout: printed by `--json_schema`, and held by the tests to real output."""

from __future__ import annotations

from typing import Any


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """The schema of an object with these keys, some of which may be missing, and no others."""
    properties = {**required, **optional}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _map(values: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object whose keys come from the data or from the settings."""
    return {"type": "object", "additionalProperties": values}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_TEXT, _COUNT, _FLAG, _ANY = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {}
_NUMBER = {"type": ["number", "null"]}  # null stands for what JSON cannot carry
_ESTIMATE = _or_null({"$ref": "#/$defs/estimate"})
_FINDINGS = _list({"$ref": "#/$defs/finding"})
_FILE = _or_null(_TEXT)

DEFINITIONS = {
    "estimate": _object(
        {"value": _NUMBER, "low": _NUMBER, "high": _NUMBER, "n": _COUNT, "groups": _COUNT}  # 95 %; groups: prompts
    ),
    "finding": _object(
        dict.fromkeys(("check", "message", "advice"), _TEXT)
        | {"severity": {"enum": ["error", "warning", "info"]}, "count": _COUNT, "share": _NUMBER, "rows": _list(_TEXT)}
    ),
}

_ON_PAIRS = {
    **dict.fromkeys(("n_pairs", "n_prompts", "ties", "not_scored", "truncated"), _COUNT),
    **dict.fromkeys(("accuracy", "macro_accuracy", "micro_accuracy"), _ESTIMATE),
    **dict.fromkeys(("tie_share", "log_loss", "brier", "ece", "ece_if_calibrated", "overconfidence"), _NUMBER),
    **{"margin": _map(_NUMBER), "length": _map(_ANY), "subsets": _map(_ESTIMATE), "blind": _map(_NUMBER)},
    "reliability": _list(_map(_NUMBER)),
}
_MEASURES_OF_STEPS = (
    *("step_accuracy", "precision", "recall", "f1", "auroc"),
    *("first_error_accuracy", "erroneous", "correct", "processbench_f1"),
)
_ON_STEPS = {
    **dict.fromkeys(("n_solutions", "n_prompts", "n_steps", "wrong_steps", "erroneous_solutions"), _COUNT),
    **dict.fromkeys(("correct_solutions", "not_scored_steps", "not_judged_solutions"), _COUNT),
    **dict.fromkeys(_MEASURES_OF_STEPS, _ESTIMATE),
    "threshold": _object({"values": _list(_NUMBER), "chosen_on": _TEXT}),
    "subsets": _map(_ANY),
    "baselines": _map(_object(dict.fromkeys(_MEASURES_OF_STEPS, _ESTIMATE))),
}
_CURVES = ("model", "random", "longest", "majority", "oracle", "gain")
_ON_POOLS = {
    **dict.fromkeys(("prompts", "completions", "not_scored", "mixed_prompts"), _COUNT),
    "pool": _object({"smallest": _COUNT, "largest": _COUNT}),
    "majority_answers": _TEXT,
    "majority_possible": _FLAG,
    "curve": _list(_object({"n": _COUNT, "prompts": _COUNT, **dict.fromkeys(_CURVES, _ESTIMATE)})),
}
_JUDGED = {
    **{"model": _TEXT, "dataset": _list(_TEXT), "format": _TEXT, "set_aside": _map(_COUNT)},
    **{"readings": _list(_TEXT), "output": _FILE},
}

_TRAINS = {
    **{"output_dir": _TEXT, "head": _TEXT, "format": _TEXT, "counts": _map(_COUNT), "audit": _FINDINGS},
    **{"set_aside": _map(_COUNT), "left_out": _COUNT},
}
_TRAINED = {
    **{"resumed_from": _FILE, "training": _map(_ANY), "reward": _map(_ANY)},
    **{"fingerprint": _TEXT, "reload_difference": _NUMBER},
}
_OPTIMISES = {"output_dir": _TEXT, "policy": _TEXT, "reward_models": _list(_TEXT), "prompts": _COUNT}
_OPTIMISED = {
    **{"resumed_from": _FILE, "reward_inputs_truncated": _COUNT},
    **dict.fromkeys(("beginning", "end"), _map(_NUMBER)),
}
_DRY = {"dry_run": {"const": True}}
_CHECKED = {
    **{"format": _TEXT, "files": _list(_TEXT), "columns_used": _list(_TEXT), "metadata_columns": _list(_TEXT)},
    **dict.fromkeys(("rows", "equal_scores", "dropped", "errors", "warnings"), _COUNT),
    **{"set_aside": _map(_COUNT), "findings": _FINDINGS, "output": _FILE},
}

SCHEMAS: dict[str, tuple[dict[str, Any], ...]] = {
    "check_data.py": (
        _object({**_CHECKED, "comparisons": _COUNT}),
        _object({**_CHECKED, **dict.fromkeys(("solutions", "steps", "labelled_steps", "incorrect_steps"), _COUNT)}),
        _object({"formats": _list(_map(_ANY))}),
        _object({"checks": _list(_map(_TEXT))}),
    ),
    "train.py": (
        _object({**_TRAINS, **_DRY, "settings": _map(_ANY)}),
        _object({**_TRAINS, **_TRAINED, "evaluation": _or_null(_object(_ON_PAIRS))}),
    ),
    "train_process.py": (
        _object({**_TRAINS, **_DRY, "step_separator": _TEXT, "settings": _map(_ANY)}, labels_shown=_list(_ANY)),
        _object(
            {**_TRAINS, **_TRAINED, "step_separator": _TEXT, "evaluation": _or_null(_object(_ON_STEPS))},
            labels_shown=_list(_ANY),
        ),
    ),
    "score.py": (
        _object(
            {
                **dict.fromkeys(("prompts", "completions", "not_scored", "truncated"), _COUNT),
                **{"model": _TEXT, "reward_mean": _NUMBER, "output": _FILE},
            },
            rows=_list(
                {
                    "type": "object",
                    "properties": {
                        "reward": _NUMBER,
                        "rewards": _list(_NUMBER),
                        "order": _list(_COUNT),
                        "index": _COUNT,
                    },
                    "anyOf": [{"required": ["reward"]}, {"required": ["rewards"]}],
                }
            ),
            **{"policy": _TEXT, "unfinished": _COUNT},
            **{"aggregate": _TEXT, "steps": _COUNT, "steps_not_scored": _COUNT},
        ),
    ),
    "evaluate.py": (
        _object({**_JUDGED, **_ON_PAIRS}, comparison=_map(_ANY)),
        _object({**_JUDGED, **_ON_STEPS}),
        _object({**_JUDGED, **_ON_POOLS}),
        _object({"studies": _list(_map(_ANY)), "readings": _list(_TEXT), "picture": _FILE}),
    ),
    "ppo.py": (
        _object({**_OPTIMISES, **_DRY, "updates": _COUNT, "settings": _map(_ANY)}),
        _object(
            {
                **{**_OPTIMISES, **_OPTIMISED, "settings": _map(_ANY), "stopped": _FILE, "warnings": _list(_TEXT)},
                **{"updates": _COUNT, "episodes": _COUNT, "seconds": _map(_NUMBER)},
                **{"kl_coef": _NUMBER, "samples_per_second": _NUMBER},
            }
        ),
    ),
    "grpo.py": (
        _object({**_OPTIMISES, **_DRY, "algorithm": _TEXT, "settings": _map(_ANY)}),
        _object(
            {
                **{**_OPTIMISES, **_OPTIMISED, "algorithm": _TEXT, "settings": _map(_ANY), "steps": _COUNT},
                **dict.fromkeys(("train_loss", "seconds", "learning_rate", "num_train_epochs"), _NUMBER),
                **dict.fromkeys(("per_device_train_batch_size", "gradient_accumulation_steps"), _COUNT),
                **{"seed": _COUNT, "world_size": _COUNT, "bf16": _FLAG, "fp16": _FLAG},
            }
        ),
    ),
    "quickstart.py": (
        _object(
            {
                **{"seconds": _NUMBER, "accuracy": _ESTIMATE, "length_baseline": _ESTIMATE, "subsets": _map(_ESTIMATE)},
                **{"gold_reward": _map(_NUMBER), "policy_gold_reward": _map(_NUMBER), "audit": _map(_COUNT)},
                **{"reload_difference": _NUMBER, "artefacts": _map(_TEXT)},
            }
        ),
    ),
}
"""What each script emits, one schema for each kind of run; `json_schema` makes one document of them."""


def json_schema(script: str) -> dict[str, Any]:
    """The JSON Schema of the object that this script writes to stdout."""
    kinds = SCHEMAS[script]
    shape = kinds[0] if len(kinds) == 1 else {"anyOf": list(kinds)}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": f"stdout of {script}", **shape, "$defs": DEFINITIONS}
