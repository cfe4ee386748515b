"""Tasks to evaluate on: questions, several perspectives' answers, and how a model is asked.

Each task's file says what it reads, what its perspectives are, and what it leaves out.
"""
