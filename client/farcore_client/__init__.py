"""Uses dumps that lie on another machine."""
