"""The bundled PostgreSQL: its programs, its files, and the server as our child."""
