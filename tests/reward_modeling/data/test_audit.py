"""Each check finds its own flaw and no other, where it is, and the share it reports is right."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import assistant, user
from reward_modeling.data.audit import CHECKS, Audit, Finding, audit, drop
from reward_modeling.data.audit.findings import Material
from reward_modeling.data.records import Comparison, Origin
from reward_modeling.results import finite


def pair(prompt="q", chosen="good", rejected="poor", row=1, **fields):
  return Comparison([user(prompt)], [assistant(chosen)], [assistant(rejected)], origin=Origin("f.jsonl", row), **fields)


def found(records, **options):
  """{check: rows} of everything but the length share, which is always there."""
  return {f.check: f.rows for f in audit(records, **options) if f.check != "longer_chosen"}


CLEAN = [pair(f"q{i}", row=i) for i in (1, 2, 3)]
AT_4 = ("f.jsonl:4",)

FLAWS = {
  "empty_answer": pair(chosen=" \n", row=4),
  "identical": pair(chosen="same", rejected="same\n", row=4),
  "no_final_answer": replace(
    pair(row=4), rejected=[assistant("poor"), user("Why?")], chosen=[assistant("good"), user("Why?")]
  ),
  "prompts_differ": replace(
    pair(row=4),
    chosen=[assistant("a"), user("x"), assistant("good")],
    rejected=[assistant("a"), user("y"), assistant("poor")],
  ),
  "negative_margin": pair(row=4, margin=-0.5),
  "duplicate": pair("q1", row=4),
  "encoding": pair(rejected="cafÃ©", row=4),
  "leaked_turn": pair(chosen="It is 4.\n\nHuman: And 3 + 3?", row=4),
  "roles": replace(pair(row=4), prompt=[user("a"), user("b")]),
}


def test_clean_pairs_have_no_findings_but_the_share_of_longer_answers():
  assert audit(CLEAN) == []  # answers of one length: not even a share
  (finding,) = audit([*CLEAN, pair("q4", "good", "bad", row=4), pair("q5", "yes", "nope", row=5)])
  assert (finding.check, finding.severity, finding.count, finding.share) == ("longer_chosen", "info", 1, 0.5)


@pytest.mark.parametrize("check", FLAWS)
def test_a_flaw_is_found_by_its_check_alone_and_at_its_row(check):
  assert found([*CLEAN, FLAWS[check]]) == {check: AT_4}


@pytest.mark.parametrize("check", FLAWS)
def test_dropping_the_finding_leaves_the_clean_pairs(check):
  records = [*CLEAN, FLAWS[check]]
  findings = [finding for finding in audit(records) if finding.check == check]
  assert drop(records, findings) == CLEAN


@pytest.mark.parametrize(
  "answer",
  [
    "4<|im_end|>",
    "4<｜User｜>",
    "4<end_of_turn>",
    "4 [INST] more",
    "4</s>\n",
    "4\n### Instruction:\nAdd.",
    "4\n\nAssistant: 5",
    "Human:  Yes, 4.",
    "4.\n\nHappy Human: thanks",
  ],
)
def test_the_marker_of_a_turn_in_either_answer_is_found(answer):
  assert found([*CLEAN, pair(chosen=answer, row=4)]) == {"leaked_turn": AT_4}
  assert found([*CLEAN, pair(rejected=answer, row=4)]) == {"leaked_turn": AT_4}


@pytest.mark.parametrize(
  "answer",
  [
    "a Human: is a word",
    "the\nHuman: a film",
    "a || b <- c|",
    "<s>old</s> new",
    "## Instructions",
    "if a <|b and c|> d",
    "| [x] | </s>a",
  ],
)
def test_text_that_only_looks_like_a_marker_is_not(answer):
  assert found([*CLEAN, pair(chosen=answer, row=4)]) == {}


def test_a_marker_in_the_prompt_is_the_users_own():
  assert found([*CLEAN, pair("What does <|im_end|> mean?", row=4)]) == {}


def test_contradicting_labels_are_both_named_and_are_no_duplicates():
  assert found([*CLEAN, pair("q2", "poor", "good", row=4)]) == {"contradiction": ("f.jsonl:2", "f.jsonl:4")}


def test_votes_of_several_people_are_no_duplicates_and_tell_how_far_they_agree():
  """q1: 3 of 4 votes and q2: 2 of 2 are the majority's; q3, with one vote, says nothing of agreement."""
  votes = [("q1", 1), ("q1", 1), ("q2", 1), ("q1", 0), ("q3", 1), ("q2", 1), ("q1", 1)]
  sides = ("poor", "good")
  rows = [
    pair(asked, sides[vote], sides[1 - vote], row=row, metadata={"worker_id": row, "subset": "s"})
    for row, (asked, vote) in enumerate(votes, 1)
  ]
  (finding,) = audit(rows)
  assert (finding.check, finding.count, finding.agreement) == ("contradiction", 4, pytest.approx(5 / 6))
  assert "83.3%" in finding.message
  nobody = [replace(row, metadata={"subset": "s"}) for row in rows]
  assert found(nobody)["duplicate"] == ("f.jsonl:2", "f.jsonl:6", "f.jsonl:7")


def test_the_same_answers_to_another_prompt_are_neither_duplicates_nor_contradictions():
  assert found([pair("a", row=1), pair("b", "poor", "good", row=2), pair("c", row=3)]) == {}


def test_prompts_of_the_evaluation_set_are_found_in_the_training_set():
  assert found(CLEAN, eval_records=[pair("q2", "other", "answers"), pair("q9")]) == {
    "train_eval_overlap": ("f.jsonl:2",)
  }
  rows = [pair("What is  two plus two?\n", row=1), pair("What is two plus three?", row=2)]
  assert found(rows, eval_records=[pair("what is Two\nplus TWO?")]) == {"train_eval_overlap": ("f.jsonl:1",)}


def test_slices_are_audited_as_the_whole_is():
  records = [*CLEAN, *FLAWS.values(), pair("q2", "poor", "good", row=50), *CLEAN]
  sliced = Audit("pairs", CHECKS.values())
  for start in range(0, len(records), 2):
    sliced.add(Material(records[start : start + 2]))
  assert sliced.findings() == audit(records)
  (duplicates,) = [finding for finding in sliced.findings() if finding.check == "duplicate"]
  assert duplicates.within(len(records) - 3, 2).indices == (0, 1)


@pytest.mark.parametrize(("longer", "severity"), [(3, "info"), (7, "info"), (8, "warning"), (2, "warning")])
def test_share_of_longer_chosen_answers(longer, severity):
  records = [pair(f"q{i}", "long" if i < longer else "c", "mid", row=i) for i in range(10)]
  records.append(pair("tie", "abc", "xyz"))  # equal lengths say nothing
  (finding,) = (f for f in audit(records) if f.check == "longer_chosen")
  assert (finding.count, finding.share, finding.severity) == (longer, longer / 10, severity)
  assert finding.indices == ()


ALTERNATING = [
  "user assistant",
  "system user assistant",
  "user assistant user assistant",
  "user assistant tool assistant",
  "user assistant tool tool assistant user assistant",
]
STUMBLING = [
  "assistant",
  "user user assistant",
  "system system user assistant",
  "user system assistant",
  "user assistant assistant",
  "user tool assistant",
  "user assistant tool user assistant",
]


@pytest.mark.parametrize(("roles", "stumbles"), [(r, False) for r in ALTERNATING] + [(r, True) for r in STUMBLING])
def test_order_of_roles(roles, stumbles):
  *before, _ = roles.split()
  record = replace(pair(), prompt=[{"role": role, "content": str(i)} for i, role in enumerate(before)])
  assert ("roles" in found([record])) == stumbles


def test_multi_turn_answers_with_the_same_questions_do_not_differ_in_prompt():
  arena = replace(
    pair(),
    chosen=[assistant("a"), user("x"), assistant("good")],
    rejected=[assistant("b"), user("x"), assistant("poor")],
  )
  assert found([arena]) == {}


def test_an_answer_that_is_a_tool_call_is_not_empty():
  call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add"}}]}
  assert found([replace(pair(), chosen=[call])]) == {}


GARBLED = ["bell \x07", "half \ufffd", "donâ€™t", "naÃ¯ve", "£ as Â£", "ðŸ˜€"]
SOUND = ["tab\tline\r\n", "don’t", "naïve £ € 😀", "São Paulo, NÃO", "日本語", "Ångström Âge"]


@pytest.mark.parametrize(("said", "garbled"), [(t, True) for t in GARBLED] + [(t, False) for t in SOUND])
def test_control_characters_and_text_read_in_the_wrong_encoding(said, garbled):
  assert ("encoding" in found([pair(chosen=said)])) == garbled


@given(st.text(st.characters(min_codepoint=0xC0, max_codepoint=0xFF), min_size=1, max_size=5))
def test_latin_letters_read_in_the_wrong_encoding_are_always_found(word):
  assert "encoding" in found([pair(chosen=word.encode("utf-8").decode("latin-1"))])


def test_first_five_rows_are_shown_and_all_are_counted():
  findings = audit([pair(f"q{i}", chosen="", row=i) for i in range(9)])
  assert findings[0] == Finding(
    check="empty_answer",
    severity="error",
    count=9,
    share=1.0,
    rows=tuple(f"f.jsonl:{i}" for i in range(5)),
    message="9 of 9 pairs have an answer that says nothing",
    advice=CHECKS["empty_answer"].advice,
    indices=tuple(range(9)),
  )
  assert "indices" not in finite(findings[0])


def test_errors_come_first_and_no_pairs_make_no_findings():
  severities = [finding.severity for finding in audit([*CLEAN, *FLAWS.values()])]
  assert severities == sorted(severities, key=["error", "warning", "info"].index)
  assert audit([]) == []


def test_every_check_explains_itself():
  for name, check in CHECKS.items():
    assert name == check.name and check.severity in ("error", "warning", "info")
    assert check.what and check.why.endswith(".") and check.advice


def test_time_grows_with_the_number_of_pairs_and_not_with_its_square():
  records = [pair(f"q{i}", "x" * 200 + str(i), "y" * 200, row=i) for i in range(8000)]
  start = time.process_time()
  audit(records[:1000])
  middle = time.process_time()
  audit(records)
  # Eight times the pairs: a quadratic check would take 64 times as long.
  assert time.process_time() - middle < 32 * max(middle - start, 0.01)
