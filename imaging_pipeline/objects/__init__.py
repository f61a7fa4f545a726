"""Where bytes come from: listing, versions and reading of objects in folders and archives."""
