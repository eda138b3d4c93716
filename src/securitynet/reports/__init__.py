"""Reports: what an assessment found, as one HTML file that opens offline and can be printed."""
