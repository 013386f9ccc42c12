def print_table(f):
    for m in f.measurements():
        if not m["metric"].startswith("phase"): print(m["workload"], "|", m["subject"], "|", m["link"], "|", m["metric"], m["median"], m["unit"], min(m["samples"]), max(m["samples"]))
def write_page(*a): pass
