"""The resumable execution of studies: scheduler, workers, progress, lock."""
