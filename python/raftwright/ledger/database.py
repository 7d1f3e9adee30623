"""The seam between the ledger and the database under it: transactions, group commit, reading.

Statements are written once, with `?` for values, in the SQL that SQLite and PostgreSQL have in common.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from raftwright.errors import StorageError
from raftwright.ledger.clock import tai

__all__ = ["BUSY", "Change", "Database", "Retry", "Row", "Transaction", "clean", "marks", "parts", "quoted"]

T = TypeVar("T")

Row: TypeAlias = tuple[Any, ...]

BUSY: Final = 20.0
"""Seconds that one waits for what another has locked."""

_GROUP: Final = 64
"""Changes that one commit may carry."""

_AT_A_TIME: Final = 500
_LONGEST_TEXT: Final = 4000
_LONGEST_DETAIL: Final = 1 << 16
_MOST_PARTS: Final = 256


class Retry(Exception):  # noqa: N818 - no error: it is tried again
    """Somebody else was quicker, or the connection was lost: the transaction is done again."""


class Change(msgspec.Struct, frozen=True):
    """A change of state that is to become an event row."""

    thing: str
    subject: str
    old: str
    new: str
    image_id: int | None = None
    obsid: str = ""
    dayobs: int = 0
    detail: dict[str, Any] = {}


class Transaction(ABC):
    """What is done at once or not at all."""

    lock: str = ""
    """Suffix of a SELECT whose rows are going to be changed."""
    skip: str = ""
    """The same, where rows that somebody else is changing are left out."""
    CLOCK: str = "0"
    """The clock of leases as an expression; "0": it is not the database's."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.afterwards: list[Callable[[], None]] = []
        """What is done once it is committed."""

    @abstractmethod
    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """What a query gives."""

    @abstractmethod
    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Does something; how many rows it changed."""

    @abstractmethod
    def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, new: bool = False
    ) -> int:
        """Inserts rows, but for those whose key is there already; how many. `new`: none is, as far as we
        know; where somebody was quicker the transaction is done again."""

    @abstractmethod
    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """A condition that a column is one of some values, and the values that it takes."""

    @abstractmethod
    def update(
        self,
        table: str,
        sets: Sequence[str],
        by: Sequence[str],
        rows: Sequence[Sequence[Any]],
        where: str = "",
        *,
        exact: bool = False,
    ) -> None:
        """Changes rows, each known by the columns `by`: values of `sets`, then of `by`. With `where` only
        those that are still so; where that has to be all of them (`exact`) and is not, it is all done
        again."""

    @abstractmethod
    def clock(self) -> float:
        """The clock that leases go by, in seconds."""

    def one(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """The first row of a query."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def note(self, change: Change) -> None:
        """Remembers a change; its event row is written at the end of the transaction."""
        self.changes.append(change)

    def write_events(self, owner: str) -> None:
        """Writes the event rows of what was noted."""
        if not self.changes:
            return
        moment = tai()
        columns = (
            "at_tai",
            "image_id",
            "obsid",
            "dayobs",
            "thing",
            "subject",
            "old",
            "new",
            "owner",
            "detail",
        )
        self.insert(
            "event",
            columns,
            [
                (
                    *(
                        moment,
                        change.image_id,
                        change.obsid,
                        change.dayobs,
                        change.thing,
                        clean(change.subject),
                    ),
                    *(change.old, change.new, owner),
                    _json(change.detail),
                )
                for change in self.changes
            ],
            new=True,
        )
        self.changes = []


class _Ticket(Generic[T]):
    """A change that waits for its commit."""

    def __init__(self, work: Callable[[Transaction], T]) -> None:
        self.work = work
        self.done = False
        self.result: T | None = None
        self.error: BaseException | None = None


class Database(ABC):
    """A database with the tables of the ledger. Thread-safe.

    Raises StorageError where it cannot be read or written, FormatError where it is no ledger.
    """

    dialect: str
    where: str
    """Its name in messages: a path, or a URL without its password."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._writing = threading.Lock()
        self._queue = threading.Lock()
        self._waiting: list[_Ticket[Any]] = []
        self.generation = 0
        """Grows when it may be another ledger than before: what was remembered of it is to be forgotten."""

    # -- for the databases

    @abstractmethod
    def transaction(self, work: Callable[[Transaction], T]) -> T:
        """Does it in a transaction of its own, again where that is asked for; with the event rows of it."""

    @abstractmethod
    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """For queries that see one state of the ledger."""

    @abstractmethod
    def close(self) -> None:
        """Closes its connections."""

    # -- for the ledger

    def change(self, work: Callable[[Transaction], T]) -> T:
        """Does `work` in a transaction that is durable when this returns.

        What several threads change at a time is committed at once. `work` may be called more than once: only
        what it does in the last transaction counts.
        """
        ticket = _Ticket(work)
        with self._queue:
            self._waiting.append(ticket)
        with self._writing:
            if not ticket.done:
                self._commit(self._take(ticket))
        if ticket.error is not None:
            raise ticket.error
        return ticket.result  # type: ignore[return-value]

    def _take(self, mine: _Ticket[Any]) -> list[_Ticket[Any]]:
        with self._queue:
            others = [ticket for ticket in self._waiting if ticket is not mine][: _GROUP - 1]
            taken = [mine, *others]
            self._waiting = [ticket for ticket in self._waiting if ticket not in taken]
        return taken

    def _commit(self, tickets: list[_Ticket[Any]]) -> None:
        if len(tickets) > 1:

            def together(transaction: Transaction) -> list[Any]:
                return [ticket.work(transaction) for ticket in tickets]

            try:
                results = self.transaction(together)
            except StorageError as error:
                for ticket in tickets:
                    ticket.error, ticket.done = StorageError(*error.args), True
                return
            except Exception:
                pass  # one of them is at fault: each alone
            else:
                for ticket, result in zip(tickets, results, strict=True):
                    ticket.result, ticket.done = result, True
                return
        for ticket in tickets:
            try:
                ticket.result = self.transaction(ticket.work)
            except Exception as error:
                ticket.error = error
            ticket.done = True

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """What a query gives."""
        with self.reading() as transaction:
            return transaction.rows(sql, values)


def _json(detail: dict[str, Any]) -> str:
    """As text that every database takes; whoever made it endless finds it cut, and still JSON."""
    if not detail:
        return "{}"
    try:
        data = msgspec.json.encode(detail)
        if len(data) <= _LONGEST_DETAIL:
            return data.decode()
    except (UnicodeError, ValueError):  # half a character, or a number that JSON has not
        pass
    return msgspec.json.encode(_short(detail)).decode()


def _short(value: Any, depth: int = 3) -> Any:
    if isinstance(value, dict) and depth:
        return {
            clean(str(key), 100): _short(each, depth - 1) for key, each in list(value.items())[:_MOST_PARTS]
        }
    if isinstance(value, list | tuple) and depth:
        return [_short(each, depth - 1) for each in value[:_MOST_PARTS]]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return clean(str(value), 500)


def marks(values: Sequence[Any]) -> str:
    """`?, ?, ?` for so many values."""
    return ", ".join("?" * len(values))


def parts(values: Iterable[T], size: int = _AT_A_TIME) -> Iterator[list[T]]:
    """Some at a time: a statement takes only so many values."""
    listed = list(values)
    for begin in range(0, len(listed), size):
        yield listed[begin : begin + size]


def quoted(states: Iterable[str]) -> str:
    """`'a', 'b'` of names that are our own."""
    return ", ".join(f"'{state}'" for state in states)


def clean(text: str, longest: int = _LONGEST_TEXT) -> str:
    """Text that every database takes: without NUL and half characters, and not endless."""
    if len(text) > longest:
        text = text[: longest - 3] + "..."
    if "\0" in text or not text.isascii():
        text = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    return text
