// Nothing but its precompiled header, which the test files use.
