"""Running a study so that nothing finished is lost: scheduler, workers, progress, lock."""
