"""The HTTP servers that run the app, one for each platform, and the child process the supervisor runs them in."""
