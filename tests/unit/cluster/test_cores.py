"""How many cores a process may use, and threads that are more than these."""

import os

import pytest

from lanline.cluster import cores
from lanline.cluster.cores import capped_threads, usable_cores


@pytest.fixture
def group(tmp_path):
    """A control group inside another one, and the file that names it."""
    (tmp_path / "outer/inner").mkdir(parents=True)
    (tmp_path / "membership").write_text("0::/outer/inner\n")
    return tmp_path


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("max 100000", "max 100000", 8),
        ("max 100000", "300000 100000", 3),
        ("150000 100000", "max 100000", 1),
        ("50000 100000", "300000 100000", 1),
        (None, None, 8),
        ("nonsense", "", 8),
    ],
)
def test_a_quota_counts_wherever_it_is_set(group, monkeypatch, outer, inner, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for folder, text in (("outer", outer), ("outer/inner", inner)):
        if text is not None:
            (group / folder / "cpu.max").write_text(text)
    assert usable_cores(group, group / "membership") == expected


def test_the_cores_that_a_process_is_bound_to_count(group, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert usable_cores(group, group / "none") == 1


def test_more_threads_than_cores_are_capped_and_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    assert capped_threads(2) == 2
    assert capsys.readouterr().err == ""
    assert capped_threads(16) == 2
    assert "16 threads requested, but only 2 core(s)" in capsys.readouterr().err
