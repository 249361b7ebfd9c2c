"""The servers: how each is set up to serve the same steered name, started on one CPU, and stopped.

Every one listens on 127.0.0.1 (or on every address) with one worker, keeps no log of queries and limits no rate.
"""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import queries

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"

ZONE = queries.NAME.split(".", 1)[1]
LABEL = queries.NAME.split(".", 1)[0]
TTL = 20
REGIONS = {
    # name: (latitude, longitude, two addresses); two regions in Europe and in North America, one elsewhere
    "us-east": (39.04, -77.49, ["192.0.2.11", "192.0.2.12"]),
    "us-west": (37.34, -121.89, ["192.0.2.21", "192.0.2.22"]),
    "eu-west": (51.51, -0.13, ["192.0.2.31", "192.0.2.32"]),
    "eu-central": (50.11, 8.68, ["192.0.2.41", "192.0.2.42"]),
    "ap-south": (19.08, 72.88, ["192.0.2.51", "192.0.2.52"]),
    "ap-southeast": (1.35, 103.82, ["192.0.2.61", "192.0.2.62"]),
    "ap-northeast": (35.68, 139.69, ["192.0.2.71", "192.0.2.72"]),
    "sa-east": (-23.55, -46.63, ["192.0.2.81", "192.0.2.82"]),
}
FALLBACK = "us-east"
FIXED = REGIONS[FALLBACK][2]
SOA = f"SOA ns.example.net. hostmaster.{ZONE}. 1 3600 600 604800 30"

# For the section of idle connections, since the defaults are lower: 10,000 for Meridian, 256 for gdnsd, and so on.
CONNECTIONS = 45_000
TCP_IDLE = 60  # seconds

# Debian packages of programs that may be missing.
PACKAGES = {"gdnsd": "gdnsd", "knotd": "knot", "nsd": "nsd", "pdns_server": "pdns-server", "gcc": "gcc", "taskset": "util-linux"}
# ... and of parts without a program of their own.
EXTRA = {"knot": "knot-module-geoip", "powerdns": "pdns-backend-geoip"}


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def program(name):
    return shutil.which(name, path=PATH)


def install(packages):
    """From Debian, as root. Debian starts a packaged server at once; a policy forbids that meanwhile."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    policy = Path("/usr/sbin/policy-rc.d")
    forbid = not policy.exists()
    if forbid:
        run(*sudo, "install", "-m", "755", "/dev/stdin", policy, input=b"#!/bin/sh\nexit 101\n")
    try:
        run(*sudo, "apt-get", "update", "-q", stdout=subprocess.DEVNULL)
        run(*sudo, "apt-get", "install", "-qy", "--no-install-recommends", *packages, stdout=subprocess.DEVNULL)
    finally:
        if forbid:
            run(*sudo, "rm", policy)


def missing_packages(chosen):
    programs = {"gcc", "taskset"} | {PEERS[name].needs for name in chosen} - {None}
    missing = [PACKAGES[need] for need in programs if not program(need)]
    extra = [EXTRA[name] for name in chosen if name in EXTRA]
    status = "${db:Status-Status}"
    for package in [*extra, "python3-maxminddb"]:
        known = subprocess.run(["dpkg-query", "-Wf", status, package], capture_output=True, text=True)
        if known.stdout != "installed":
            missing.append(package)
    return missing


class Setting:
    """What all servers share."""

    def __init__(self, work, database, countries, cpu, address):
        self.work, self.database, self.countries, self.cpu, self.address = work, database, countries, cpu, address

    def folder(self, name, *parts):
        """A fresh one."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("", *parts):
            (folder / part).mkdir(parents=True, exist_ok=True)
        return folder


class Peer:
    """A server that can be started. `set_up` writes its files and gives the command line."""

    title = None
    needs = None  # the program that a Debian package brings
    steers = True  # by the query's ECS option
    tcp = True

    def __init__(self, setting, port):
        self.setting, self.port, self.process = setting, port, None
        self.command = [str(word) for word in self.set_up()]

    @property
    def name(self):
        return type(self).__name__.lower()

    @property
    def listen(self):
        return self.setting.address

    def start(self):
        """Waits for the first answer, and gives the seconds until then."""
        log = self.setting.work / f"{self.name}.log"
        began = time.monotonic()
        with open(log, "w") as out:
            command = ["taskset", "-c", str(self.setting.cpu), *self.command]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, process_group=0)
        while True:
            if self.process.poll() is not None:
                sys.exit(f"{self.name} did not start:\n{log.read_text()}")
            try:
                answer = queries.ask(self.port, queries.query(next(queries.subnets(1, seed=1))), timeout=0.2)
                if answer.addresses:
                    return time.monotonic() - began
            except OSError:
                pass
            if time.monotonic() > began + 120:
                self.stop()
                sys.exit(f"{self.name} does not answer:\n{log.read_text()}")
            time.sleep(0.005)

    def stop(self):
        """Ends the server and what it forked."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # the group that `start` made, whoever is left of it
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process = None

    def processes(self):
        found, wanted = [], [self.process.pid]
        while wanted:
            pid = wanted.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                wanted += map(int, children.read_text().split())
        return found


class Meridian(Peer):
    title = "Meridian"
    binary = ROOT / "target/release/meridian"

    def set_up(self):
        folder = self.setting.folder("meridian", "zones", "state")
        text = f'zone = "{ZONE}"\nns = ["ns.example.net"]\nttl = "{TTL}s"\n[stream.{LABEL}]\nanswers = 2\n'
        for region, (lat, lon, addresses) in REGIONS.items():
            text += f"[region.{region}]\nat = [{lat}, {lon}]\na = {json.dumps(addresses)}\n"
        (folder / "zones" / f"{ZONE}.toml").write_text(text)
        # A build may replace the binary while we measure.
        binary = shutil.copy(self.binary, folder)
        (folder / "meridian.toml").write_text(
            f'[limits]\ntcp_connections = {CONNECTIONS}\ntcp_idle = "{TCP_IDLE}s"\n')
        return [binary, "serve", "--config", folder / "meridian.toml", "--zones", folder / "zones", "--geoip", self.setting.database, "--workers", 1,
                "--listen", f"{self.listen}:{self.port}", "--admin", f"127.0.0.1:{self.port + 50}", "--state", folder / "state"]


class Bare(Peer):
    """Its templates are what `model`, a running server, answers."""

    title = "bare responder"
    steers = tcp = False
    model = None

    def set_up(self):
        folder = self.setting.folder("bare")
        kinds = [queries.query(), *(queries.query(next(queries.subnets(1, seed=2, sixth_of=share))) for share in (0, 1))]
        with open(folder / "templates", "wb") as file:
            for wire in kinds:
                for message in (wire, queries.ask(self.model.port, wire).wire):
                    file.write(struct.pack("!H", len(message)) + message)
        run("gcc", "-O2", "-Wall", "-o", folder / "bare", HERE / "bare.c")
        return [folder / "bare", self.listen, self.port, folder / "templates"]


class Gdnsd(Peer):
    title = "gdnsd, geoip"
    needs = "gdnsd"

    def set_up(self):
        folder = self.setting.folder("gdnsd", "zones", "run", "state", "geoip")
        coordinates = "".join(f"{region} => [{lat}, {lon}]\n" for region, (lat, lon, _) in REGIONS.items())
        addresses = "".join(f"{region} => [{', '.join(a)}]\n" for region, (_, _, a) in REGIONS.items())
        (folder / "config").write_text(f"""
options => {{
  listen => {{ {self.listen}:{self.port} => {{ udp_threads = 1 tcp_threads = 1 tcp_clients_per_thread = {CONNECTIONS} tcp_timeout = {TCP_IDLE} }} }}
  run_dir = {folder}/run
  state_dir = {folder}/state
}}
plugins => {{ geoip => {{
  maps => {{ nearest => {{
    geoip2_db => {self.setting.database}
    datacenters => [{', '.join(REGIONS)}]
    auto_dc_coords => {{ {coordinates} }}
  }} }}
  resources => {{ {LABEL} => {{ map => nearest, service_types => up, dcmap => {{ {addresses} }} }} }}
}} }}
""")
        (folder / "zones" / ZONE).write_text(
            f"@ 300 SOA ns.example.net. hostmaster.{ZONE}. (1 3600 600 604800 30)\n"
            f"@ 86400 NS ns.example.net.\n{LABEL} {TTL} DYNA geoip!{LABEL}\n")
        return [program("gdnsd"), "-c", folder, "start"]


class Knot(Peer):
    """Knows no distance: a region for each country, the one that is nearest to most of its addresses."""

    title = "Knot, geoip"
    needs = "knotd"

    def set_up(self):
        folder = self.setting.folder("knot", "run", "db")
        records = "".join(
            f"  - geo: {country}\n    A: [ {', '.join(REGIONS[region][2])} ]\n"
            for country, region in self.setting.countries.items())
        (folder / "geo.conf").write_text(f"{queries.NAME}.:\n{records}")
        (folder / "zone").write_text(
            f"$ORIGIN {ZONE}.\n$TTL {TTL}\n@ 300 {SOA}\n@ 86400 NS ns.example.net.\n"
            + "".join(f"{LABEL} A {address}\n" for address in FIXED))
        (folder / "knot.conf").write_text(f"""
server:
    rundir: {folder}/run
    listen: {self.listen}@{self.port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    edns-client-subnet: on
    tcp-max-clients: {CONNECTIONS}
    tcp-idle-timeout: {TCP_IDLE}
database:
    storage: {folder}/db
log:
  - target: stderr
    any: warning
mod-geoip:
  - id: nearest
    config-file: {folder}/geo.conf
    ttl: {TTL}
    mode: geodb
    geodb-file: {self.setting.database}
    geodb-key: country/iso_code
zone:
  - domain: {ZONE}
    file: {folder}/zone
    zonefile-sync: -1
    journal-content: none
    module: mod-geoip/nearest
""")
        return [program("knotd"), "-c", folder / "knot.conf"]


class PowerDNS(Peer):
    """Knows no distance, as Knot."""

    title = "PowerDNS, geoip"
    needs = "pdns_server"

    def set_up(self):
        folder = self.setting.folder("powerdns")
        places = "".join(f"  {country.lower()}: {region}\n" for country, region in self.setting.countries.items())
        records = "".join(
            f"      {region}.{ZONE}:\n" + "".join(f"        - a: {address}\n" for address in addresses)
            for region, (_, _, addresses) in REGIONS.items())
        (folder / "zones.yaml").write_text(f"""
custom_mapping:
{places}mapping_lookup_formats: ['%cc']
domains:
  - domain: {ZONE}
    ttl: {TTL}
    records:
      {ZONE}:
        - soa: ns.example.net. hostmaster.{ZONE}. 1 3600 600 604800 30
        - ns: ns.example.net.
{records}    services:
      {queries.NAME}: ['%mp.{ZONE}', '{FALLBACK}.{ZONE}']
""")
        (folder / "pdns.conf").write_text(f"""
launch=geoip
geoip-zones-file={folder}/zones.yaml
geoip-database-files=mmdb:{self.setting.database}
edns-subnet-processing=yes
local-address={self.listen}
local-port={self.port}
receiver-threads=1
distributor-threads=1
max-tcp-connections={CONNECTIONS}
tcp-idle-timeout={TCP_IDLE}
socket-dir={folder}
loglevel=3
daemon=no
guardian=no
setuid=
setgid=
""")
        return [program("pdns_server"), f"--config-dir={folder}"]


class NSD(Peer):
    """Steers nothing and echoes no ECS option: its answers are 11 to 14 bytes shorter than ours."""

    title = "NSD, static zone"
    needs = "nsd"
    steers = False

    def set_up(self):
        folder = self.setting.folder("nsd")
        (folder / "zone").write_text(
            f"$ORIGIN {ZONE}.\n$TTL {TTL}\n@ 300 {SOA}\n@ 86400 NS ns.example.net.\n"
            + "".join(f"{LABEL} A {address}\n" for address in FIXED))
        (folder / "nsd.conf").write_text(f"""
server:
    ip-address: {self.listen}@{self.port}
    server-count: 1
    tcp-count: {CONNECTIONS}
    tcp-timeout: {TCP_IDLE}
    username: ""
    chroot: ""
    zonesdir: "{folder}"
    database: ""
    pidfile: "{folder}/nsd.pid"
    xfrdfile: "{folder}/xfrd.state"
    zonelistfile: "{folder}/zone.list"
    minimal-responses: yes
    rrl-ratelimit: 0
    rrl-whitelist-ratelimit: 0
    verbosity: 0
remote-control:
    control-enable: no
zone:
    name: {ZONE}
    zonefile: zone
""")
        return [program("nsd"), "-d", "-c", folder / "nsd.conf"]


class Hickory(Peer):
    title = "hickory-server, fixed answer"
    steers = False
    binary = ROOT / "target/release/examples/hickory"

    def set_up(self):
        binary = shutil.copy(self.binary, self.setting.folder("hickory"))
        return [binary, f"{self.listen}:{self.port}", queries.NAME, TTL, *FIXED]


# In this order, since the bare responder takes its templates from the first.
PEERS = {"meridian": Meridian, "bare": Bare, "gdnsd": Gdnsd, "nsd": NSD, "knot": Knot, "hickory": Hickory, "powerdns": PowerDNS}
