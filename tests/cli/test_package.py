"""The wheel holds everything that a checkout holds, and runs without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement

import recbole_genrec
from recbole_genrec.settings.property_files import properties_folder

ROOT = Path(__file__).resolve().parents[2]
PROPERTIES = {
    path.relative_to(ROOT).as_posix() for path in (ROOT / "properties").rglob("*") if path.is_file()
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip(
        "hatchling",
        reason="the wheel is built with the hatchling of the dev extra, without network",
    )
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


def test_properties_are_found_and_are_plain_yaml():
    assert properties_folder() == ROOT / "properties"
    assert {
        "properties/overall.yaml",
        "properties/model/STORE.yaml",
        "properties/paper/STORE.yaml",
    } <= PROPERTIES
    for path in PROPERTIES:
        assert isinstance(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")) or {}, dict), (
            path
        )  # a file of comments is empty


def test_constraints_fit_the_declared_ranges():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text.partition("\ndependencies = [")[2].partition("\n]")[0].splitlines()
    ranges = [
        Requirement(line.strip().split('"')[1]) for line in listed if line.strip().startswith('"')
    ]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for python in ("3.10", "3.11", "3.12"):
        here = {
            pin.name.lower(): str(pin.specifier)[2:] for pin in pins if _applies(pin.marker, python)
        }
        for wanted in ranges:
            if _applies(wanted.marker, python):
                assert here[wanted.name.lower()] in wanted.specifier, f"{wanted} on Python {python}"


def _applies(marker: Marker | None, python: str) -> bool:
    return marker is None or marker.evaluate({"python_version": python})


def test_wheel_holds_all_modules_and_property_files(wheel):
    modules = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "recbole_genrec").rglob("*.py")
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(
            next(name for name in names if name.endswith(".dist-info/METADATA"))
        ).decode()
        for path in PROPERTIES:
            assert archive.read(f"recbole_genrec/{path}") == (ROOT / path).read_bytes()
    properties = {f"recbole_genrec/{path}" for path in PROPERTIES}
    packaged = {name for name in names if ".dist-info/" not in name}
    files = [path for path in (ROOT / "recbole_genrec").rglob("*") if path.is_file()]
    others = {
        path.relative_to(ROOT).as_posix() for path in files if path.suffix not in (".py", ".pyc")
    }
    assert {"recbole_genrec/py.typed", "recbole_genrec/serving/page/index.html"} <= others
    assert packaged == modules | properties | others
    assert f"\nVersion: {recbole_genrec.__version__}\n" in metadata


@pytest.mark.slow
def test_installed_wheel_runs_without_the_checkout(wheel, tmp_path):
    home, work = tmp_path / "env", tmp_path / "work"
    work.mkdir()
    venv.create(home, symlinks=os.name != "nt")
    paths = {"base": str(home), "platbase": str(home)}
    site, scripts = (
        Path(sysconfig.get_path("purelib", vars=paths)),
        Path(sysconfig.get_path("scripts", vars=paths)),
    )
    with zipfile.ZipFile(wheel) as archive:  # a pure wheel: unpacking it is installing it
        archive.extractall(site)
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text(
        "\n".join(libraries)
    )  # their own .pth files, an editable install among them, stay unread
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def python(code: str, *arguments: str) -> str:
        command = [str(scripts / Path(sys.executable).name), "-c", code, *arguments]
        done = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = (
        "import recbole_genrec.settings.property_files as p, importlib.metadata as m; "
        "print(p.properties_folder()); print(m.version('recbole-genrec'))"
    )
    assert python(where).split() == [
        str(site / "recbole_genrec" / "properties"),
        recbole_genrec.__version__,
    ]
    command = (
        "from importlib.metadata import entry_points as e; "
        "(c,) = e(group='console_scripts', name='recbole-genrec'); c.load()()"
    )
    small = [
        "--user_inter_num_interval=[20,26]",
        "--MAX_ITEM_LIST_LENGTH=10",
        "--epochs=1",
        "--STORE.tokenizer_epochs=1",
    ]
    table = python(
        command, "run", "--model=Pop,STORE", "--dataset=ml-100k", "--show_progress=False", *small
    )
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["Pop", "STORE"]
    results = [json.loads(path.read_text()) for path in sorted((work / "saved").glob("*.json"))]
    assert [(result["model"], result["commit"]) for result in results] == [
        ("Pop", None),
        ("STORE", None),
    ]
