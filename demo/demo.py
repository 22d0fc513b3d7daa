#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The demo: two virtual machines and a wire on one vifd.

    guest web  10.88.0.2 ── vhost-user ──┐
                                         ├── vifd, bridge br0 ── uplink ── wire 10.88.0.1, a network namespace
    guest db   10.88.0.3 ── vhost-user ──┘

Boots the guests, has everyone ping everyone, measures three TCP streams and prints what they cost vifd. The
figures are left in demo/out/results.json as well. Run it with `sudo make demo`; `UPLINK=af_packet` or `UPLINK=af_xdp`
after it puts a veth pair where the TAP is otherwise.
"""
import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from lib.guest import accelerator, build_image
from lib.lab import UPLINKS, Lab
from lib.sweep import sweep
from lib.traffic import measure, serve

OUT = ROOT / "demo" / "out"
PATHS = (("web", "wire"), ("wire", "web"), ("web", "db"))
SECONDS = 5   # of each stream
LIMIT = 110   # seconds for everything
OFFLOADS = {"csum", "guest_csum", "host_tso4", "host_tso6", "guest_tso4", "guest_tso6", "mrg_rxbuf"}

started = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)


def run(lab):
    say("two guests: QEMU, Debian's kernel and its own virtio-net driver")
    if accelerator() == "tcg":
        say("no KVM that works here: the guests' CPUs are emulated, which is what limits their throughput")
    for name in ("web", "db"):
        lab.start_guest(name)
    ends = {"wire": lab.wire, "web": lab.finish_guest("web"), "db": lab.finish_guest("db")}
    say(f"web's driver negotiated {', '.join(sorted(ends['web'].features() & OFFLOADS))}")

    for end in ends.values():
        for other in ends.keys() - {end.name}:
            end.ping(lab.address[other])
    say("everyone pings everyone")

    for end in ends.values():
        serve(end)
    lab.vifd.ctl("profile reset")
    paths = []
    for source, sink in PATHS:
        say(f"iperf3, {source} to {sink}, {SECONDS} s")
        paths.append(measure(ends[source], ends[sink], lab.address[sink], lab.vifd, SECONDS))
    return paths, lab.vifd.vifctl("profile").stdout


def report(uplink, paths, profile):
    print(f"\n{'path':14} {'throughput':>14} {'CPU of vifd':>14} {'mean packet':>14}")
    for path in paths:
        print(f"{path['from'] + ' to ' + path['to']:14} {path['gbps']:9.2f} Gb/s {path['vifd_ns_per_byte']:9.2f} ns/B "
              f"{path['mean_packet_bytes']:12.0f} B")
    print("(ns of CPU time of the whole vifd process for each byte carried; packets as they came from the sender)")
    print(f"\nvifctl profile\n{profile}", flush=True)
    OUT.mkdir(parents=True, exist_ok=True)
    results = OUT / "results.json"
    results.write_text(json.dumps({"uplink": uplink, "paths": paths}, indent=1) + "\n")
    say(f"done; the figures are in {results.relative_to(ROOT)}")


def interrupted(number, _):
    for other in ENDINGS:
        signal.signal(other, signal.SIG_IGN) # let the clean-up finish
    raise SystemExit("demo: interrupted" if number != signal.SIGALRM else f"demo: not done within {LIMIT} s")


ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


def main():
    parser = argparse.ArgumentParser(prog="demo", description="two virtual machines and a wire on one vifd")
    parser.add_argument("--uplink", choices=UPLINKS, default="tap", help="what joins vifd and the wire (tap)")
    uplink = parser.parse_args().uplink
    if os.geteuid():
        sys.exit("demo: network namespaces and uplinks need root: sudo make demo")
    for number in ENDINGS:
        signal.signal(number, interrupted)
    signal.alarm(LIMIT)
    sweep()
    folder = tempfile.mkdtemp(prefix=f"vifd-{os.getpid()}-")
    try:
        build_image()
        with Lab(folder, uplink=uplink, say=say) as lab:
            results = run(lab)
        report(uplink, *results)
    except Exception as error: # in a sentence: a newcomer does not read tracebacks
        sys.exit(f"demo: {type(error).__name__}: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
