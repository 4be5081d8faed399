"""Runs of reinforcement learning: the picture of one, from its log."""

import sys

from reward_modeling.training import reinforcement

HISTORY = [{"step": 0, "reward": 0.5, "kl": 0.0}, {"step": 1, "reward": 0.75}]
PANELS = {"reward": ("reward", "gold"), "KL": ("kl",)}


def test_a_run_is_drawn_from_what_its_log_has(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr("reward_modeling.evaluation.plots.svg", lambda panels: drawn.extend(panels) or "<svg/>")
    reinforcement.draw_run(tmp_path / "run.svg", HISTORY, PANELS)
    assert [(panel.title, panel.x_label, panel.y_label) for panel in drawn] == [
        ("reward", "step", "reward"),
        ("KL", "step", "kl"),
    ]
    assert [(series.name, series.points) for panel in drawn for series in panel.series] == [
        ("reward", [(0, 0.5), (1, 0.75)]),
        ("gold", []),
        ("kl", [(0, 0.0)]),
    ]
    assert (tmp_path / "run.svg").read_text() == "<svg/>\n" and "the run is drawn in" in capsys.readouterr().err


def test_a_finished_run_is_not_lost_for_want_of_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    reinforcement.draw_run(tmp_path / "run.svg", HISTORY, PANELS)
    assert "warning: the run is not drawn: " in capsys.readouterr().err and not list(tmp_path.iterdir())
