"""Where the images' packages come from: pinned as they are tested, and known by their digests."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DIRECT = {
    "train": PROJECT["project"]["dependencies"],
    "build": PROJECT["build-system"]["requires"],
    "serve": (ROOT / "model_card" / "space" / "requirements.txt").read_text().splitlines(),
}


def pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


@pytest.mark.parametrize("image", DIRECT)
def test_an_image_installs_what_is_tested_by_digest_and_nothing_is_missing(image) -> None:
    path = ROOT / "requirements" / f"{image}.txt"
    constraints, installed = pins(ROOT / "constraints.txt"), pins(path)
    assert {canonicalize_name(Requirement(line).name) for line in DIRECT[image]} <= installed.keys(), (
        "make requirements"
    )
    # CUDA's packages come with torch from the package index only, and are pinned there.
    others = {name: version for name, version in installed.items() if version != constraints.get(name, version)}
    assert others == {}, "make requirements"
    entries = re.split(r"^(?=[\w.-]+==)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


def test_an_image_builds_the_package_by_what_is_known_by_digest() -> None:
    image = (ROOT / "Dockerfile").read_text()
    (build,) = [line for line in image.splitlines() if "--editable ." in line]
    assert "--no-build-isolation" in build  # else pip fetches the newest of what builds it
    assert "pip install --require-hashes --requirement requirements/build.txt" in image


def test_a_release_is_audited_and_listed() -> None:
    workflows = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
    steps = {
        name: [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
        for name, workflow in workflows.items()
    }
    assert any(step.startswith("pip-audit --strict") for step in steps["ci"])  # else what it did not find is no error
    assert any(step.startswith("cyclonedx-py") for step in steps["release"])
    for workflow in workflows.values():
        for job in workflow["jobs"].values():
            if job.get("permissions"):  # what a job installs must not find the token that may write
                (checkout,) = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
                assert checkout["with"]["persist-credentials"] is False
        assert workflow["permissions"] == {"contents": "read"}  # a job that needs more says so
    updated = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updated} == {"pip", "github-actions", "docker"}
