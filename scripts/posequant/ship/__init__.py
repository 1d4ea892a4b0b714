"""What an app is built from: a network with all that one needs to run it, and to see that one runs it right."""
