"""`twistd media`: options, start, stop, signals and systemd."""
