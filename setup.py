"""What a workspace begins with lies at the top of a clone; a built package has it in `ti_pipeline/_workspace`, for `ti-pipeline init`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FIRST = (
    "params.yaml", "dvc.yaml", ".dvcignore", ".gitignore", "prefect.yaml", "automations.yaml", "choices/README.md", "examples/LICENSE.md",
    "examples/concepts/*/*",
)  # fmt: skip


class WithWorkspace(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # a clone's own are read then
            for source in self._first():
                target = self._target(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *map(str, self._first())]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *(str(self._target(source)) for source in self._first())]

    def _first(self) -> Iterator[Path]:
        for pattern in FIRST:
            if not (found := sorted(Path().glob(pattern))):
                raise FileNotFoundError(f"{pattern}: not there. Build the package in a whole clone.")
            yield from found

    def _target(self, source: Path) -> Path:
        return Path(self.build_lib, "ti_pipeline", "_workspace", source)


setup(cmdclass={"build_py": WithWorkspace})
