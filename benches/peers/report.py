"""Tables in Markdown, and the plot."""

import statistics

from measure import WINDOW, median_ratio
from servers import PEERS

OURS, FLOOR, RIVAL = "meridian", "bare", "gdnsd"


def table(heads, rows):
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def median(figures, name, key, form):
    values = figures[name].get(key)
    return format(statistics.median(values), form) if values else "–"


def ratio(figures, key, name, base):
    found = median_ratio(figures, key, name, base) if name in figures and base in figures and name != base else None
    return "{:.2f} ({:.2f}–{:.2f})".format(*found) if found else "–"


def lines(figures, columns, ratios=()):
    """A row a server. `columns`: (head, key, format); `ratios`: (head, key, numerator or None, denominator or None),
    where None stands for the row's own server."""
    heads = ["", *(column[0] for column in columns), *(column[0] for column in ratios)]
    rows = []
    for name in figures:
        row = [PEERS[name].title, *(median(figures, name, key, form) for _, key, form in columns)]
        for _, key, above, below in ratios:
            row.append(ratio(figures, key, above or name, below or name))
        rows.append(row)
    table(heads, rows)


def standing(facts):
    print("\n### At rest\n")
    columns = {
        "start to first answer, ms": ("start ms", ".0f"),
        "resident MiB after load": ("resident MiB", ".0f"),
        "of it anonymous": ("anonymous MiB", ".0f"),
        "nearest region": ("right", ".1%"),
        "median ECS scope": ("scope", ".0f"),
    }
    rows = []
    for name, row in facts.items():
        cells = ["–" if row.get(key) is None else format(row[key], form) for key, form in columns.values()]
        rows.append([PEERS[name].title, *cells])
    table(["", *columns], rows)


def saturated(title, figures, user):
    print(f"\n### {WINDOW} queries in flight: {title}\n")
    for name, rows in figures.items():
        if name in user:
            rows["user µs"] = [cost * user[name] for cost in rows["CPU µs"]]
            rows["system µs"] = [cost * (1 - user[name]) for cost in rows["CPU µs"]]
    lines(
        figures,
        [("answered/s", "answered/s", ",.0f"), ("CPU µs an answer", "CPU µs", ".2f"), ("user", "user µs", ".2f"),
         ("system", "system µs", ".2f"), ("server's CPU busy", "busy", ".0%"), ("load's CPU busy", "load busy", ".0%"),
         ("unanswered", "lost", ".2%"), ("bytes", "bytes", ".1f")],
        [("rate ÷ bare's", "answered/s", None, FLOOR), ("CPU ÷ bare's", "CPU µs", None, FLOOR),
         ("Meridian's rate ÷ its", "answered/s", OURS, None), ("Meridian's CPU ÷ its", "CPU µs", OURS, None)])
    if {OURS, FLOOR} <= user.keys():
        above = [a - b for a, b in zip(figures[OURS]["user µs"], figures[FLOOR]["user µs"])]
        print(f"User CPU an answer above the bare responder's: {1000 * statistics.median(above):.0f} ns.\n")


def paced(title, figures):
    print(f"\n### 20,000 queries a second: {title}; latencies in µs\n")
    lines(
        figures,
        [("p50", "p50", ".0f"), ("p99", "p99", ".0f"), ("p99.9", "p999", ".0f"), ("CPU µs an answer", "CPU µs", ".2f"),
         ("unanswered", "lost", ".2%")],
        [("p50 ÷ gdnsd's", "p50", None, RIVAL), ("p99 ÷ gdnsd's", "p99", None, RIVAL), ("p99 ÷ bare's", "p99", None, FLOOR)])


def overload(figures, quota):
    print(f"\n### Three times what it can answer, on {quota:.0%} of a CPU; latencies of what was answered, in µs\n")
    lines(figures, [("peak/s before", "peak/s", ",.0f"), ("offered ÷ peak", "offered", ".2f"), ("answered ÷ peak", "answered", ".2f"),
                    ("p50", "p50", ",.0f"), ("p99", "p99", ",.0f"), ("rate in the next slice ÷ peak", "after", ".2f")])


def tcp(persistent, connects, idle):
    print("\n### TCP: ten persistent connections, 32 queries in flight on each\n")
    lines(
        persistent,
        [("answered/s", "answered/s", ",.0f"), ("CPU µs an answer", "CPU µs", ".2f"), ("server's CPU busy", "busy", ".0%"),
         ("load's CPU busy", "load busy", ".0%"), ("p50 µs", "p50", ",.0f"), ("p99 µs", "p99", ",.0f"), ("unanswered", "lost", ".2%")],
        [("Meridian's rate ÷ its", "answered/s", OURS, None), ("Meridian's CPU ÷ its", "CPU µs", OURS, None)])
    print("\n### TCP: one query a connection, ten connections at a time\n")
    lines(connects, [("connections/s", "connections/s", ",.0f"), ("failed", "failed", ".0f")],
          [("Meridian's ÷ its", "connections/s", OURS, None)])
    print("\n### TCP: idle connections, each of which asked once\n")
    lines(idle, [("opened", "opened", ",.0f"), ("answered afterwards", "answered_after", ",.0f"),
                 ("KiB of the process each", "KiB each", ".1f")])


def plot(path, title, figures, subtitle):
    """Answers a second, and CPU time an answer with user and system stacked, of the figures that `saturated` printed."""
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "peers", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot

    names = sorted(figures, key=lambda name: statistics.median(figures[name]["CPU µs"]), reverse=True)
    titles = [PEERS[name].title for name in names]
    values = {key: [statistics.median(figures[name].get(key, [0])) for name in names] for key in ("answered/s", "user µs", "system µs")}
    whole, (rate, cost) = pyplot.subplots(1, 2, figsize=(11, 0.5 * len(names) + 1.8), sharey=True)
    ours = ["#c44e2b" if name == OURS else "#8899aa" for name in names]
    bars = rate.barh(titles, [value / 1000 for value in values["answered/s"]], color=ours)
    rate.bar_label(bars, fmt="%.0f", padding=3)
    rate.set_xlabel("thousand answers a second")
    system = cost.barh(titles, values["system µs"], color="#b8c4ce", label="system")
    user = cost.barh(titles, values["user µs"], left=values["system µs"], color="#3b6ea5", label="user")
    cost.bar_label(user, labels=[f"{a + b:.2f}" for a, b in zip(values["system µs"], values["user µs"])], padding=3)
    cost.set_xlabel("CPU µs an answer")
    cost.legend(frameon=False, loc="upper right")
    for axes in (rate, cost):
        axes.margins(x=0.12)
    whole.suptitle(title, fontsize=12)
    whole.text(0.5, 0.005, subtitle.rsplit("; user and", 1)[0], ha="center", fontsize=7, color="#555555")
    whole.tight_layout(rect=(0, 0.03, 1, 1))
    whole.savefig(path, metadata={"Date": None})
