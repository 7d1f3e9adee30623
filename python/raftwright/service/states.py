"""The states of a service, and the commands that move it from one to another: along these edges and no other.

A state decides what a service takes on and announces by command. It never decides whether images are
captured: what the DAQ has is written whatever the state is.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from raftwright.errors import UsageError

__all__ = ["COMMANDS", "EDGES", "Command", "State", "target_of"]


class State(StrEnum):
    """Where a service stands."""

    STANDBY = "STANDBY"
    """It runs and takes no commands but those of its life."""
    DISABLED = "DISABLED"
    """Its configuration is in force; it announces nothing and takes no work by command."""
    ENABLED = "ENABLED"
    """It takes work by command and announces what it does."""
    FAULT = "FAULT"
    """Something that it needs does not work; `faults` says what, in order."""


class Command(StrEnum):
    """What the control socket takes. Others are a service's own and are taken in ENABLED only."""

    START = "start"
    """STANDBY to DISABLED, with the configuration as it is in the files now."""
    ENABLE = "enable"
    """DISABLED to ENABLED."""
    DISABLE = "disable"
    """ENABLED to DISABLED, once what was under way is finished."""
    STANDBY = "standby"
    """DISABLED or FAULT to STANDBY; faults are cleared."""
    RESET_FAULT = "resetFault"
    """FAULT to STANDBY; faults are cleared."""
    RELOAD = "reload"
    """In any state: the files are read again, and replace what is in force if they can."""
    HEALTH = "health"
    """In any state: whether it is well. Answered at once, whatever else goes on."""
    STATUS = "status"
    """In any state: all that its page says."""
    FAULTS = "faults"
    """In any state: those of this run, in order."""


EDGES: Final[Mapping[Command, Mapping[State, State]]] = MappingProxyType(
    {
        Command.START: {State.STANDBY: State.DISABLED},
        Command.ENABLE: {State.DISABLED: State.ENABLED},
        Command.DISABLE: {State.ENABLED: State.DISABLED},
        Command.STANDBY: {State.DISABLED: State.STANDBY, State.FAULT: State.STANDBY},
        Command.RESET_FAULT: {State.FAULT: State.STANDBY},
    }
)
"""Any state goes to FAULT by itself, and from there, once all is well again, back to where it was."""

COMMANDS: Final = frozenset(command.value for command in Command)


def target_of(command: Command, state: State) -> State:
    """Where a command leads. Raises UsageError where there is no such edge."""
    edges = EDGES[command]
    if state not in edges:
        wanted = " or ".join(edges)
        raise UsageError(f"{command.value} is for {wanted}, and the state is {state.value}")
    return edges[state]
