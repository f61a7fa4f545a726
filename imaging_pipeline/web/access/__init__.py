"""Who may see what: users and tokens, roles, sessions, links that expire, and the audit log.

Each zone has a folder of its own with its users, its service key and its audit log. Nothing here knows a lake.
"""
