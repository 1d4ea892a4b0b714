"""What the rules import to plan: the checked configuration, addresses, and which files a script is made of."""
