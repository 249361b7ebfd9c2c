"""Prepared queries, and what can be read in answers to them.

A query is for one name, type A. Files of queries hold each behind its length in two bytes, as load.c, load_tcp.c and
`dnsperf -B` read them.
"""

import ipaddress
import random
import socket
import struct

NAME = "live.stream.example"
QUESTION = b"".join(bytes([len(label)]) + label.encode() for label in NAME.split(".")) + b"\0\0\1\0\1"
SUBNET = 8  # EDNS option, RFC 7871


def subnets(count, seed, sixth_of=0.0):
    """Random public client subnets: /24, and with the chance `sixth_of` a /48 of what registries have (RFC 7871
    section 11.1 advises both lengths)."""
    rng = random.Random(seed)
    while count > 0:
        if rng.random() < sixth_of:
            high = rng.choice([0x2001, 0x2400, 0x2600, 0x2800, 0x2A00, 0x2C00])
            network = ipaddress.ip_network(((high << 112) | rng.getrandbits(20) << 92 | rng.getrandbits(12) << 80, 48))
        else:
            network = ipaddress.ip_network((rng.getrandbits(24) << 8, 24))
        if network.is_global and not network.is_multicast:
            count -= 1
            yield network


def query(network=None):
    """With EDNS of 1,232 bytes and the client's subnet, or without EDNS."""
    if network is None:
        return struct.pack("!6H", 0, 0, 1, 0, 0, 0) + QUESTION
    address = network.network_address.packed[: network.prefixlen // 8]
    family = 1 if network.version == 4 else 2
    ecs = struct.pack("!HHHBB", SUBNET, 4 + len(address), family, network.prefixlen, 0) + address
    return struct.pack("!6H", 0, 0, 1, 0, 0, 1) + QUESTION + b"\0" + struct.pack("!HHIH", 41, 1232, 0, len(ecs)) + ecs


def random_ipv4(count):
    return (query(network) for network in subnets(count, seed=7871))


def random_mixed(count):
    return (query(network) for network in subnets(count, seed=7871, sixth_of=0.2))


def no_edns(count):
    return [query()]


def resolvers(count):
    """Few subnets that come again and again, each run of all of them in another order."""
    wires = [query(network) for network in subnets(min(count, 4096), seed=4096)]
    rng = random.Random(4096)
    for _ in range(max(count // len(wires), 1)):
        rng.shuffle(wires)
        yield from wires


KINDS = {
    "ipv4": (random_ipv4, "random client subnets, IPv4 /24"),
    "mixed": (random_mixed, "random client subnets, one of five IPv6 /48, else IPv4 /24"),
    "plain": (no_edns, "no EDNS"),
    "repeating": (resolvers, "4,096 client subnets that repeat"),
}


def write(path, kind, count):
    with open(path, "wb") as file:
        for wire in KINDS[kind][0](count):
            file.write(struct.pack("!H", len(wire)) + wire)


class Answer:
    """`addresses`: the A records, sorted; `scope`: the ECS scope prefix length, None without the option."""

    def __init__(self, wire):
        self.wire = wire
        self.rcode = wire[3] & 15
        answers, authority, additional = struct.unpack("!3H", wire[6:12])
        at, self.addresses, self.scope = skip_name(wire, 12) + 4, [], None
        for i in range(answers + authority + additional):
            at = skip_name(wire, at)
            kind, _, _, length = struct.unpack("!HHIH", wire[at : at + 10])
            data = wire[at + 10 : at + 10 + length]
            if kind == 1 and i < answers:
                self.addresses.append(socket.inet_ntoa(data))
            while kind == 41 and data:
                code, size = struct.unpack("!HH", data[:4])
                if code == SUBNET:
                    self.scope = data[7]
                data = data[4 + size :]
            at += 10 + length
        self.addresses.sort()


def skip_name(wire, at):
    while wire[at]:
        if wire[at] >= 0xC0:
            return at + 2
        at += 1 + wire[at]
    return at + 1


def ask(port, wire, timeout=2.0, host="127.0.0.1"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.connect((host, port))
        client.send(wire)
        return Answer(client.recv(4096))
