"""Objects with identifiers planted in them, the list of what was planted where, and an independent search for it.

Nothing here asks the engine what an identifier is: values, places and needles are written down when they are planted.
"""
