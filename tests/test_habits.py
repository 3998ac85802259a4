"""What GitHub and pre-commit read: it is well-formed, and says what holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; the group 'docs' brings it")

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

pytestmark = pytest.mark.skipif(
    not GITHUB.exists(), reason="a source distribution has no files for GitHub"
)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_workflow_runs_everything_on_each_python() -> None:
    workflow = read(GITHUB / "workflows" / "ci.yml")
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    job = workflow["jobs"]["run"]
    assert job["timeout-minutes"] <= 60
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == ".ci/run"
    (versions,) = (
        step["with"]["python-version"].split()
        for step in job["steps"]
        if step.get("uses", "").startswith("actions/setup-python@")
    )
    assert sorted(versions) == re.findall(r"Python :: (3\.\d+)", PROJECT)


def test_pre_commit_has_a_ruff_that_the_settings_are_for() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [hook["id"] for hook in repository["hooks"]] == ["ruff-check", "ruff-format"]
    floor = re.search(r'"ruff>=([\d.]+)"', PROJECT)
    assert floor is not None
    pinned = repository["rev"].removeprefix("v")
    assert [*map(int, pinned.split("."))] >= [*map(int, floor[1].split("."))]


@pytest.mark.parametrize("name", ["bug.yml", "question.yml"])
def test_issue_forms(name: str) -> None:
    form = read(GITHUB / "ISSUE_TEMPLATE" / name)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields) > 1


def test_a_bug_report_has_what_the_program_prints() -> None:
    form = read(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")
    (report,) = (field for field in form["body"] if field.get("id") == "report")
    assert "`python -m anyio_mmsg`" in report["attributes"]["label"]
    assert report["validations"]["required"] is True


def test_files_that_are_named_exist() -> None:
    pages = [*GITHUB.rglob("*.md"), *GITHUB.rglob("*.yml"), ROOT / "SECURITY.md"]
    named = {
        name
        for page in pages
        for name in re.findall(
            r"\b(?:[A-Z]+\.md|docs/[\w./]*\w)|\.ci/\w+", page.read_text("utf-8")
        )
    }
    assert {"SECURITY.md", "CHANGELOG.md", "docs/trust.md", ".ci/run"} <= named
    assert [name for name in named if not (ROOT / name).exists()] == []
