"""The code that README and guide show runs as it stands, and what the project says of itself agrees."""

import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.version import Version

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md", "docs/bring_your_network.md"])
def test_code_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where they may write
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where pickle finds the classes that a page defines
    for block in blocks:
        exec(compile(block, page, "exec"), vars(module))


def test_scripts_that_pages_name_exist():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {script for page in pages for script in re.findall(r"examples/[\w/]+\.py", page.read_text())}
    assert named
    assert {script for script in named if not (ROOT / script).is_file()} == set()


def test_lowest_versions_are_those_that_pyproject_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = {}
    for requirement in [*project["dependencies"], *extras["plot"], *extras["test"]]:
        name, _, version = requirement.partition(">=")
        declared[name] = version
    pins = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci/lowest.txt").read_text(), flags=re.MULTILINE)
    unpinned = set(declared) - {name for name, _ in pins}
    assert unpinned == {"sklearn_acs[plot]", "ruff", "mypy"}  # none of which the tests run
    for name, version in pins:
        assert Version(version) == Version(declared[name]), name
