"""The HTTP/2 of one connection, held against RFC 9113 and h2's client; no sockets, no threads."""

import itertools
import struct
import tracemalloc

import hpack
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hyperframe.frame import FRAMES
from hypothesis import example, given, settings
from hypothesis import strategies as st

from striate.serve.grpc_server.http2 import (
    LARGEST_FRAME,
    LARGEST_HEADERS,
    MOST_HEADERS,
    PATIENCE,
    PREFACE,
    SCRATCH,
    TOO_LARGE,
    WINDOW,
    Connection,
    ConnectionEnds,
    ErrorCode,
    Flag,
    Frame,
    Happening,
    Setting,
    frame,
    literal,
)

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/some.Service/Method"),
    (":authority", "here"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
BLOCK = b"".join(literal(name, value) for name, value in HEADERS)
HEAD = b"\x88" + literal("content-type", "application/grpc")
TRAILERS = literal("grpc-status", "0")
LAST = Flag.END_STREAM
WHOLE = Flag.END_HEADERS
PING = frame(Frame.PING, 0, 0, bytes(8))
HELLO = PREFACE + frame(Frame.SETTINGS, 0, 0)
OPENED, DATA, ENDED, RESET = Happening


def long(number):
    return struct.pack(">L", number)


def setting(name, value):
    return frame(Frame.SETTINGS, 0, 0, struct.pack(">HL", name, value))


def opening(number, flags=0):
    return frame(Frame.HEADERS, flags | WHOLE, number, BLOCK)


def fed(connection, data, sizes=None):
    """Bytes as a socket would bring them, so many at a time at most; what they mean."""
    happened, left = [], memoryview(data)
    while left:
        room = connection.buffer()
        count = min(len(room), len(left), next(sizes) if sizes else len(left))
        assert count > 0
        room[:count] = left[:count]
        del room
        happened += connection.received(count)
        left = left[count:]
    return happened


def frames(data):
    """What was said, as (type, flags, stream, payload)."""
    found = []
    while data:
        high, low, kind, flags, number = struct.unpack_from(">BHBBL", data)
        end = 9 + (high << 16 | low)
        found.append((kind, flags, number, data[9:end]))
        data = data[end:]
    return found


def of_kind(kind, data):
    return [payload for found, _, _, payload in frames(data) if found == kind]


def goaway(connection):
    """The code with which the connection ended."""
    (payload,) = of_kind(Frame.GOAWAY, connection.outgoing())
    return struct.unpack_from(">LL", payload)[1]


def greeted(most_streams=128):
    """A connection that was greeted, and has said all that belongs to that."""
    connection = Connection(most_streams)
    fed(connection, HELLO)
    connection.outgoing()
    return connection


def content(size):
    return bytes(i % 251 for i in range(min(size, 4096))) * (size // 4096 + 1)


def take(connection, stream):
    """Take in all that a stream brought, as one does who leaves it where it is."""
    connection.credit(stream, len(stream.body) + WINDOW)


class Talk:
    """h2's client and our connection, with nothing between them."""

    def __init__(self, most_streams=128, credits=True, **first):
        self.connection = Connection(most_streams)
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.client.initiate_connection()
        self.happened, self.seen = [], []  # what either side was told
        self.credits = credits  # whether what came is taken in at once
        if first:
            self.set(**first)
        self.exchange()

    def set(self, **changed):
        self.client.update_settings({SettingCodes[name]: value for name, value in changed.items()})

    def exchange(self):
        """Let each hear what the other said, until nobody has more to say."""
        while True:
            for happening, stream in fed(self.connection, self.client.data_to_send()):
                self.happened.append((happening, stream))
                if happening is DATA and self.credits:
                    take(self.connection, stream)
            said = self.connection.outgoing()
            if not said:
                return
            self.seen += self.client.receive_data(said)

    def open(self, number=1, *, end=False):
        """A request; returns our side of it."""
        self.client.send_headers(number, HEADERS, end_stream=end)
        self.exchange()
        return self.connection.streams[number]

    def send(self, number, body, *, end=True):
        """As much of a body as there are windows for, and what is left of it."""
        while body:
            room = self.client.local_flow_control_window(number)
            size = min(room, self.client.max_outbound_frame_size, len(body))
            if not size:
                return body
            self.client.send_data(number, body[:size])
            body = body[size:]
            self.exchange()
        if end:
            self.client.end_stream(number)
            self.exchange()
        return body

    def events(self, kind):
        return [event for event in self.seen if isinstance(event, kind)]

    def answered(self, number):
        """What the client was sent on a stream."""
        return b"".join(e.data for e in self.events(DataReceived) if e.stream_id == number)

    def take(self):
        """The client has read what it was sent, and says so."""
        for event in self.events(DataReceived):
            self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.seen = [event for event in self.seen if not isinstance(event, DataReceived)]
        self.exchange()


# === Requests ===


@pytest.mark.parametrize("size", [0, 5, 100_000, 3 << 20, 9 << 20])
def test_a_request_of_any_size_arrives_as_it_was_sent(size):
    talk, body = Talk(), content(size)[:size]
    stream = talk.open()
    assert not talk.send(1, body)
    assert stream.headers == dict(HEADERS)
    assert stream.body == body
    assert [h for h, _ in talk.happened if h is not DATA] == [OPENED, ENDED]
    assert stream.ended
    assert not stream.closed


def test_a_request_without_a_body_ends_with_its_headers():
    talk = Talk()
    stream = talk.open(end=True)
    assert talk.happened == [(OPENED, stream), (ENDED, stream)]


def test_requests_may_come_a_byte_at_a_time():
    wire = HELLO + opening(1) + frame(Frame.DATA, Flag.PADDED, 1, b"\x03abc...")
    wire += frame(Frame.DATA, LAST, 1, b"def")
    connection = Connection()
    happened = fed(connection, wire, itertools.repeat(1))
    assert [h for h, _ in happened] == [OPENED, DATA, DATA, ENDED]
    assert connection.streams[1].body == b"abcdef"


pieces = st.tuples(
    st.sampled_from([1, 3, 5]),
    st.integers(0, 40_000) | st.integers(SCRATCH - 300, SCRATCH + 20_000),
    st.none() | st.integers(0, 255),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(pieces, max_size=12), st.lists(st.integers(1, 50_000), min_size=1), st.booleans())
@example([(1, 10, None), (1, SCRATCH + 1, None)], [SCRATCH], True)
def test_bodies_survive_any_division_into_frames_and_reads(sent, sizes, away):
    """Also where what is there is taken away while the next frame is under way."""
    wire = HELLO + b"".join(map(opening, [1, 3, 5]))
    bodies = {1: b"", 3: b"", 5: b""}
    for number, size, padding in sent:
        part = content(size)[:size]
        bodies[number] += part
        if padding is None:
            wire += frame(Frame.DATA, 0, number, part)
        else:
            part = bytes([padding]) + part + bytes(padding)
            wire += frame(Frame.DATA, Flag.PADDED, number, part)
    wire += b"".join(frame(Frame.DATA, LAST, number) for number in bodies)

    connection, sizes = Connection(), itertools.cycle(sizes)
    taken, left, ended = {1: b"", 3: b"", 5: b""}, memoryview(wire), 0
    while left:
        count = min(len(left), len(connection.buffer()), next(sizes))
        happened = fed(connection, left[:count])
        left = left[count:]
        ended += sum(h is ENDED for h, _ in happened)
        for stream in connection.streams.values() if away else ():
            taken[stream.id] += stream.body
            del stream.body[:]
    for stream in connection.streams.values():
        taken[stream.id] += stream.body
    assert taken == bodies
    assert ended == 3


def test_frames_of_a_body_that_come_together_are_told_at_once():
    connection = greeted()
    wire = opening(1) + 3 * frame(Frame.DATA, 0, 1, b"a") + frame(Frame.DATA, LAST, 1, b"b")
    assert [h for h, _ in fed(connection, wire)] == [OPENED, DATA, ENDED]
    assert connection.streams[1].body == b"aaab"


def test_of_a_frame_that_is_under_way_nothing_is_in_the_body_yet():
    connection = greeted()
    half = frame(Frame.DATA, 0, 1, b"later" * 10)[:30]
    fed(connection, opening(1) + frame(Frame.DATA, 0, 1, b"first") + half)
    assert connection.streams[1].body == b"first"


def test_streams_may_be_interleaved():
    talk, bodies = Talk(), {n: bytes([n]) * 50_000 for n in (1, 3, 5, 7)}
    for number in bodies:
        talk.open(number)
    for at in range(0, 50_000, 10_000):
        for number, body in bodies.items():
            talk.client.send_data(number, body[at : at + 10_000], pad_length=number)
    for number in reversed(bodies):
        talk.client.end_stream(number)
    talk.exchange()
    assert {n: bytes(talk.connection.streams[n].body) for n in bodies} == bodies
    assert [s.id for h, s in talk.happened if h is ENDED] == [7, 5, 3, 1]


@pytest.mark.parametrize("at", range(0, len(BLOCK), 7))
def test_headers_may_go_on_in_other_frames(at):
    connection = greeted()
    happened = fed(
        connection,
        frame(Frame.HEADERS, LAST, 1, BLOCK[:at])
        + frame(Frame.CONTINUATION, 0, 1, BLOCK[at : at + 5])
        + frame(Frame.CONTINUATION, WHOLE, 1, BLOCK[at + 5 :]),
        itertools.repeat(11),
    )
    assert [h for h, _ in happened] == [OPENED, ENDED]
    assert connection.streams[1].headers == dict(HEADERS)


@pytest.mark.parametrize(
    ("flags", "payload"),
    [
        (Flag.PADDED, b"\0" + BLOCK),
        (Flag.PADDED, b"\x09" + BLOCK + bytes(9)),
        (Flag.PRIORITY, long(0) + b"\x10" + BLOCK),
        (Flag.PADDED | Flag.PRIORITY, b"\x09" + long(0) + b"\x10" + BLOCK + bytes(9)),
    ],
)
def test_headers_may_have_padding_and_a_priority(flags, payload):
    connection = greeted()
    fed(connection, frame(Frame.HEADERS, flags | WHOLE, 1, payload))
    assert connection.streams[1].headers == dict(HEADERS)


def test_headers_that_repeat_or_change_the_table_are_read_as_they_are_meant():
    talk = Talk()
    for number in range(1, 401, 2):
        headers = [*HEADERS, ("user", f"name {number // 20}"), ("trace", "x" * (number % 90))]
        talk.client.send_headers(number, headers, end_stream=True)
        talk.exchange()
        stream = talk.connection.streams[number]
        assert stream.headers == dict(headers)
        talk.connection.answer(stream, trailers=HEAD + TRAILERS)


def kept(name, value):
    """One header in HPACK that is put into the table (RFC 7541, 6.2.1)."""
    return b"\x40" + literal(name, value)[1:]


BLOCKS = [
    b"\xbe",  # the newest in the table
    b"\xbf",
    literal("alone", "1"),
    b"\x10" + literal("never", "1")[1:],
    kept("a", "1"),
    kept("b", "1"),
    kept("a", "2") + b"\xbe",
    b"\x20",  # a table of 0 bytes
    b"\x3f\x05",  # of 36, room for one
    b"\x3f\x25",  # of 68, room for two
    b"\x3f\xe1\x1f",  # of 4,096
    b"\x20\x3f\x05" + kept("a", "1"),
]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(BLOCKS), max_size=30))
@example([b"\x3f\x25", kept("b", "1"), kept("a", "1"), b"\xbf", kept("a", "1"), b"\xbf"])
@example([kept("b", "1"), kept("a", "1"), b"\xbf", b"\x3f\x05", b"\xbf"])
def test_headers_that_come_again_mean_what_the_table_says_by_then(blocks):
    connection, reference = greeted(), hpack.Decoder()
    for number, block in zip(itertools.count(1, 2), blocks):
        opened = frame(Frame.HEADERS, WHOLE, number, block)
        try:
            expected = dict(reference.decode(block))
        except hpack.HPACKError:
            with pytest.raises(ConnectionEnds):
                fed(connection, opened)
            return
        fed(connection, opened)
        assert connection.streams[number].headers == expected


def test_headers_that_come_again_and_change_no_table_are_decoded_once(monkeypatch):
    decoded, decode = [], hpack.Decoder.decode

    def counted(decoder, block, raw=False):
        decoded.append(block)
        return decode(decoder, block, raw)

    monkeypatch.setattr(hpack.Decoder, "decode", counted)
    connection = greeted()
    for number in (1, 3, 5):
        fed(connection, opening(number))
        assert connection.streams[number].headers == dict(HEADERS)
    assert decoded == [BLOCK]


def test_a_request_may_end_with_trailers():
    talk = Talk()
    stream = talk.open()
    talk.send(1, b"body", end=False)
    talk.client.send_headers(1, [("checksum", "1")], end_stream=True)
    talk.exchange()
    assert talk.happened[-1] == (ENDED, stream)
    assert stream.body == b"body"


# === Answers ===


def test_an_answer_is_headers_data_and_trailers():
    talk = Talk()
    talk.connection.answer(talk.open(end=True), HEAD, b"12345", TRAILERS)
    talk.exchange()
    assert talk.answered(1) == b"12345"
    (trailers,) = talk.events(TrailersReceived)
    assert trailers.headers == [("grpc-status", "0")]
    assert talk.events(StreamEnded)
    assert not talk.events(StreamReset)
    assert not talk.connection.streams


def test_an_answer_may_be_its_trailers_alone():
    talk = Talk()
    talk.connection.answer(talk.open(end=True), trailers=HEAD + TRAILERS)
    talk.exchange()
    assert talk.events(StreamEnded)


@pytest.mark.parametrize("size", [65_535, 65_536, 300_000])
def test_an_answer_waits_for_the_clients_windows_and_goes_on(size):
    talk, data, found = Talk(), content(size)[:size], b""
    stream = talk.open(end=True)
    talk.connection.answer(stream, HEAD, data, TRAILERS)
    talk.exchange()
    assert len(talk.answered(1)) == 65_535  # the first window of RFC 9113
    while talk.answered(1):
        assert (stream.id in talk.connection.streams) == bool(stream.waiting)
        found += talk.answered(1)
        talk.take()
    assert found == data
    assert talk.events(StreamEnded)


def test_answers_share_the_window_of_the_connection():
    talk = Talk(INITIAL_WINDOW_SIZE=1 << 20)
    streams = [talk.open(number, end=True) for number in (1, 3, 5)]
    for stream in streams:
        talk.connection.answer(stream, HEAD, b"x" * 60_000, TRAILERS)
    talk.exchange()
    assert sum(len(e.data) for e in talk.events(DataReceived)) == 65_535
    talk.client.increment_flow_control_window(1 << 20)
    talk.exchange()
    assert [len(talk.answered(stream.id)) for stream in streams] == [60_000] * 3


def test_a_wider_first_window_lets_what_waits_go_on():
    talk = Talk(INITIAL_WINDOW_SIZE=10)
    talk.connection.answer(talk.open(end=True), HEAD, b"x" * 1000, TRAILERS)
    talk.exchange()
    assert len(talk.answered(1)) == 10
    talk.set(INITIAL_WINDOW_SIZE=500)
    talk.exchange()
    assert len(talk.answered(1)) == 500
    talk.set(INITIAL_WINDOW_SIZE=5000)
    talk.exchange()
    assert len(talk.answered(1)) == 1000
    assert talk.events(StreamEnded)


def test_a_narrower_first_window_may_leave_less_than_nothing():
    talk = Talk()
    stream = talk.open(end=True)
    talk.connection.answer(stream, HEAD, b"x" * 1000)
    talk.set(INITIAL_WINDOW_SIZE=400)
    talk.exchange()
    assert stream.window == -600
    talk.connection.answer(stream, b"", b"y" * 300, TRAILERS)
    talk.exchange()
    talk.client.increment_flow_control_window(700, 1)
    talk.exchange()
    assert talk.answered(1) == b"x" * 1000 + b"y" * 100
    talk.client.increment_flow_control_window(200, 1)
    talk.exchange()
    assert talk.answered(1) == b"x" * 1000 + b"y" * 300


def test_windows_may_be_as_wide_as_the_standard_lets_them():
    connection = greeted()
    fed(connection, setting(Setting.INITIAL_WINDOW_SIZE, WIDE))
    fed(connection, setting(Setting.INITIAL_WINDOW_SIZE, 65_535))
    rest = long(WIDE - 65_535)
    fed(connection, opening(1) + frame(Frame.WINDOW_UPDATE, 0, 1, rest))
    fed(connection, frame(Frame.WINDOW_UPDATE, 0, 0, rest))
    connection.answer(connection.streams[1], HEAD, bytes(1 << 20), TRAILERS)
    assert not connection.streams


def test_settings_are_acknowledged_before_what_they_let_pass():
    connection = greeted()
    fed(connection, setting(Setting.INITIAL_WINDOW_SIZE, 10) + opening(1, LAST))
    connection.answer(connection.streams[1], HEAD, b"x" * 30, TRAILERS)
    connection.outgoing()
    fed(connection, setting(Setting.INITIAL_WINDOW_SIZE, 20))
    kinds = [kind for kind, *_ in frames(connection.outgoing())]
    assert kinds == [Frame.SETTINGS, Frame.DATA]


def test_settings_take_effect_together():
    connection = greeted()
    fed(connection, setting(Setting.MAX_FRAME_SIZE, 1 << 15) + opening(1, LAST))
    fed(connection, setting(Setting.INITIAL_WINDOW_SIZE, 0))
    connection.answer(connection.streams[1], HEAD, b"x" * 30_000, TRAILERS)
    connection.outgoing()
    wider = struct.pack(">HLHL", Setting.INITIAL_WINDOW_SIZE, 40_000, Setting.MAX_FRAME_SIZE, 16384)
    fed(connection, frame(Frame.SETTINGS, 0, 0, wider))
    said = connection.outgoing()
    assert [len(data) for data in of_kind(Frame.DATA, said)] == [16384, 30_000 - 16384]


@pytest.mark.parametrize("most", [1 << 14, 100_000])
def test_no_frame_is_larger_than_the_client_allows(most):
    talk = Talk(MAX_FRAME_SIZE=most, INITIAL_WINDOW_SIZE=1 << 20)
    talk.client.increment_flow_control_window(1 << 20)
    details = literal("grpc-message", "x" * 210_000)
    stream = talk.open(end=True)
    talk.connection.answer(stream, HEAD, b"x" * 250_000, TRAILERS + details)
    said = talk.connection.outgoing()
    sizes = [len(payload) for *_, payload in frames(said)]
    assert max(sizes) == most
    assert sum(map(len, of_kind(Frame.DATA, said))) == 250_000
    *_, last = frames(said)
    assert last[:3] == (Frame.CONTINUATION, WHOLE, 1)
    ends = [kind for kind, flags, *_ in frames(said) if kind < 2 and flags & LAST]
    assert ends == [Frame.HEADERS]


def test_headers_longer_than_a_frame_arrive():
    talk = Talk(MAX_HEADER_LIST_SIZE=1 << 20)
    message = "x" * 40_000
    talk.connection.answer(
        talk.open(end=True), trailers=HEAD + TRAILERS + literal("grpc-message", message)
    )
    talk.exchange()
    (response,) = talk.seen[-2:-1]
    assert dict(response.headers)["grpc-message"] == message


def test_a_client_whose_table_for_headers_shrinks_is_told_once_that_none_is_used():
    """RFC 7541, 4.2; other settings change nothing."""
    connection = greeted()
    fed(
        connection, setting(Setting.MAX_CONCURRENT_STREAMS, 1) + opening(1, LAST) + opening(3, LAST)
    )
    connection.answer(connection.streams[1], HEAD)
    fed(connection, setting(Setting.HEADER_TABLE_SIZE, 0))
    connection.answer(connection.streams[1], trailers=TRAILERS)
    connection.answer(connection.streams[3], HEAD)
    blocks = of_kind(Frame.HEADERS, connection.outgoing())
    assert blocks == [HEAD, b"\x20" + TRAILERS, HEAD]


def test_a_client_without_a_table_for_headers_is_answered():
    talk = Talk(HEADER_TABLE_SIZE=0)
    for number in (1, 3):
        talk.connection.answer(talk.open(number, end=True), HEAD, b"12345", TRAILERS)
        talk.exchange()
        assert talk.answered(number) == b"12345"


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 10_000, 16_510, 16_511, 70_000])
def test_literal_headers_are_hpack(size):
    header = ("x" * max(1, size % 300), "v" * size)
    decoder = hpack.Decoder(1 << 20)
    assert [tuple(pair) for pair in decoder.decode(literal(*header))] == [header]


# === Ends ===


@pytest.mark.parametrize("size", [16_000, 200_000])  # the latter is read to where it stays
def test_a_request_refused_while_it_is_read_is_ignored_from_then_on(size):
    talk = Talk()
    stream = talk.open()
    assert not talk.send(1, content(20_000), end=False)
    talk.client.send_data(1, content(size)[:size])
    on_its_way = talk.client.data_to_send()
    fed(talk.connection, on_its_way[:1000])
    talk.connection.answer(stream, trailers=HEAD + TRAILERS)
    refused = talk.connection.outgoing()
    assert frames(refused)[-1] == (Frame.RST_STREAM, 0, 1, long(ErrorCode.NO_ERROR))
    assert not fed(talk.connection, on_its_way[1000:])
    for _ in range(10):
        talk.client.send_data(1, b"more" * 1000)
    assert not fed(talk.connection, talk.client.data_to_send())
    talk.seen += talk.client.receive_data(refused)
    assert [e.error_code for e in talk.events(StreamReset)] == [ErrorCode.NO_ERROR]
    talk.open(3)
    assert not talk.send(3, b"another")
    assert talk.connection.streams[3].body == b"another"


def test_what_is_sent_to_refused_requests_is_given_back_to_the_connections_window():
    talk = Talk(credits=False)
    for number in range(1, 61, 2):
        stream = talk.open(number)
        talk.client.send_data(number, content(500_000)[:500_000])
        talk.connection.answer(stream, trailers=HEAD + TRAILERS)
        talk.exchange()
    assert talk.client.outbound_flow_control_window >= 1 << 23


def test_a_client_that_resets_a_stream_is_not_answered():
    talk = Talk()
    stream = talk.open()
    talk.connection.answer(stream, HEAD, b"x" * 100_000)
    talk.exchange()
    talk.client.reset_stream(1, ErrorCode.CANCEL)
    talk.exchange()
    assert talk.happened[-1] == (RESET, stream)
    assert stream.closed
    assert not talk.connection.streams
    talk.connection.answer(stream, b"", b"more", TRAILERS)
    take(talk.connection, stream)
    assert not talk.connection.outgoing()
    talk.client.increment_flow_control_window(1 << 20)
    talk.exchange()
    assert talk.open(3)


def test_trailers_and_updates_of_a_stream_that_is_over_are_ignored():
    connection = greeted()
    fed(connection, opening(1))
    connection.answer(connection.streams[1], trailers=HEAD + TRAILERS)
    late = (
        frame(Frame.DATA, 0, 1, b"late")
        + frame(Frame.WINDOW_UPDATE, 0, 1, long(5))
        + frame(Frame.HEADERS, WHOLE | LAST, 1, literal("checksum", "1"))
        + frame(Frame.RST_STREAM, 0, 1, long(ErrorCode.CANCEL))
    )
    assert not fed(connection, late)
    assert [h for h, _ in fed(connection, opening(3))] == [OPENED]


def test_a_server_goes_away_in_two_steps():
    connection = greeted()
    fed(connection, opening(1))
    connection.go_away(later=True)
    fed(connection, opening(3))  # the client may not have heard it
    connection.go_away()
    assert not fed(connection, opening(5) + frame(Frame.DATA, LAST, 5, b"late"))
    assert not fed(connection, frame(Frame.WINDOW_UPDATE, 0, 5, long(1)))
    for stream in list(connection.streams.values()):
        connection.answer(stream, HEAD, bytes([stream.id]), TRAILERS)
    said = connection.outgoing()
    lasts = [struct.unpack_from(">LL", payload) for payload in of_kind(Frame.GOAWAY, said)]
    assert lasts == [((1 << 31) - 1, ErrorCode.NO_ERROR), (3, ErrorCode.NO_ERROR)]
    assert of_kind(Frame.DATA, said) == [b"\1", b"\3"]
    assert not connection.streams


def test_the_client_hears_that_the_server_goes_away_later():
    talk = Talk()
    talk.connection.go_away(later=True)
    talk.exchange()
    (event,) = talk.events(ConnectionTerminated)
    assert (event.error_code, event.last_stream_id) == (0, (1 << 31) - 1)


def test_pings_are_answered_both_ways():
    talk = Talk()
    talk.client.ping(b"12345678")
    talk.connection.ping()
    talk.exchange()
    (answer,) = talk.events(PingAckReceived)
    assert answer.ping_data == b"12345678"
    assert talk.connection.acknowledged == 1


# === Bodies by invitation ===


def test_a_narrow_connection_is_sent_bodies_by_invitation_only():
    talk = Talk()
    before = talk.open(1)
    talk.connection.set_narrow(True)
    talk.exchange()
    stream = talk.open(3)
    assert talk.send(3, b"body") == b"body"  # nothing could be sent
    talk.connection.invite(stream)
    talk.exchange()
    assert not talk.send(3, b"body")
    assert stream.body == b"body"
    assert not talk.send(1, bytes(9 << 20))  # who was there before knows nothing of it
    assert len(before.body) == 9 << 20
    waiting = talk.open(5)
    talk.connection.set_narrow(False)
    talk.exchange()
    assert not talk.send(5, b"at once")
    assert waiting.body == b"at once"
    talk.open(7)
    assert not talk.send(7, b"as well")


def test_a_client_that_does_not_know_yet_that_it_is_narrow_breaks_no_rule():
    talk = Talk(credits=False)
    talk.connection.set_narrow(True)
    for number in (1, 3):
        talk.client.send_headers(number, HEADERS)
        for _ in range(WINDOW // LARGEST_FRAME):
            talk.client.send_data(number, bytes(LARGEST_FRAME))
    talk.exchange()
    stream, uninvited = talk.connection.streams.values()
    assert len(stream.body) == len(uninvited.body) == WINDOW
    talk.connection.invite(stream)
    take(talk.connection, stream)
    talk.exchange()
    assert talk.client.local_flow_control_window(1) == WINDOW
    assert talk.client.local_flow_control_window(3) == -WINDOW


def test_a_request_that_has_ended_is_given_no_more_room():
    connection = greeted()
    connection.set_narrow(True)
    fed(connection, opening(1, LAST))
    stream = connection.streams[1]
    connection.outgoing()
    connection.invite(stream)
    connection.set_narrow(False)
    connection.set_narrow(True)
    take(connection, stream)
    assert not of_kind(Frame.WINDOW_UPDATE, connection.outgoing())


def windows_agree(talk):
    """The client's windows are what we take them for."""
    assert talk.connection._allowed == talk.client.outbound_flow_control_window
    for number, stream in talk.connection.streams.items():
        assert stream.allowed == talk.client.streams[number].outbound_flow_control_window
    return True


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["narrow", "wide", "open", "invite", "send", "credit", "hear"])))
def test_both_sides_count_the_same_windows_whatever_happens(steps):
    talk, number = Talk(credits=False), 1
    for step in steps:
        if step == "open":
            talk.client.send_headers(number, HEADERS)
            number += 2
        elif step == "hear":
            talk.exchange()
        elif step == "send":
            for opened in range(1, number, 2):
                room = talk.client.local_flow_control_window(opened)
                talk.client.send_data(opened, bytes(max(0, min(room, LARGEST_FRAME))))
        elif step in ("narrow", "wide"):
            talk.connection.set_narrow(step == "narrow")
        else:
            for stream in talk.connection.streams.values():
                if step == "credit":
                    take(talk.connection, stream)
                else:
                    talk.connection.invite(stream)
    talk.exchange()
    assert windows_agree(talk)
    assert all(stream.allowed <= 2 * WINDOW for stream in talk.connection.streams.values())


def test_windows_do_not_grow_when_a_server_narrows_and_widens_them_again_and_again():
    talk = Talk()
    stream = talk.open()
    for _ in range(600):  # 512 windows would be more than a window may be
        talk.connection.set_narrow(True)
        talk.connection.set_narrow(False)
    talk.exchange()
    assert stream.allowed <= 2 * WINDOW
    assert windows_agree(talk)


def test_room_for_a_message_of_gigabytes_is_no_wider_than_a_window_may_be():
    talk = Talk(credits=False)
    stream = talk.open()
    talk.send(1, bytes(3 << 20), end=False)
    talk.connection.credit(stream, 1 << 32)
    talk.exchange()
    assert windows_agree(talk)
    assert len(stream.body) + stream.allowed == (1 << 30) - 1


# === What a client may not do ===


def numbers(words):
    return {name: number for name, number in vars(words).items() if name.isupper()}


def test_numbers_of_frames_settings_and_errors_are_the_standard_s():
    assert numbers(ErrorCode).items() <= {code.name: int(code) for code in ErrorCodes}.items()
    assert numbers(Setting).items() <= {code.name: int(code) for code in SettingCodes}.items()
    theirs = {kind.__name__.lower(): number for number, kind in FRAMES.items()}
    ours = {f"{name.replace('_', '').lower()}frame": n for name, n in numbers(Frame).items()}
    assert ours.items() <= theirs.items()


MANY_HEADERS = literal("x" * 10, "y" * 100) * (MOST_HEADERS // 142 + 1)
BIG = bytes(LARGEST_FRAME)
OPEN = opening(1)
DONE = opening(1, LAST)
WIDE = (1 << 31) - 1

BROKEN = {
    "no settings first": (None, PREFACE + PING, 1),
    "data on stream 0": (b"", frame(Frame.DATA, 0, 0, b"x"), 1),
    "data on an idle stream": (OPEN, frame(Frame.DATA, 0, 3, b"x"), 1),
    "data on a stream of ours": (opening(3), frame(Frame.DATA, 0, 2, b"x"), 1),
    "data after the end": (DONE, frame(Frame.DATA, 0, 1, b"x"), 5),
    "headers on stream 0": (b"", opening(0), 1),
    "an even stream": (b"", opening(2), 1),
    "headers within headers": (b"", frame(Frame.HEADERS, 0, 1, BLOCK) + opening(1), 1),
    "data within headers": (b"", frame(Frame.HEADERS, 0, 1) + frame(Frame.DATA, 0, 1), 1),
    "unknown within headers": (b"", frame(Frame.HEADERS, 0, 1) + frame(99, 0, 0), 1),
    "the rest of others": (b"", frame(Frame.HEADERS, 0, 1) + frame(9, WHOLE, 3), 1),
    "the rest of nothing": (b"", frame(Frame.CONTINUATION, WHOLE, 1, BLOCK), 1),
    "headers after the end": (DONE, frame(Frame.HEADERS, WHOLE | LAST, 1, TRAILERS), 5),
    "trailers that do not end": (OPEN, frame(Frame.HEADERS, WHOLE, 1, TRAILERS), 1),
    "a number again": (OPEN + frame(3, 0, 1, long(8)), opening(1), 1),
    "a lower number": (opening(5), opening(3), 1),
    "too large data": (OPEN, frame(Frame.DATA, 0, 1, BIG + b"x")[:50], 6),
    "too large headers": (b"", frame(Frame.HEADERS, WHOLE, 1, bytes(MOST_HEADERS + 1))[:50], 6),
    "a long frame of nothing": (b"", frame(99, 0, 0, bytes(SCRATCH))[:50], 6),
    "settings of 5 bytes": (b"", frame(Frame.SETTINGS, 0, 0, bytes(5)), 6),
    "settings on a stream": (OPEN, frame(Frame.SETTINGS, 0, 1), 1),
    "acknowledged settings": (b"", frame(Frame.SETTINGS, Flag.ACK, 0, bytes(6)), 6),
    "push of 2": (b"", setting(Setting.ENABLE_PUSH, 2), 1),
    "a first window of 2 GB": (b"", setting(Setting.INITIAL_WINDOW_SIZE, 1 << 31), 3),
    "tiny frames": (b"", setting(Setting.MAX_FRAME_SIZE, (1 << 14) - 1), 1),
    "huge frames": (b"", setting(Setting.MAX_FRAME_SIZE, 1 << 24), 1),
    "a ping of 7 bytes": (b"", frame(Frame.PING, 0, 0, bytes(7)), 6),
    "a ping of 9 bytes": (b"", frame(Frame.PING, Flag.ACK, 0, bytes(9)), 6),
    "a ping on a stream": (OPEN, frame(Frame.PING, 0, 1, bytes(8)), 1),
    "an update of 0": (b"", frame(Frame.WINDOW_UPDATE, 0, 0, long(0)), 1),
    "an update of a stream of 0": (OPEN, frame(Frame.WINDOW_UPDATE, 0, 1, long(0)), 1),
    "an update of 3 bytes": (b"", frame(Frame.WINDOW_UPDATE, 0, 0, b"\0\0\1"), 6),
    "an update of an idle stream": (b"", frame(Frame.WINDOW_UPDATE, 0, 1, long(1)), 1),
    "an update of ours": (opening(3), frame(Frame.WINDOW_UPDATE, 0, 2, long(1)), 1),
    "a window of 2 GB": (b"", frame(Frame.WINDOW_UPDATE, 0, 0, long(WIDE)), 3),
    "a stream's window of 2 GB": (OPEN, frame(Frame.WINDOW_UPDATE, 0, 1, long(WIDE)), 3),
    "a window of 2 GB by a setting": (
        OPEN + frame(Frame.WINDOW_UPDATE, 0, 1, long(1 << 30)),
        setting(Setting.INITIAL_WINDOW_SIZE, 1 << 30),
        3,
    ),
    "a reset of an idle stream": (b"", frame(Frame.RST_STREAM, 0, 1, long(8)), 1),
    "a reset of ours": (opening(3), frame(Frame.RST_STREAM, 0, 2, long(8)), 1),
    "a reset of stream 0": (b"", frame(Frame.RST_STREAM, 0, 0, long(8)), 1),
    "a reset of 3 bytes": (OPEN, frame(Frame.RST_STREAM, 0, 1, bytes(3)), 6),
    "a priority of 4 bytes": (OPEN, frame(Frame.PRIORITY, 0, 1, bytes(4)), 6),
    "a priority of stream 0": (b"", frame(Frame.PRIORITY, 0, 0, bytes(5)), 1),
    "a promise": (OPEN, frame(Frame.PUSH_PROMISE, WHOLE, 1, long(2) + BLOCK), 1),
    "a stream that goes away": (OPEN, frame(Frame.GOAWAY, 0, 1, bytes(8)), 1),
    "data of padding": (OPEN, frame(Frame.DATA, Flag.PADDED, 1, b"\x04abc"), 1),
    "data without the padding": (OPEN, frame(Frame.DATA, Flag.PADDED, 1), 1),
    "headers of padding": (b"", frame(Frame.HEADERS, WHOLE | Flag.PADDED, 1, b"\x02\x88"), 1),
    "headers without padding": (b"", frame(Frame.HEADERS, WHOLE | Flag.PADDED, 1), 1),
    "headers without priority": (b"", frame(1, WHOLE | Flag.PRIORITY, 1, bytes(4)), 1),
    "a place in no table": (b"", frame(Frame.HEADERS, WHOLE, 1, b"\xff\x7f"), 9),
    "place 0": (b"", frame(Frame.HEADERS, WHOLE, 1, b"\x80"), 9),
    "headers that are cut": (b"", frame(Frame.HEADERS, WHOLE, 1, BLOCK[:-1]), 9),
    "a number without end": (b"", frame(1, WHOLE, 1, b"\xff" * 9000 + b"\x01"), 9),
    "bad Huffman code": (b"", frame(1, WHOLE, 1, b"\0\x84\xff\xff\xff\xff\x01x"), 9),
    "too wide a table": (b"", frame(1, WHOLE, 1, b"\x3f\xff\x7f" + BLOCK), 9),
    "many headers": (b"", frame(Frame.HEADERS, WHOLE, 1, MANY_HEADERS), 9),
    "longer and longer headers": (
        b"",
        frame(Frame.HEADERS, 0, 1, BLOCK) + frame(Frame.CONTINUATION, 0, 1, bytes(8000)) * 9,
        11,
    ),
    "more than a stream's window": (OPEN, frame(Frame.DATA, 0, 1, BIG) * 9, 3),
    "the rest of headers without end": (
        b"",
        frame(Frame.HEADERS, 0, 1) + frame(Frame.CONTINUATION, 0, 1) * (PATIENCE + 1),
        11,
    ),
}


@pytest.mark.parametrize(("before", "bad", "code"), BROKEN.values(), ids=BROKEN)
def test_who_breaks_the_protocol_is_told_so_and_the_connection_ends(before, bad, code):
    connection = Connection() if before is None else greeted()
    fed(connection, before or b"")
    connection.outgoing()
    with pytest.raises(ConnectionEnds):
        fed(connection, bad)
    assert goaway(connection) == code


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", b"\x16\x03\x01", b"PRI * HTTP/1.1\r\n"]
)
def test_who_speaks_something_else_is_answered_in_http_1(said):
    connection = Connection()
    with pytest.raises(ConnectionEnds):
        fed(connection, said, itertools.repeat(2))
    assert connection.outgoing().startswith(b"HTTP/1.1 505 ")
    assert not connection.greeted


def test_more_streams_than_allowed_are_refused_and_the_others_go_on():
    connection = greeted(most_streams=2)
    happened = fed(connection, opening(1) + opening(3) + opening(5))
    assert [stream.id for _, stream in happened] == [1, 3]
    refusal = (Frame.RST_STREAM, 0, 5, long(ErrorCode.REFUSED_STREAM))
    assert frames(connection.outgoing()) == [refusal]
    assert not fed(connection, frame(Frame.DATA, LAST, 5, b"of the refused"))
    connection.answer(connection.streams[1], trailers=HEAD + TRAILERS)
    assert [h for h, _ in fed(connection, opening(7))] == [OPENED]


def test_the_client_is_told_what_it_may_send():
    told = Talk(most_streams=7).client.remote_settings
    assert told.max_concurrent_streams == 7
    assert told.max_header_list_size == LARGEST_HEADERS
    assert told.max_frame_size == LARGEST_FRAME
    assert told.initial_window_size == WINDOW


def test_headers_are_counted_as_the_client_counts_them():
    """RFC 9113, 6.5.2: their bytes, and 32 for each; one byte more is too many."""
    connection = greeted()
    counted = sum(32 + len(name) + len(value) for name, value in [*HEADERS, ("text", "")])
    for number, more in ((1, 0), (3, 1)):
        block = BLOCK + literal("text", "x" * (LARGEST_HEADERS - counted + more))
        fed(connection, frame(Frame.HEADERS, WHOLE, number, block))
    assert connection.streams[1].headers is not TOO_LARGE
    assert connection.streams[3].headers is TOO_LARGE


def test_headers_of_streams_that_are_not_taken_up_still_count_in_the_table():
    connection, encoder = greeted(most_streams=1), hpack.Encoder()
    blocks = [encoder.encode([*HEADERS, ("trace", f"number {i}")]) for i in range(3)]
    blocks.append(encoder.encode([*HEADERS, ("trace", "number 1")]))  # of the one refused
    wire = [frame(Frame.HEADERS, WHOLE, 2 * i + 1, block) for i, block in enumerate(blocks)]
    fed(connection, b"".join(wire[:3]))
    connection.answer(connection.streams[1], trailers=HEAD + TRAILERS)
    fed(connection, wire[3])
    assert connection.streams[7].headers["trace"] == "number 1"


@pytest.mark.parametrize("size", [LARGEST_HEADERS, MOST_HEADERS - 1000])
@pytest.mark.parametrize("most", [1 << 14, LARGEST_FRAME])
@pytest.mark.parametrize("read", [1000, SCRATCH])
def test_too_large_headers_are_one_calls_and_still_count_in_the_table(size, most, read):
    """In frames as small or as large as a client may send."""
    connection, encoder = greeted(), hpack.Encoder()
    large = [("trace", "number 1"), ("large", "x" * size), ("trace", "number 2")]
    block = encoder.encode([*HEADERS, *large], huffman=False)
    parts = [block[at : at + most] for at in range(0, len(block), most)]
    flags = [0] * (len(parts) - 1) + [WHOLE]
    kinds = [Frame.HEADERS] + [Frame.CONTINUATION] * (len(parts) - 1)
    wire = b"".join(map(frame, kinds, flags, itertools.repeat(1), parts))
    for number, trace in ((3, "number 1"), (5, "number 2")):
        again = encoder.encode([*HEADERS, ("trace", trace)])
        wire += frame(Frame.HEADERS, WHOLE, number, again)
    fed(connection, wire, itertools.repeat(read))
    assert connection.streams[1].headers is TOO_LARGE
    assert connection.streams[3].headers["trace"] == "number 1"
    assert connection.streams[5].headers["trace"] == "number 2"
    assert not connection.outgoing()


@pytest.mark.parametrize("kind", [10, 16, 99, 255])
def test_frames_of_unknown_types_are_ignored(kind):
    connection = greeted()
    assert not fed(connection, frame(kind, 0xFF, 0, bytes(1000)) + frame(kind, 0, 77, b"x"))
    assert not connection.outgoing()
    assert fed(connection, opening(1))


def test_unknown_settings_and_flags_and_the_reserved_bit_are_ignored():
    connection = greeted()
    fed(connection, setting(99, 5))
    happened = fed(connection, frame(Frame.HEADERS, 0xD0 | WHOLE, 1 | 1 << 31, BLOCK))
    assert [(h, stream.id) for h, stream in happened] == [(OPENED, 1)]


def test_a_client_that_goes_away_has_its_streams_answered():
    talk = Talk()
    stream = talk.open(end=True)
    fed(talk.connection, frame(Frame.GOAWAY, 0, 0, bytes(8) + b"bye"))
    talk.connection.answer(stream, HEAD, b"x", TRAILERS)
    talk.exchange()
    assert talk.events(StreamEnded)


# === What costs more than it brings ===


def numbered(each):
    """The frames of one stream after the other."""
    return (each(number) for number in itertools.count(1, 2))


FLOODS = {
    "pings": itertools.repeat(PING),
    "answers to pings": itertools.repeat(frame(Frame.PING, Flag.ACK, 0, bytes(8))),
    "settings": itertools.repeat(frame(Frame.SETTINGS, 0, 0)),
    "acknowledgements": itertools.repeat(frame(Frame.SETTINGS, Flag.ACK, 0)),
    "many settings": itertools.repeat(
        frame(Frame.SETTINGS, 0, 0, struct.pack(">HL", Setting.INITIAL_WINDOW_SIZE, 9) * 5000), 3
    ),
    "updates": itertools.repeat(frame(Frame.WINDOW_UPDATE, 0, 0, long(1))),
    "priorities": itertools.repeat(frame(Frame.PRIORITY, 0, 1, bytes(5))),
    "unknown frames": itertools.repeat(frame(99, 0, 0)),
    "empty data": itertools.chain([opening(1)], itertools.repeat(frame(Frame.DATA, 0, 1))),
    "padding": itertools.chain(
        [opening(1)], itertools.repeat(frame(Frame.DATA, Flag.PADDED, 1, b"\0"))
    ),
    "empty data of a stream that is over": itertools.chain(
        [opening(1), frame(Frame.RST_STREAM, 0, 1, long(8))],
        itertools.repeat(frame(Frame.DATA, 0, 1)),
    ),
    "trailers of a stream that is over": itertools.chain(
        [opening(1), frame(Frame.RST_STREAM, 0, 1, long(8))],
        itertools.repeat(frame(Frame.HEADERS, WHOLE | LAST, 1, TRAILERS)),
    ),
    "resets": numbered(lambda n: opening(n) + frame(Frame.RST_STREAM, 0, n, long(8))),
    "resets after a byte": numbered(
        lambda n: (
            opening(n) + frame(Frame.DATA, 0, n, b"x") + frame(Frame.RST_STREAM, 0, n, long(8))
        )
    ),
    "streams beyond those allowed": numbered(opening),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_what_brings_nothing_ends_the_connection(flood):
    connection = greeted()
    sent = b"".join(itertools.islice(flood, PATIENCE + 200))
    with pytest.raises(ConnectionEnds):
        fed(connection, sent)
    assert goaway(connection) == ErrorCode.ENHANCE_YOUR_CALM


def well_behaved(number):
    """What a client sends beside a message: updates of windows, and a ping to measure them."""
    return (
        frame(Frame.WINDOW_UPDATE, 0, 0, long(100))
        + frame(Frame.WINDOW_UPDATE, 0, number, long(100))
        + PING
    )


def test_a_connection_of_many_calls_is_never_cut_off():
    connection = greeted()
    for number in range(1, 40_001, 2):
        happened = fed(connection, opening(number) + frame(Frame.DATA, 0, number, b"x" * 20))
        stream = happened[0][1]
        fed(connection, well_behaved(number) + frame(Frame.DATA, LAST, number))
        connection.answer(stream, HEAD, b"y" * 100, TRAILERS)
        fed(connection, well_behaved(number))
        connection.outgoing()
    assert not connection.streams
    fed(connection, PING * (PATIENCE - 10))  # nothing of the patience with it is used up


def test_a_connection_of_many_refused_calls_is_never_cut_off():
    connection = greeted()
    for number in range(1, 40_001, 2):
        happened = fed(connection, opening(number))
        connection.answer(happened[0][1], trailers=HEAD + TRAILERS)
        late = frame(Frame.DATA, LAST, number, b"x") + frame(Frame.RST_STREAM, 0, number, long(8))
        fed(connection, late + well_behaved(number))
        connection.outgoing()
    fed(connection, PING * (PATIENCE - 10))


def test_a_stream_of_many_messages_is_never_cut_off():
    connection = greeted()
    fed(connection, opening(1))
    stream = connection.streams[1]
    for count in range(20_000):
        assert fed(connection, frame(Frame.DATA, 0, 1, b"x" * 20) + well_behaved(1))
        assert len(stream.body) == 20
        del stream.body[:]
        take(connection, stream)
        connection.answer(stream, HEAD if not count else b"", b"y" * 100)
        connection.outgoing()
    assert not stream.waiting
    fed(connection, PING * (PATIENCE - 10))


# === Whatever comes ===


def held(connection):
    """Bytes that a client has us keep."""
    streams = connection.streams.values()
    kept = sum(len(stream.body) + len(stream.waiting) for stream in streams)
    return kept + sum(len(n) + len(v) for s in streams for n, v in s.headers.items())


def survives(data, sizes):
    """Any bytes mean something or end the connection; what is kept is no more than was sent."""
    connection, sizes = greeted(most_streams=4), itertools.cycle(sizes)
    left = memoryview(data)
    try:
        while left:
            count = min(len(left), len(connection.buffer()), next(sizes))
            for happening, stream in fed(connection, left[:count]):
                if happening is ENDED:
                    connection.answer(stream, HEAD, bytes(stream.body), TRAILERS)
            left = left[count:]
            assert held(connection) <= len(data) + 4 * LARGEST_HEADERS
            connection.outgoing()
    except ConnectionEnds:
        assert of_kind(Frame.GOAWAY, connection.outgoing())


any_frame = st.builds(
    frame,
    st.integers(0, 11),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 7, 1 << 30]),
    st.binary(max_size=60),
)
valid = st.sampled_from(
    [
        *(opening(number, flags) for number in (1, 3, 5, 7) for flags in (0, LAST)),
        *(frame(Frame.DATA, flags, 1, b"x" * 50) for flags in (0, LAST)),
        frame(Frame.DATA, Flag.PADDED, 3, b"\x05abcdefghij"),
        frame(Frame.HEADERS, 0, 9, BLOCK[:40]) + frame(Frame.CONTINUATION, WHOLE, 9, BLOCK[40:]),
        frame(Frame.RST_STREAM, 0, 1, long(8)),
        PING,
        frame(Frame.WINDOW_UPDATE, 0, 0, long(1000)),
        frame(Frame.WINDOW_UPDATE, 0, 1, long(1000)),
        setting(Setting.INITIAL_WINDOW_SIZE, 10),
        setting(Setting.HEADER_TABLE_SIZE, 0),
        frame(Frame.GOAWAY, 0, 0, bytes(8)),
    ]
)
reads = st.lists(st.integers(1, 200), min_size=1, max_size=10)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=2000), reads)
def test_noise_is_survived(noise, sizes):
    survives(noise, sizes)


@settings(deadline=None, max_examples=400)
@given(st.lists(valid | any_frame, max_size=25), reads)
def test_frames_in_any_order_are_survived(sent, sizes):
    survives(b"".join(sent), sizes)


@settings(deadline=None, max_examples=400)
@given(
    st.lists(valid, min_size=1, max_size=25),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
    reads,
)
def test_valid_frames_with_wrong_bytes_are_survived(sent, changes, sizes):
    wire = bytearray(b"".join(sent))
    for at, byte in changes:
        wire[at % len(wire)] = byte
    survives(bytes(wire), sizes)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8))
def test_headers_of_any_bytes_are_survived(blocks):
    wire = (frame(Frame.HEADERS, WHOLE, 2 * i + 1, block) for i, block in enumerate(blocks))
    survives(b"".join(wire), [1 << 20])


def grown(connection, each, times):
    """Bytes of memory that are held after many frames and not after few."""
    for _ in range(50):
        fed(connection, next(each))
        connection.outgoing()
    tracemalloc.start()
    for _ in range(times):
        fed(connection, next(each))
        connection.outgoing()
    grew, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return grew


def test_what_is_sent_to_a_stream_that_is_over_takes_no_memory():
    connection = greeted()
    fed(connection, opening(1))
    connection.answer(connection.streams[1], trailers=HEAD + TRAILERS)
    data = itertools.repeat(frame(Frame.DATA, 0, 1, bytes(1 << 18)))
    assert grown(connection, data, 200) < 20_000  # of 50 MB


def test_streams_that_are_over_and_their_headers_take_no_memory():
    connection = greeted()
    encoder = hpack.Encoder()

    def reset(number):
        block = encoder.encode([*HEADERS, ("trace", f"{number}" * 100)])
        return frame(Frame.HEADERS, WHOLE, number, block) + frame(3, 0, number, long(8))

    assert grown(connection, numbered(reset), 2000) < 30_000  # of some 800 kB
    assert not connection.streams


@pytest.mark.parametrize("size", [500, 20_000])
def test_headers_that_never_come_again_take_no_memory(size):
    """Without HPACK's table, as those do that are blocks of their own."""
    wire = []
    for number in range(1, 401, 2):
        text = literal("trace", f"{number}".zfill(size))
        wire.append(frame(Frame.HEADERS, WHOLE, number, BLOCK + text))
        wire.append(frame(Frame.RST_STREAM, 0, number, long(8)))
    connection = greeted()
    tracemalloc.start()
    for each in wire:
        fed(connection, each)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 250_000  # of 450 kB and more
