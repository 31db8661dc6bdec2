"""Pages of Nsight Compute as the tool prints them, and reports with nothing but blocks."""

import csv
import io

IDENTITY = {
    "ID": "0", "Process ID": "77", "Process Name": "python3", "Host Name": "127.0.0.1",
    "Kernel Name": "void gemv<float, (int)4>(T1, T2)", "Context": "1", "Stream": "7",
    "Block Size": "(128, 2, 1)", "Grid Size": "(10, 3, 1)", "Device": "0", "CC": "9.0",
}  # fmt: skip
ADVICE = ["Rule Name", "Rule Type", "Rule Description", "Estimated Speedup Type",
          "Estimated Speedup"]  # fmt: skip
NEW = [*IDENTITY, "Section Name", "Metric Name", "Metric Unit", "Metric Value", *ADVICE]
OLD = ["ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Kernel Time", "Context",
       "Stream", "Section Name", "Metric Name", "Metric Unit", "Metric Value",
       "Rule Name", "Rule Type", "Rule Description"]  # fmt: skip
MESSAGES = '==PROF== Connected to process 77 (/usr/bin/python3)\nloss 3.25, "ID" of run: 5\n'


def table(rows):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue()


def raw(metrics, *kernels, before=MESSAGES):
    """Return a raw page: units of the metrics by name, then one mapping of cells a kernel."""
    names = [*IDENTITY, *metrics]
    cells = [IDENTITY | {"ID": str(i)} | k for i, k in enumerate(kernels)]
    units = [""] * len(IDENTITY) + list(metrics.values())
    return before + table([names, units, *([k.get(n, "") for n in names] for k in cells)])


def details(*kernels, columns=NEW, before=MESSAGES):
    """Return a details page: for each kernel its identity and (section, metric, unit, value)."""
    rows = []
    for i, (identity, metrics) in enumerate(kernels):
        about = IDENTITY | {"ID": str(i), "Kernel Time": "2021-May-09 15:12:33"} | identity
        fixed = [about[c] for c in columns if c in about]
        rows += [[*fixed, *metric, ""] for metric in metrics]  # the tool ends a metric here
        if "Rule Name" in columns:
            blanks = [""] * (columns.index("Rule Name") - len(fixed) - 1)
            advice = ["Occupancy", "OPT", 'The "limit", is 4.\nMore.', "global", "79.4"]
            row = [*fixed, "Occupancy", *blanks, *advice]
            rows.append(row[: len(columns)])
    return before + table([list(columns), *rows])


def varint(value):
    """Return a number as protocol buffers have it."""
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def block(results, payload=b"", process=77):
    """Return a block of a report: its header and what follows."""
    about = b"\x08" + varint(process)
    header = b"\x10" + varint(results) + b"\x28" + varint(len(payload))
    header += b"\x32" + varint(len(about)) + about
    return len(header).to_bytes(4, "little") + header + payload


def report(*blocks):
    """Return a report of some blocks."""
    return b"NVR\0" + (2).to_bytes(4, "little") + b"\x08\x07" + b"".join(blocks)
