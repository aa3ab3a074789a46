"""The forms of this app, by what they are about: they say what was typed, the services decide."""
