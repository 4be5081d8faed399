"""Public data sets in the shape in which they are published: rows in, pairs out, what is set aside, for every row by hand.

The columns are those of each data set's card or loader, which the comment beside it names.
"""

import csv
import json
import random
from pathlib import Path

import pytest

from conftest import assistant, user, write_jsonl
from reward_modeling.data.formats import ANYTHING, FORMATS
from reward_modeling.data.reading import load, load_prompts, stream
from reward_modeling.data.records import comparisons, to_score
from reward_modeling.data.writing import to_row
from reward_modeling.errors import DataError


@pytest.fixture
def read(tmp_path):
  return lambda *rows, **options: load([str(write_jsonl(tmp_path / "rows.jsonl", rows))], **options)


def text_of(messages):
  return " / ".join(message["content"] for message in messages)


def pairs_of(records):
  return [(text_of(pair.chosen), text_of(pair.rejected)) for pair in comparisons(records)]


Q = [user("2+2?")]
HUMAN = "\n\nHuman: 2+2?\n\nAssistant: "
# https://huggingface.co/datasets/stanfordnlp/SHP: "labels: 1 if the first is preferred to the second, 0 otherwise".
SHP = {
  **{"post_id": "p", "domain": "askmath_train", "upvote_ratio": 0.9, "history": "2+2?"},
  **{
    "c_root_id_A": "a",
    "c_root_id_B": "b",
    "created_at_utc_A": 1,
    "created_at_utc_B": 2,
    "score_A": 3,
    "score_B": 9,
  },
  **{"human_ref_A": "A", "human_ref_B": "B", "seconds_difference": 5.0, "score_ratio": 3.0},
}
# https://huggingface.co/datasets/nvidia/HelpSteer3: -3 response 1 is much better ... 3 response 2 is much better.
HELPSTEER3 = {
  **{"domain": "general", "language": "english", "context": Q, "response1": "A", "response2": "B"},
  "individual_preference": [{"score": 1, "reasoning": "r", "feedback1": "f", "feedback2": "g"}],
}
# https://huggingface.co/datasets/nvidia/HelpSteer2, preference/: the same scale.
HELPSTEER2 = {"split": "train", "prompt": "2+2?", "response_1": "A", "response_2": "B", "preference_statement": "s"}
# https://huggingface.co/datasets/berkeley-nest/Nectar: rank 1 is the best of seven answers.
NECTAR = {"turns": 1, "num_responses": 3, "source": ["s"], "good_natured": True, "prompt": HUMAN}
# https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF
PKU = {
  **{"prompt": "2+2?", "response_0": "A", "response_1": "B", "prompt_source": "x", "safer_response_id": 0},
  **{"is_response_0_safe": True, "is_response_1_safe": True, "response_0_severity_level": 0},
}
# https://huggingface.co/datasets/openai/webgpt_comparisons: scores from -1 to 1 that sum to 0; 0 and 0 is a tie.
WEBGPT = {
  **{"question": {"dataset": "eli5", "id": "1", "full_text": "2+2?"}, "answer_0": "A", "answer_1": "B"},
  **{"quotes_0": {"title": ["t"], "extract": ["e"]}, "tokens_0": {"prefix": [1], "completion": [2]}},
}
# https://huggingface.co/datasets/openai/summarize_from_feedback, comparisons
INFO = {"id": "1", "post": "I add.", "title": "Sums", "subreddit": "math", "site": None, "article": None}
SUMMARIZE = {
  **{"info": INFO, "summaries": [{"text": "A", "policy": "sup4"}, {"text": "B", "policy": "ref"}], "worker": "w"},
  **{"batch": "batch3", "split": "train", "extra": {"confidence": 5}},
}
# https://huggingface.co/datasets/lmsys/lmsys-arena-human-preference-55k (train.csv)
ARENA_55K = {"id": 1, "model_a": "m", "model_b": "n", "prompt": '["2+2?", "Why?"]'}
ARENA_55K |= {"response_a": '["A", "a"]', "response_b": '["B", null]'}


def one_hot(a, b, tie):
  return {"winner_model_a": a, "winner_model_b": b, "winner_tie": tie}


TWO_TURNS = {f"conversation_{x}": [*Q, assistant(x.upper()), user("Why?"), assistant(x)] for x in "ab"}
# https://huggingface.co/datasets/lmsys/mt_bench_human_judgments: rows of turn 1 hold both turns.
MT_BENCH = {"question_id": 81, "model_a": "m", "model_b": "n", "judge": "expert_1", **TWO_TURNS}
# https://huggingface.co/datasets/lmsys/chatbot_arena_conversations (33k): `turn` is how many turns there are.
ARENA_33K = {
  **{"question_id": "x", "model_a": "m", "model_b": "n", "judge": "arena_user_1", "turn": 2, "anony": True},
  **{"language": "English", "tstamp": 1.0, "toxic_chat_tag": {}, **TWO_TURNS},
}


def parts(role, text):
  return {"role": role, "content": [{"type": "text", "text": text, "image": None, "mimeType": None}]}


# https://huggingface.co/datasets/lmarena-ai/arena-human-preference-140k
ARENA_140K = {"id": "x", "model_a": "m", "model_b": "n", "evaluation_session_id": "s", "evaluation_order": 1}
ARENA_140K |= {"conversation_a": [parts("user", "2+2?"), parts("assistant", "A")], "is_code": False}
ARENA_140K |= {"conversation_b": [parts("user", "2+2?"), parts("assistant", "B")], "language": "en"}
# https://huggingface.co/datasets/tatsu-lab/alpaca_farm (alpaca_human_preference) and AlpacaEval's annotations.json
ALPACA_FARM = {"instruction": "Add.", "input": "2+2", "output_1": "A", "output_2": "B", "raw_preference": 2}
ALPACA_EVAL = {"instruction": "2+2?", "output_1": "A", "generator_1": "m", "output_2": "B", "annotator": "w"}
# https://huggingface.co/datasets/ScalerLab/JudgeBench
JUDGEBENCH = {"pair_id": "u", "original_id": 5, "source": "livebench-math", "question": "2+2?", "response_model": "m"}
JUDGEBENCH |= {"response_A": "A", "response_B": "B"}
# https://huggingface.co/datasets/lmarena-ai/PPE-Human-Preference-V1
PPE = {"question_id": "q", "model_a": "m", "model_b": "n", "prompt": "2+2?", "response_1": "A", "response_2": "B"}
# https://huggingface.co/datasets/lvwerra/stack-exchange-paired: response_j was rated better than response_k.
STACK = {"qid": 1, "question": "2+2?", "date": "d", "metadata": ["m"], "response_j": "A", "response_k": "B"}
# https://huggingface.co/datasets/argilla/distilabel-intel-orca-dpo-pairs
DISTILABEL = {
  **{"system": "", "input": "2+2?", "chosen": "A", "rejected": "B", "generations": ["A", "B"], "rating": [9.0, 2.0]},
  **{"order": ["chosen", "rejected"], "original_chosen": "A", "original_rejected": "B", "chosen_score": 9.0},
}
# https://platform.openai.com/docs/guides/direct-preference-optimization
OPENAI = {
  "input": {"messages": Q, "tools": [], "parallel_tool_calls": True},
  **{"preferred_output": [assistant("A")], "non_preferred_output": [assistant("B")]},
}
# https://swift.readthedocs.io: Custom-dataset, RLHF
SWIFT = {"messages": [{"role": "system", "content": "S"}, *Q, assistant("A")]}
# LLaMA-Factory before 0.6: data/comparison_gpt4_en.json
LF_OLD = {"instruction": "Add.", "input": "2+2", "output": ["A", "B"]}
# NeMo-RL docs/guides/rm.md: "rank 0 is the most preferred"
NEMO = {"context": Q, "task_name": "t"}
# https://huggingface.co/datasets/allenai/reward-bench-2 and https://huggingface.co/datasets/THU-KEG/RM-Bench
RB2 = {"id": "1", "prompt": "2+2?", "chosen": ["A"], "rejected": ["B", "C", "D"], "num_correct": 1, "subset": "Math"}
RM_BENCH = {"id": "chat/1", "prompt": "2+2?", "chosen": ["A", "AA"], "rejected": ["B", "BB"], "domain": "chat"}


def answers(*ranked):
  return [{"answer": text, "model": "m", "rank": rank} for text, rank in ranked]


def rated(text, score, helpful):
  aspects = {"helpfulness": {"Rating": str(helpful), "Rationale": "r"}, "honesty": {"Rating": "N/A"}}
  return {"response": text, "model": "m", "principle": "p", "overall_score": score, "annotations": aspects}


# https://huggingface.co/datasets/openbmb/UltraFeedback
ULTRA = {"source": "evol", "instruction": "2+2?", "models": ["m"], "correct_answers": ["None"]}


def node(name, role, text, rank=None, *replies, parent=None):
  return {"message_id": name, "parent_id": parent, "text": text, "role": role, "rank": rank, "replies": list(replies)}


# https://huggingface.co/datasets/OpenAssistant/oasst1: *_ready.trees.jsonl.gz, and *_ready.messages.jsonl.gz (flat)
TREE = node(
  *("q", "prompter", "2+2?", None),
  node("x", "assistant", "B", 1),
  node(
    *("y", "assistant", "A", 0),
    node(
      *("r", "prompter", "Why?", 0),
      node("u", "assistant", "a", 0),
      node("v", "assistant", "b", 1),
      node("w", "assistant", "?", None),
    ),
  ),
)


def flat(tree, parent=None):
  yield {name: value for name, value in tree.items() if name != "replies"} | {"parent_id": parent, "lang": "en"}
  for reply in tree["replies"]:
    yield from flat(reply, tree["message_id"])


AB, BA = ("A", "B"), ("B", "A")
TABLE = {  # name: (format, rows, pairs, what is set aside)
  "SHP": ("shp", [SHP | {"labels": 1}, SHP | {"labels": 0}, SHP | {"labels": None}], [AB, BA], {"unlabeled": 1}),
  "HelpSteer 3": (
    "helpsteer3",
    [HELPSTEER3 | {"overall_preference": value} for value in (-3, 2, 0, -1, 1)],
    [AB, BA, AB, BA],
    {"tie": 1},
  ),
  "HelpSteer 3 with 0 and 1 only": (
    "helpsteer3",
    [HELPSTEER3 | {"overall_preference": value} for value in (0, 1, 1)],
    [BA, BA],
    {"tie": 1},
  ),
  "HelpSteer 2": ("helpsteer3", [HELPSTEER2 | {"preference_strength": value} for value in (-2, 1)], [AB, BA], {}),
  "PKU": ("pku_saferlhf", [PKU | {"better_response_id": value} for value in (0, 1)], [AB, BA], {}),
  "WebGPT": (
    "webgpt",
    [WEBGPT | {"score_0": score, "score_1": -score} for score in (0.5, -1.0, 0.0)],
    [AB, BA],
    {"tie": 1},
  ),
  "summarize": ("summarize_from_feedback", [SUMMARIZE | {"choice": value} for value in (0, 1)], [AB, BA], {}),
  "Arena 55k": (
    "arena_55k",
    [ARENA_55K | one_hot(1, 0, 0), ARENA_55K | one_hot(0, 1, 0), ARENA_55K | one_hot(0, 0, 1)],
    [("A / Why? / a", "B / Why? / "), ("B / Why? / ", "A / Why? / a")],
    {"tie": 1},
  ),
  "Arena 33k": (
    "arena",
    [ARENA_33K | {"winner": winner} for winner in ("model_a", "model_b", "tie", "tie (bothbad)")],
    [("A / Why? / a", "B / Why? / b"), ("B / Why? / b", "A / Why? / a")],
    {"tie": 2},
  ),
  "Arena 140k": (
    "arena",
    [ARENA_140K | {"winner": winner} for winner in ("model_a", "model_b", "tie", "both_bad")],
    [AB, BA],
    {"tie": 2},
  ),
  "MT-bench": (
    "mt_bench",
    [
      MT_BENCH | {"turn": 1, "winner": "model_b"},
      MT_BENCH | {"turn": 2, "winner": "model_a"},
      MT_BENCH | {"turn": 2, "winner": "tie (inconsistent)"},
    ],
    [BA, ("A / Why? / a", "B / Why? / b")],
    {"tie": 1},
  ),
  "AlpacaFarm": ("alpaca_farm", [ALPACA_FARM | {"preference": value} for value in (1, 2)], [AB, BA], {}),
  "AlpacaEval": (
    "alpaca_farm",
    [ALPACA_EVAL | {"preference": value} for value in (1.0, 1.97, 1.2, 1.5, 2.0, None)],
    [AB, BA, AB, BA],
    {"tie": 1, "unlabeled": 1},
  ),
  "JudgeBench": ("judgebench", [JUDGEBENCH | {"label": value} for value in ("A>B", "B>A")], [AB, BA], {}),
  "PPE": ("ppe", [PPE | {"winner": value} for value in ("model_a", "model_b", "tie")], [AB, BA], {"tie": 1}),
  "stack exchange": ("stack_exchange_paired", [STACK], [AB], {}),
  "distilabel": (
    "axolotl",
    [DISTILABEL | {"status": value} for value in ("unchanged", "tie", "swapped")],
    [AB, AB],
    {"tie": 1},
  ),
  "OpenAI": ("openai_preference", [OPENAI], [AB], {}),
  "ms-swift": ("ms_swift", [SWIFT | {"rejected_response": "B"}], [AB], {}),
  "ms-swift, several": ("ms_swift", [SWIFT | {"rejected_response": ["B", "C"]}], [AB, ("A", "C")], {}),
  "ms-swift, conversation": (
    "ms_swift",
    [SWIFT | {"rejected_messages": [*SWIFT["messages"][:-1], assistant("B")]}],
    [AB],
    {},
  ),
  "ms-swift, other question": (
    "ms_swift",
    [SWIFT | {"rejected_messages": [SWIFT["messages"][0], user("2+3?"), assistant("B")]}],
    [("2+2? / A", "2+3? / B")],
    {},
  ),
  "ms-swift, query": ("ms_swift_query", [{"query": "2+2?", "response": "A", "rejected_response": "B"}], [AB], {}),
  "LLaMA-Factory old": ("llama_factory_old", [LF_OLD], [AB], {}),
  "Nectar": (
    "nectar",
    [NECTAR | {"answers": answers(("B", 2.0), ("A", 1.0), ("C", 3.0))}],
    [AB, ("B", "C"), ("A", "C")],
    {},
  ),
  "NeMo-RL": (
    "nemo_rl",
    [NEMO | {"completions": [{"rank": rank, "completion": [assistant(text)]} for text, rank in (("B", 1), ("A", 0))]}],
    [AB],
    {},
  ),
  "UltraFeedback": (
    "ultrafeedback",
    [ULTRA | {"completions": [rated("A", 8.5, 1), rated("B", 3.0, 5), rated("C", 3.0, 5)]}],
    [AB, ("A", "C")],
    {},
  ),
  "UltraFeedback, ratings": (
    "ultrafeedback",
    [ULTRA | {"completions": [rated("B", None, 2), rated("A", 9.0, 5)]}],
    [AB],
    {},
  ),
  "OASST trees": (
    "oasst_trees",
    [{"message_tree_id": "q", "tree_state": "ready_for_export", "prompt": TREE}],
    [AB, ("a", "b")],
    {"unlabeled": 1},
  ),
  "OASST flat": ("oasst_flat", list(flat(TREE)), [AB, ("a", "b")], {"unlabeled": 1}),
  "rejected list": ("explicit", [{"prompt": "2+2?", "chosen": "A", "rejected": ["B", "C"]}], [AB, ("A", "C")], {}),
  "question, rejected list": ("question", [{"question": "2+2?", "chosen": "A", "rejected": ["B"]}], [AB], {}),
  "RewardBench 2": ("explicit", [RB2], [AB, ("A", "C"), ("A", "D")], {}),
  "RM-Bench": ("explicit", [RM_BENCH], [AB, ("A", "BB"), ("AA", "B"), ("AA", "BB")], {}),
  "messages inside": (
    "implicit",
    [{name: {"messages": [*Q, assistant(text)]} for name, text in (("chosen", "A"), ("rejected", "B"))}],
    [AB],
    {},
  ),
  "columns of lists": (
    "implicit",
    [
      {
        name: {"role": ["user", "assistant"], "content": ["2+2?", text]}
        for name, text in (("chosen", "A"), ("rejected", "B"))
      }
    ],
    [AB],
    {},
  ),
}


@pytest.mark.parametrize("name", TABLE)
def test_rows_in_and_pairs_out(read, name):
  format, rows, pairs, set_aside = TABLE[name]
  records = read(*rows)
  assert (records.format, pairs_of(records), records.set_aside) == (format, pairs, set_aside)
  asked = {"AlpacaFarm": "Add.\n2+2", "LLaMA-Factory old": "Add.\n2+2", "ms-swift, other question": "S"}
  for pair in comparisons(records):
    if name == "summarize":
      assert pair.prompt == [user("SUBREDDIT: r/math\n\nTITLE: Sums\n\nPOST: I add.\n\nTL;DR:")]
    elif text_of(pair.chosen) == "a":  # the second question of OASST
      assert text_of(pair.prompt) == "2+2? / A / Why?"
    else:
      assert text_of(pair.prompt).removeprefix("S / ") == asked.get(name, "2+2?")


@pytest.mark.parametrize("name", TABLE)
def test_the_order_of_columns_other_columns_and_the_kind_of_file_change_nothing(read, tmp_path, name):
  _, rows, _, set_aside = TABLE[name]
  expected = [(pair.prompt, pair.chosen, pair.rejected, pair.margin) for pair in comparisons(read(*rows))]
  chance = random.Random(name)
  shuffled = [dict(chance.sample(list((row | {"zz": 1}).items()), len(row) + 1)) for row in rows]
  (tmp_path / "rows.json").write_text(json.dumps(rows))
  sources = {"shuffled": str(write_jsonl(tmp_path / "shuffled.jsonl", shuffled)), "json": str(tmp_path / "rows.json")}
  if name not in LISTS_IN_CELLS:
    sources["csv"] = str(tmp_path / "rows.csv")
    with open(sources["csv"], "w", newline="") as file:
      out = csv.DictWriter(file, rows[0])
      out.writeheader()
      for row in rows:
        out.writerow({key: json.dumps(v) if isinstance(v, (list, dict)) else v for key, v in row.items()})
  if not name.startswith("OASST trees"):  # which nest to any depth; Parquet has one depth
    import pyarrow
    import pyarrow.parquet

    sources["parquet"] = str(tmp_path / "rows.parquet")
    filled = [{key: None if value == {} else value for key, value in row.items()} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(filled), sources["parquet"])
  for source in sources.values():
    records = load([source])
    found = [(pair.prompt, pair.chosen, pair.rejected, pair.margin) for pair in comparisons(records)]
    assert (found, records.set_aside) == (expected, set_aside), source


LISTS_IN_CELLS = {"ms-swift, several", "LLaMA-Factory old", "rejected list", "question, rejected list", "RewardBench 2"}
LISTS_IN_CELLS |= {"RM-Bench"}
"""Lists of texts: in a cell of CSV they may be answers that are JSON."""


@pytest.mark.parametrize("name", TABLE)
def test_a_canonical_copy_gives_the_same_pairs(read, tmp_path, name):
  _, rows, pairs, _ = TABLE[name]
  again = load([str(write_jsonl(tmp_path / "copy.jsonl", map(to_row, read(*rows).rows)))])
  assert pairs_of(again) == pairs


@pytest.mark.parametrize("name", TABLE)
def test_all_answers_can_be_scored_and_all_prompts_asked(read, tmp_path, name):
  _, rows, _, _ = TABLE[name]
  scored = to_score(read(*rows)).rows
  assert len(scored) == (3 if "OASST" in name else len(rows))
  assert len(list(stream([str(tmp_path / "rows.jsonl")]))) == len(scored)
  asked = load_prompts([str(tmp_path / "rows.jsonl")]).rows
  assert [row.prompt for row in asked] == [row.prompt for row in scored]


def test_what_the_values_mean_is_counted_and_said(read, capsys):
  assert read(SHP | {"labels": 1}, SHP | {"labels": "0"}, SHP | {"labels": 1.0}).winner_values == {"1=a": 2, "0=b": 1}
  assert "winner: 1 -> a (2 rows), 0 -> b (1 rows)" in capsys.readouterr().err
  records = read(ARENA_55K | one_hot("0", 1.0, False), ARENA_55K | one_hot(0, 0, 1))
  assert records.winner_values == {"0/1/0=b": 1, "0/0/1=tie": 1}


STRANGE = {
  "SHP": SHP | {"labels": 2},
  "HelpSteer 3": HELPSTEER3 | {"overall_preference": 4},
  "HelpSteer 3, half": HELPSTEER3 | {"overall_preference": 0.5},
  "PKU": PKU | {"better_response_id": 2},
  "WebGPT": WEBGPT | {"score_0": None, "score_1": 1.0},
  "summarize": SUMMARIZE | {"choice": 2},
  "Arena 55k, two": ARENA_55K | one_hot(1, 1, 0),
  "Arena 55k, none": ARENA_55K | one_hot(0, 0, 0),
  "Arena 55k, half": ARENA_55K | one_hot(0.5, 1, 0),
  "AlpacaFarm": ALPACA_FARM | {"preference": 3},
  "AlpacaEval": ALPACA_EVAL | {"preference": 0.4},
  "JudgeBench": JUDGEBENCH | {"label": "A"},
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_value_outside_of_its_meaning_stops_the_run(read, name):
  row = STRANGE[name]
  good = next(rows[0] for label, (_, rows, _, _) in TABLE.items() if label == name.split(",")[0])
  with pytest.raises(DataError, match="has no meaning in") as caught:
    read(good, good, row, leave_out_unreadable=True)
  assert caught.value.where.endswith("rows.jsonl:3")


def test_the_flag_may_agree_with_the_card_and_not_contradict_it(read):
  assert pairs_of(read(SHP | {"labels": 1}, winner_values={"1": "a", "0": "b", "2": "tie"})) == [AB]
  with pytest.raises(DataError, match="--winner_values says 1=b, but in `shp` 1 means a"):
    read(SHP | {"labels": 1}, winner_values={"1": "b", "0": "a"})


def test_margins_are_the_data_set_s_own(read):
  def margins(*rows):
    return [pair.margin for pair in comparisons(read(*rows))]

  assert margins(*[HELPSTEER3 | {"overall_preference": value} for value in (-3, 0, 1)]) == [3.0, 1.0]
  assert margins(WEBGPT | {"score_0": -0.5, "score_1": 0.5}) == [1.0]
  assert margins(SWIFT | {"rejected_response": ["B", "C"], "margin": 0.5}) == [0.5, 0.5]
  assert margins({"prompt": "p", "chosen": "A", "rejected": ["B", "C"], "margin": 2}) == [2.0, 2.0]
  weighted = comparisons(read({"prompt": "p", "chosen": "A", "rejected": ["B", "C"], "weight": 3}))
  assert [pair.weight for pair in weighted] == [1.5, 1.5]


def test_ranks_and_scores_in_the_direction_of_the_data_set(read):
  (ranking,) = read(*TABLE["Nectar"][1]).rows
  assert ranking.scores == [-2.0, -1.0, -3.0]
  (ranking,) = read(
    *TABLE["UltraFeedback, ratings"][1]
  ).rows  # one has no overall score: all are taken by their ratings
  assert ranking.scores == [2.0, 5.0]


def test_tools_of_openai_rows_are_kept(read):
  tools = [{"type": "function", "function": {"name": "f"}}]
  (pair,) = read(OPENAI | {"input": OPENAI["input"] | {"tools": tools}}).rows
  assert pair.tools == tools


def test_an_answer_of_null_turns_is_empty_and_not_the_text_of_its_list(read):
  (pair,) = read(ARENA_55K | {"response_b": "[null, null]"} | one_hot(1, 0, 0)).rows
  assert pair.prompt == Q
  assert text_of(pair.rejected) == " / Why? / "


def test_history_comes_before_the_question(read):
  (pair,) = read(LF_OLD | {"input": "", "history": [["Hi", "Yo"]]}).rows
  assert text_of(pair.prompt) == "Hi / Yo / Add."


BAD = {
  "one rejected list is empty": ({"prompt": "p", "chosen": "A", "rejected": []}, "`rejected` is an empty list"),
  "LLaMA-Factory, three": (
    LF_OLD | {"output": ["A", "B", "C"]},
    "expected a list of two texts, the better one first",
  ),
  "Nectar, a rank is missing": (
    NECTAR | {"answers": answers(("A", 1), ("B", None))},
    "some of `answers` have no rank",
  ),
  "ms-swift ends with the user": (
    {"messages": Q, "rejected_response": "B"},
    "does not end with an assistant message",
  ),
  "summarize, one summary": (SUMMARIZE | {"summaries": [{"text": "A"}], "choice": 0}, "a list of two objects"),
  "MT-bench, turn 0": (MT_BENCH | {"turn": 0, "winner": "model_a"}, "`turn` is a number (0)"),
  "OASST, no parent": (
    next(iter(flat(TREE["replies"][1]["replies"][0], "y"))),
    "its parent y is not among these rows",
  ),
  "OASST, replies": ({"message_tree_id": "q", "prompt": TREE | {"replies": "none"}}, "`replies` is text (none)"),
  "OASST, a role": ({"message_tree_id": "q", "prompt": TREE | {"role": "bot"}}, "a message has the role bot"),
}


@pytest.mark.parametrize("name", BAD)
def test_rows_that_cannot_be_read_say_why(read, name):
  row, reason = BAD[name]
  with pytest.raises(DataError) as caught:
    read(row)
  assert reason in caught.value.message


ORDINARY = {
  "instructions for SFT": {"instruction": "Add.", "input": "2+2", "output": "4"},
  "answers in JSON": {"instruction": "Add.", "input": "2+2", "output": '["4", "5"]'},
  "a tree that is none": {"message_tree_id": "q", "prompt": "2+2?", "chosen": "A", "rejected": "B"},
  "texts with roles": {"message_id": 1, "parent_id": None, "text": "t", "role": "author", "rank": 1},
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_rows_are_not_taken_for_a_data_set(read, name):
  try:
    assert read(ORDINARY[name], tiers=ANYTHING).format == "explicit"
  except DataError as error:
    assert "no format has the columns" in error.message


def test_the_examples_of_other_formats_with_columns_of_data_sets_stay_what_they_are(read):
  extra = {
    "answers": ["x"],
    "labels_": 1,
    "choice": 0,
    "rank": 1,
    "status": "ok",
    "preference": 1,
    "info": {},
    "judge": "j",
  }
  for name, entry in FORMATS.items():
    if not entry.expand and name not in (
      "best_first",
      "first_error_from_1",
      "pair",
      "scored_pair",
    ):  # a pair with a preference is `pairwise`
      assert (
        read(entry.example | {k: v for k, v in extra.items() if k not in entry.example}, tiers=ANYTHING).format == name
      )


CASES = Path(__file__).parents[3].parent / "shared" / "cases"
SHARED = {  # file: (format, pairs, set aside)
  "01-shp.jsonl": ("shp", 6, {}),
  "03-helpsteer3.jsonl": ("helpsteer3", 6, {}),
  "04-nectar.jsonl": ("nectar", 18, {}),
  "05-ultrafeedback_raw.jsonl": ("ultrafeedback", 6, {}),
  "06-pku.jsonl": ("pku_saferlhf", 6, {}),
  "07-oasst_trees.jsonl": ("oasst_trees", 6, {}),
  "07-oasst_flat.jsonl": ("oasst_flat", 0, {}),
  "08-webgpt.jsonl": ("webgpt", 5, {"tie": 1}),
  "09-summarize.jsonl": ("summarize_from_feedback", 6, {}),
  "10-arena55k.csv": ("arena_55k", 5, {"tie": 1}),
  "10-arena_json_strings.jsonl": ("pairwise", 6, {}),
  "11-rejected_list.jsonl": ("explicit", 12, {}),
  "11-swift_margin.jsonl": ("ms_swift", 6, {}),
  "11-swift_rejected_messages.jsonl": ("ms_swift", 6, {}),
  "11-swift_rejected_response.jsonl": ("ms_swift", 6, {}),
  "13-rewardbench2.jsonl": ("explicit", 18, {}),
  "13-rewardbench2_ties.jsonl": ("explicit", 24, {}),
  "13-rmbench.jsonl": ("explicit", 54, {}),
  "14-dict_of_lists.jsonl": ("implicit", 6, {}),
  "14-nested_messages.jsonl": ("implicit", 6, {}),
  "14-openai_pref.jsonl": ("openai_preference", 6, {}),
  "15-nemo.jsonl": ("nemo_rl", 6, {}),
  "32-lf_old.jsonl": ("llama_factory_old", 6, {}),
}
BETTER = ("Put it", "Air scatters", "A strawberry", "Two plus two", "Shakespeare", "Most people", "thank you")
MIDDLE = ("No idea", "Because it is", "Cucumber", "Five", "Someone old", "Ask a fish")
"""Of Nectar's three answers."""


@pytest.mark.skipif(not CASES.is_dir(), reason="the files are not beside the repository")
@pytest.mark.parametrize("name", SHARED)
def test_files_of_public_shapes(name):
  format, count, set_aside = SHARED[name]
  records = load([str(CASES / name)])
  assert (records.format, records.set_aside) == (format, set_aside)
  pairs = pairs_of(records)
  assert len(pairs) == count
  for chosen, rejected in pairs:
    assert chosen.removeprefix("## ").startswith(BETTER) or (chosen.startswith(MIDDLE) and rejected == "Hm.")
