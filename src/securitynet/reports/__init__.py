"""Reports: the results of an assessment or a study, as one HTML file that opens offline and can be printed."""
