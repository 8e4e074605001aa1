"""Pages of the dashboard and of the offline report: what a page file says, its questions to the index, its panels."""
