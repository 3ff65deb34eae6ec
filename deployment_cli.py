"""The command line of the deployment guide: `python deployment_cli.py COMMAND`."""

from harness.cli.app import main

if __name__ == "__main__":
    main()
