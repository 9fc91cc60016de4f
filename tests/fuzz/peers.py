"""A hub, an SSM and metadata endpoints that are honest until they are not.

Each answer is built as an honest peer would build it, but every field of it (a number, a text, a
value, a header) goes through one function of `Peer`, which puts something hostile in its place now and
then. So an attack starts from any depth of a right conversation, and reaches every field there is.
"""

import base64
import hashlib
import hmac
import json
import re
import struct
import time

TEXT, BOOL, INT8, INT4 = 25, 16, 20, 23
# What steers a terminal, breaks a line, or turns its order round.
STEERS = ["\n", "\r", "\0", "\x1b[2J", "\x07", "\x08", "\x7f", "\x85", "\x9b2J", "\xad", "\u061c", "\u180e"]
STEERS += [chr(c) for c in (*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070))]
STEERS += ["\ufeff", "\ufff9", "\ufffb", "\U000e0001", "\U000e0041", "\U0001d173"]
FORGED = 'forged\nINFO registered trust "A" as 6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10 with slot Trust_1\n[]'


class Gone(Exception):
    """The conversation is over."""


class Endless(Exception):
    """What is sent first, and what is sent after it for as long as anybody reads."""


class Peer:
    def __init__(self, rng, known):
        self.rng, self.known = rng, known
        # How many fields are honest, and how often one is hostile after them.
        self.calm = rng.choice([0, rng.randrange(60), rng.randrange(250), rng.randrange(250)])
        self.heat = rng.choice([0, 0.01, 0.05, 0.3, 0.8])
        # Silence costs the time limits of the program: seldom. Otherwise a peer that has lost the
        # program by what it said gives up soon.
        self.may_be_silent = rng.randrange(100) == 0
        self.attacked = False

    def serve(self, socket, wrap):
        """One connection, from its first byte to its end; `wrap` puts TLS around it."""
        self.socket = socket
        try:
            self.converse(socket, wrap)
        except Endless as end:
            endless(self.socket, *end.args)
        except (Gone, OSError, ValueError):
            pass
        finally:
            self.socket.close()

    def learn(self, secret):
        if len(secret) >= 4 and secret not in self.known:
            self.known.append(secret)

    def hot(self):
        self.calm -= 1
        hot = self.calm < 0 and self.rng.random() < self.heat
        self.attacked |= hot
        return hot

    def receive(self, socket, length):
        socket.settimeout(0.3 if self.attacked and not self.may_be_silent else 60)
        data = socket.recv(length)
        if not data:
            raise Gone
        return data

    def once_in(self, times):
        return self.hot() and self.rng.randrange(times) == 0

    def number(self, honest, size):
        if self.hot():
            top = 1 << 8 * size
            odd = [0, 1, 2, top - 1, top // 2 - 1, top // 2, honest + 1, honest - 1, self.rng.randrange(top)]
            honest = self.rng.choice(odd + [self.rng.randrange(300), 1 << self.rng.randrange(8 * size)])
        return (honest % (1 << 8 * size)).to_bytes(size, "big")

    def quote(self):
        """A secret that this peer has learnt, whole or in part, as it is or spelt otherwise."""
        rng = self.rng
        secret = rng.choice(self.known or [b"nothing"])
        if rng.randrange(2):
            start = rng.randrange(len(secret))
            secret = secret[start : start + rng.randrange(4, 64)]
        half = len(secret) // 2
        return rng.choice(
            [
                lambda: secret,
                lambda: secret,
                lambda: secret.upper(),
                lambda: secret.hex().encode(),
                lambda: base64.b64encode(secret),
                lambda: base64.urlsafe_b64encode(b"x" + secret),
                lambda: (
                    base64.b64encode(bytes.fromhex(secret.decode()))
                    if re.fullmatch(rb"([0-9a-f]{2})+", secret)
                    else secret
                ),
                lambda: secret[:half] + rng.choice([b" ", b"-", b"\xe2\x80\x8b", b"\n"]) + secret[half:],
                lambda: b"password=" + secret + b"&x",
                lambda: b"Failing row contains (A, " + secret + b")",
                lambda: json.dumps(secret.decode("latin-1")).encode(),
            ]
        )()

    def words(self, honest):
        if not self.hot():
            return honest
        rng = self.rng
        steers = "".join(rng.choice(STEERS) for _ in range(rng.randrange(1, 6)))
        words = rng.choice(
            [
                self.quote,
                self.quote,
                lambda: steers.encode(),
                FORGED.encode,
                lambda: b"",
                lambda: rng.randbytes(rng.randrange(200)),
                lambda: b"%s%n{}{0}\\x\\u001b",
                lambda: "".join(
                    chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)]))
                    for _ in range(9)
                ).encode(),
                lambda: b"A" * rng.randrange(100_000),
                lambda: b"(" * rng.randrange(40_000),
            ]
        )()
        return rng.choice([words, honest + words, words + steers.encode() + self.quote()])

    def noise(self):
        """In the place of a TLS handshake: an alert, half a record, or worse."""
        if self.once_in(4):
            raise Endless(
                self.rng.choice(
                    [b"\x15\x03\x03\x00\x02\x02\x28", b"\x16\x03\x03\x40\x00", self.rng.randbytes(99)]
                ),
                None,
            )

    def silent(self):
        """Says no more, or a byte each second, for longer than anybody should wait."""
        if self.may_be_silent and self.once_in(3):
            drip = self.rng.randrange(2)
            raise Endless(b"", b"x" if drip else b"")


class Hub(Peer):
    """PostgreSQL's frontend/backend protocol 3.0."""

    def __init__(self, rng, known, password, tls, must_tls):
        super().__init__(rng, known)
        self.password, self.tls, self.must_tls = password, tls, must_tls
        self.exists = rng.randrange(3) == 0
        self.free = rng.choice([True, True, True, False])
        self.outcome = rng.choice([b"committed"] * 5 + [b"aborted", b"in progress", b""])
        self.standby = rng.choice([b"f"] * 9 + [b"t"])
        self.triggers = rng.choice([b"\0", b"\0", b"\1"])
        self.fails_at = rng.choice([None] * 3 + [rng.randrange(8)])
        self.asked, self.trust_id, self.sql, self.reached = 0, b"", b"", 0
        self.rows, self.tag, self.fails = [], b"", False

    # Fields and messages.
    def zero(self, text):
        return self.words(text) + b"\0"

    def value(self, value):
        if value is None and not self.hot():
            return self.number(-1, 4)
        value = self.words(value or b"")
        return self.number(len(value), 4) + value

    def message(self, kind, *fields):
        """One message, and whatever else can happen to one."""
        rng, body = self.rng, b"".join(fields)
        self.silent()
        if self.once_in(8):
            kind = bytes([rng.choice([rng.randrange(256), rng.choice(b"EDTZSRCNAGH12tIsv")])])
        if self.once_in(8):
            body = rng.choice(
                [
                    body[: rng.randrange(len(body) + 1)],
                    body + rng.randbytes(9),
                    rng.randbytes(rng.randrange(60)),
                    b"",
                ]
            )
        whole = kind + self.number(len(body) + 4, 4) + body
        if self.once_in(10):
            raise Endless(whole[: rng.randrange(len(whole) + 1)], None)
        if self.once_in(12):
            big = rng.choice([0x7FFFFFFF, 0xFFFFFFFF, 1 << 30, 1 << 20])
            raise Endless(kind + big.to_bytes(4, "big"), rng.choice([b"A", whole, b"\0"]) * 2000)
        if self.once_in(10):
            # As small as can be, and as many: the client keeps more of some than it was sent.
            return whole * (rng.choice([2, 30, 1000, 200_000 // len(whole)]) + 1)
        if self.once_in(12):
            raise Endless(b"", whole * (2000 // len(whole) + 1))
        if self.once_in(6):
            aside = rng.choice(
                [
                    self.notice,
                    self.parameter,
                    self.error,
                    lambda: self.message(b"A", self.number(1, 4), self.zero(b"channel"), self.zero(b"x")),
                ]
            )
            return aside() + whole
        return b"" if self.once_in(15) else whole

    def parameter(self):
        return self.message(b"S", self.zero(b"application_name"), self.zero(self.quote()))

    def fields(self, code, text):
        fields = [(b"S", b"ERROR"), (b"V", b"ERROR"), (b"C", code), (b"M", text)]
        if self.rng.randrange(2):
            more = (
                [(bytes([k]), self.quote()) for k in b"DHWstcdnFR"]
                + [(bytes([k]), b"7") for k in b"PpL"]
                + [(b"q", b"SELECT")]
            )
            fields += self.rng.sample(more, self.rng.randrange(len(more)))
        return b"".join(self.words(kind)[:1] + self.zero(text) for kind, text in fields) + b"\0"

    def error(self):
        codes = b"28P01 28000 3D000 53300 57P03 55P03 57014 42501 08P01 42P01 25006 0A000 23505 XX000 22023 P0001".split()
        text = self.rng.choice([b"no", b"cannot execute in recovery", b"row " + self.quote(), self.quote()])
        return self.message(b"E", self.fields(self.rng.choice(codes), text))

    def notice(self):
        return self.message(b"N", self.fields(b"00000", self.quote()))

    def head(self, columns):
        fields = (
            self.zero(name)
            + self.number(0, 4)
            + self.number(0, 2)
            + self.number(oid, 4)
            + self.number(-1, 2)
            + self.number(-1, 4)
            + self.number(0, 2)
            for name, oid, _ in columns
        )
        return self.message(b"T", self.number(len(columns), 2), *fields)

    def row(self, columns):
        return self.message(b"D", self.number(len(columns), 2), *(self.value(value) for *_, value in columns))

    # The conversation.
    def converse(self, socket, wrap):
        start = self.take(socket, 0)
        if start[4:8] == b"\x04\xd2\x16\x2f":
            answer = b"S" if self.tls else b"N"
            if self.once_in(2) and not self.must_tls:
                answer = self.rng.choice(
                    [b"N", b"S", b"E" + self.quote(), b"SS", b"", b"\0", self.rng.randbytes(3)]
                )
            socket.sendall(answer)
            if answer[:1] == b"S":
                self.noise()
            if answer == b"S":
                socket = self.socket = wrap(socket)
            start = self.take(socket, 0)
        self.login(socket)
        while True:
            socket.sendall(self.answers(socket))

    def take(self, socket, head):
        def exactly(length):
            data = b""
            while len(data) < length:
                data += self.receive(socket, length - len(data))
            return data

        kind_and_length = exactly(head + 4)
        message = kind_and_length + exactly(int.from_bytes(kind_and_length[head:], "big") - 4)
        for hash_of_key in re.findall(rb"\b[0-9a-f]{64}\b", message):
            self.learn(hash_of_key)
        return message

    def login(self, socket):
        ways = [self.clear] if self.must_tls else [self.clear, self.md5, self.scram, lambda socket: None]
        self.rng.choice(ways)(socket)
        if self.once_in(8):
            socket.sendall(
                self.message(b"R", self.number(self.rng.choice([2, 6, 7, 8, 9, 11, 12]), 4), self.quote())
            )
        if self.fails_at == 0:
            socket.sendall(self.error())
            raise Gone
        socket.sendall(
            self.message(b"R", self.number(0, 4))
            + self.parameter()
            + self.message(b"K", self.number(1, 4), self.number(2, 4))
            + self.message(b"Z", b"I")
        )

    def clear(self, socket):
        socket.sendall(self.message(b"R", self.number(3, 4)))
        self.learn(self.take(socket, 1)[5:-1])

    def md5(self, socket):
        socket.sendall(self.message(b"R", self.number(5, 4), self.number(0x01020304, 4)))
        self.take(socket, 1)

    def scram(self, socket):
        rng = self.rng
        names = [b"SCRAM-SHA-256"] + ([b"SCRAM-SHA-256-PLUS"] if rng.randrange(2) else [])
        socket.sendall(self.message(b"R", self.number(10, 4), *map(self.zero, names), b"\0"))
        first = self.take(socket, 1)
        bare = re.search(rb"n=[^,]*,r=.*", first, re.S)
        if not bare:
            raise Gone
        nonce = self.words(bare[0].split(b"r=", 1)[1] + b"hub")
        salt, rounds = rng.randbytes(16), rng.choice([1, 4096, 4096])
        shown = self.words(str(rng.choice([rounds] * 3 + [0, 100_000, 100_001, 2**31, -1])).encode())
        challenge = self.words(b"r=" + nonce + b",s=" + self.words(base64.b64encode(salt)) + b",i=" + shown)
        socket.sendall(self.message(b"R", self.number(11, 4), challenge))
        last = self.take(socket, 1)[5:]
        salted = hashlib.pbkdf2_hmac("sha256", self.password, salt, rounds)
        proven = b",".join([bare[0], challenge, last.rsplit(b",p=", 1)[0]])
        key = hmac.digest(salted, b"Server Key", "sha256")
        signature = base64.b64encode(hmac.digest(key, proven, "sha256"))
        if self.once_in(4):
            signature = b"e=" + self.quote()
        socket.sendall(self.message(b"R", self.number(12, 4), self.words(b"v=" + signature)))

    def answers(self, socket):
        """What an honest server says to all messages up to the next that waits for it."""
        said = b""
        while True:
            asked = self.take(socket, 1)
            kind = asked[:1]
            if kind in b"QP":
                self.sql = asked[5:]
                self.asked += 1
                if mark := re.search(rb"'register_trust.trust_id', '([0-9a-f-]{36})'", self.sql):
                    self.trust_id = mark[1]
                self.fails = self.asked == self.fails_at
                self.rows, self.tag = self.answer()
            if kind == b"X":
                raise Gone
            if kind in b"QS" and self.fails:
                return said + self.error() + self.message(b"Z", b"E")
            if kind == b"Q":
                results = self.head(self.rows) + self.row(self.rows) if self.rows else b""
                return (
                    said
                    + self.message(b"C", self.zero(b"SET"))
                    + results
                    + self.message(b"C", self.zero(self.tag))
                    + self.message(b"Z", b"T")
                )
            if kind == b"S":
                return said + self.message(b"Z", b"T")
            if kind == b"P":
                said += self.message(b"1")
            elif kind == b"B":
                said += self.message(b"2")
            elif kind == b"C":
                said += self.message(b"3")
            elif kind == b"D":
                if asked[5:6] == b"S":
                    said += self.message(b"t", self.number(1, 2), self.number(26, 4))
                said += self.head(self.rows) if self.rows else self.message(b"n")
            elif kind == b"E":
                said += (self.row(self.rows) if self.rows else b"") + self.message(b"C", self.zero(self.tag))

    def answer(self):
        """The columns of the one row, if there is one, and the statement's tag."""
        sql, one, int8 = self.sql, (1).to_bytes(4, "big"), (1).to_bytes(8, "big")
        # Where more than one statement or a deeper type is meant, an oid that nobody knows leads there.
        slot = [(b"slot_name", TEXT, b"Trust_1"), (b"slot_number", INT4, one)]
        if b"BEGIN" in sql:
            self.reached = max(self.reached, 1)
            return [
                (b"hash_can_be_read", TEXT, b"yes"),
                (b"recovering", TEXT, self.standby),
            ], b"SELECT 1"
        if b"COMMIT" in sql or b"pg_xact_status" in sql:
            self.reached = max(self.reached, 3)
            return [(b"pg_xact_status", TEXT, self.outcome)], b"SELECT 1"
        if b"pg_is_in_recovery" in sql:
            return [(b"pg_is_in_recovery", TEXT, self.standby)], b"SELECT 1"
        if b"AS registered" in sql:
            return [(b"registered", TEXT, self.rng.choice([b"t", b"f"]))], b"SELECT 1"
        if b"AS valid" in sql:
            self.reached = max(self.reached, 3)
            return [(b"valid", BOOL, self.rng.choice([b"\1", b"\0", None]))], b"SELECT 1"
        if b"namesakes" in sql:
            self.reached = max(self.reached, 2)
            trust = b"6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10" if self.exists else None
            there = [(b"trust_id", TEXT, trust), (b"namesakes", INT8, int8)] + slot
            return there + [(b"mark", TEXT, self.trust_id), (b"slot_was_free", BOOL, b"\0")], b"SELECT 1"
        if b"AS trust_kept" in sql and b"INSERT" not in sql:
            return [(b"trust_kept", BOOL, b"\1"), (b"slot_name", TEXT, b"Trust_1")], b"SELECT 1"
        if b"trusts_audit" in sql:
            if self.exists or not self.free:
                return [], b"INSERT 0 0"
            self.reached = max(self.reached, 2)
            kept = [(b"trust_kept", BOOL, b"\1"), (b"triggers_behind", BOOL, self.triggers)]
            return [(b"xact_id", INT8, int8)] + slot + kept, b"INSERT 0 1"
        if b"unnest" in sql:
            self.free = self.rng.choice([True, True, False])
            return [], b"INSERT 0 1"
        if b"FOR UPDATE" in sql:
            self.free = self.rng.randrange(3) == 0
            return self.rng.choice([[], slot[:1]]), b"SELECT 1"
        if b"pg_type" in sql:
            kinds = [
                (b"typname", 19, b"kind"),
                (b"typtype", 18, self.rng.choice([b"b", b"e", b"c", b"d", b"r"])),
                (b"typelem", 26, self.number(0, 4)),
                (b"rngsubtype", 26, None),
                (b"typbasetype", 26, self.number(0, 4)),
                (b"nspname", 19, b"public"),
                (b"typrelid", 26, self.number(0, 4)),
            ]
            return kinds, b"SELECT 1"
        return [], b"SET"


class Aws(Peer):
    """SSM's JSON protocol, a container's credentials, and instance metadata version 2."""

    def __init__(self, rng, known, credentials, tls):
        super().__init__(rng, known)
        self.credentials, self.tls = credentials, tls
        self.refuses = rng.randrange(4) == 0
        self.put, self.versions = 0, rng.choice([1, 1, 1, 7])
        self.names = rng.choice(
            [
                ["Trust_1", "Trust_2"],
                ["Trust_1"] * 300,
                ["_99999999999999", "x"],
                [],
                ["\u202e\n_1", "y" * 3000],
            ]
        )

    def converse(self, socket, wrap):
        if self.tls:
            self.noise()
            socket = self.socket = wrap(socket)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.receive(socket, 4096)
        head, body = head.split(b"\r\n\r\n", 1)
        length = re.search(rb"content-length: *(\d+)", head, re.I)
        while length and len(body) < int(length[1]):
            body += self.receive(socket, 4096)
        for name, value in re.findall(
            rb"(?im)^(x-amz-security-token|authorization|x-aws-ec2-metadata-token): *([^\r]*)", head
        ):
            # A signature is no secret.
            if not value.startswith(b"AWS4"):
                self.learn(value)
        socket.sendall(self.answer(head, body))

    def answer(self, head, body):
        target = re.search(rb"x-amz-target: *AmazonSSM\.(\w+)", head, re.I)
        if not target:
            if head.startswith(b"PUT"):
                return self.http(200, b"an-instances-token-0123456789ABCDEF")
            if b"security-credentials/ " in head:
                return self.http(200, b"a-role")
            return self.http(200, json.dumps(self.json(self.credentials)).encode())
        request = json.loads(body)
        kit = request.get("Value", "")
        if kit.startswith("[{"):
            for text in strings(json.loads(kit)):
                # What everybody knows is no secret.
                if len(text) >= 12 and not re.fullmatch(r"[0-9a-f-]{36}", text):
                    self.learn(text.encode())
        if self.refuses or self.once_in(4):
            return self.refusal()
        if target[1] == b"GetParameter":
            names = json.dumps(self.json(self.names))
            return self.http(
                200, self.dump({"Parameter": {"Name": "x", "Type": "String", "Value": names, "Version": 1}})
            )
        self.put += 1
        return self.http(200, self.dump({"Version": self.versions + self.put - 1, "Tier": "Standard"}))

    def refusal(self):
        status = self.rng.choice([400] * 12 + [429, 500, 503, 403, 404, 200, 301])
        codes = [
            "AccessDeniedException",
            "ParameterNotFound",
            "ExpiredTokenException",
            "InvalidSignatureException",
            "ValidationException",
            "HierarchyTypeMismatchException",
            "UnrecognizedClientException",
            "x#Other",
        ] + (["ThrottlingException"] if self.rng.randrange(8) == 0 else [])
        message = self.rng.choice(["no", "Signature expired", self.quote().decode("latin-1")])
        key = self.rng.choice(["message", "Message"])
        return self.http(status, self.dump({"__type": self.rng.choice(codes), key: message}))

    def dump(self, value):
        return self.words(json.dumps(self.json(value)).encode())

    def json(self, value):
        """The value, or one with something else in the place of any part of it."""
        if self.once_in(3):
            return self.rng.choice(
                [None, True, 0, -1, 2**64, 1e300, [], {}, "", self.quote().decode("latin-1"), [[[[value]]]]]
            )
        if isinstance(value, dict):
            return {
                self.words(key.encode()).decode("latin-1"): self.json(inner) for key, inner in value.items()
            }
        if isinstance(value, list):
            return [self.json(inner) for inner in value]
        if isinstance(value, str):
            return self.words(value.encode()).decode("utf-8", "replace")
        return value

    def http(self, status, body):
        rng = self.rng
        self.silent()
        number = self.words(str(status).encode())
        if self.once_in(3):
            number = rng.choice([b"100", b"101", b"204", b"304", b"000", b"999", b"1000", b"-1", b"2OO"])
        head = [self.words(b"HTTP/1.1") + b" " + number + b" " + self.words(b"OK")]
        request = self.words(b"6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10")
        head += [
            self.words(b"x-amzn-requestid") + b": " + request,
            self.words(b"content-type") + b": " + self.words(b"application/x-amz-json-1.1"),
        ]
        head += [
            b"x-%d: " % n + self.quote() for n in range(rng.choice([1, 90, 5000]) if self.once_in(4) else 0)
        ]
        if self.once_in(4):
            raise Endless(b"\r\n".join(head), rng.choice([b"\r\nx: y", b"A"]) * 400)
        if rng.randrange(3) == 0:
            parts = [body[n : n + 50] for n in range(0, len(body), 50)] + [b""]
            sizes = [self.words(b"%x" % len(part)) for part in parts]
            body = b"".join(size + b"\r\n" + part + b"\r\n" for size, part in zip(sizes, parts))
            head.append(b"transfer-encoding: " + self.words(b"chunked"))
            if self.once_in(4):
                raise Endless(b"\r\n".join(head) + b"\r\n\r\n", b"400\r\n" + b"A" * 1024 + b"\r\n")
        else:
            length = self.words(str(len(body)).encode())
            if self.once_in(3):
                length = rng.choice(
                    [b"-1", b"0", b"1", b"99999999999", b"18446744073709551616", b"0x10", b"5, 6"]
                )
            head.append(b"content-length: " + length)
        if self.once_in(4):
            raise Endless(b"\r\n".join(head) + b"\r\n\r\n", self.words(b"{") * 200 or b"x")
        whole = b"\r\n".join(head) + b"\r\n\r\n" + body
        if self.once_in(4):
            raise Endless(whole[: rng.randrange(len(whole) + 1)], None)
        return whole


def strings(value):
    """All texts of a JSON value."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(inner)


def endless(socket, first, then):
    """Sends the first, and then: nothing more (None), silence (empty), a drip (one byte), or a flood."""
    try:
        socket.sendall(first)
        start = time.monotonic()
        while then is not None and time.monotonic() - start < 600:
            if len(then) < 2:
                socket.settimeout(1)
                try:
                    if socket.recv(4096) == b"":
                        return
                except TimeoutError:
                    pass
            if then:
                socket.sendall(then)
    except OSError:
        pass
