# cython: language_level=3, binding=True, embedsignature=False
# distutils: language=c++
"""The receive loop: messages of the stream protocol go from pyzmq's socket into readouts without the GIL."""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.optional cimport optional
from libcpp.string cimport string
from libcpp.vector cimport vector

from raftwright.errors import UsageError


cdef extern from "raftwright/readout.hpp" namespace "raftwright" nogil:
    cdef cppclass Readout:
        pass


cdef extern from "raftwright/coverage.hpp" namespace "raftwright" nogil:
    cdef struct Interval:
        uint64_t begin
        uint64_t end


cdef extern from "stream_support.hpp" namespace "raftwright::python":
    void raise_core_error()


cdef extern from "<span>" namespace "std" nogil:
    cdef cppclass ByteSpan "std::span<const std::uint8_t>":
        ByteSpan(const uint8_t*, size_t)


cdef extern from "raftwright/intake.hpp" namespace "raftwright" nogil:
    cdef enum class EventKind "raftwright::IntakeEvent::Kind"(uint8_t):
        end
        error
        corrupt
        gap
        refused
        failed

    cdef struct IntakeEvent:
        EventKind kind
        uint64_t fetch
        uint64_t request
        uint64_t offset
        uint64_t length
        string text

    cdef struct IntakeCounters:
        uint64_t chunks
        uint64_t bytes
        uint64_t duplicate
        uint64_t duplicate_bytes
        uint64_t corrupt
        uint64_t stale
        uint64_t malformed
        uint64_t strange
        uint64_t lost
        uint64_t waits

    cdef struct Keys "raftwright::Intake::Keys":
        pass

    cdef struct Grant "raftwright::Intake::Grant":
        uint64_t request
        uint64_t bytes

    cdef struct Progress "raftwright::Intake::Progress":
        uint64_t received
        int64_t first_byte
        int64_t last_byte
        optional[uint32_t] crc

    cdef cppclass Intake:
        void open(uint64_t, shared_ptr[Readout], const Keys&, uint64_t) except +raise_core_error
        void close(uint64_t)
        void restart(uint64_t) except +raise_core_error
        uint64_t ask(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, int64_t) except +raise_core_error
        void give_up(uint64_t)
        void take(ByteSpan, ByteSpan, int64_t) except +
        void refuse_shape()
        vector[IntakeEvent] take_events()
        cbool has_events()
        size_t missing(uint64_t)
        size_t write_off(uint64_t, uint64_t)
        Progress progress(uint64_t) except +raise_core_error
        vector[Interval] uncovered(uint64_t, uint64_t, uint64_t) except +raise_core_error
        vector[uint64_t] silent(int64_t)
        uint64_t outstanding()
        const IntakeCounters& counters()
        uint32_t session()


cdef extern from "stream_support.hpp" namespace "raftwright::python":
    Keys intake_keys(const char*, const char*)
    cbool _keep_message_memory "raftwright::python::keep_message_memory"()


cdef extern from "zmq_api.hpp" namespace "raftwright::zmq" nogil:
    cdef cppclass Api:
        string version
        string file
    string find_api(const string&, Api&)


cdef extern from "receive_loop.hpp" namespace "raftwright" nogil:
    cdef enum class LoopEnd(int):
        events
        timeout
        woken
        interrupted
        terminated
        failed

    cdef cppclass CppLoop "raftwright::ReceiveLoop":
        CppLoop(Api) except +
        LoopEnd run(void*, int, int64_t)
        void forget_credit()
        vector[Grant] take_grants()
        const string& error()
        const Api& api()
        Intake intake


cdef object _KINDS = ("end", "error", "corrupt", "gap", "refused", "failed")
cdef object _ENDS = ("events", "timeout", "woken", "interrupted", "terminated", "failed")


def keep_message_memory():
    return _keep_message_memory()


cdef int64_t nanoseconds(double seconds):
    return <int64_t>(seconds * 1e9)


cdef class ReceiveLoop:
    cdef unique_ptr[CppLoop] loop
    cdef readonly str problem
    cdef readonly str version
    cdef readonly str library

    def __cinit__(self, str module_file):
        cdef Api api
        self.problem = find_api(module_file.encode(), api).decode("utf-8", "replace")
        self.version = api.version.decode()
        self.library = api.file.decode("utf-8", "replace")
        self.loop.reset(new CppLoop(api))

    def open(self, uint64_t fetch, readout, bytes image_key, bytes source_key, uint64_t window):
        if len(image_key) != 8 or len(source_key) != 4:
            raise UsageError("keys have 8 and 4 bytes; give those of the wire")
        capsule = readout._capsule()
        cdef shared_ptr[Readout]* held = <shared_ptr[Readout]*>PyCapsule_GetPointer(
            capsule, "raftwright.Readout"
        )
        self.loop.get().intake.open(fetch, held[0], intake_keys(image_key, source_key), window)

    def close(self, uint64_t fetch):
        cdef CppLoop* loop = self.loop.get()
        with nogil:
            loop.intake.close(fetch)

    def restart(self, uint64_t fetch):
        self.loop.get().intake.restart(fetch)

    def ask(self, uint64_t fetch, uint64_t request, uint64_t begin, uint64_t end, uint64_t chunk, double now):
        return self.loop.get().intake.ask(fetch, request, begin, end, chunk, nanoseconds(now))

    def give_up(self, uint64_t request):
        self.loop.get().intake.give_up(request)

    def run(self, uintptr_t socket, int wake, double deadline):
        cdef CppLoop* loop = self.loop.get()
        cdef int64_t until = nanoseconds(deadline)
        cdef LoopEnd end
        if self.problem:
            raise UsageError(f"{self.problem}: messages must be handed over with take()")
        with nogil:
            end = loop.run(<void*>socket, wake, until)
        return _ENDS[<int>end]

    def take(self, const uint8_t[::1] header, const uint8_t[::1] body, double now):
        cdef CppLoop* loop = self.loop.get()
        cdef const uint8_t* header_bytes = &header[0] if header.shape[0] else NULL
        cdef const uint8_t* body_bytes = &body[0] if body.shape[0] else NULL
        cdef size_t header_size = header.shape[0]
        cdef size_t body_size = body.shape[0]
        cdef int64_t time = nanoseconds(now)
        with nogil:
            loop.intake.take(ByteSpan(header_bytes, header_size), ByteSpan(body_bytes, body_size), time)

    def refuse_shape(self):
        self.loop.get().intake.refuse_shape()

    def events(self):
        cdef vector[IntakeEvent] events = self.loop.get().intake.take_events()
        found = []
        cdef size_t index
        for index in range(events.size()):
            found.append((
                _KINDS[<int>events[index].kind],
                events[index].fetch,
                events[index].request,
                events[index].offset,
                events[index].length,
                <bytes>events[index].text,
            ))
        return found

    def grants(self):
        cdef vector[Grant] grants = self.loop.get().take_grants()
        return [(grants[index].request, grants[index].bytes) for index in range(grants.size())]

    def forget_credit(self):
        self.loop.get().forget_credit()

    def missing(self, uint64_t request):
        return self.loop.get().intake.missing(request)

    def write_off(self, uint64_t request, uint64_t bytes):
        return self.loop.get().intake.write_off(request, bytes)

    def progress(self, uint64_t fetch):
        cdef Progress progress = self.loop.get().intake.progress(fetch)
        crc = progress.crc.value() if progress.crc.has_value() else None
        return progress.received, progress.first_byte / 1e9, progress.last_byte / 1e9, crc

    def uncovered(self, uint64_t fetch, uint64_t begin, uint64_t end):
        cdef vector[Interval] gaps = self.loop.get().intake.uncovered(fetch, begin, end)
        return [(gaps[index].begin, gaps[index].end) for index in range(gaps.size())]

    def silent(self, double since):
        return self.loop.get().intake.silent(nanoseconds(since))

    @property
    def outstanding(self):
        return self.loop.get().intake.outstanding()

    @property
    def session(self):
        return self.loop.get().intake.session()

    @property
    def error(self):
        return self.loop.get().error().decode("utf-8", "replace")

    @property
    def counters(self):
        cdef IntakeCounters counters = self.loop.get().intake.counters()
        return counters
