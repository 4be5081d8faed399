"""The picture and the page of a run of PPO, GRPO or RLOO, for people: curves, answers early and late, warnings."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..evaluation.intervals import has_trend
from ..evaluation.panels import Panel, Series
from ..evaluation.plots import svg
from ..evaluation.report_page import page
from ..evaluation.sections import Section
from ..outputs import write_whole
from ..terminal import log
from .results import TrainedPolicy

_Entry = Mapping[str, object]
ANSWERS_SHOWN = 3
"""Answers of an update that are quoted."""


def write(folder: Path, history: Sequence[_Entry], panels: Mapping[str, Sequence[str]], trained: TrainedPolicy) -> None:
  """run.svg and run.html. panels: title -> names in the log that are drawn together."""

  def series(name: str) -> Series:
    return Series(name, [(entry["step"], entry[name]) for entry in history if name in entry])

  rewards = [entry["reward"] for entry in history if "reward" in entry]
  drawn = [Panel(title, "step", names[0], list(map(series, names))) for title, names in panels.items()]
  picture, html = (
    svg(drawn),
    page(trained.output_dir, list(_verdicts(trained, rewards)), list(_sections(history, drawn))),
  )
  write_whole(folder / "run.svg", [picture])
  write_whole(folder / "run.html", [html])
  log(f"the run: {folder / 'run.html'}")


def _verdicts(trained: TrainedPolicy, rewards: Sequence[float]) -> Iterator[tuple[str, str]]:
  start, end = trained.beginning.get("reward"), trained.end.get("reward")
  if start is not None and end is not None:
    rose = ("Yes" if end > start else "No") if has_trend(rewards) else "Not beyond its noise"
    yield (
      "Did the reward rise?",
      f"{rose}: from {start:.3g} (answers of the untrained policy) to {end:.3g} (mean over the last tenth).",
    )
  if said := getattr(trained, "stopped", None):
    yield "Did it run to its end?", f"No: {said}."
  none = "Not by KL, length or answers that do not end. Only an evaluation by something else than this reward can tell."
  yield "Is something wrong?", " ".join(f"Probably: {one}." for one in trained.warnings) or none


def _sections(history: Sequence[_Entry], drawn: Sequence[Panel]) -> Iterator[Section]:
  names = [series.name for panel in drawn for series in panel.series]
  rows = [[entry["step"], *(entry.get(name) for name in names)] for entry in history]
  yield Section("Course", ["step", *names], rows, panels=drawn)
  sampled = [entry for entry in history if entry.get("samples") or entry.get("sample")]
  for title, entry in zip(("Answers early", "Answers late"), sampled[:1] + sampled[1:][-1:], strict=False):
    quotes = list(_quotes(entry.get("samples") or [entry["sample"]]))
    yield Section(f"{title}, step {entry['step']}", quotes=quotes)


def _quotes(samples: Sequence[_Entry]) -> Iterator[tuple[str, str]]:
  for sample in samples[:ANSWERS_SHOWN]:
    yield "prompt", _text(sample["prompt"])
    yield f"answer, reward {sample['reward']:.3f}", _text(sample["completion"])


def _text(said: object) -> str:
  """Of a text, or of the last message."""
  message = said[-1] if isinstance(said, list) and said else said
  return str(message.get("content") if isinstance(message, dict) else message)
