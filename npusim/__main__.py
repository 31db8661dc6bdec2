"""Run the command line with ``python -m npusim``."""

from npusim.cli import main

main(prog_name="npusim")
