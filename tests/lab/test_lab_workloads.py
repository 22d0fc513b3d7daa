# SPDX-License-Identifier: BSD-3-Clause
"""The lab's workloads and competing guests: rows and bars of samples that are made up; the ray tracer itself, which must
render the same alone and on two nodes."""
import socket
import subprocess

import pytest

from lib.vifd import program

SCRIPT = """vifd-w0 
\tffffffff815f4781 tlb_finish_mmu
\tffffffff8163c0ee do_madvise
\t          101b07 __madvise

vifd-w0 
\t          16db75 __memmove_avx512_unaligned_erms

vif-front 
\tffffffff81b6ac04 _copy_to_iter

swapper 
\tffffffff81000000 pv_native_safe_halt
\tffffffff81000001 do_idle

swapper 
\tffffffff81000002 net_rx_action
\tffffffff8136013d handle_softirqs

"""


def test_functions_are_of_what_they_do(lab):
    operations, functions = lab("symbols").shares(lab("symbols").parse(SCRIPT))
    assert operations == {"grant operations": 25, "copy": 25, "front end": 25, "rest": 25} # and one that is idle
    assert functions == {"tlb_finish_mmu": 25, "__memmove_avx512_unaligned_erms": 25}


def test_an_idle_cpu_has_no_shares(lab):
    assert lab("symbols").shares(lab("symbols").parse("swapper \n\tffffffff81000001 do_idle\n\n")) == [{}, {}]


@pytest.mark.parametrize("driver, passes", [(0.7, True), (0.9, False)])
def test_workloads_rows_and_bars(lab, driver, passes):
    workloads, explained = lab("workloads"), []
    figures = {config: {"time": 1.0, "driver": 1.0, "sleeps": 2} for config in workloads.VIFDS}
    figures[workloads.SHARED] = {"time": 0.9, "driver": driver, "sleeps": 3}
    figures[workloads.NATIVE] = {"time": 0.8}
    taken = {name: {config: [workloads.Sample(figures[config])] * 3 for config in workloads.CONFIGS} for name in workloads.PAPER}
    rows = workloads.rows_of(taken)
    assert {row["paper_ratio"] for row in rows if row["config"] == workloads.SHARED and "paper_ratio" in row} == set(workloads.PAPER.values())
    assert not [row for row in rows if row["config"] == workloads.NATIVE and "driver" in row["metric"]]
    bars = workloads.bars_of(taken, lambda *what: explained.append(what))
    assert {bar["metric"].partition(":")[0] for bar in bars} == set(workloads.PAPER)
    assert [bar["pass"] for bar in bars if "driver" in bar["metric"]] == [passes] * len(workloads.PAPER)
    assert all(bar["pass"] for bar in bars if bar["metric"].endswith(": time"))
    assert explained[0][2][workloads.SHARED] == {"driver": driver, "sleeps": 3}


def test_consolidation_rows_and_bars(lab):
    consolidation = lab("consolidation")
    figures = dict.fromkeys(consolidation.METRICS, 1.0)
    alone = {config: [consolidation.Sample(figures, 0.5)] * 3 for config in consolidation.EARLIER}
    together = {case: {config: [consolidation.Sample(figures, 0.5)] * 3 for config in consolidation.MERGING} for case in consolidation.CASES}
    rows = consolidation.rows_of(alone, together)
    assert len(rows) == 6 + len(consolidation.METRICS) * len(consolidation.CASES) * len(consolidation.MERGING)
    assert all(bar["pass"] for bar in consolidation.bars_of(together))
    together[consolidation.MOST]["auto"] = [consolidation.Sample({**figures, "fairness": 0.5}, 0.5)] * 3
    assert [bar["pass"] for bar in consolidation.bars_of(together)] == [True, False]


def test_two_nodes_render_what_one_does():
    ray, passes = program("lab/ray"), "2" # the second pass has the first one's picture in it
    alone = subprocess.run([ray, "alone", passes], capture_output=True, text=True, check=True, timeout=60).stdout
    ends = socket.socketpair()
    nodes = [subprocess.Popen([ray, "node", str(end.fileno()), str(which), passes], stdout=subprocess.PIPE, text=True,
                              pass_fds=[end.fileno()]) for which, end in enumerate(ends)]
    for end in ends:
        end.close()
    said = [node.communicate(timeout=60)[0] for node in nodes]
    assert [one.split()[0] for one in said] == [alone.split()[0]] * 2


def test_a_node_ends_when_the_other_one_does():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        node = subprocess.Popen([program("lab/ray"), "node", str(theirs.fileno()), "0", "1000"], stdout=subprocess.PIPE,
                                pass_fds=[theirs.fileno()])
        theirs.close()
        ours.send(b"\0") # it has begun
        ours.close()
        assert node.wait(timeout=60) and node.stdout.read() == b""
        node.stdout.close()


def test_usage(tmp_path):
    for words in ([], ["alone"], ["node", "3", "0"]):
        done = subprocess.run([program("lab/ray"), *words], capture_output=True, text=True, timeout=10)
        assert done.returncode and "usage" in done.stderr
    path = tmp_path / "picture.ppm"
    subprocess.run([program("lab/ray"), "alone", "1", path], check=True, capture_output=True, timeout=60)
    assert path.read_bytes().startswith(b"P6\n640 480\n255\n") and path.stat().st_size == 15 + 640 * 480 * 3
