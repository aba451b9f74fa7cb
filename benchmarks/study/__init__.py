"""Questions put to the test: grids of small trainings over seeds, and reports made of their results."""
