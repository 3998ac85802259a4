"""What GitHub and pre-commit read: it is well-formed, and says what holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import anyio_mmsg

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


def test_a_release_is_uploaded_by_one_job_alone() -> None:
    workflow = read(GITHUB / "workflows" / "release.yml")
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    may_write = {name for name, job in jobs.items() if "id-token" in job.get("permissions", {})}
    assert may_write == {"upload"}
    assert jobs["upload"]["if"] == "github.ref_type == 'tag'"
    assert set(jobs["upload"]["needs"]) == set(jobs) - may_write
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    (program,) = re.findall(r"^python (src/\S+) ", "\n".join(commands), re.M)
    tag = [sys.executable, str(ROOT / program)]
    assert subprocess.run([*tag, f"v{anyio_mmsg.__version__}"], check=False).returncode == 0
    wrong = subprocess.run([*tag, "v0"], check=False, capture_output=True, text=True)
    assert (wrong.returncode, "is not the tag" in wrong.stderr) == (1, True)


def test_read_the_docs_builds_as_ci_does() -> None:
    settings = read(ROOT / ".readthedocs.yaml")
    assert settings["sphinx"] == {"configuration": "docs/conf.py", "fail_on_warning": True}
    assert (ROOT / settings["sphinx"]["configuration"]).exists()
