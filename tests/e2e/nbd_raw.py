# SPDX-License-Identifier: LGPL-2.1-or-later
"""An NBD client that speaks the protocol byte by byte, also where the protocol forbids it."""
import socket
import struct

from harness import PATIENCE_S

NBDMAGIC = 0x4e42444d41474943
IHAVEOPT = 0x49484156454f5054
REPLY_MAGIC = 0x3e889045565a9
REQUEST_MAGIC = 0x25609513
EXTENDED_REQUEST_MAGIC = 0x21e41c71
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668e33ef
EXTENDED_REPLY_MAGIC = 0x6e8a278c

(OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_PEEK, OPT_STARTTLS, OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY,
 OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT, OPT_EXTENDED_HEADERS) = range(1, 12)

REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT = range(1, 5)
REP_ERROR = 1 << 31
(REP_ERR_UNSUP, REP_ERR_POLICY, REP_ERR_INVALID, REP_ERR_PLATFORM, REP_ERR_TLS_REQD, REP_ERR_UNKNOWN, REP_ERR_SHUTDOWN,
 REP_ERR_BLOCK_SIZE_REQD, REP_ERR_TOO_BIG, REP_ERR_EXT_HEADER_REQD) = range(REP_ERROR + 1, REP_ERROR + 11)

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

FLAG_READ_ONLY = 1 << 1
FLAG_SEND_FLUSH = 1 << 2
FLAG_SEND_FUA = 1 << 3
FLAG_SEND_TRIM = 1 << 5
FLAG_SEND_WRITE_ZEROES = 1 << 6
FLAG_SEND_DF = 1 << 7
FLAG_CAN_MULTI_CONN = 1 << 8
FLAG_SEND_CACHE = 1 << 10
FLAG_SEND_FAST_ZERO = 1 << 11
FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12

CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS = range(8)
CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_DF, CMD_FLAG_REQ_ONE, CMD_FLAG_FAST_ZERO, CMD_FLAG_PAYLOAD_LEN = (
    1 << bit for bit in range(6))

REPLY_FLAG_DONE = 1
REPLY_NONE, REPLY_OFFSET_DATA, REPLY_OFFSET_HOLE = range(3)
REPLY_BLOCK_STATUS, REPLY_BLOCK_STATUS_EXT = 5, 6
REPLY_ERROR, REPLY_ERROR_OFFSET = 0x8001, 0x8002

EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108


class Closed(Exception):
    """The server has hung up; .partial is what came of the message before."""

    def __init__(self, partial=b''):
        super().__init__(f'the server hung up after {partial!r}')
        self.partial = partial


class OptionError(Exception):
    def __init__(self, code, text):
        super().__init__(f'option error {code - REP_ERROR}: {text}')
        self.code = code
        self.text = text


class RequestError(Exception):
    def __init__(self, code, text='', offset=None):
        super().__init__(f'error {code} at {offset}: {text}')
        self.code = code
        self.text = text
        self.offset = offset


class Chunk:
    """One message of the server: a simple reply (type None), or a structured or extended chunk."""

    def __init__(self, magic, cookie, kind=None, flags=REPLY_FLAG_DONE, error=0, offset=None, payload=b''):
        self.magic, self.cookie, self.kind, self.flags = magic, cookie, kind, flags
        self.error, self.offset, self.payload = error, offset, payload

    @property
    def done(self):
        return bool(self.flags & REPLY_FLAG_DONE)


class NbdRaw:
    """A connection. connect() and hello() are separate, so that a test can misbehave between them."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(PATIENCE_S)
        self.structured = False
        self.extended = False
        self.no_zeroes = False
        self.size = None
        self.flags = 0
        self.block_size = None
        self.contexts = {}
        self.next_cookie = 1

    @classmethod
    def connect(cls, address, hello=True):
        """To a path of a Unix socket, or (host, port)."""
        if isinstance(address, tuple):
            sock = socket.create_connection(address, timeout=PATIENCE_S)
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE_S)
            sock.connect(str(address))
        self = cls(sock)
        if hello:
            self.hello()
        return self

    @classmethod
    def open(cls, address, name, mode='structured', contexts=(), **kwargs):
        """Ready for requests, in mode 'simple', 'structured' or 'extended'."""
        self = cls.connect(address)
        self.negotiate(mode)
        if contexts:
            self.set_contexts(name, contexts)
        self.go(name, **kwargs)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def receive(self, size):
        data = bytearray()
        while len(data) < size:
            try:
                more = self.sock.recv(size - len(data))
            except ConnectionError:
                more = b''
            if not more:
                raise Closed(bytes(data))
            data += more
        return bytes(data)

    def at_end(self):
        """Whether the server has hung up, and sent nothing more."""
        try:
            return self.sock.recv(1) == b''
        except ConnectionError:
            return True

    # Handshake

    def hello(self, client_flags=3):
        magic, option_magic, flags = struct.unpack('>QQH', self.receive(18))
        assert magic == NBDMAGIC and option_magic == IHAVEOPT, (magic, option_magic)
        assert flags == 3, flags
        self.no_zeroes = bool(client_flags & 2)
        self.send(struct.pack('>I', client_flags))

    def send_option(self, option, data=b'', length=None, magic=IHAVEOPT):
        self.send(struct.pack('>QII', magic, option, len(data) if length is None else length) + data)

    def option_reply(self, option):
        magic, echo, kind, length = struct.unpack('>QIII', self.receive(20))
        assert magic == REPLY_MAGIC, hex(magic)
        assert echo == option, (echo, option)
        assert length <= 4096 + 4096 + 4, length
        return kind, self.receive(length)

    def option_replies(self, option):
        """All replies up to the final one; OptionError where that is an error."""
        replies = []
        while True:
            kind, data = self.option_reply(option)
            if kind & REP_ERROR:
                raise OptionError(kind, data.decode())
            if kind == REP_ACK:
                assert data == b''
                return replies
            replies.append((kind, data))

    def option(self, option, data=b''):
        self.send_option(option, data)
        return self.option_replies(option)

    def negotiate(self, mode):
        if mode == 'structured':
            assert not self.option(OPT_STRUCTURED_REPLY)
            self.structured = True
        elif mode == 'extended':
            assert not self.option(OPT_EXTENDED_HEADERS)
            self.structured = self.extended = True

    def list(self):
        """{name: description}"""
        found = {}
        for kind, data in self.option(OPT_LIST):
            assert kind == REP_SERVER
            length, = struct.unpack('>I', data[:4])
            found[data[4:4 + length].decode()] = data[4 + length:].decode()
        return found

    @staticmethod
    def context_data(name, queries):
        name = name.encode() if isinstance(name, str) else name
        queries = [query.encode() if isinstance(query, str) else query for query in queries]
        return (struct.pack('>I', len(name)) + name + struct.pack('>I', len(queries)) +
                b''.join(struct.pack('>I', len(query)) + query for query in queries))

    def _contexts(self, option, name, queries):
        found = {}
        for kind, data in self.option(option, self.context_data(name, queries)):
            assert kind == REP_META_CONTEXT
            found[data[4:].decode()] = struct.unpack('>I', data[:4])[0]
        return found

    def list_contexts(self, name, queries=()):
        return self._contexts(OPT_LIST_META_CONTEXT, name, queries)

    def set_contexts(self, name, queries):
        self.contexts = self._contexts(OPT_SET_META_CONTEXT, name, queries)
        return self.contexts

    @staticmethod
    def info_data(name, requests=()):
        name = name.encode() if isinstance(name, str) else name
        return struct.pack(f'>I{len(name)}sH{len(requests)}H', len(name), name, len(requests), *requests)

    def info(self, name, requests=(), option=OPT_INFO):
        """{information type: bytes}"""
        found = {}
        for kind, data in self.option(option, self.info_data(name, requests)):
            assert kind == REP_INFO
            what, = struct.unpack('>H', data[:2])
            assert what not in found, what
            found[what] = data[2:]
        self.size, self.flags = struct.unpack('>QH', found[INFO_EXPORT])
        if INFO_BLOCK_SIZE in found:
            self.block_size = struct.unpack('>III', found[INFO_BLOCK_SIZE])
        return found

    def go(self, name, requests=()):
        return self.info(name, requests, OPT_GO)

    def export_name(self, name):
        self.send_option(OPT_EXPORT_NAME, name.encode())
        self.size, self.flags = struct.unpack('>QH', self.receive(10))
        if not self.no_zeroes:
            assert self.receive(124) == bytes(124)

    # Transmission

    def pack(self, kind, offset=0, length=0, flags=0, cookie=0, payload=b'', magic=None):
        if self.extended:
            return struct.pack('>IHHQQQ', magic or EXTENDED_REQUEST_MAGIC, flags, kind, cookie, offset, length) + payload
        return struct.pack('>IHHQQI', magic or REQUEST_MAGIC, flags, kind, cookie, offset, length) + payload

    def submit(self, kind, offset=0, length=0, flags=0, payload=b'', cookie=None):
        """Sends a request and returns its cookie."""
        if cookie is None:
            cookie = self.next_cookie
            self.next_cookie += 1
        if payload and not length:
            length = len(payload)
        if kind == CMD_WRITE and self.extended:
            flags |= CMD_FLAG_PAYLOAD_LEN
        self.send(self.pack(kind, offset, length, flags, cookie, payload))
        return cookie

    def chunk(self, read_length=0):
        """The next message; `read_length`: the data that a simple reply to a read brings."""
        magic, = struct.unpack('>I', self.receive(4))
        if magic == SIMPLE_REPLY_MAGIC:
            assert not self.extended
            error, cookie = struct.unpack('>IQ', self.receive(12))
            return Chunk(magic, cookie, error=error, payload=b'' if error else self.receive(read_length))
        if magic == STRUCTURED_REPLY_MAGIC:
            assert self.structured and not self.extended
            flags, kind, cookie, length = struct.unpack('>HHQI', self.receive(16))
            offset = None
        else:
            assert magic == EXTENDED_REPLY_MAGIC, hex(magic)
            assert self.extended
            flags, kind, cookie, offset, length = struct.unpack('>HHQQQ', self.receive(28))
        assert length <= (32 << 20) + 8, length
        payload = self.receive(length)
        chunk = Chunk(magic, cookie, kind, flags, offset=offset, payload=payload)
        if kind & 0x8000:
            chunk.error, size = struct.unpack('>IH', payload[:6])
            chunk.text = payload[6:6 + size].decode()
            if kind == REPLY_ERROR_OFFSET:
                chunk.at, = struct.unpack('>Q', payload[6 + size:])
            assert chunk.error
        return chunk

    def reply(self, cookie, read_length=0):
        """All chunks of the reply that must come next; RequestError where one is an error."""
        chunks = []
        while not chunks or not chunks[-1].done:
            chunks.append(self.chunk(read_length))
            assert chunks[-1].cookie == cookie, (chunks[-1].cookie, cookie)
        for chunk in chunks:
            if chunk.error:
                raise RequestError(chunk.error, getattr(chunk, 'text', ''), getattr(chunk, 'at', None))
        return chunks

    def request(self, kind, offset=0, length=0, flags=0, payload=b''):
        return self.reply(self.submit(kind, offset, length, flags, payload))

    @staticmethod
    def assemble(chunks, offset, length):
        """The data of a read's chunks, and [(offset, length, is hole)] of those that had content."""
        data, parts = bytearray(length), []
        for chunk in chunks:
            if chunk.kind == REPLY_OFFSET_DATA:
                at, = struct.unpack('>Q', chunk.payload[:8])
                size, hole = len(chunk.payload) - 8, False
                data[at - offset:at - offset + size] = chunk.payload[8:]
            elif chunk.kind == REPLY_OFFSET_HOLE:
                at, size = struct.unpack('>QI', chunk.payload)
                hole = True
            else:
                assert chunk.kind == REPLY_NONE and chunk.done, chunk.kind
                continue
            assert size and offset <= at and at + size <= offset + length, (at, size)
            parts.append((at, size, hole))
        assert sum(part[1] for part in parts) == length, parts
        assert len(data) == length
        return bytes(data), parts

    def read(self, offset, length, flags=0):
        chunks = self.reply(self.submit(CMD_READ, offset, length, flags), length)
        if chunks[0].kind is None:
            return chunks[0].payload
        return self.assemble(chunks, offset, length)[0]

    def write(self, offset, data, flags=0):
        self.request(CMD_WRITE, offset, len(data), flags, data)

    def block_status(self, offset, length, flags=0, payload=b''):
        """{context id: [(length, flags)]}; `length` is that of the payload where there is one."""
        found = {}
        for chunk in self.reply(self.submit(CMD_BLOCK_STATUS, offset, length, flags, payload)):
            if chunk.kind == REPLY_BLOCK_STATUS:
                context, = struct.unpack('>I', chunk.payload[:4])
                extents = list(struct.iter_unpack('>II', chunk.payload[4:]))
            elif chunk.kind == REPLY_BLOCK_STATUS_EXT:
                context, count = struct.unpack('>II', chunk.payload[:8])
                extents = list(struct.iter_unpack('>QQ', chunk.payload[8:]))
                assert count in (0, len(extents))
            else:
                assert chunk.kind == REPLY_NONE and chunk.done, chunk.kind
                continue
            assert extents and context not in found
            found[context] = extents
        return found

    def disconnect(self):
        self.send(self.pack(CMD_DISC))
        assert self.at_end()
        self.close()
