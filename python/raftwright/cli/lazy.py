"""Commands whose module is imported, and whose options are built, when they are used: help of the program and
the start of one command must not pay for all the others."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import typer
from typer.core import TyperCommand

__all__ = ["LazyCommand"]


class LazyCommand(TyperCommand):
    """Stands for the command `name`: the function of this name, or the Typer object `app`, of the module
    `raftwright.cli.<name>`, with `_` for `-`."""

    def __init__(self, name: str, short_help: str, *, group: bool = False) -> None:
        super().__init__(name, short_help=short_help, rich_markup_mode=None, callback=None)
        self._group = group

    @functools.cached_property
    def real(self) -> Any:
        """The command itself."""
        assert self.name is not None
        place = self.name.replace("-", "_")
        module = importlib.import_module(f"raftwright.cli.{place}")
        holder = typer.Typer(rich_markup_mode=None, add_completion=False)
        if self._group:
            holder.add_typer(module.app, name=self.name, short_help=self.short_help)
            group: Any = typer.main.get_command(holder)
            return group.commands[self.name]
        holder.command(self.name, short_help=self.short_help)(getattr(module, place))
        return typer.main.get_command(holder)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """As the command's own."""
        return self.real.make_context(*arguments, **options)

    def get_params(self, ctx: Any) -> list[Any]:
        """As the command's own."""
        return list(self.real.get_params(ctx))
