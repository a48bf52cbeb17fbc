"""The faces of the server: each turns the messages of one protocol into what the core is asked."""
