"""Where subnets are by the location database, and which region is nearest."""

import collections
import math
import statistics

import queries
from servers import REGIONS

REGION_OF = {tuple(sorted(addresses)): region for region, (_, _, addresses) in REGIONS.items()}


class Places:
    def __init__(self, database):
        import maxminddb  # from Debian; installed by now
        self.reader = maxminddb.open_database(str(database))

    def country_and_region(self, network):
        """None without a location, or when the database splits the subnet."""
        record, length = self.reader.get_with_prefix_len(str(network.network_address))
        location = record and record.get("location")
        if not location or "latitude" not in location or length > network.prefixlen:
            return None
        country = record.get("country", {}).get("iso_code")
        return country, nearest(location["latitude"], location["longitude"])

    def countries(self, count=100_000):
        """Of each country the region that is nearest to most of its subnets, for servers that know no distance."""
        votes = collections.defaultdict(collections.Counter)
        for network in queries.subnets(count, seed=2, sixth_of=0.2):
            found = self.country_and_region(network)
            if found and found[0]:
                votes[found[0]][found[1]] += 1
        return {country: counter.most_common(1)[0][0] for country, counter in sorted(votes.items())}

    def check(self, port, count=2000):
        """Asks for random subnets: {"right": the share that got the nearest region, "scope": median of the IPv4 scopes,
        "echoed": whether every answer to a subnet had its option}."""
        right, asked, scopes, echoed = 0, 0, [], True
        for network in queries.subnets(count, seed=1, sixth_of=0.2):
            found = self.country_and_region(network)
            if not found:
                continue
            answer = queries.ask(port, queries.query(network))
            asked += 1
            right += REGION_OF.get(tuple(answer.addresses)) == found[1]
            echoed &= answer.scope is not None
            if network.version == 4 and answer.scope is not None:
                scopes.append(answer.scope)
        return {"right": right / asked, "scope": statistics.median(scopes) if scopes else None, "echoed": echoed}


def nearest(lat, lon):
    return min(REGIONS, key=lambda region: haversine(lat, lon, *REGIONS[region][:2]))


def haversine(lat1, lon1, lat2, lon2):
    """Great-circle distance in units that only order."""
    lat1, lon1, lat2, lon2 = map(math.radians, (lat1, lon1, lat2, lon2))
    return math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
