"""Design studies: claims of a document, each put to the test by what npusim models and measured.

One file of ``studies/`` asks one question. `npusim.studies.read` reads it, `npusim.studies.decide`
comes to verdicts, `npusim.studies.gallery` draws and writes them.
"""
