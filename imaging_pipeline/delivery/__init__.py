"""Sending: what goes to which peer, by C-STORE or STOW-RS, with a log of what each peer has accepted."""
