"""Requests whose answers are kept: repeated without harm, done while nobody waits, told by webhook.

A promise is on disk before anything is asked for it. How it was fulfilled is written in one record
with the settlement of its request, so that there is no moment in which one is known without the other.
"""
