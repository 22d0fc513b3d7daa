# SPDX-License-Identifier: BSD-3-Clause
"""TCP from a network namespace, as netperf has it: a stream, and transactions of a byte there and a byte back.

At the other end, a guest or a namespace, serve() has busybox throw away and echo. A stream can be looked at while it
runs, so that neither its start nor the programs' count.
"""
import os
import socket
import struct
import threading
import time

DISCARD, ECHO = 7002, 7001
SERVERS = {DISCARD: "dd of=/dev/null bs=128k", ECHO: "cat"}
PIECE = 1 << 20
TIMEOUT = 10
BYTES_ACKED = struct.Struct("=120xQ") # in struct tcp_info of linux/tcp.h


def serve(end):
    """Start what connect() talks to; it stays until the end stops."""
    for port, program in SERVERS.items():
        end.spawn(f"exec busybox nc -ll -p {port} -e {program}")
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
        return BYTES_ACKED.unpack_from(self.conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))[0]


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
