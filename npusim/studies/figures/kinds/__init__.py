"""Kinds of figures of a study, see `npusim.studies.figures`."""
