# SPDX-License-Identifier: BSD-3-Clause
"""TCP from a network namespace, as netperf has it: a stream, and transactions of a byte there and a byte back.

At the other end, a guest or a namespace, serve() has busybox throw away and echo. A stream can be looked at while it
runs, so that neither its start nor the programs' count. A Connection is between two namespaces, with a program at each end.
"""
import os
import socket
import struct
import subprocess
import threading
import time

from cpus import HOST_CPU
from lib.guest import with_parent
from lib.traffic import cpu_seconds
from lib.vifd import program

DISCARD, ECHO = 7002, 7001
SERVERS = {DISCARD: "dd of=/dev/null bs=128k", ECHO: "cat"}
PIECE = 1 << 20
READ = 128 << 10
SO_RCVBUFFORCE = 33
TIMEOUT = 10
BYTES_ACKED = struct.Struct("=120xQ") # in struct tcp_info of linux/tcp.h


def serve(end):
    """Start what connect() talks to; it stays until the end stops."""
    for port, server in SERVERS.items():
        end.spawn(f"exec busybox nc -ll -p {port} -e {server}")
        end.run(f"until grep -q ':{port:04X} .* 0A ' /proc/net/tcp*; do sleep 0.1; done")


def connect(wire, address, port):
    """A connection that gives up only after TIMEOUT seconds without a byte."""
    conn = wire.socket(socket.AF_INET, socket.SOCK_STREAM, timeout=TIMEOUT)
    try:
        conn.connect((address, port))
        conn.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            conn.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", TIMEOUT, 0))
    except BaseException:
        conn.close()
        raise
    return conn


def pair(source, sink, address, room=None):
    """Both ends of a connection from one namespace to another, at an address of the sink's, for programs to inherit.
    room: of the sink's buffer, None: as the kernel likes."""
    with sink.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        if room:
            listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, room)
        listener.bind((address, 0))
        listener.listen()
        conn = source.socket(socket.AF_INET, socket.SOCK_STREAM)
        conn.connect(listener.getsockname())
        accepted, _ = listener.accept()
    for end in (conn, accepted):
        end.setblocking(True)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    return conn, accepted


def acked(conn):
    """Bytes that the other end has acknowledged."""
    return BYTES_ACKED.unpack_from(conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))[0]


class Stream:
    """Sends without end from a namespace, by sendfile(), until its with statement ends."""

    def __init__(self, wire, address):
        self.conn = connect(wire, address, DISCARD)
        self.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic") # as Linux has it: no pacing
        self.thread = threading.Thread(target=self._send)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.conn.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.conn.close()

    def _send(self):
        data = os.memfd_create("stream")
        try:
            os.truncate(data, PIECE)
            while os.sendfile(self.conn.fileno(), data, 0, PIECE):
                pass
        except OSError:
            pass # the end of the stream: ours, or acked() will tell
        finally:
            os.close(data)

    def acked(self):
        """Bytes that the other end has acknowledged."""
        return acked(self.conn)


class Echo:
    """Transactions, one after the other, over one connection."""

    def __init__(self, wire, address):
        self.conn = connect(wire, address, ECHO)
        self.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        self.rate(0) # now the server is there for sure
        return self

    def __exit__(self, *_):
        self.conn.close()

    def rate(self, seconds):
        """Transactions a second."""
        count, start = 0, time.monotonic()
        while True:
            self.conn.send(b"x")
            if not self.conn.recv(1):
                raise ConnectionError("the echo has hung up")
            count += 1
            elapsed = time.monotonic() - start
            if elapsed >= seconds:
                return count / elapsed


class Connection:
    """TCP from one namespace to another, with a program at each end, to the end of its with statement.

    verbs   what the programs do, first that at source
    room    of the sink's buffer, as pair() has it
    """

    def __init__(self, source, sink, address, verbs, size, room=None):
        self.conn, accepted = pair(source, sink, address, room)
        for end in (self.conn, accepted):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(verbs[0] == "ping"))
        self.programs = {end.cpu: self._program(end.cpu, verb, conn, READ if verb in ("read", "discard") else size)
                         for end, verb, conn in ((sink, verbs[1], accepted), (source, verbs[0], self.conn))}
        accepted.close()

    @staticmethod
    def _program(cpu, verb, conn, size):
        return subprocess.Popen(with_parent(["taskset", "-c", cpu, program("lab/tcp_end"), verb, conn.fileno(), size]),
                                pass_fds=[conn.fileno()])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.conn.shutdown(socket.SHUT_RDWR)
        for process in self.programs.values():
            process.wait(10)
        self.conn.close()

    def look(self):
        """Bytes that the sink has acknowledged, CPU time of the program on the host's CPU."""
        return {"bytes": acked(self.conn), "program": cpu_seconds(self.programs[HOST_CPU].pid)}
