"""Typed settings, a module for each stage that takes some: an edit of one stage's settings reruns no other stage."""
