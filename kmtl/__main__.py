"""`python -m kmtl`: the `kmtl` command, with the Python that is asked for."""

from kmtl.cli.main import main

if __name__ == "__main__":
    main(prog_name="kmtl")
