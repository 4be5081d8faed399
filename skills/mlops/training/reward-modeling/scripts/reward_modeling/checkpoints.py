"""Load, save and verify a reward model.

A saved outcome reward model is a plain Hugging Face `*ForSequenceClassification` folder with one label and
`problem_type="regression"` (without it transformers' pipeline and vLLM squash the score), a process reward model a
`*ForTokenClassification` folder with two labels; both have a pad token of their own and their chat template. Beside the
weights lies `reward_model.json`, the model's card: the fingerprint of its rendering, how it was trained, the mean and
standard deviation of its rewards, and golden scores of a few fixed texts. `kinds` says what differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cards import CARD_VERSION, read_card
from .chat_templates import DATE_NOTE, writes_the_date
from .console import ModelError, to_json
from .golden import MERGE_TOLERANCE, RELOAD_TOLERANCE, check_golden, check_unchanged, golden_scores
from .heads import head_name, head_projection, keep_head_in_float32, scored_at, unwrapped
from .hf import Model, Tokenizer
from .kinds import KINDS, OUTCOME, Kind, kind_of_architecture
from .kinds import PROCESS as PROCESS
from .model_folder import CONFIG, check_folder, read_json
from .output_folder import CARD, staged
from .precision import best_device, usable
from .pretrained import architecture_of, read_chat_template, read_config, read_model, read_tokenizer
from .pretrained import loaded_by as loaded_by
from .public_families import Family
from .readers import recognize
from .tokenizer_setup import prepare_tokenizer
from .vocabulary import check_embedded
from .weights import OTHER_HEAD, explain

ADAPTER = "adapter"


@dataclass
class Loaded:
    """A model ready to be trained or asked: in fp32 unless told otherwise, with its renderer's tokenizer.

    head: "new" (drawn at random) or "loaded". card: the content of reward_model.json, or None for a foreign model.
    rendering: how its text was rendered in training, as cards have it; empty where nobody knows.
    """

    model: Model
    tokenizer: Tokenizer
    head: str
    notes: list[str]
    card: dict[str, Any] | None = None
    rendering: dict[str, Any] = field(default_factory=dict)


def load_for_training(
    path: str, *, chat_template_path: str | None = None, seed: int = 42, kind: Kind = OUTCOME
) -> Loaded:
    """A model with the head of this kind, in fp32, and a tokenizer that obeys the rendering rules.

    A trained reward head is kept; otherwise a head is drawn from N(0, 1/(d+1)) with this seed (Stiennon et al. 2020,
    arXiv:2009.01325, appendix B.1). Raises ModelError for a folder that is not a model, and for a classifier with other
    labels or of the other kind, which would lose its head in silence.
    """
    import torch
    from transformers import set_seed

    if (family := recognize(path)) and family.head:
        raise ModelError(
            f"the head of {path} would be lost: training continues from one in `score.weight`, not from {family.how}",
            hint=f"start from the base model it was made of, or {OTHER_HEAD}; score.py and evaluate.py score it as it is",
        )
    config = read_config(path)
    found, labels = kind_of_architecture(architecture_of(config)), len(kind.labels)
    if found is kind and config.num_labels != labels:
        raise explain(path, config, kind) or ModelError(
            f"{path} is a classifier with {config.num_labels} labels; {kind.called} has {labels}",
            hint=f"start from the base model it was made of, or from a model with num_labels={labels}",
        )
    if found not in (None, kind):
        raise ModelError(
            f"{path} scores {found.scores} ({architecture_of(config)}); its head cannot become that of {kind.called}",
            hint=f"start from the base model it was made of, or train it further with {found.script}",
        )
    tokenizer = read_tokenizer(path)
    notes = prepare_tokenizer(tokenizer, read_chat_template(chat_template_path))
    set_seed(seed)
    auto_class, dtype = kind.auto_class, torch.float32
    model, missing, more = read_model(auto_class, path, scores=True, strict=False, num_labels=labels, dtype=dtype)
    notes += more
    trunk = f"{model.base_model_prefix}."
    lost = [key for key in missing if key.startswith(trunk) and ".pooler." not in key]
    if lost:
        raise ModelError(f"{path} lacks the weights of {len(lost)} layers, the first is {lost[0]}")
    head_is_new = bool(missing)
    if head_is_new:
        projection = head_projection(model)
        torch.nn.init.normal_(projection.weight, std=(projection.in_features + 1) ** -0.5)
        if projection.bias is not None:
            torch.nn.init.zeros_(projection.bias)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        notes.append(f"embeddings: grown to {len(tokenizer)} for the new pad token")
    _write_contract_into_config(model, tokenizer, kind)
    return Loaded(model, tokenizer, "new" if head_is_new else "loaded", notes)


def load(
    path: str, *, dtype: str = "float32", device: str | None = None, kind: Kind = OUTCOME, compare: bool = True
) -> Loaded:
    """A trained reward model, in eval mode on the best device there is.

    compare: its golden scores with those of its card. Raises ModelError when the folder is not a reward model of this
    kind, when it renders text otherwise than it did in training, and when it does not score as it did then.
    """
    import torch

    path, device = str(path), usable(device or best_device())
    config = check(path, kind)
    tokenizer, notes = read_tokenizer(path), []
    card = read_card(path, expected=config.id2label == kind.labels)
    model, missing, more = read_model(kind.auto_class, path, scores=True, strict=True, dtype=getattr(torch, dtype))
    notes += more
    if missing:
        raise explain(path, config, kind) or ModelError(
            f"{path} lacks the weights of {len(missing)} layers ({missing[0]}): its scores would be random",
            hint=f"train it with {kind.script}",
        )
    rows = model.get_input_embeddings().num_embeddings
    if card is None:
        check_embedded(path, tokenizer, rows)
        notes += _adopt_foreign_tokenizer(path, tokenizer, model, kind)
    tokenizer.padding_side = "right"
    model.eval().to(device)
    if dtype != "float32":
        keep_head_in_float32(model)
    if card is not None:
        renderer = kind.renderer(tokenizer, scored_at(model), card["rendering"])
        _check_fingerprint(path, card, renderer)
        check_embedded(path, tokenizer, rows)
        if compare:
            check_unchanged(path, card, model, renderer, dtype)
    return Loaded(model, tokenizer, "loaded", notes, card, card["rendering"] if card else {})


def kind_of(path: str) -> Kind | None:
    """Which kind of reward model lies at this path, by its configuration alone; None for any other model.

    That of a folder is read without transformers, so that faults of the data show at once.
    """
    check_folder(path)
    if family := recognize(path):
        return KINDS[family.kind]
    if (Path(path) / CONFIG).is_file():
        return kind_of_architecture((read_json(Path(path) / CONFIG).get("architectures") or [""])[0])
    return kind_of_architecture(architecture_of(read_config(str(path))))


def check(path: str, kind: Kind = OUTCOME) -> Any:
    """The configuration at this path. Raises ModelError when it is not that of such a reward model; reads no weights."""
    import transformers

    family = recognize(path)
    if family and family.head:
        return check_kind(path, family, kind)
    config = read_config(path)
    architecture, labels = architecture_of(config), len(kind.labels)
    found = kind_of_architecture(architecture)
    if found not in (None, kind):
        raise ModelError(f"{path} is {found.called} ({architecture}): it scores {found.scores}, not {kind.scores}")
    unknown = not hasattr(transformers, architecture)
    if (found is None or config.num_labels != labels or unknown) and (explained := explain(path, config, kind)):
        raise explained
    if found is None:
        raise ModelError(
            f"{path} is not a reward model: its architecture is {architecture or 'not named'}, without a score head",
            hint=f"train one: {kind.script} --model_name_or_path {path} --dataset_name DATA; if DPO made it, give the model that it was "
            "made of as --reference_model_name_or_path",
        )
    if unknown:
        raise ModelError(
            f"{path} was saved by a class that transformers does not have ({architecture}): how it scores is not known",
            hint="score with the code of its authors, or train a reward model from its base",
        )
    if config.num_labels != labels:
        raise ModelError(
            f"{path} has {config.num_labels} labels; {kind.called} has {labels}",
            hint=f"use a model trained with num_labels={labels}",
        )
    return config


def check_kind(path: str, family: Family, kind: Kind) -> None:
    """Raises ModelError for a public model of another kind."""
    found = KINDS[family.kind]
    if found is not kind:
        raise ModelError(f"{path} is {found.called} ({family.called}): it scores {found.scores}, not {kind.scores}")


def _adopt_foreign_tokenizer(path: str, tokenizer: Tokenizer, model: Model, kind: Kind) -> list[str]:
    """Run a reward model that came without a card as its author would have: its own pad token, its own pooling."""
    notes = [
        f"{path} has no {CARD} and is no public model that is known (score.py --list_public_models): assumed are its own chat "
        f"template and its {head_name(model)} head, read at the {'first' if scored_at(model) == 'pooled' else 'last'} token"
    ]
    if not tokenizer.chat_template:
        notes += prepare_tokenizer(tokenizer)
    elif writes_the_date(tokenizer):
        notes.append(DATE_NOTE)
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer.pad_token is None or tokenizer.pad_token_id >= rows:
        why = "it was missing" if tokenizer.pad_token is None else "its own has no embedding"
        # Any token will do after the mask ends; the last of the vocabulary is the least likely to end a text.
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(min(len(tokenizer), rows) - 1)
        notes.append(f"pad token: {tokenizer.pad_token} ({why})")
    if model.config.get_text_config().pad_token_id is None:
        _write_contract_into_config(model, tokenizer, kind)
    return notes


def _check_fingerprint(path: str, card: dict[str, Any], renderer: Any) -> None:
    try:
        unchanged = renderer.fingerprint == card.get("fingerprint")
    except ModelError as error:  # of the template
        raise ModelError(error.message.replace("the model", path, 1), hint="restore the one saved with it") from error
    if unchanged:
        return
    was, now = card.get("rendering", {}), renderer.contract()
    changed = [key for key in now if was.get(key) != now[key]]
    raise ModelError(
        f"{path} renders text otherwise than it did in training: {', '.join(changed) or 'the fingerprint'} changed, so its scores would mean nothing",
        where=f"{path}/{CARD}",
        hint="restore the tokenizer and chat template that were saved with the model, and the transformers version that its card names",
    )


def _write_contract_into_config(model: Model, tokenizer: Tokenizer, kind: Kind) -> None:
    config = model.config
    config.get_text_config().pad_token_id = tokenizer.pad_token_id
    config.pad_token_id = tokenizer.pad_token_id
    config.problem_type = kind.problem_type
    config.id2label, config.label2id = dict(kind.labels), {label: number for number, label in kind.labels.items()}


# ---- saving -------------------------------------------------------------------------------------------------------


def save(
    model: Model, renderer: Any, output_dir: str | Path, *, training: dict[str, Any], reward: dict[str, float]
) -> dict[str, Any]:
    """Save a reward model, reload it, compare, and only then let it appear in `output_dir`. Returns its card.

    model: in memory; a PEFT model is merged first, its adapter kept in the folder `adapter`. renderer: a `Renderer`, or
    a `StepRenderer` for a process reward model. training: any JSON summary. reward: {"mean", "std", "n"} over held-out
    answers or steps. Of what is in the folder, only a model saved before is replaced (`output_folder.staged`).
    Raises RunError when the reloaded model does not give the golden scores of the one in memory.
    """
    kind = kind_of_architecture(type(unwrapped(model)).__name__)
    golden, tolerance = golden_scores(model, renderer), RELOAD_TOLERANCE
    device = next(model.parameters()).device
    with staged(output_dir) as folder:
        if hasattr(model, "merge_and_unload"):
            model.save_pretrained(folder / ADAPTER)
            model, tolerance = model.merge_and_unload(), MERGE_TOLERANCE
        _write_contract_into_config(model, renderer.tokenizer, kind)
        model.save_pretrained(folder)
        renderer.tokenizer.save_pretrained(folder)
        card = _card(kind, renderer, training, reward, golden)
        (folder / CARD).write_text(to_json(card, indent=2) + "\n", encoding="utf-8")
        model.to("cpu")
        (folder / "README.md").write_text(_readme(kind, card), encoding="utf-8")
        card["reload_difference"] = _verify(folder, kind, golden, tolerance, str(device))
        (folder / CARD).write_text(to_json(card, indent=2) + "\n", encoding="utf-8")
    return card


def _card(kind: Kind, renderer: Any, training: dict, reward: dict, golden: list) -> dict[str, Any]:
    import torch
    import transformers

    rendering = {**renderer.contract(), "max_length": renderer.max_length, "overlong": renderer.overlong}
    return {
        "card_version": CARD_VERSION,
        "kind": kind.name,
        "fingerprint": renderer.fingerprint,
        "rendering": rendering,
        "reward": reward,
        "golden": [{**example, "score": score} for example, score in zip(kind.golden, golden, strict=True)],
        "training": training,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _readme(kind: Kind, card: dict[str, Any]) -> str:
    """The model's page on the hub: what it is and how its score is read by other tools."""
    base = card["training"].get("base_model")
    front = ["library_name: transformers", *kind.front]
    if base and not Path(base).exists():
        front.append(f"base_model: {base}")
    text = kind.readme.format(**card["rendering"])
    if card["rendering"].get("text_format") == "rendered":
        text += "\nIts texts were rendered before training: give it prompt and answer as one such text, without any chat template.\n"
    return "\n".join(["---", *front, "---", "", text])


def _verify(folder: Path, kind: Kind, golden: list, tolerance: float, device: str) -> float:
    """The largest difference between the golden scores and those of the model as loaded from `folder`."""
    loaded = load(str(folder), device=device, kind=kind, compare=False)
    renderer = kind.renderer(loaded.tokenizer, scored_at(loaded.model), loaded.card["rendering"])
    return check_golden(golden_scores(loaded.model, renderer), golden, tolerance)
