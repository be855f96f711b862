"""What commands have in common: the workspace and the params that a call names, and options of the same meaning."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ti_pipeline.params import Params, load
from ti_pipeline.workspace import Workspace

Concepts = Annotated[list[str] | None, typer.Argument(metavar="[CONCEPT…]", help="These concepts; without any, all.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do again what is up to date.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
WorkspaceOption = Annotated[Path, typer.Option("--workspace", help="The folder with artifacts/.", metavar="DIR")]
ParamsOption = Annotated[Path | None, typer.Option("--params", help="By default params.yaml in the workspace.", metavar="FILE")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Set a value (docs/params.md).", metavar="section.key=value")]


@dataclass(frozen=True)
class Call:
    """A workspace; its params, by default from its own file; and values that take the place of some (`section.key=value`)."""

    workspace: Path
    params: Path | None = None
    overrides: tuple[str, ...] = ()

    def open(self, overlay: Path | None = None) -> tuple[Workspace, Params]:
        """The workspace and its typed params; `overlay` is a file with other values of some. Raises ParamsError."""
        settings = load(self.params or self.workspace / "params.yaml", self.overrides, overlay)
        return Workspace.open(self.workspace, settings.concepts.folder), settings


def with_call(command: Callable[..., None]) -> Callable[..., None]:
    """For typer: the command's parameter `call` becomes the options --workspace, --params and --set."""

    @wraps(command)
    def called(workspace: Path, params: Path | None, set_: list[str] | None, **given: Any) -> None:
        command(**given, call=Call(workspace, params, tuple(set_ or ())))

    hints = get_type_hints(command, include_extras=True)
    options: dict[str, tuple[Any, Any]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if name == "call":
            options |= {"workspace": (WorkspaceOption, Path(".")), "params": (ParamsOption, None), "set_": (SetOption, None)}
        else:
            options[name] = (hints[name], parameter.default)
    told = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=of) for name, (of, default) in options.items()
    ]
    called.__annotations__ = {name: of for name, (of, _) in options.items()}
    called.__signature__ = inspect.Signature(told)  # type: ignore[attr-defined]
    return called
