"""Entry point of `python -m reference` and `torchrun -m reference`."""

from __future__ import annotations

from reference.cli import main

if __name__ == "__main__":
    main(prog_name="reference")
