"""`python -m pharos`: the same as `pharos`."""

from pharos.cli import main

if __name__ == "__main__":
    main()
