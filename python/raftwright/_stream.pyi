"""The receive loop of the stream's client: messages go from pyzmq's socket into readouts without the GIL.

It holds the state of all fetches of one connection and decides nothing: what happened is told as events.
Belongs to one thread. Times are those of `time.monotonic`, in seconds.
"""

from typing import Literal, TypeAlias, final

from typing_extensions import Buffer

from raftwright._core import Readout

Event: TypeAlias = tuple[
    Literal["end", "error", "corrupt", "gap", "refused", "failed"], int, int, int, int, bytes
]
"""What, fetch, request, offset, length, text:

- `end`, `error`: END or ERROR came for a request; the text is its body, empty if that came damaged
- `corrupt`: the chunk at offset came damaged
- `gap`: numbers were left out in the sequence of a request; see `missing`
- `refused`: a message that is not of the protocol came (told once for each way, versions always)
- `failed`: the readout did not take a chunk; the text says why
"""

def keep_message_memory() -> bool:
    """Makes malloc keep up to 128 MiB of free memory, and blocks of up to 32 MiB within it, for the next
    messages instead of giving them back to the system one by one (half as fast again for chunks of 4 MiB).
    For the whole process. False where the C library is not glibc: nothing was changed."""

@final
class ReceiveLoop:
    def __init__(self, module_file: str) -> None:
        """For pyzmq's libzmq, by the file of its extension module (`zmq.backend.cython._zmq.__file__`)."""
    @property
    def problem(self) -> str:
        """Why `run` cannot be used: then messages are handed over with `take`. Empty if all is well."""
    @property
    def version(self) -> str:
        """Of libzmq."""
    @property
    def library(self) -> str:
        """Its file."""
    def open(self, fetch: int, readout: Readout, image_key: bytes, source_key: bytes, window: int) -> None:
        """Begins a fetch; at most `window` bytes are granted and not yet received. Raises UsageError."""
    def close(self, fetch: int) -> None:
        """Forgets a fetch and its pulls."""
    def restart(self, fetch: int) -> None:
        """Forgets what came, in the readout as well, and its pulls."""
    def ask(self, fetch: int, request: int, begin: int, end: int, chunk: int, now: float) -> int:
        """Enters a pull of [begin, end); returns the credit to grant with it. Raises UsageError."""
    def give_up(self, request: int) -> None:
        """What comes of a pull is stale from now on."""
    def run(
        self, socket: int, wake: int, deadline: float
    ) -> Literal["events", "timeout", "woken", "interrupted", "terminated", "failed"]:
        """Takes messages from a socket (`Socket.underlying`) until there are events, the deadline passes, the
        descriptor `wake` can be read (it must not block), a signal came or the context ends. Releases the
        GIL, and grants credit."""
    def take(self, header: Buffer, body: Buffer, now: float) -> None:
        """One message, where `run` cannot be used."""
    def refuse_shape(self) -> None:
        """Counts a message that has not two frames."""
    def events(self) -> list[Event]:
        """What happened since it was last asked."""
    def grants(self) -> list[tuple[int, int]]:
        """Credit that is to be sent, (request, bytes), where `run` cannot be used."""
    def forget_credit(self) -> None:
        """Credit that could not be sent goes with its connection."""
    def missing(self, request: int) -> int:
        """How many numbers are left out in the sequence of a pull."""
    def write_off(self, request: int, bytes: int) -> int:
        """Waits for them no longer, and gives credit back to the fetch; returns how many they were."""
    def progress(self, fetch: int) -> tuple[int, float, float, int | None]:
        """Bytes received, time of the first and the last, and the CRC-32C of the stream if all of it came."""
    def uncovered(self, fetch: int, begin: int, end: int) -> list[tuple[int, int]]:
        """Parts of a range that did not come."""
    def silent(self, since: float) -> list[int]:
        """Pulls that were asked before a time and from which nothing was heard since then."""
    @property
    def outstanding(self) -> int:
        """Bytes granted and not received."""
    @property
    def session(self) -> int:
        """The server's session in the last message; 0 before."""
    @property
    def error(self) -> str:
        """What `run` failed of."""
    @property
    def counters(self) -> dict[str, int]:
        """chunks, bytes, duplicate, duplicate_bytes, corrupt, stale, malformed, strange, lost, waits."""
