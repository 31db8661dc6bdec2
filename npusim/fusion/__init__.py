"""The fusion engine: which chains of operations it runs as one, and what is left of a workload.

Who reads what (`dataflow`), what an instruction covers (`macro_ops`), which chains are legal
(`chains`), and the workload that a machine then runs (`program`).
"""
