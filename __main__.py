"""``python -m epsbench``: the same as the command ``epsbench``."""

from epsbench.harness.cli import main

if __name__ == "__main__":
    main()
