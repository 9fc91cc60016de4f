#!/usr/bin/env python3
"""Runs the release binary against peers that mean harm (peers.py), and looks at all that comes of it.

    make fuzz                            an hour, two workers
    make fuzz SECONDS=60 W=4             another time, other workers
    make fuzz SEED=<n> RUNS=1            one run again, as a finding names it: it says all there is

After each run these must hold, whatever the peers said:

- it ended by itself, with 0 or 1, without a panic, in time and in little memory;
- stderr holds no secret that a peer could have learnt, and no character that steers a terminal; each
  line of it starts with a level;
- stdout holds nothing but a kit, [], a receipt or a verdict.

It needs nothing but Python's standard library and openssl. Each run has a number, from which all is
drawn that is drawn; how the program's and the peers' threads take turns is not, so that a finding may
need a few attempts to come again.
"""

import base64
import collections
import json
import multiprocessing
import os
import random
import re
import secrets
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata

# A checkout stays as it is committed.
sys.dont_write_bytecode = True
from peers import Aws, Hub

# PROGRAM: another one, to see whether the fuzzer finds what is wrong with it.
ROOT = os.path.join(os.path.dirname(__file__), "../..")
PROGRAM = os.path.abspath(os.environ.get("PROGRAM") or f"{ROOT}/target/release/register-trust")
ID = "6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10"
KIT = [
    "trust_id",
    "trust_name",
    "trust_api_key",
    "trust_internal_service_key",
    "fl_kit_slot",
    "fl_kit_slot_number",
    "hub_shared",
]
# The limits of one run against peers that are silent wherever they can be: a statement, the outcome,
# and three calls of SSM's, 150 s together. Twice that, for a busy machine.
LONGEST = 300
# The most data in kB: a run takes 10 MB, the client can make ten times as much of 512 kB that the hub
# says, and each thread has a stack of 8 MB.
MEMORY = 96 << 10
CREDENTIALS = ["env", "env", "container", "instance"]


def listen(serve, stop):
    """A port on which each connection is served in a thread of its own, with its number."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        for number in range(1 << 30):
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            connection.settimeout(LONGEST)
            stop.append(connection)
            threading.Thread(target=serve, args=(connection, number), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    stop.append(listener)
    return listener.getsockname()[1]


class Run:
    """One run of the program, all of which comes from one number."""

    def __init__(self, seed, files):
        self.seed, self.files, self.rng = seed, files, random.Random(seed)
        rng = self.rng
        word = lambda length: base64.b64encode(rng.randbytes(length)).decode()
        self.production = rng.randrange(3) == 0
        self.home = rng.choice(["stdout", "ack", "ssm", "ssm"])
        self.task = rng.choice(["register"] * 7 + ["look"] + ["check"] * 2)
        self.password = rng.choice([word(12), "correct horse battery staple", "Pa55 \u00e9\u00df word'"])
        self.env = {
            "POSTGRES_USER": "flip",
            "POSTGRES_DB": "hub",
            "LOG_LEVEL": rng.choice(["DEBUG", "INFO", "ERROR"]),
            "AWS_REGION": "eu-west-2",
            "FL_KIT_SLOT_NAMES": '["Trust_1", "Trust_2"]',
        }
        shared = {
            key: word(18)
            for key in rng.sample(["AES_KEY_BASE64", "CENTRAL_HUB_API_URL", "DOCKER_TAG", "FL_BACKEND"], 3)
        }
        self.env |= shared
        self.peers = []
        self.stop = []
        hub_knows, ssm_knows, metadata_knows = [], [], []
        ssm_secure = rng.randrange(4) == 0
        secure = self.production or rng.randrange(4) == 0

        def serve(kind, knows, context, *arguments):
            def connection(socket, number):
                peer = kind(random.Random(f"{seed} {kind.__name__} {number}"), knows, *arguments)
                self.peers.append(peer)
                peer.serve(socket, lambda plain: context.wrap_socket(plain, server_side=True))

            return connection

        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(f"{files}/server.crt", f"{files}/server.key")
        port = listen(serve(Hub, hub_knows, tls, self.password.encode(), secure, self.production), self.stop)
        self.env |= {"DB_HOST": "127.0.0.1", "DB_PORT": str(port)}
        if self.production:
            self.env |= {"ENV": "production", "PGSSLROOTCERT": f"{files}/server.crt"}
        else:
            self.env["POSTGRES_PASSWORD"] = self.password
        session = {
            "AccessKeyId": "AKIDEXAMPLE",
            "SecretAccessKey": word(30),
            "Token": word(90),
            "Expiration": "2099-01-01T00:00:00Z",
        }
        ssm, metadata = (
            listen(serve(Aws, knows, tls, session, secure), self.stop)
            for knows, secure in ((ssm_knows, ssm_secure), (metadata_knows, False))
        )
        self.env |= {
            "AWS_ENDPOINT_URL": f"http{'s' * ssm_secure}://127.0.0.1:{ssm}",
            "AWS_CA_BUNDLE": f"{files}/server.crt",
        }
        url = f"http://127.0.0.1:{metadata}"
        match rng.choice(CREDENTIALS):
            case "env":
                self.env |= {
                    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
                    "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
                    "AWS_SESSION_TOKEN": session["Token"],
                }
            case "container":
                self.env |= {
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/creds",
                    "AWS_CONTAINER_AUTHORIZATION_TOKEN": word(20),
                }
            case _:
                self.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = url
        self.arguments = ["--name", "A"]
        if self.task == "check":
            self.arguments += ["--check-kit", ID]
        else:
            self.arguments += ["--require-existing"] if self.task == "look" else ["--code", "GSTT"]
            self.arguments += {"stdout": [], "ack": ["--await-ack"], "ssm": ["--out-ssm-parameter", "/kit"]}[
                self.home
            ]
        self.arguments += rng.choice([[], [], ["-v"], ["-q"]])
        self.knows = [hub_knows, ssm_knows, metadata_knows]
        own = [*shared.values(), session["SecretAccessKey"], session["Token"], self.password]
        own.append(self.env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"))
        self.own = [secret.encode() for secret in own if secret]
        hub_knows += [self.password.encode()] if not self.production else []
        metadata_knows += [session["Token"].encode(), session["SecretAccessKey"].encode()]

    def go(self):
        """Runs it to its end, and gives what is wrong with what it did."""
        start = time.monotonic()
        limited = ["sh", "-c", f'ulimit -d {MEMORY}; exec "$0" "$@"', PROGRAM, *self.arguments]
        child = subprocess.Popen(
            limited, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.stdout = self.stderr = b""

        def read_stdout():
            for line in child.stdout:
                self.stdout += line
                if key := re.search(rb'^\[\{"trust_id":"([^"]*)".*"trust_api_key"', line):
                    said = self.rng.choice([key[1]] * 6 + [b"", b"no", key[1] * 2])
                    try:
                        child.stdin.write(said + b"\n")
                        child.stdin.close()
                    except OSError:
                        pass

        def read_stderr():
            self.stderr = child.stderr.read()

        readers = [threading.Thread(target=read) for read in (read_stdout, read_stderr)]
        for reader in readers:
            reader.start()
        late = threading.Timer(LONGEST, child.kill)
        late.start()
        self.code = child.wait()
        late.cancel()
        self.took = time.monotonic() - start
        for reader in readers:
            reader.join()
        for pipe in (child.stdin, child.stdout, child.stderr):
            try:
                pipe.close()
            except OSError:
                pass
        for connection in list(self.stop):
            # A thread that listens wakes up only so.
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()
        return list(self.wrong())

    def reached(self):
        hubs = [peer.reached for peer in self.peers if isinstance(peer, Hub)]
        puts = [peer.put for peer in self.peers if isinstance(peer, Aws)]
        deep = max(hubs, default=0)
        return ["connected", "opened", "claimed or found", "asked to commit or check"][deep] + (
            ", kit put" if any(puts) else ""
        )

    def wrong(self):
        if self.took >= LONGEST:
            yield f"it ran for {self.took:.0f} s"
        elif self.code not in (0, 1):
            yield f"it ended with {self.code}"
        text = self.stderr.decode("utf-8", "replace")
        if "internal error" in text or "report" in text.replace("reports", ""):
            yield "a panic"
        for line in text.splitlines():
            if not re.match("(ERROR|WARNING|INFO|DEBUG) ", line):
                yield f"a forged line: {line!r}"
        if self.stderr and not self.stderr.endswith(b"\n"):
            yield "half a line"
        steers = {
            c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cs")
        }
        if steers:
            yield f"characters that steer: {steers!r}"
        for secret in {*self.own, *sum(self.knows, [])}:
            for leak in leaks(secret, self.stderr):
                yield f"the secret {secret!r} is on stderr as {leak!r}"
        yield from self.wrong_stdout()

    def wrong_stdout(self):
        lines = self.stdout.decode("utf-8", "replace").splitlines()
        if self.stdout and not self.stdout.endswith(b"\n"):
            yield "half a line on stdout"
        ids = []
        for line in lines:
            verdict = line == "[]" or self.task == "check" and line in ("valid", "worthless", "unknown")
            receipt = line == "/kit" and self.home == "ssm" or line in ids and self.home == "ack"
            if verdict or receipt:
                continue
            try:
                [kit] = json.loads(line)
                assert [*kit] in (KIT, [key for key in KIT if "key" not in key]) and line.isascii()
                ids.append(kit["trust_id"])
                assert (
                    re.fullmatch("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", kit["trust_id"])
                    and self.home != "ssm"
                )
            except (ValueError, AssertionError, TypeError):
                yield f"no line of stdout's: {line!r}"
        last = lines[-1] if lines else ""
        if (
            self.code == 0
            and last in ("", "[]", "worthless", "unknown")
            or self.code == 1
            and last == "valid"
        ):
            yield f"exit {self.code} after {last!r}"

    def story(self):
        env = " ".join(f"{key}={value!r}" for key, value in sorted(self.env.items()))
        call = f"{env}\nregister-trust {' '.join(self.arguments)}"
        end = f"exit {self.code} after {self.took:.1f} s, {self.reached()}"
        return f"{call}\n{end}\nstdout {self.stdout!r}\nstderr {self.stderr!r}"


def leaks(secret, stderr):
    """The parts of stderr that give it away: whole, sixteen of its characters in a row, or in hex or base64."""
    if secret in stderr:
        yield secret
    # 32 digits in a row name a task of ECS, and are shown.
    forms = [(secret, 16), (secret.upper(), 16), (secret.lower(), 16), (secret.hex().encode(), 33)]
    raw = [secret] + ([bytes.fromhex(secret.decode())] if re.fullmatch(rb"[0-9a-f]{64}", secret) else [])
    # The ends depend on what stands beside them.
    forms += [(base64.b64encode(b"x" * n + inner)[4:-4], 16) for inner in raw for n in range(3)]
    for form, length in forms:
        for start in range(len(form) - length + 1):
            part = form[start : start + length]
            # What looks random, not the words of a password that is made of words, nor the time in a token.
            if part in stderr and part.isalnum() and re.search(rb"\d", part) and not re.fullmatch(rb"\d{8}T\d{6}Z", part):
                yield part
                break


def work(first, step, runs, until, results):
    with tempfile.TemporaryDirectory() as files:
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "30",
                "-subj",
                "/CN=hub",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-keyout",
                f"{files}/server.key",
                "-out",
                f"{files}/server.crt",
            ],
            check=True,
            capture_output=True,
        )
        for number in range(first, first + runs, step):
            if time.monotonic() > until:
                break
            run = Run(number, files)
            wrong = run.go()
            results.put(
                (
                    run.code,
                    run.reached(),
                    run.took,
                    [f"{what}\nSEED={number}\n{run.story()}" for what in wrong[:1]],
                    run.story(),
                )
            )
    results.put(None)


def main():
    setting = lambda name, otherwise: int(os.environ.get(name) or otherwise)
    seed = setting("SEED", secrets.randbelow(1 << 40))
    runs = setting("RUNS", 1 << 40)
    seconds = setting("SECONDS", 3600 if runs == 1 << 40 else 1 << 30)
    workers = min(setting("W", 2), runs)
    print(f"seed {seed}, {workers} workers", flush=True)
    results = multiprocessing.Queue()
    start = shown = time.monotonic()
    for n in range(workers):
        multiprocessing.Process(
            target=work, args=(seed + n, workers, runs - n, start + seconds, results), daemon=True
        ).start()
    codes, depths, findings, slowest = collections.Counter(), collections.Counter(), [], 0
    while workers:
        result = results.get()
        if result is None:
            workers -= 1
            continue
        code, depth, took, wrong, story = result
        codes[code] += 1
        depths[depth] += 1
        slowest = max(slowest, took)
        for finding in wrong:
            findings.append(finding)
            print(
                f"FINDING {finding}\nagain: make fuzz RUNS=1 SEED={re.search('SEED=([0-9]+)', finding)[1]}",
                flush=True,
            )
        if runs == 1:
            print(story)
        if time.monotonic() - shown > 30 or not workers:
            shown = time.monotonic()
            print(f"{shown - start:.0f} s: {codes.total()} runs, {len(findings)} findings", flush=True)
    print(
        f"{codes.total()} runs in {time.monotonic() - start:.0f} s; exits {dict(codes)}; the slowest took {slowest:.0f} s"
    )
    for depth, count in sorted(depths.items()):
        print(f"  {count:8} {depth}")
    print(f"{len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
