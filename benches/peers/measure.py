"""Slices of load that take turns among the servers, and what a server used meanwhile.

Slices are short and in changing order, so that a slow moment of the machine meets all servers. Every function gives
figures as {server: {figure: [a value a round]}}.
"""

import contextlib
import fcntl
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from servers import run

# Queries in flight that fit the receive buffer of every server: the system's default of 208 KiB holds 277.
WINDOW = 256
PERF_HZ = 3999  # no divisor or multiple of the timer tick


class Bench:
    def __init__(self, work, load_cpu, lock=None):
        self.work, self.load_cpu, self.lock = work, load_cpu, lock
        self.random = random.Random(4)

    def turn(self):
        """Holds the lock that keeps other measurements of this machine quiet, if there is one."""
        if not self.lock:
            return contextlib.nullcontext()
        file = open(self.lock, "w")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def load(self, peer, kind, seconds, mode, n, under=()):
        command = [*under, "taskset", "-c", self.load_cpu, self.work / "load", peer.port, self.work / f"queries.{kind}", seconds, mode, n]
        return json.loads(run(*command, capture_output=True).stdout)

    def tcp(self, peer, kind, seconds, mode, *n):
        command = ["taskset", "-c", self.load_cpu, self.work / "load_tcp", peer.port, self.work / f"queries.{kind}", seconds, mode, *n]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def rounds(self, peers, count, slice_of):
        """One slice a server a round. The order of a round is random."""
        figures = {peer.name: {} for peer in peers}
        for _ in range(count):
            for peer in self.random.sample(peers, len(peers)):
                for key, value in slice_of(peer).items():
                    figures[peer.name].setdefault(key, []).append(value)
        return figures

    def saturated(self, peers, kind, rounds, seconds=0.5, window=WINDOW):
        """As many queries as get answered, with `window` of them in flight."""

        def one(peer):
            before = cpu_seconds(peer)
            result = self.load(peer, kind, seconds, "window", window)
            spent = cpu_seconds(peer) - before
            check(peer, result)
            return {
                "answered/s": result["in_time"] / result["seconds"],
                "CPU µs": 1e6 * spent / result["answered"],
                "busy": spent / result["seconds"],
                "load busy": result["cpu"] / result["seconds"],
                "lost": result["lost"] / result["sent"],
                "bytes": result["bytes"] / result["answered"],
            }

        with self.turn():
            self.rounds(peers, 1, one)  # warm
            return self.rounds(peers, rounds, one)

    def user_share(self, peers, kind, rounds, seconds=0.5, window=WINDOW):
        """Which share of a server's CPU time is user time, under the load of `saturated`. Sampled, because a kernel that
        accounts by ticks knows only the sum well, and virtual machines often count no cycles."""
        count = self.user_samples if shutil.which("perf") else self.user_ticks

        def one(peer):
            return dict(zip(("user", "all"), count(peer, kind, seconds, "window", window)))

        with self.turn():
            counted = self.rounds(peers, rounds, one)
        return {name: sum(row["user"]) / max(sum(row["all"]), 1) for name, row in counted.items()}

    def user_samples(self, peer, *load):
        """Samples by a high-resolution timer: those in user mode, and all."""
        data, pids = self.work / "perf.data", ",".join(map(str, peer.processes()))
        perf = ["perf", "record", "-q", "-e", "cpu-clock", "-F", PERF_HZ, "-o", data, "-p", pids, "--"]
        check(peer, self.load(peer, *load, under=perf))
        script = run("perf", "script", "-i", data, "-F", "ip", capture_output=True, text=True).stdout
        addresses = [int(line, 16) for line in script.split()]
        return sum(address < 1 << 63 for address in addresses), len(addresses)

    def user_ticks(self, peer, *load):
        """Timer ticks: those in user mode, and all."""

        def ticks():
            user = system = 0
            for pid in peer.processes():
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                user, system = user + int(fields[11]), system + int(fields[12])
            return user, system

        before = ticks()
        check(peer, self.load(peer, *load))
        after = ticks()
        return after[0] - before[0], sum(after) - sum(before)

    def paced(self, peers, kind, rounds, rate=20_000, seconds=1.0):
        def one(peer):
            before = cpu_seconds(peer)
            result = self.load(peer, kind, seconds, "rate", rate)
            spent = cpu_seconds(peer) - before
            check(peer, result)
            row = {key: result[key] for key in ("p50", "p99", "p999")}
            return row | {"CPU µs": 1e6 * spent / result["answered"], "lost": result["lost"] / result["sent"]}

        with self.turn():
            return self.rounds(peers, rounds, one)

    def overload(self, peers, kind, rounds, seconds=0.5, times=3, quota=0.25):
        """Three times what a server can answer, sent whatever comes back. One load CPU can't send that much to a whole
        CPU, so the server gets a share of it by a cgroup's quota. Before and after: `WINDOW` in flight."""

        def one(peer):
            with limited(peer, quota):
                peak = self.load(peer, kind, seconds, "window", WINDOW)
                rate = times * peak["in_time"] / peak["seconds"]
                flood = self.load(peer, kind, seconds, "rate", int(rate))
                after = self.load(peer, kind, seconds, "window", WINDOW)
            for result in (peak, after):
                check(peer, result)
            per_second = [result["in_time"] / result["seconds"] for result in (peak, flood, after)]
            return {
                "peak/s": per_second[0],
                "offered": flood["sent"] / flood["seconds"] / per_second[0],
                "answered": per_second[1] / per_second[0],
                "after": per_second[2] / per_second[0],
                **{key: flood[key] for key in ("p50", "p99") if key in flood},  # none when nothing was answered
            }

        with self.turn():
            return self.rounds(peers, rounds, one)

    def tcp_persistent(self, peers, kind, rounds, seconds=0.5, connections=10, window=32):
        def one(peer):
            before, load_before = cpu_seconds(peer), cpu_of_children()
            result = self.tcp(peer, kind, seconds, "persistent", connections, window)
            spent, load_spent = cpu_seconds(peer) - before, cpu_of_children() - load_before
            if not result or not result["answered"]:
                return {"answered/s": 0.0}
            assert result["good"] == result["answered"], f"{peer.name}: {result}"
            return {
                "answered/s": result["answered"] / result["seconds"],
                "CPU µs": 1e6 * spent / result["answered"],
                "busy": spent / result["seconds"],
                "load busy": load_spent / result["seconds"],
                "p50": result["p50"],
                "p99": result["p99"],
                "lost": result["lost"] / result["sent"],
            }

        with self.turn():
            return self.rounds(peers, rounds, one)

    def tcp_connects(self, peers, kind, rounds, seconds=0.5, concurrency=10):
        def one(peer):
            result = self.tcp(peer, kind, seconds, "connect", concurrency)
            if not result:
                return {"connections/s": 0.0}
            return {"connections/s": result["connections"] / result["seconds"], "failed": result["failed"]}

        with self.turn():
            return self.rounds(peers, rounds, one)

    def tcp_idle(self, peers, kind, connections):
        """Connections that each asked once and stay open: memory of the process meanwhile."""

        def one(peer):
            before = memory(peer)["resident MiB"]
            command = ["taskset", "-c", self.load_cpu, self.work / "load_tcp", peer.port, self.work / f"queries.{kind}", 1, "idle", connections]
            load = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            held = load.stderr.readline() == "holding\n"
            meanwhile = memory(peer)["resident MiB"]
            output, _ = load.communicate(timeout=60)
            if not held or load.returncode:
                return {}
            result = json.loads(output)
            return {**result, "KiB each": 1024 * (meanwhile - before) / max(result["opened"], 1)}

        with self.turn():
            return self.rounds(peers, 1, one)


def check(peer, result):
    assert result["good"] == result["answered"] > 0, f"{peer.name}: {result}"
    assert result["strange"] <= result["lost"], f"{peer.name}: answers that nobody asked for: {result}"


def cpu_seconds(peer):
    """CPU time of the server's processes in seconds, by their own clocks: nanoseconds on a CPU in user and system mode
    together, exited threads included (PowerDNS has a thread a TCP connection)."""
    # The clock that clock_getcpuclockid(3) makes of a process id.
    return sum(time.clock_gettime_ns(~pid << 3 | 2) for pid in peer.processes()) / 1e9


def cpu_of_children():
    """Of those that have ended: here the load generators."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def how_split():
    if shutil.which("perf"):
        return f"user and system apart by perf's cpu-clock, {PERF_HZ} samples a second, in slices of their own"
    return "user and system apart by the kernel's timer ticks, in slices of their own"


def memory(peer):
    """Resident memory of the server's processes. What they share counts for each; files mapped count as far as read."""
    sums = {"Rss": 0, "Anonymous": 0}
    for pid in peer.processes():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            key = line.split(":")[0]
            if key in sums:
                sums[key] += int(line.split()[1])
    return {"resident MiB": sums["Rss"] / 1024, "anonymous MiB": sums["Anonymous"] / 1024}


@contextlib.contextmanager
def limited(peer, share, period_us=5000):
    """`share` of one CPU for the server, by cgroup v2 or v1; root's affair. Without cgroups nothing is limited."""
    groups = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")]
    v2 = (groups[0] / "cgroup.subtree_control").exists()
    parent = groups[0] if v2 else groups[1]
    if not os.access(parent, os.W_OK):
        yield
        return
    group, quota = parent / f"peers-{peer.name}", int(share * period_us)
    homes = {pid: cgroup_of(pid, v2) for pid in peer.processes()}
    group.mkdir(exist_ok=True)
    try:
        if v2:
            (group / "cpu.max").write_text(f"{quota} {period_us}")
            (group / "cpu.weight").write_text("10000")
        else:
            (group / "cpu.cfs_period_us").write_text(str(period_us))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
            (group / "cpu.shares").write_text("262144")
        for pid in homes:
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for pid, home in homes.items():
            (parent / home / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def cgroup_of(pid, v2):
    """The path of the group that the process is in, below the hierarchy's root."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if (v2 and number == "0") or "cpu" in controllers.split(","):
            return path.lstrip("/")
    return ""


def median_ratio(figures, key, name, base):
    """Median and quartiles of each round's own ratio."""
    ratios = [a / b for a, b in zip(figures[name].get(key, []), figures[base].get(key, [])) if b]
    if not ratios:
        return None
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return quartiles[1], quartiles[0], quartiles[2]
