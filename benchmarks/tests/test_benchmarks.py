"""The harness's own arithmetic, tables and timing."""

import json
import sys
from dataclasses import replace

import pytest

from benchmarks.__main__ import main
from benchmarks._figures import Figure, write_json
from benchmarks._marks import Mark, as_data, number
from benchmarks._process import BenchmarkError, adopted_orphans, child_environment, run
from benchmarks._suites import Work, write_suite
from benchmarks._table import marks_table, render, work_table
from benchmarks._timing import interleave, slope, summarize
from benchmarks.postgres_contenders import BARE, PROCESS


def test_a_slope_is_the_cost_of_one_more_test_whatever_the_start_costs():
    assert slope([(1, 512.0), (11, 532.0), (51, 612.0)]) == pytest.approx(2.0)


def test_a_slope_is_the_one_of_least_squares():
    assert slope([(0, 0.0), (1, 2.0), (2, 1.0)]) == pytest.approx(0.5)


def test_a_slope_needs_two_places():
    with pytest.raises(ValueError, match="two different places"):
        slope([(1, 1.0), (1, 2.0)])


def test_a_summary_has_median_and_extremes():
    summary = summarize([3.0, 1.0, 10.0])
    assert (summary.median, summary.low, summary.high, summary.count) == (3.0, 1.0, 10.0, 3)


def test_contenders_take_turns():
    seen = []
    interleave(2, ["a", "b"], lambda number, name: seen.append((number, name)))
    assert seen == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_a_table_aligns_numbers_to_the_right():
    assert render(["", "ms", "mark"], [["a", "1.0", "met"], ["bb", "10.0", ""]]) == (
        "|    |   ms | mark |\n| -- | ---: | ---- |\n| a  |  1.0 | met  |\n| bb | 10.0 |      |"
    )


FIGURES = [
    Figure("cold", "floor", "ms", samples=[100.0, 90.0, 130.0]),
    Figure("cold", "ours", "ms", samples=[170.0, 150.0, 180.0], first=900.0),
    Figure("cold", "absent", "ms", left_out="no engine answers"),
]


SLOPES = [
    Figure("next", "floor", "ms", samples=[2.0]),
    Figure("next", "ours", "ms", samples=[3.5]),
    Figure("next", "other", "ms", samples=[7.0]),
    Figure("next", "odd", "ms", samples=[-1.0]),
]

OVER = Mark("next", "ours", 1, ("floor",), over=True)
HIGHEST = Mark("next", "ours", 0.5, ("floor", "other"))


@pytest.mark.parametrize(
    ("mark", "verdict"),
    [
        (Mark("cold", "ours", 1.6, ("floor",)), "MISSED: 1.70x floor, at most 1.6x"),
        (Mark("cold", "ours", 1.7, ("floor",)), "met: 1.70x floor, at most 1.7x"),
        (Mark("cold", "ours", 160.0), "MISSED: 170 ms, at most 160 ms"),
        (OVER, "MISSED: 1.50 ms over floor, at most 1 ms over it"),
        (replace(OVER, limit=2), "met: 1.50 ms over floor, at most 2 ms over it"),
        (HIGHEST, "met: 0.50x the highest of the others, at most 0.5x"),
        (Mark("cold", "absent", 160.0), ""),
        (Mark("cold", "ours", 1.6, ("absent",)), ""),
        (Mark("cold", "ours", 1.6, ("floor", "absent")), ""),
        (Mark("next", "ours", 1.6, ("odd",)), ""),
        (Mark("warm", "ours", 1.6), ""),
    ],
)
def test_a_mark_says_whether_it_is_met(mark, verdict):
    judgement = mark.judge([*FIGURES, *SLOPES])
    assert (str(judgement) if judgement else "") == verdict


def test_the_table_of_marks_has_those_that_there_are_figures_for():
    marks = [Mark("cold", "ours", 1.6, ("floor",)), Mark("cold", "absent", 1)]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in
            marks_table(marks, FIGURES).splitlines()[4:]]  # fmt: skip
    assert rows == [["cold", "ours", "1.70x floor", "1.6x", "MISSED"]]
    assert marks_table(marks[1:], FIGURES) == ""


def test_numbers_have_about_three_digits():
    assert [number(value) for value in (1234.5, 100, 12.34, 1.234, -0.5)] == [
        "1234", "100", "12.3", "1.23", "-0.50",
    ]  # fmt: skip


def test_one_number_of_tests_gives_no_slope(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "next", "--tests", "10"])
    assert "two different numbers" in capsys.readouterr().err


def test_the_table_of_a_work_shows_ratios_marks_and_who_is_left_out():
    text = work_table(FIGURES, [Mark("cold", "ours", 1.6, ("floor",))], "floor")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[4:]]
    assert rows == [
        ["floor", "100", "90.0", "130", "", "1.00x", ""],
        ["ours", "170", "150", "180", "900", "1.70x", "MISSED: 1.70x floor, at most 1.6x"],
        ["absent", "-", "-", "-", "-", "-", "left out: no engine answers"],
    ]


def test_every_raw_sample_is_kept(tmp_path):
    file = tmp_path / "results" / "latest.json"
    write_json(file, FIGURES, as_data([Mark("cold", "ours", 1.6)], FIGURES), {"python": "3.11"})
    content = json.loads(file.read_text())
    assert content["figures"][1]["samples"] == [170.0, 150.0, 180.0]
    assert content["marks"][0]["verdict"] == "MISSED: 170 ms, at most 1.6 ms"


def test_a_run_is_timed_and_its_output_kept(tmp_path):
    script = "import time; time.sleep(0.2); print('done')"
    result = run([sys.executable, "-c", script], environment=child_environment(tmp_path))
    assert 0.2 <= result.seconds < 10
    assert result.output == "done\n"


def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(BenchmarkError, match="ended with 3:\nno luck"):
        run(
            [sys.executable, "-c", "print('no luck'); raise SystemExit(3)"],
            environment=child_environment(tmp_path),
        )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere descendants cannot be seen")
def test_a_run_waits_for_what_the_command_left_behind(tmp_path):
    script = (
        "import subprocess, sys\n"
        "subprocess.Popen(['sleep', '0.5'], start_new_session=True)\n"
        "import os; os._exit(0)"
    )
    with adopted_orphans():
        result = run([sys.executable, "-c", script], environment=child_environment(tmp_path))
    assert result.gone_after is not None
    assert 0.2 < result.gone_after < 5
    assert result.seconds < result.gone_after + 0.5


def test_a_measured_command_gets_no_settings_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-x")
    monkeypatch.setenv("CLEANROOM_BACKEND", "external")
    monkeypatch.setenv("PGHOST", "elsewhere")
    environment = child_environment(tmp_path, {"CLEANROOM_BACKEND": "process"})
    assert environment["CLEANROOM_BACKEND"] == "process"
    assert environment["XDG_CACHE_HOME"] == str(tmp_path)
    assert not {"PYTEST_ADDOPTS", "PGHOST"} & environment.keys()


def test_a_suite_has_one_migration_for_each_table(tmp_path):
    suite = write_suite(tmp_path / "suite", PROCESS, Work("writes", 3), 5)
    assert len(list((suite / "migrations").iterdir())) == 3
    assert "range(5)" in (suite / "test_suite.py").read_text()
    assert "template(migrate=" in (suite / "conftest.py").read_text()


def test_the_floor_tests_nothing_whatever_the_work(tmp_path):
    suite = write_suite(tmp_path / "suite", BARE, Work("writes", 0), 1)
    assert "def test_nothing" in (suite / "test_suite.py").read_text()
