"""For the tests of host projects; `plugin` is found by pytest, by itself.

Nothing is imported here: pytest loads the plugin before Django is set up.
"""
