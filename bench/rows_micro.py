# SPDX-License-Identifier: BSD-3-Clause
"""The micro rows: the offload driver's kernels, without ports and without a kernel, against plain copying.

`micro` (micro.c, built with vifd) does all of it in one process, the two sides of a row in turns; here its
nanoseconds become figures.
"""

import json

from host import BenchError, run
from results import Bar, Row, Sample
from switches import SWITCH_CPU

BUFFER_LEN = 1500

# row -> peer, unit, whether more is better, bar, figure of ns per buffer or packet
KINDS = {
    "csum": ("memcpy", "GB/s", True, 0.65, lambda ns: BUFFER_LEN / ns),
    "copy-csum": ("copy+csum", "ns", False, 0.85, lambda ns: ns),
    "segment": ("copy", "us", False, 1.6, lambda ns: ns / 1e3),
    "segment-linear": ("copy", "us", False, None, lambda ns: ns / 1e3),
    "lro": ("no lro", "ns", False, None, lambda ns: ns),
}
ROWS = list(KINDS)


def rows(wanted, options, say):
    """Measure the wanted rows of this group."""
    micro = options.build.resolve() / "bench" / "micro"
    if not micro.exists():
        raise BenchError(f"no {micro}: build with -Dtests=true")
    samples = 15 if options.quick else 101
    say(f"micro: {samples} turns each")
    made = []
    for line in run("taskset", "-c", SWITCH_CPU, micro, samples, *wanted, timeout=120).splitlines():
        got = json.loads(line)
        peer, unit, more_is_better, bar, figure = KINDS[got["row"]]
        ours, theirs = ([Sample(figure(ns), None) for ns in got[side]] for side in ("ours", "theirs"))
        made.append(Row(got["row"], peer, unit, more_is_better, ours, theirs, bar and Bar(bar)))
    return made
