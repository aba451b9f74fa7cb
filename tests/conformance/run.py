"""Run transformers' common suites, from the source distribution of the version that is installed, over `suites.py`.

python -m tests.conformance.run [arguments of pytest]
"""

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import transformers

HERE = Path(__file__).parent
BUILD = HERE.parent.parent / "build" / "conformance"
# Modules that the suites import and the source distribution lacks; the suites' own tests do not need what is in them.
STAND_INS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
}


def fetch_suites() -> Path:
    """Download and unpack the source distribution, once per version.

    Returns:
        Its folder.
    """
    name = f"transformers-{transformers.__version__}"
    folder = BUILD / name
    if not folder.exists():
        download = ["download", "--quiet", "--no-deps", "--no-binary", "transformers", "--dest", str(BUILD)]
        subprocess.run(
            [sys.executable, "-m", "pip", *download, f"transformers=={transformers.__version__}"], check=True
        )
        with tarfile.open(BUILD / f"{name}.tar.gz") as archive:
            archive.extractall(BUILD / "part", filter="data")
        shutil.move(BUILD / "part" / name, folder)
    return folder


def add_ours(tests: Path) -> Path:
    """Put our suites and the stand-ins beside transformers' suites.

    Returns:
        The file to run.
    """
    for name, content in STAND_INS.items():
        path = tests / name
        path.parent.mkdir(exist_ok=True)
        path.parent.joinpath("__init__.py").touch()
        path.write_text(content, encoding="utf-8")
    (tests / "__init__.py").touch()
    target = tests / "test_fftp.py"
    shutil.copy(HERE / "suites.py", target)
    return target


def main(arguments: list[str]) -> int:
    """Run, and count what was skipped for which reason."""
    folder = fetch_suites()
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-c", "/dev/null"]
    target = add_ours(folder / "tests")
    done = subprocess.run(
        [*command, "--rootdir", str(folder), str(target), *arguments], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    print(re.sub(rf"{re.escape(str(folder))}/", "", done.stdout))
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
