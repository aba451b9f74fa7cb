"""Data sets of every form, from where they lie to decoded clips by split."""
