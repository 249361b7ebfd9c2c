"""What the measurements of failover share: a network of their own, toy origins, and the servers that are measured."""

import ipaddress
import json
import math
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "failover"
PATHS = os.environ["PATH"] + ":/usr/sbin:/sbin"
ORIGIN_PORT = 8080


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def output(*command):
    return run(*command, capture_output=True, text=True).stdout


def install_missing(packages):
    """`packages`: {tool: Debian package}. No service is to start: only what the script starts itself is measured."""
    missing = sorted({package for tool, package in packages.items() if not shutil.which(tool, path=PATHS)})
    if not missing:
        return
    if os.geteuid() != 0:
        sys.exit(f"missing: {', '.join(missing)}")
    # What Debian asks before it starts a service just installed; 101 is no.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        run("apt-get", "update", "-q", stdout=subprocess.DEVNULL)
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        run("apt-get", "install", "-qy", "--no-install-recommends", *missing, env=environment, stdout=subprocess.DEVNULL)
    finally:
        if ours:
            policy.unlink()


def enter_own_network():
    """Goes on as root in a new network and process namespace: no packet of ours gets out, none of the host's rules is
    touched, and every process started here ends with the script."""
    if os.environ.get("FAILOVER_NAMESPACE") != "own":
        if os.geteuid() != 0:
            sys.exit("network namespaces and packet filters need root")
        os.environ["FAILOVER_NAMESPACE"] = "own"
        os.environ["PATH"] = PATHS
        command = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *sys.argv]
        os.execvp(command[0], command)
    run("ip", "link", "set", "lo", "up")
    WORK.mkdir(parents=True, exist_ok=True)


def compile_c(name):
    # Another script that runs meanwhile may be about to start it.
    fresh = WORK / f"{name}.{os.getpid()}"
    run("gcc", "-O2", "-Wall", "-Wextra", "-o", fresh, HERE / f"{name}.c")
    return fresh.rename(WORK / name)


class Origin:
    """A toy stream server, a process of its own, that can be harmed and mended."""

    def __init__(self, address, prefix=()):
        self.address, self.prefix = address, prefix
        self.start()

    def start(self):
        command = [*self.prefix, WORK / "origin", self.address, ORIGIN_PORT]
        self.process = subprocess.Popen([str(word) for word in command])

    def signal(self, number):
        os.kill(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()

    def mend(self):
        if self.process.poll() is not None:
            self.start()
        else:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGHUP)


class Refused(Exception):
    """What meridian's command line said no to."""


class Meridian:
    """A node with its own directory. `zone` is the text of its only zone file."""

    def __init__(self, binary, name, port, zone, settings="", arguments=(), fresh=True):
        self.binary, self.name, self.port, self.admin = binary, name, port, port + 1
        self.folder = WORK / name
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "zones").mkdir(parents=True, exist_ok=True)
        apex = zone.split('"')[1]
        (self.folder / "zones" / f"{apex}.toml").write_text(zone)
        (self.folder / "meridian.toml").write_text(settings)
        self.arguments = arguments
        self.start()

    def start(self):
        self.log = self.folder / "log"
        # JSON lines, since the lines for people are coloured and may change.
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--log", "json", "--listen", f"127.0.0.1:{self.port}", "--admin",
                 f"127.0.0.1:{self.admin}", *map(str, self.arguments)], cwd=self.folder, stderr=log)

    def cli(self, *words):
        command = [self.binary, *words, "--server", f"http://127.0.0.1:{self.admin}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Refused(f"meridian {' '.join(words)}: exit code {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def status(self):
        return json.loads(self.cli("status", "--json"))

    def metrics(self):
        """The Prometheus text as {line without its value: value}."""
        with socket.create_connection(("127.0.0.1", self.admin), timeout=5) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            text = b"".join(iter(lambda: client.recv(65536), b"")).decode()
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("meridian_"))
        return {name: float(value) for name, value in lines}


def knows(binary, *command):
    """Whether this meridian has the command (or the flag of a command)."""
    done = subprocess.run([binary, *command, "--help"], capture_output=True)
    return done.returncode == 0


def accepts(binary, zone):
    """Whether this meridian takes the zone file."""
    folder = WORK / "accepts"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / f"{zone.split(chr(34))[1]}.toml"
    path.write_text(zone)
    done = subprocess.run([binary, "check", path], capture_output=True, cwd=folder)
    return done.returncode == 0


def query(name, client=None, number=0):
    """A query for NAME A; with `client`, an ip_network, in an ECS option (RFC 7871 section 6)."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"
    if client is None:
        return struct.pack("!6H", number, 0, 1, 0, 0, 0) + question
    address = client.network_address.packed[: (client.prefixlen + 7) // 8]
    family = 1 if client.version == 4 else 2
    ecs = struct.pack("!HHHBB", 8, 4 + len(address), family, client.prefixlen, 0) + address
    opt = b"\0" + struct.pack("!HHIH", 41, 1232, 0, len(ecs)) + ecs
    return struct.pack("!6H", number, 0, 1, 0, 0, 1) + question + opt


def behind_name(message, at):
    while message[at] and message[at] < 0xC0:
        at += 1 + message[at]
    return at + (2 if message[at] else 1)


def addresses(message):
    at, found = behind_name(message, 12) + 4, []
    for _ in range(struct.unpack("!H", message[6:8])[0]):
        at = behind_name(message, at)
        rtype, _, _, length = struct.unpack("!HHIH", message[at : at + 10])
        at += 10
        if rtype == 1:
            found.append(socket.inet_ntoa(message[at : at + length]))
        at += length
    return found


def ask(port, wire, timeout=0.5):
    """The A records of the answer; None when there is no answer in time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.connect(("127.0.0.1", port))
        try:
            client.send(wire)
            return addresses(client.recv(4096))
        except OSError:
            return None


def wait_until(what, told, seconds):
    """Waits for `told()`; gives up with words."""
    deadline = time.monotonic() + seconds
    while not told():
        if time.monotonic() > deadline:
            sys.exit(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def quantile(values, share):
    """The smallest value that at least this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def machine():
    model = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    return f"{os.cpu_count()} CPUs ({model}), Linux {os.uname().release}"


def load_average():
    return os.getloadavg()[0]


# Regions of the runs under load: name, place. Region k has the addresses 192.0.2.(10k + 1) and (10k + 2).
PLACES = {
    "us-east": "Ashburn",
    "us-west": "San Jose, US",
    "eu-west": "London",
    "eu-central": "Frankfurt",
    "ap-northeast": "Tokyo",
    "sa-east": "São Paulo",
}


def region_zone(apex, check="", probes=None):
    """`probes`: {public address: where it is probed}."""
    text = f'zone = "{apex}"\nns = ["ns.elsewhere.example"]\n{check}'
    for k, (region, city) in enumerate(PLACES.items()):
        text += f'[region.{region}]\nnear = "{city}"\n'
        for address in public(k):
            text += f'[[region.{region}.server]]\na = "{address}"\n'
            text += f'probe = "{probes[address]}"\n' if probes else ""
    return text + "[stream.live]\nanswers = 1\n"


def public(k):
    return [f"192.0.2.{10 * k + 1}", f"192.0.2.{10 * k + 2}"]


def region_of(last_byte):
    return list(PLACES)[int(last_byte) // 10]


def write_queries(path, name, count):
    """For random public subnets of clients: /24, and of one in five /48 of what the registries have (2000::/12 on)."""
    rng = random.Random(7871)
    with open(path, "wb") as file:
        while count > 0:
            if rng.random() < 0.2:
                high = rng.choice([0x2001, 0x2400, 0x2600, 0x2800, 0x2A00, 0x2C00])
                network = ipaddress.ip_network(((high << 112) | rng.getrandbits(32) << 80, 48))
            else:
                network = ipaddress.ip_network((rng.getrandbits(24) << 8, 24))
            if network.is_global and not network.is_multicast:
                wire = query(name, network)
                file.write(struct.pack("!H", len(wire)) + wire)
                count -= 1


class Load:
    """`shares` at work: what each pass had, as it comes. A pass is a second long, and told a second after its end."""

    def __init__(self, port, name, rate, seconds):
        write_queries(WORK / "queries", name, rate)
        command = [str(word) for word in (WORK / "shares", port, WORK / "queries", seconds)]
        self.passes = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            one = json.loads(line)
            one["regions"] = dict.fromkeys(PLACES, 0)
            for last_byte, count in one["by"].items():
                one["regions"][region_of(last_byte)] += count
            self.passes.append(one)

    def wait_for(self, passes):
        wait_until(f"{passes} seconds of load", lambda: len(self.passes) >= passes or self.process.poll(), passes + 30)

    def end(self):
        self.reader.join()
        if self.process.wait() != 0:
            sys.exit("the load ended with a fault")
        return self.passes
