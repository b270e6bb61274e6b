"""Exercises of the lessons, one module each: ``NN_name`` -> ``streamlab.lab.exercises.name``.

Each module registers its checks with `streamlab.lab.checker` when the lesson loads it.
"""
