"""What a person sees of a run: the terminal, the live view, the page, the tables for programs.

Everything here is drawn from a `Result` alone, so that `tgi bench report` can draw it again.
"""
