"""`python -m peso` is the command `peso`."""

from peso.cli.main import main

if __name__ == "__main__":
    main()
