"""What the operating system gives the process layer: a user, a folder with a lock, child processes, signals."""
