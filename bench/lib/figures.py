"""Samples, and what is made of them: medians, spreads, the file of results."""

import json
import os
import statistics


class Figures:
    """Samples by (workload, subject, link, metric), in the order in which they first came."""

    def __init__(self, measurements=()):
        self.samples, self.units = {}, {}
        for one in measurements:
            key = one["workload"], one["subject"], one["link"], one["metric"]
            self.samples[key], self.units[key] = list(one["samples"]), one["unit"]

    def add(self, workload, subject, link, metric, unit, value):
        key = workload, subject, link, metric
        self.samples.setdefault(key, []).append(round(float(value), 3))
        self.units[key] = unit

    def median(self, workload, subject, link, metric):
        """None where nothing was measured."""
        values = self.samples.get((workload, subject, link, metric))
        return statistics.median(values) if values else None

    def subjects(self, workload, link):
        """phaul first, then in the order in which they came."""
        found = dict.fromkeys(key[1] for key in self.samples if (key[0], key[2]) == (workload, link))
        return sorted(found, key=lambda subject: not subject.startswith("phaul"))

    def cases(self):
        """(workload, link) pairs."""
        return list(dict.fromkeys((key[0], key[2]) for key in self.samples))

    def take(self, other, add=False):
        """Where the other one measured the same subject with the same workload on the same link, its figures count, or, with `add`, both."""
        measured = set() if add else {key[:3] for key in other.samples}
        for key in [key for key in self.samples if key[:3] in measured]:
            del self.samples[key], self.units[key]
        for key, values in other.samples.items():
            self.samples[key] = self.samples.get(key, []) + values
            self.units[key] = other.units[key]

    def measurements(self):
        return [{"workload": workload, "subject": subject, "link": link, "metric": metric,
                 "unit": self.units[workload, subject, link, metric], "samples": values, "median": statistics.median(values)}
                for (workload, subject, link, metric), values in self.samples.items()]


def read_results(path):
    """The results of an earlier run, or empty ones."""
    if not os.path.exists(path):
        return {"machine": {}, "measurements": [], "bars": []}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write_results(path, machine, figures, bars):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as out:
        json.dump({"machine": machine, "measurements": figures.measurements(), "bars": bars}, out, indent=1)
        out.write("\n")
    os.replace(path + ".new", path)
