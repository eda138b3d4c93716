"""What detectors share that compare one statistic of each class: margins, weights of the last layer."""
