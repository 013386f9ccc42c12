"""What people read: a table on the terminal, and docs/benchmarks.md with its plots, both made from the figures alone."""

import os
import statistics

from plot import Bar, plot

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(TOP, "docs", "benchmarks.md")
PLOTS = os.path.join(TOP, "docs", "benchmarks")
COLUMNS = (("downtime", "downtime, ms"), ("total", "total, ms"), ("wire", "wire, MiB"), ("cpu source", "CPU source, s"),
           ("cpu target", "CPU target, s"), ("peak source", "peak source, MiB"), ("peak target", "peak target, MiB"),
           ("throughput", "throughput, %"), ("bulk speed", "bulk, MB/s"),
           ("others", "others' CPU, %"))
# What becomes of a page's sections: the metric, its title, its unit, the file.
PLOTTED = (("downtime", "Downtime, as seen from a third host", "ms", "downtime"), ("total", "From the first command to the last", "ms", "total"),
           ("bulk speed", "Bulk copy, first round", "MB/s", "bulk"))

INTRODUCTION = """# Benchmarks

Made by `make bench` from build/bench/results.json. phaul is measured beside its peers, on the same workload, in the same lab
([lab.md](lab.md)), in turns; each cell is the median, with the smallest and the largest sample in brackets. Ratios hold elsewhere better
than absolute times do: both hosts, the link, the clients and the observer share this machine's processors.

- **downtime**: the longest silence of the workload, which beats by UDP every millisecond, at an observer on a third host.
- **total**: from the start of the first command to the end of the last; for phaul that includes the pager's filling of memory after the
  workload runs again.
- **wire**: what the counters of the source's link say, beats and clients included. **CPU**: of all processes of the host, the workload
  included. **Peak**: processes' memory and files in memory, above what the host had before; page cache not included.
- **throughput**: work done per second from the first command to the last, downtime left out, of that in the second before.
- **others' CPU**: how much of this machine's processors went to what belongs to no host of the lab meanwhile (the kernel's part of the network
  included): where that is large, figures are worse than they could be.
- **bulk**: phaul's first round (TLS on), one TCP stream of iperf3, and the plain copy of a file from memory to memory.
- **phaul runc**, **phaul docker**, ... move the container; **phaul pid** beside an engine moves the same workload as a bare process tree, by a
  phaul that did not know that engine yet.

Each sample moves a workload that was started for it, and that verifies itself afterwards; the first turn only warms up. How each subject is
driven is a file in bench/peers, two short scripts in most; what is moved is a file in bench/workloads. The peers' images lie in memory
on both sides, go over one plain TCP connection with sendfile, and their receivers wait before the clock starts; phaul encrypts.
CRIU cannot track memory on a kernel without soft-dirty, so the peers have no iterations here.

`bench/run --only NAME@LINK --runs N` measures one case anew, `bench/run --judge` judges without measuring, `bench/run --check` fails
when a bar does not hold, `make bench-bars` measures only what the bars need, `make bench-quick` takes less than five minutes.
"""


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(values):
    if not values:
        return ""
    return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"


def print_table(figures):
    print(f"{'workload':44} {'link':10} {'subject':20} {'metric':24} {'median':>10} {'min':>10} {'max':>10}")
    for one in figures.measurements():
        values = one["samples"]
        print(f"{one['workload']:44} {one['link']:10} {one['subject']:20} {one['metric']:24} {one['median']:10.2f} {min(values):10.2f} "
              f"{max(values):10.2f} {one['unit']}")


def machine_lines(machine):
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [f"{machine['cpus']} processors ({machine['cpu']}), {machine['memory_gib']} GiB, Linux {machine['kernel']}, phaul {machine['phaul']}.",
            f"{versions}.", ""]


def bar_lines(bars):
    lines = ["| bar | measured | asked for | |", "| --- | ---: | ---: | --- |"]
    for bar in bars:
        value = "not measured" if bar["value"] is None else f"{bar['value']:g}"
        sign = ("≥" if bar["at_least"] else "≤") + f" {bar['bar']:g}"
        lines.append(f"| {bar['name']} | {value} | {sign} | {'holds' if bar['holds'] else '**does not hold**'} |")
    return lines + [""]


def case_lines(figures, workload, link):
    subjects = figures.subjects(workload, link)
    samples = lambda subject, metric: figures.samples.get((workload, subject, link, metric))  # noqa: E731
    columns = [(metric, title) for metric, title in COLUMNS if any(samples(subject, metric) for subject in subjects)]
    lines = [f"### {workload}; {link}", "", "| subject | " + " | ".join(title for _, title in columns) + " |",
             "| --- |" + " ---: |" * len(columns)]
    for subject in subjects:
        lines.append(f"| {subject} | " + " | ".join(cell(samples(subject, metric)) for metric, _ in columns) + " |")
    parts = []
    for subject in subjects:
        known = {metric for metric, _ in COLUMNS} | {"fill", "rounds", "frozen"}
        others = [key[3] for key in figures.samples if key[:3] == (workload, subject, link) and key[3] not in known]
        if others:
            parts.append(f"{subject}: " + ", ".join(f"{metric.removeprefix('phase ')} {number(figures.median(workload, subject, link, metric))}"
                                                    for metric in others))
    return lines + [""] + ([f"Parts, medians, ms. {'; '.join(parts)}.", ""] if parts else [])


def plot_lines(figures):
    """Writes the plots; the lines that show them."""
    os.makedirs(PLOTS, exist_ok=True)
    lines = []
    for metric, title, unit, name in PLOTTED:
        groups = []
        for workload, link in figures.cases():
            keys = [(subject, figures.samples.get((workload, subject, link, metric))) for subject in figures.subjects(workload, link)]
            bars = [Bar(subject, min(values), statistics.median(values), max(values)) for subject, values in keys if values]
            if metric == "bulk speed" and not any(bar.subject == "iperf3" for bar in bars):
                continue
            if bars:
                groups.append((f"{workload}; {link}", bars))
        if groups:
            with open(os.path.join(PLOTS, f"{name}.svg"), "w", encoding="utf-8") as out:
                out.write(plot(title, unit, groups))
            lines += [f"![{title}](benchmarks/{name}.svg)", ""]
    return lines


def write_page(machine, figures, bars):
    lines = [INTRODUCTION, "## Machine", "", *machine_lines(machine), "## Bars", "", *bar_lines(bars), "## Plots", "", *plot_lines(figures),
             "## All cases", ""]
    for workload, link in figures.cases():
        lines += case_lines(figures, workload, link)
    with open(PAGE, "w", encoding="utf-8") as out:
        out.write("\n".join(lines).rstrip() + "\n")
