"""What was written in a file counts: nothing in it is dropped, doubled or read in two ways."""

import subprocess
import sys
from pathlib import Path

import pytest

from lanline.errors import UserError
from lanline.files import read_yaml, section

ROOT = Path(__file__).parents[2]


def read(tmp_path, text: str | bytes, name: str = "my.yaml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path)


def complaint(tmp_path, text: str | bytes, name: str = "my.yaml") -> str:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text, name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "training: {epochs: 7}\nname: x\ntraining: {batch_size: 1}\n",
            "line 3: the key training is already set",
        ),
        ("N_EPOCHS: 1\nMODEL: ddm\nN_EPOCHS: 30\n", "line 3: the key N_EPOCHS"),
        ("a:\n  b: {c: 1,\n      c: 1}\n", "line 3: the key c"),
        ("list:\n  - {a: 1}\n  - {a: 1, a: 2}\n", "line 3: the key a"),
        ('"a": 1\na: 2\n', "line 2: the key a"),
        ("base: &b {x: 1}\nmore:\n  <<: *b\n  y: 1\n  y: 2\n", "line 5: the key y"),
        ("mlflow_tracking: yes", "line 1: mlflow_tracking: YAML readers disagree on what yes means"),
        ("on: true", "line 1: YAML readers disagree on what on means"),
        ("names: [a, no]", "names: YAML readers disagree on what no means"),
        ("seed: 010", "without the leading 0"),
        ("seed: 0o10", "without the leading 0"),
        ("max_t: 1:30", "write seconds as one number"),
        ("? [a, b]\n: 1", "a key is text"),
        ("a: &a [*a]", "contains itself"),
        ("[" * 80 + "]" * 80, "levels"),
        ("a: [1, 2", "is not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "is not valid YAML"),
        ("a: 1\n---\nb: 2", "is not valid YAML"),
        ("- a", "expected keys and values, found list"),
        ("", "expected keys and values"),
        ("# größer\nname: x".encode("latin-1"), "line 1: not UTF-8"),
        ("name: x".encode("utf-16"), "not UTF-8"),
        ("seed: " + "9" * 5000, "is not valid YAML"),
    ],
)
def test_what_readers_drop_or_disagree_about_is_named_with_its_line(tmp_path, text, words):
    assert words in complaint(tmp_path, text)


def test_a_few_lines_of_aliases_do_not_fill_the_memory(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "aliases expand to more than 100,000 values" in complaint(tmp_path, "\n".join(lines))


def test_what_is_meant_is_read(tmp_path):
    text = "a: &b {x: 1, y: 2}\nb: {<<: *b, x: 3}\nc: 'no'\nd: \"010\"\ne: true\nf: 1_000\ng: 12e-1\nh: '1:30'\ni: ~\n"
    assert read(tmp_path, text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": "no",
        "d": "010",
        "e": True,
        "f": 1000,
        "g": "12e-1",
        "h": "1:30",
        "i": None,
    }
    assert read(tmp_path, "\ufeffname: ä") == {"name": "ä"}


def test_json_is_read_as_strictly(tmp_path):
    assert read(tmp_path, '{"a": {"b": 1}}', "my.json") == {"a": {"b": 1}}
    assert "the key b is set twice" in complaint(tmp_path, '{"a": {"b": 1, "b": 2}}', "my.json")


def test_text_for_a_section_is_named():
    assert section({"tracking": {"uri": "x"}}, "tracking", "my.yaml") == {"uri": "x"}
    assert section({"tracking": None}, "tracking", "my.yaml") == section({}, "tracking", "my.yaml") == {}
    with pytest.raises(UserError, match=r"my\.yaml: tracking: expected keys and values below it, not 'sqlite"):
        section({"tracking": "sqlite:///x.db"}, "tracking", "my.yaml")


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "training: {epochs: 7}\nname: x\ntraining: {batch_size: 1}\n",
            "line 3: the key training is already set",
        ),
        ("mlflow_tracking: off\n", "YAML readers disagree on what off means"),
        ("name: x\nmodels: [ddm]\ndata: {max_t: 0.5}\n", "every trial is an omission"),
        (
            "\n".join(
                [
                    "a0: &a0 [x, x, x, x, x, x, x, x, x]",
                    *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)),
                ]
            ),
            "aliases",
        ),
    ],
)
def test_the_workflow_refuses_the_file_too(tmp_path, text, words):
    """Snakemake reads it itself before."""
    (tmp_path / "my.yaml").write_text(text)
    command = [sys.executable, "-m", "snakemake", "-n", "-d", tmp_path, "-s", ROOT / "Snakefile", "--configfile"]
    done = subprocess.run([*command, tmp_path / "my.yaml"], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 1
    assert words in done.stdout + done.stderr
