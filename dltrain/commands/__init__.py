"""What each command does, one file each. The command line imports a file when its command runs."""
