"""From predictions to tables: parts on disk, scores, intervals."""
