"""Facts that are kept between processes: a cache that is damaged or cannot be written stops nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lanline import cached_facts
from lanline.cached_facts import ask_child, private_temporary_folder, recall
from lanline.errors import UserError

SCRIPTS = Path(cached_facts.__file__).parents[1]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of its own for the user's cache and for temporary files."""
    for name in ("cache", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path


def never():
    raise AssertionError("the facts were kept")


def run(code, scripts=SCRIPTS, **variables):
    environment = {**os.environ, "PYTHONPATH": str(scripts), **{key: str(value) for key, value in variables.items()}}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def test_facts_are_found_out_once(places):
    facts = {"a": [1, 2.5, None], "ü": "text"}
    assert recall("facts.json", lambda: facts) == facts
    assert recall("facts.json", never) == facts
    assert recall("others.json", lambda: 2) == 2
    assert [path.name for path in (places / "cache/lanline").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("damage", [lambda text: text[:-7], lambda text: "", lambda text: "{}", lambda text: "\0" * 50])
def test_a_damaged_file_is_made_again(places, damage):
    recall("facts.json", lambda: {"a": 1})
    path = places / "cache/lanline/facts.json"
    path.write_text(damage(path.read_text()))
    assert recall("facts.json", lambda: {"a": 2}) == {"a": 2}
    assert recall("facts.json", never) == {"a": 2}


def test_bytes_that_are_no_text_are_damage(places):
    recall("facts.json", lambda: 1)
    (places / "cache/lanline/facts.json").write_bytes(b"\xff\xfe\x00")
    assert recall("facts.json", lambda: 2) == 2


def test_a_changed_value_is_damage(places):
    recall("facts.json", lambda: {"exact": True})
    path = places / "cache/lanline/facts.json"
    path.write_text(path.read_text().replace("true", "false"))
    assert recall("facts.json", lambda: {"exact": True}) == {"exact": True}


def test_where_the_cache_is_a_file_the_temporary_folder_serves(places):
    (places / "cache").rmdir()
    (places / "cache").write_text("a file")
    assert recall("facts.json", lambda: 1) == 1
    assert recall("facts.json", never) == 1
    assert list((places / "tmp").rglob("facts.json"))


def test_where_nothing_can_be_written_the_facts_are_found_out_again(places, monkeypatch):
    for name in ("cache", "tmp"):
        (places / name).rmdir()
        (places / name).write_text("a file")
    assert recall("facts.json", lambda: 1) == 1
    assert recall("facts.json", lambda: 2) == 2


@pytest.mark.parametrize("kind", ["open to others", "a link"])
def test_a_temporary_folder_that_others_may_have_made_is_not_used(places, kind):
    folder = private_temporary_folder()
    if kind == "a link":
        folder.rename(places / "elsewhere")
        folder.symlink_to(places / "elsewhere")
    else:
        folder.chmod(0o777)
    with pytest.raises(OSError, match="lanline-"):
        private_temporary_folder()


def test_a_child_that_fails_is_told_of_with_its_reason(places, monkeypatch):
    (places / "broken.py").write_text("import sys\nprint('{}')\nraise RuntimeError('numba has no cpu')\n")
    monkeypatch.setenv("PYTHONPATH", str(places))
    with pytest.raises(UserError, match=r"could not determine the facts: RuntimeError: numba has no cpu \(`.*broken`"):
        ask_child("broken", "the facts")


def test_what_a_child_prints_before_the_facts_is_left_out(places, monkeypatch):
    (places / "talks.py").write_text("print('welcome')\nprint('[1, 2]')\n")
    monkeypatch.setenv("PYTHONPATH", str(places))
    assert ask_child("talks", "the facts") == [1, 2]


@pytest.mark.parametrize("damaged", [False, True])
def test_models_and_engines_are_known_whatever_the_cache_is(tmp_path, damaged):
    """Attack: every file in the cache truncated. Report: XDG_CACHE_HOME a file."""
    cache = tmp_path / "cache"
    if not damaged:
        cache.write_text("a file")
    code = "from lanline.engine_facts import has_exact; print(has_exact('ddm'), has_exact('levy'))"
    for _ in range(2):
        done = run(code, XDG_CACHE_HOME=cache, TMPDIR=tmp_path)
        assert (done.stdout, done.stderr) == ("True False\n", "")
        for path in cache.rglob("*.json") if damaged else ():
            path.write_bytes(path.read_bytes()[:1000])


def test_labels_are_computed_where_no_compiled_code_can_be_kept(tmp_path):
    """As in a read-only container without a home: numba refuses to compile, unless it is told another folder."""
    scripts, cache = tmp_path / "scripts", tmp_path / "cache"
    shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [scripts / "lanline", *filter(Path.is_dir, (scripts / "lanline").rglob("*"))]:
        (folder / "__pycache__").write_text("no folder can be made here")
    cache.write_text("a file")
    code = (
        "import json, numpy as np; from lanline.config import Data; from lanline.engines import densities;"
        "from lanline.models import get_model;"
        "d = densities(get_model('ddm'), np.array([[1, 1.5, 0.5, 0.3]]), Data(), np.random.default_rng(1));"
        "print(json.dumps(d.choice_probability().tolist()))"
    )
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    variables = {**kept, "PYTHONPATH": str(scripts), "XDG_CACHE_HOME": str(cache), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    [[lower, upper]] = json.loads(done.stdout)
    assert upper == pytest.approx(1 / (1 + pow(2.718281828, -3)), abs=1e-3)
    assert lower + upper == pytest.approx(1, abs=1e-3)
