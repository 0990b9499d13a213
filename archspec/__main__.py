"""`python -m archspec` is the command line."""

from archspec.cli.main import main

if __name__ == "__main__":
    main()
