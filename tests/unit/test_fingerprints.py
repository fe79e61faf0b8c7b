"""Which code makes a stage run again: all that its result depends on, and nothing else."""

import re
import shutil
from pathlib import Path

import pytest

from lanline import fingerprints
from lanline.fingerprints import BACKENDS, EXEMPT, ROOTS, Code, is_exempt

LIBRARY = Path(fingerprints.__file__).parent
CODE = Code(LIBRARY)
# A training has a fingerprint for each framework.
STAGES = {name: roots for name, roots in ROOTS.items() if name != "train_network"} | {
    f"train_{framework}": (*ROOTS["train_network"], backend) for framework, backend in BACKENDS.items()
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the library, and a cache of its own."""
    folder = tmp_path_factory.mktemp("code")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        shutil.copytree(LIBRARY, folder / "lanline", ignore=shutil.ignore_patterns("__pycache__"))
        yield folder / "lanline"


def source_of(module: str, library: Path) -> Path:
    path = library / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def changed_stages(library: Path, module: str, change) -> set[str]:
    """The stages that run again after a change of a module's text."""
    path = source_of(module, library)
    before = path.read_text()
    path.write_text(change(before))
    try:
        changed = Code(library)
    finally:
        path.write_text(before)
    return {stage for stage, roots in STAGES.items() if changed.fingerprint(*roots) != CODE.fingerprint(*roots)}


@pytest.mark.parametrize("module", sorted(CODE.modules))
def test_a_change_of_a_module_is_seen_by_the_stages_that_reach_it_and_no_others(copy, module):
    reached = {stage for stage, roots in STAGES.items() if module in CODE.closure(*roots)}
    assert changed_stages(copy, module, lambda text: text + "\nADDED = 1\n") == reached
    assert (not reached) == (is_exempt(module) and module not in {root for roots in STAGES.values() for root in roots})


def test_what_decides_rows_is_in_the_fingerprint_of_shards():
    """Constraints of the registry were in none: old shards would have been kept after a change."""
    shards = CODE.closure(*STAGES["generate_shards"])
    assert {"theta", "models", "dataset.rows", "dataset.shards", "engines.tables", "engines.simulation.kde"} <= {
        *shards
    }


@pytest.mark.parametrize(("framework", "other"), [("torch", "jax"), ("jax", "torch")])
def test_a_training_does_not_depend_on_the_other_framework_nor_on_engines(framework, other):
    modules = CODE.closure(*STAGES[f"train_{framework}"])
    assert f"training.{framework}_backend" in modules
    assert not [module for module in modules if module.startswith((f"training.{other}", "engines", "tracking"))]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("from __future__", "# a comment\n\n\nfrom __future__", 1),
        lambda text: text.replace('"""', '"""Another docstring. ', 1),
        lambda text: re.sub(r"( *return )(.+)\n", r"\1(\2)\n", text, count=1),
    ],
)
def test_comments_docstrings_and_layout_change_nothing(copy, change):
    assert change((copy / "theta.py").read_text()) != (copy / "theta.py").read_text()
    assert changed_stages(copy, "theta", change) == set()


def test_an_import_inside_a_function_is_followed(copy):
    (copy / "new.py").write_text("A = 1\n")
    change = "\n\ndef later():\n    from lanline import new\n\n    return new.A\n"
    path = copy / "theta.py"
    before = path.read_text()
    path.write_text(before + change)
    try:
        first = Code(copy)
        (copy / "new.py").write_text("A = 2\n")
        second = Code(copy)
    finally:
        path.write_text(before)
        (copy / "new.py").unlink()
    roots = STAGES["generate_shards"]
    assert "new" in first.closure(*roots)
    assert first.fingerprint(*roots) != second.fingerprint(*roots)


def test_every_exemption_is_of_a_module_and_has_a_reason():
    assert not EXEMPT.keys() - CODE.modules.keys()
    assert all(EXEMPT.values())


def test_no_module_imports_by_a_name_that_cannot_be_seen():
    """But for the framework's backend, which `BACKENDS` names."""
    pattern = re.compile(r"import_module|__import__|runpy")
    found = {module for module in CODE.modules if pattern.search(source_of(module, LIBRARY).read_text())}
    found = {module for module in found if not is_exempt(module)}
    assert found == {"training.backend"}
    assert {"torch", "jax"} == BACKENDS.keys()


def test_a_root_that_is_no_module_is_named():
    with pytest.raises(ValueError, match=r"no module of lanline: stages\.bake"):
        CODE.closure("stages.bake")


def test_rules_carry_the_fingerprints_of_all_stages():
    rules = "\n".join(path.read_text() for path in (LIBRARY.parents[1] / "rules").glob("*.smk"))
    assert {*re.findall(r'stage_code\("(\w+)"\)', rules)} | {"train_network"} == ROOTS.keys()
    assert all(f'training_code("{framework}")' in rules for framework in BACKENDS)
